"""Classes from a few labelled codes: a linear classifier and nearest neighbours, both told how certain each code is.

n images, m of them labelled, D numbers of a code, K classes.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from vlae.engine.embed import Codes, Numbers
from vlae.engine.retrieval.neighbours import some_of

Labels = npt.NDArray[np.str_]
Indices = npt.NDArray[np.int64]

# Inverse ridge strengths tried, for codes of unit variance, and into how many parts the labelled images are divided to try them.
STRENGTHS = 10.0 ** np.arange(-3, 3)
USUAL_STRENGTH = 1.0
# Shares of the codes' variance that count, tried along with them.
SHARES = (0.0, 1 / 16, 1 / 4, 1.0)
PARTS = 3
# Temperatures tried, as shares of the median distance between labelled images.
TEMPERATURES = 2.0 ** np.arange(-9, 4)
# Shares of the places of a grid, at which a channel's numbers are read without regard to place.
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
# Numbers that a table of probabilities takes at once, about.
NUMBERS_AT_ONCE = 2**24


class Labelled(NamedTuple):
    """Codes of m images, the class of each (m,), and its lot (m,): images of one lot are never divided between fitting and testing."""

    codes: Codes
    classes: Labels
    lots: Indices

    def take(self, which: Indices) -> "Labelled":
        """Some of them."""
        return Labelled(some_of(self.codes, which), self.classes[which], self.lots[which])


class Classifier(Protocol):
    """What tells the class of a code."""

    @property
    def names(self) -> Labels:
        """The K classes, sorted."""

    def probabilities(self, codes: Codes) -> Numbers:
        """Of each class for each code, (n, K); a row sums to 1."""


Fit = Callable[[Labelled, np.random.Generator], Classifier]


def standardised(codes: Codes) -> Codes:
    """Codes of zero mean and unit variance, number by number: the variance over images of the mean, and the mean of the posterior's variance.

    A number that the code does not use has means near zero and a wide posterior: by its whole variance it stays near zero. Over the means
    alone it would be blown up to the size of those that matter.

    >>> standardised(Codes(np.array([[0.0], [6.0]]), np.array([[4.0], [4.0]]))).mean.ravel().tolist()
    [-0.6, 0.6]
    """
    whole = np.sqrt(codes.mean.var(0) + (codes.std**2).mean(0))
    scale = np.where(whole > 0, whole, 1)
    return Codes((codes.mean - codes.mean.mean(0)) / scale, codes.std / scale)


def anywhere(codes: Codes, channels: int) -> Codes:
    """Grid codes without regard to place: quantiles of each channel over its P places, (n, channels * 7).

    They tell what is there and how much of it, not where: few labels cannot teach that a hole is a hole at each place. Their uncertainty is taken
    to be that of a channel's average.

    Args:
        codes: of grids, channel by channel, (n, channels * P).
        channels: of the grid.

    >>> anywhere(Codes(np.array([[1.0, 5.0], [5.0, 1.0]]), np.ones((2, 2))), 1).mean[:, 3].tolist()
    [3.0, 3.0]
    """
    mean, std = (numbers.reshape(len(numbers), channels, -1) for numbers in codes)
    read = np.quantile(mean, QUANTILES, axis=2)
    uncertain = np.broadcast_to(np.sqrt((std**2).mean(2) / mean.shape[2]), read.shape)
    return Codes(*(np.moveaxis(numbers, 0, 2).reshape(len(mean), -1) for numbers in (read, uncertain)))


@dataclass(frozen=True)
class Linear:
    """Multinomial logistic regression whose probabilities are moderated by the uncertainty of the code.

    With activations ``a = W'z + b`` and ``z ~ N(m, share diag s^2)``, ``a_j - a_k`` has the variance ``v_jk = share sum_d s_d^2 (W_dj - W_dk)^2``,
    and ``p_k ~ 1 / sum_j exp((a_j - a_k) / sqrt(1 + pi v_jk / 8))``. For two classes this is MacKay's moderated output (MacKay 1992, "The evidence
    framework applied to classification networks"); for more, the mean field of Lu, Ie and Sha 2020 (arXiv:2006.07584).

    The weights are fitted on the middles m, which tell more of an image than draws from its posterior do: with the share 1 the
    probabilities are too modest, with 0 all codes count as certain.
    """

    names: Labels
    weights: Numbers
    """(D, K)"""
    offsets: Numbers
    """(K,)"""
    share: float = 1.0

    def probabilities(self, codes: Codes) -> Numbers:
        """Of each class for each code, (n, K)."""
        at_once = NUMBERS_AT_ONCE // (len(self.names) * max(self.weights.shape))
        return np.concatenate([np.zeros((0, len(self.names))), *map(self._probabilities, _blocks(codes, at_once))])

    def _probabilities(self, codes: Codes) -> Numbers:
        activations, variances = codes.mean @ self.weights + self.offsets, self.share * codes.std**2
        own = variances @ self.weights**2
        shared = np.einsum("nd,dj,dk->njk", variances, self.weights, self.weights, optimize=True)
        spread = (own[:, :, None] + own[:, None, :] - 2 * shared).clip(0)
        apart = (activations[:, :, None] - activations[:, None, :]) / np.sqrt(1 + np.pi * spread / 8)
        return softmax(-logsumexp(apart, axis=1), axis=1)


@dataclass(frozen=True)
class SoftNeighbours:
    """Soft nearest neighbours (Goldberger et al. 2004, "Neighbourhood components analysis") by the expected distance of two uncertain codes.

    ``d = E |z - z'|^2 = |m - m'|^2 + sum s^2 + sum s'^2`` for independent z and z'; a labelled image votes for its class with the weight
    ``exp(-d / temperature)``, so one whose code is uncertain counts less. Laplace's rule, ``(m p + 1) / (m + K)``, keeps few labels modest.
    """

    labelled: Labelled
    temperature: float

    @property
    def names(self) -> Labels:
        """The K classes, sorted."""
        return np.unique(self.labelled.classes)

    def probabilities(self, codes: Codes) -> Numbers:
        """Of each class for each code, (n, K)."""
        labelled, classes, _ = self.labelled
        blocks = _blocks(codes, NUMBERS_AT_ONCE // len(classes))
        return np.concatenate([np.zeros((0, len(self.names))), *(_votes(distances(block, labelled), classes, self.temperature) for block in blocks)])


def _blocks(codes: Codes, at_once: int) -> Iterator[Codes]:
    """So many codes at a time, at least one."""
    for start in range(0, len(codes.mean), max(1, at_once)):
        yield some_of(codes, range(start, min(start + max(1, at_once), len(codes.mean))))


def distances(codes: Codes, others: Codes) -> Numbers:
    """The expected squared distance of each code from each of the others, ``|m - m'|^2 + sum s^2 + sum s'^2``, (n, m).

    >>> distances(Codes(np.array([[0.0]]), np.array([[1.0]])), Codes(np.array([[3.0]]), np.array([[2.0]]))).item()
    14.0
    """
    squares, others_squares = ((c.mean**2 + c.std**2).sum(1) for c in (codes, others))
    return squares[:, None] + others_squares - 2 * codes.mean @ others.mean.T


def _votes(apart: Numbers, classes: Labels, temperature: float) -> Numbers:
    names, of = np.unique(classes, return_inverse=True)
    weights = softmax(-apart / temperature, axis=1)
    return (len(classes) * weights @ np.eye(len(names))[of] + 1) / (len(classes) + len(names))


def fit_neighbours(labelled: Labelled, rng: np.random.Generator) -> SoftNeighbours:
    """Nearest neighbours with the temperature under which the labelled images, each left out with its lot, are the most likely.

    Of very many labelled images some are left out.
    """
    codes, classes, lots = labelled
    some = rng.permutation(len(classes))[: max(1, NUMBERS_AT_ONCE // len(classes))]
    apart = distances(some_of(codes, some), codes)
    usual = float(np.median(apart)) or 1.0
    apart[lots[some, None] == lots] = np.inf
    known = np.isfinite(apart).any(1)
    apart, of = apart[known], np.unique(classes, return_inverse=True)[1][some[known]]

    def likelihood(temperature: float) -> float:
        return float(np.log(_votes(apart, classes, usual * temperature)[np.arange(len(of)), of]).sum())

    return SoftNeighbours(labelled, usual * max(TEMPERATURES.tolist(), key=likelihood))


def fit_linear(labelled: Labelled, rng: np.random.Generator) -> Linear:
    """Logistic regression with the ridge strength, and the share of the variance, under which images that it was not fitted on are the most likely.

    Where each class has one label there is nothing to try them on, and the usual strength and no variance are taken.
    """
    splits = list(divided(labelled, PARTS, rng))
    likelihoods = np.zeros((len(STRENGTHS), len(SHARES)))
    for row, strength in enumerate(STRENGTHS.tolist()):
        for train, test in splits:
            fitted = _logistic(train, strength)
            likelihoods[row] += [_log_likelihood(replace(fitted, share=share), test) for share in SHARES]
    strength, share = USUAL_STRENGTH, 0.0
    if np.ptp(likelihoods) > 0:
        best = np.unravel_index(likelihoods.argmax(), likelihoods.shape)
        strength, share = float(STRENGTHS[best[0]]), SHARES[best[1]]
    return replace(_logistic(labelled, strength), share=share)


def _logistic(labelled: Labelled, strength: float) -> Linear:
    x, basis, names = labelled.codes.mean, None, np.unique(labelled.classes)
    if len(names) == 1:
        return Linear(names, np.zeros((x.shape[1], 1)), np.zeros(1))
    if x.shape[0] < x.shape[1]:
        # The best weights are a sum of the labelled images (Kimeldorf and Wahba 1971): as many coordinates as images are enough, exactly.
        basis, coordinates = np.linalg.qr(x.T)
        x = coordinates.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one image a class looks like a regression; that a weak ridge takes long to settle
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(x, labelled.classes)
    weights, offsets = fitted.coef_.T, fitted.intercept_
    if len(fitted.classes_) == 2:  # told as the second against the first
        weights, offsets = np.hstack([np.zeros_like(weights), weights]), np.array([0.0, *offsets])
    return Linear(names, weights if basis is None else basis @ weights, offsets)


def _log_likelihood(classifier: Classifier, test: Labelled) -> float:
    """Of the test images whose class the classifier knows."""
    known = np.flatnonzero(np.isin(test.classes, classifier.names))
    p = classifier.probabilities(some_of(test.codes, known))
    return float(np.log(p[np.arange(len(known)), np.searchsorted(classifier.names, test.classes[known])]).sum())


FITS: dict[str, Fit] = {"linear": fit_linear, "neighbours": fit_neighbours}


def divided(labelled: Labelled, count: int, rng: np.random.Generator) -> Iterator[tuple[Labelled, Labelled]]:
    """The labelled images as a part to fit and a part to test, ``count`` times; each is tested once."""
    part = parts(labelled.classes, labelled.lots, count, rng)
    for n in range(count):
        if 0 < (tested := part == n).sum() < len(part):
            yield labelled.take(np.flatnonzero(~tested)), labelled.take(np.flatnonzero(tested))


def parts(classes: Labels, lots: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Divide images into ``count`` parts, whole lots each and every class as evenly as lots allow: the part of each image, (m,).

    Lots go, the largest first, to the part that has the fewest images of their classes.

    >>> parts(np.array(["a", "a", "b", "b"]), np.array([0, 1, 2, 2]), 2, np.random.default_rng(0)).tolist()
    [0, 1, 1, 1]
    """
    of_class, of_lot = (np.unique(values, return_inverse=True)[1] for values in (classes, lots))
    table = np.zeros((int(of_lot.max()) + 1, int(of_class.max()) + 1))
    np.add.at(table, (of_lot, of_class), 1)
    placed, part = np.zeros((count, table.shape[1])), np.zeros(len(table), np.int64)
    order = rng.permutation(len(table))
    for lot in order[np.argsort(-table[order].sum(1), kind="stable")].tolist():
        part[lot] = np.lexsort((rng.permutation(count), placed.sum(1), placed @ table[lot]))[0]
        placed[part[lot]] += table[lot]
    return part[of_lot]


def predicted(classifier: Classifier, codes: Codes) -> tuple[Labels, Numbers]:
    """The most likely class of each code, and its probability."""
    p = classifier.probabilities(codes)
    return classifier.names[p.argmax(1)], p.max(1)


class HeldOut(NamedTuple):
    """Of labelled images, each told by a classifier that was fitted without it and its lot: whether that was right, and how sure it was."""

    right: npt.NDArray[np.bool_]
    probability: Numbers


def cross_validated(fit: Fit, labelled: Labelled, count: int, rng: np.random.Generator) -> HeldOut:
    """Cross-validation in ``count`` parts; what a fit chooses, it chooses within its part."""
    found: list[tuple[Any, Any]] = []
    for train, test in divided(labelled, count, rng):
        told, probability = predicted(fit(train, rng), test.codes)
        found.append((told == test.classes, probability))
    return HeldOut(*(np.concatenate(column) for column in zip(*found, strict=True)))
