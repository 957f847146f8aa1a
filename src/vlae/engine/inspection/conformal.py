"""Thresholds from good images alone that keep a promised rate of false alarms (split conformal prediction).

n images, K lots. A score is higher where an image is more unlike good ones; an alarm is a score above the threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Scores = npt.NDArray[np.float64]

ROUNDING = 1e-5
"""by how much, relatively, a score may come out otherwise in another batch"""
# With fewer scores none can be told to lie far from the others.
FEWEST = 12


@dataclass(frozen=True)
class Promise:
    """A threshold, and what may be said of its false alarms."""

    threshold: float
    asked: float
    """the share of false alarms that was asked for"""
    rate: float
    """the share that is promised: of new good images, or of images of a new lot, at most so many raise an alarm in expectation"""
    n_images: int
    n_lots: int | None
    """how many lots the images come from, where that is known: the promise is then one about new lots"""
    needed: int
    """how many good images (or lots) it takes to promise what was asked for"""

    @property
    def kept(self) -> bool:
        """Whether what was asked for can be promised."""
        return self.rate <= self.asked


def promise(scores: Scores, asked: float, lots: Sequence[str] | None = None) -> Promise:
    """The lowest threshold that keeps the rate that is asked for, or, from too few images, the one that keeps the lowest that can be promised.

    Of n exchangeable good images and a new one, the new one's score is above the k-th lowest with a probability of at most
    ``1 - k / (n + 1)`` (Vovk et al. 2005; Papadopoulos et al. 2002). Images of one lot are not exchangeable with those of another: with lots,
    each of K lots has the weight ``1 / (K + 1)``, shared by its images, and the rest lies at infinity (Lee, Barber, Willett 2023,
    arXiv:2306.06342, hierarchical conformal prediction).

    >>> round(promise(np.arange(1.0, 100.0), 0.05).threshold, 2)
    95.0
    """
    weights, groups = _weights(len(scores), lots)
    needed = math.ceil(round(1 / asked, 9)) - 1
    order = np.argsort(scores)
    reached = np.cumsum(weights[order])
    enough = np.flatnonzero(reached >= 1 - asked - 1e-9)
    at = int(enough[0]) if len(enough) else len(scores) - 1
    # Of equal scores the last counts; and the last bits of a score depend on what is computed beside it: neither is above the threshold.
    threshold = float(scores[order[at]] + ROUNDING * abs(scores[order[at]]))
    rate = asked if len(enough) else 1 / (groups + 1)
    return Promise(threshold, asked, rate, len(scores), None if lots is None else groups, needed)


def rate_above(scores: Scores, threshold: float, lots: Sequence[str] | None = None) -> tuple[float, float, float]:
    """The share of false alarms to expect of a threshold that was moved, and its 95% interval.

    With j of n calibration scores above it, the share is distributed as ``Beta(j + 1, n - j)``. With lots, it is the mean of theirs with one
    more lot that lies above; the interval (``share``) supposes that a lot alarms as a whole or not at all, the widest that it can be.

    >>> [round(v, 3) for v in rate_above(np.arange(1.0, 100.0), 95.0)]
    [0.05, 0.017, 0.1]
    """
    above = scores > threshold
    if lots is None:
        n, j = len(scores), int(above.sum())
        low, high = stats.beta.ppf([0.025, 0.975], j + 1, max(n - j, 1e-9)).tolist()
        return (j + 1) / (n + 1), low, high
    names, of = np.unique(np.asarray(lots), return_inverse=True)
    shares = np.bincount(of, above) / np.bincount(of)
    total, k = float(shares.sum()), len(names)
    return (total + 1) / (k + 1), *share(total, k)[1:]


def share(found: float, of: int) -> tuple[float, float, float]:
    """A share that was counted, and its exact 95% interval (Clopper and Pearson 1934); of lots, their shares added up.

    >>> [round(v, 3) for v in share(0, 10)]
    [0.0, 0.0, 0.308]
    """
    low = float(stats.beta.ppf(0.025, found, of - found + 1)) if found else 0.0
    high = float(stats.beta.ppf(0.975, found + 1, of - found)) if found < of else 1.0
    return found / of, low, high


def outliers(scores: Scores, beyond: float = 3.5) -> npt.NDArray[np.int64]:
    """Which of the scores lie far above the others: more than ``beyond`` robust standard deviations of their logarithms above the median.

    The median and the median absolute deviation are not moved by a few defects among good images (Iglewicz and Hoaglin 1993, whose bound of
    3.5 it is).

    >>> outliers(np.append(np.linspace(0.9, 1.1, 20), 9.0)).tolist()
    [20]
    """
    if len(scores) < FEWEST:
        return np.empty(0, np.int64)
    logs = np.log(np.maximum(scores, 1e-12))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle))
    return np.flatnonzero(logs > middle + beyond * max(spread, 0.05))


def _weights(n: int, lots: Sequence[str] | None) -> tuple[Scores, int]:
    """The weight of each score, and how many parts there are."""
    if lots is None:
        return np.full(n, 1 / (n + 1)), n
    names, of, counts = np.unique(np.asarray(lots), return_inverse=True, return_counts=True)
    return 1 / ((len(names) + 1) * counts[of]), len(names)
