"""Which images to label next, so that few labels tell the most.

n images without a label, m with one, D numbers of a code.
"""

import numpy as np
from sklearn.cluster import KMeans

from vlae.engine.embed import Codes, Numbers
from vlae.engine.labels.classify import Classifier, Indices, Labelled, distances
from vlae.engine.retrieval.neighbours import some_of

# More clusters than this take long and tell no more; among more images than this some are drawn.
MOST_CLUSTERS = 500
MOST_IMAGES = 10_000
# Where neighbours are less often of one class than this, typical images tell less than random ones.
LEAST_KINSHIP = 0.3


def doubts(classifier: Classifier, codes: Codes) -> Numbers:
    """How unsure a classifier is of each code, (n,): 1 less the margin between the two likeliest classes (Scheffer et al. 2001)."""
    best = np.sort(classifier.probabilities(codes), axis=1)
    return (1 - best[:, -1] + best[:, -2]).clip(0, 1)


def kinship(known: Labelled) -> float:
    """How often the nearest labelled image of another lot has the same class, beyond chance: 1 always, 0 as often as by chance or less.

    As Cohen's kappa (1960), ``(share - chance) / (1 - chance)``; 1 where no class has two labels and nothing is known yet.
    """
    apart = distances(known.codes, known.codes)
    apart[known.lots[:, None] == known.lots] = np.inf
    same = known.classes[:, None] == known.classes
    chance = float(same[np.isfinite(apart)].mean()) if np.isfinite(apart).any() else 0.0
    if chance in (0.0, 1.0):
        return 1.0
    share = float(same[np.arange(len(apart)), apart.argmin(1)].mean())
    return max(0.0, (share - chance) / (1 - chance))


def ask(codes: Codes, known: Labelled, doubt: Numbers, count: int, rng: np.random.Generator) -> Indices:
    """The numbers of images to label next, the most telling first: typical of a region that has no label yet, and where the classifier is unsure.

    All images, with and without a label, are divided into m + count clusters (k-means). Of the clusters with the fewest labels, those with the most
    doubt in all come first, and of each the image nearest its middle is asked for: TypiClust (Hacohen, Dekel and Weinshall 2022,
    arXiv:2202.02794) with a cluster's doubt in the place of its size. Doubt alone asks for freaks, and for one kind of them again and again.

    That rests on neighbours being of one class. Where the labels say that they are not, by a ``kinship`` below ``LEAST_KINSHIP``, it is worse than
    chance, and images are drawn at random.

    Args:
        codes: of the images without a label.
        known: those with one.
        doubt: as ``doubts`` tells it, (n,).
        count: how many to ask for; all n where there are fewer.
        rng: for the start of the clusters, and for which images are considered where there are more than ``MOST_IMAGES``.
    """
    if not (count := min(count, len(codes.mean))):
        return np.zeros(0, np.int64)
    considered = rng.permutation(len(codes.mean))[: max(count, MOST_IMAGES)]
    if kinship(known) < LEAST_KINSHIP:
        return considered[:count]
    codes, doubt = some_of(codes, considered), doubt[considered]
    everything = np.concatenate([codes.mean, known.codes.mean])
    distinct = len(np.unique(everything, axis=0))
    clusters = min(distinct, max(count, min(MOST_CLUSTERS, len(known.classes) + count)))
    means = KMeans(clusters, n_init=1, random_state=int(rng.integers(2**31))).fit(everything)
    of, labels = means.labels_[: len(doubt)], np.bincount(means.labels_[len(doubt) :], minlength=clusters)
    off = ((codes.mean - means.cluster_centers_[of]) ** 2).sum(1)
    order = np.lexsort((-np.bincount(of, weights=doubt, minlength=clusters), labels))
    typical = [members[off[members].argmin()] for cluster in order if len(members := np.flatnonzero(of == cluster))][:count]
    rest = np.setdiff1d(np.arange(len(doubt)), typical)
    return considered[np.array([*typical, *rest[np.argsort(-doubt[rest], kind="stable")]][:count], np.int64)]
