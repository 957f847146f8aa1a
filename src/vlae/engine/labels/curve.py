"""The curve of accuracy against labels: what a code, and what is set beside it, is worth to somebody who labels by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vlae.engine.batches import random
from vlae.engine.embed import Codes, Numbers
from vlae.engine.labels.classify import FITS, Indices, Labelled, Labels, parts, predicted

COUNTS = (1, 2, 5, 10, 20, 50, 100)
Progress = Callable[[int, int], None]

# The stream of random numbers of the draws; images that are tested in a draw, at most.
DRAWS, MOST_TESTED = 300, 2000


@dataclass(frozen=True)
class Point:
    """How often a classifier is right that was fitted on so many labels a class: over several draws of the labelled images."""

    of: str
    """what it reads: code, pixels, ..."""
    classifier: str
    labels: int
    """labels a class; all there are of a class that has fewer"""
    accuracy: float
    """mean over the draws of the share that is right of each class, all classes of equal weight"""
    low: float
    high: float
    """bounds of its 95% interval (Student's t over the draws)"""
    by_draw: tuple[float, ...]
    """the accuracy of each draw that tells; every point has the same draws, so that differences can be taken draw by draw"""


def curve(
    read: Mapping[str, Codes],
    classes: Labels,
    lots: Indices,
    draws: int,
    seed: int,
    counts: Sequence[int] = COUNTS,
    progress: Progress | None = None,
) -> tuple[Point, ...]:
    """Accuracy for growing numbers of labels a class.

    In each draw the images are halved anew, lots whole; of the one half labels are drawn, a smaller set a part of the larger, and on the other
    half (at most ``MOST_TESTED`` of it) the classifiers are tested. The counts go as far as two classes have so many in the half. Where lots
    leave a half but one class, nothing can be learned: such draws tell nothing, and without others there are no points.

    Args:
        read: what is compared, each with a row for each labelled image.
        classes: of these images.
        lots: of these images.
        draws: how many.
        seed: of the draws.
        counts: labels a class, growing.
        progress: told the fits done and all.
    """
    drawn = {draw: _drawn(classes, lots, random(seed, DRAWS, draw)) for draw in range(draws)}
    chosen = {draw: halves for draw, halves in drawn.items() if len(np.unique(classes[halves[0]])) > 1}
    reach = min((int(np.sort(np.unique(classes[pool], return_counts=True)[1])[-2]) for pool, _ in chosen.values()), default=0)
    found: dict[tuple[str, str, int], list[float]] = {(of, kind, count): [] for of in read for kind in FITS for count in counts if count <= reach}
    for draw, (pool, tested) in chosen.items():
        for (of, kind, count), accuracies in found.items():
            labelled = Labelled(read[of], classes, lots)
            test = labelled.take(tested)
            told, _ = predicted(FITS[kind](labelled.take(first(count, pool, classes)), random(seed, DRAWS, draw)), test.codes)
            accuracies.append(balanced(told, test.classes))
            if progress:
                progress(sum(map(len, found.values())), len(found) * len(chosen))
    return tuple(Point(*name, *interval(np.array(values)), tuple(values)) for name, values in found.items())


def _drawn(classes: Labels, lots: Indices, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """A half to draw labels from, in the order in which they are drawn, and images of the other half to test on."""
    half = parts(classes, lots, 2, rng)
    pool, tested = (rng.permutation(np.flatnonzero(half == n)) for n in rng.permutation(2).tolist())
    return pool, tested[:MOST_TESTED]


def first(count: int, pool: Indices, classes: Labels) -> Indices:
    """The first ``count`` images of each class in the order of ``pool``."""
    return np.concatenate([pool[classes[pool] == name][:count] for name in np.unique(classes[pool])])


def balanced(told: Labels, classes: Labels) -> float:
    """The share that is right of each class, averaged over the classes.

    >>> balanced(np.array(["a", "a", "a", "a"]), np.array(["a", "a", "a", "b"]))
    0.5
    """
    return float(np.mean([(told[classes == name] == name).mean() for name in np.unique(classes)]))


def interval(values: Numbers) -> tuple[float, float, float]:
    """The mean and its 95% interval, by Student's t; not a number for a single value."""
    mean, error = float(values.mean()), float(stats.sem(values)) if len(values) > 1 else np.nan
    half = float(stats.t.ppf(0.975, max(1, len(values) - 1))) * error
    return mean, mean - half, mean + half
