"""Which images to label next, so that few labels tell the most.

n images without a label, m with one, D numbers of a code.
"""

import numpy as np
from sklearn.cluster import KMeans

from vlae.engine.classify import Classifier, Indices
from vlae.engine.embed import Codes, Numbers
from vlae.engine.neighbours import some_of

# More clusters than this take long and tell no more; among more images than this some are drawn.
MOST_CLUSTERS = 500
MOST_IMAGES = 10_000


def doubts(classifier: Classifier, codes: Codes) -> Numbers:
    """How unsure a classifier is of each code, (n,): 1 less the margin between the two likeliest classes (Scheffer et al. 2001)."""
    best = np.sort(classifier.probabilities(codes), axis=1)
    return (1 - best[:, -1] + best[:, -2]).clip(0, 1)


def ask(codes: Codes, known: Codes, doubt: Numbers, count: int, rng: np.random.Generator) -> Indices:
    """The numbers of images to label next, the most telling first: typical of a region that has no label yet, and where the classifier is unsure.

    All images, with and without a label, are divided into m + count clusters (k-means). Of the clusters with the fewest labels, those with the most
    doubt in all come first, and of each the image nearest its middle is asked for: TypiClust (Hacohen, Dekel and Weinshall 2022,
    arXiv:2202.02794) with a cluster's doubt in the place of its size. Doubt alone asks for freaks, and for one kind of them again and again.

    Args:
        codes: of the images without a label.
        known: of those with one.
        doubt: as ``doubts`` tells it, (n,).
        count: how many to ask for; all n where there are fewer.
        rng: for the start of the clusters, and for which images are considered where there are more than ``MOST_IMAGES``.
    """
    if not (count := min(count, len(codes.mean))):
        return np.zeros(0, np.int64)
    considered = rng.permutation(len(codes.mean))[: max(count, MOST_IMAGES)]
    codes, doubt = some_of(codes, considered), doubt[considered]
    everything = np.concatenate([codes.mean, known.mean])
    distinct = len(np.unique(everything, axis=0))
    clusters = min(distinct, max(count, min(MOST_CLUSTERS, len(known.mean) + count)))
    means = KMeans(clusters, n_init=1, random_state=int(rng.integers(2**31))).fit(everything)
    of, labels = means.labels_[: len(doubt)], np.bincount(means.labels_[len(doubt) :], minlength=clusters)
    off = ((codes.mean - means.cluster_centers_[of]) ** 2).sum(1)
    order = np.lexsort((-np.bincount(of, weights=doubt, minlength=clusters), labels))
    typical = [members[off[members].argmin()] for cluster in order if len(members := np.flatnonzero(of == cluster))][:count]
    rest = np.setdiff1d(np.arange(len(doubt)), typical)
    return considered[np.array([*typical, *rest[np.argsort(-doubt[rest], kind="stable")]][:count], np.int64)]
