"""What can be read off a code: a linear probe from codes to the known factors of the images (position, grain, lot, ...).

n images, D numbers of a code.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from vlae.core.vlae import VLAE
from vlae.data.imageset import ImageSet
from vlae.engine.batches import random
from vlae.engine.embed import Numbers, common_places, embed
from vlae.engine.measure import chosen
from vlae.engine.run import Run

# The stream of random numbers of the bootstrap: far from those of the batches.
BOOTSTRAP = 100
RESAMPLES = 1000
# Fewer images than this in a split say nothing about a factor.
LEAST_IMAGES = 10
# The codes of so many training images are enough for the probe, and images beyond them are passed over.
MOST_IMAGES = 2000
# Ridge strengths tried, for each image and each standardised number of the code.
STRENGTHS = 10.0 ** np.arange(-5, 3.5, 0.5)


@dataclass(frozen=True)
class Readout:
    """How well one factor can be read off the code of images that neither the model nor the probe was trained on."""

    factor: str
    r2: float
    """share of the factor's variance that is read off, ``1 - sum (y - prediction)^2 / sum (y - mean)^2``; below 0, worse than the mean"""
    low: float
    high: float
    """bounds of its 95% bootstrap interval, over the test images"""
    n_train: int
    n_test: int
    strength: float
    """the ridge strength that validation chose, for each image"""


@dataclass(frozen=True)
class Ridge:
    """A linear map fitted by least squares with a penalty on its weights: ``min |y - X w - b|^2 + strength |w|^2``."""

    weights: Numbers
    offset: float

    def __call__(self, x: Numbers) -> Numbers:
        """Predictions for codes, (n, D) to (n,)."""
        return x @ self.weights + self.offset


def ridges(x: Numbers, y: Numbers, strengths: Numbers) -> Iterator[Ridge]:
    """Ridge regressions of several strengths from one eigendecomposition (Hoerl and Kennard 1970).

    With X and y centred and X'X = V S V', the weights are ``V (S + strength)^-1 V' X'y``.

    Args:
        x: numbers to predict from, (n, D).
        y: what to predict, (n,).
        strengths: penalties, each above 0.

    >>> [ridge] = ridges(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0]), np.array([1e-12]))
    >>> ridge(np.array([[10.0]])).round(6).tolist()
    [21.0]
    """
    middle, level = x.mean(0), float(y.mean())
    centred = x - middle
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred)
    along = vectors.T @ (centred.T @ (y - level))
    for strength in strengths.tolist():
        weights = vectors @ (along / (eigenvalues.clip(0) + strength))
        yield Ridge(weights, level - float(middle @ weights))


def r2(y: Numbers, prediction: Numbers) -> float:
    """The share of the variance of ``y`` that the prediction explains.

    >>> r2(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    0.0
    """
    return 1 - float(((y - prediction) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def interval(y: Numbers, prediction: Numbers, rng: np.random.Generator) -> tuple[float, float]:
    """The 95% interval of ``r2`` over images drawn with replacement (Efron 1979), by percentiles."""
    drawn = rng.integers(0, len(y), (RESAMPLES, len(y)))
    error, spread = ((y - prediction) ** 2)[drawn].sum(1), y[drawn].var(1) * len(y)
    # Of equal values the mean may be rounded, and a variance that is nothing but rounding above 0.
    varied = (np.ptp(y[drawn], axis=1) > 0) & (spread > 0)
    values = 1 - error[varied] / spread[varied]
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return low, high


def read_off(run: Run, images: ImageSet, model: VLAE) -> tuple[Readout, ...]:
    """Probe every factor of the images; the result is kept in the run as ``results/probe.json``.

    The probe is fitted on training images, its strength chosen on validation images, its figure taken on test images; factors that are
    constant, or known of fewer than ``LEAST_IMAGES`` images of a split, are passed over.

    Raises:
        DataError: there are no test images.
    """
    seed = run.settings.train.seed
    splits = [chosen(images, split, MOST_IMAGES) for split in ("train", "validation", "test")]
    places = common_places(model, images)
    x = [embed(model, images, numbers, places, seed).mean for numbers in splits]
    middle, spread = x[0].mean(0), x[0].std(0)
    scaled = [(part - middle) / np.where(spread > 0, spread, 1) for part in x]
    results = []
    for number, (factor, values) in enumerate(images.factors.items()):
        known = [np.isfinite(values[of]) for of in splits]
        train, validation, test = (Part(part[k], values[of][k]) for part, of, k in zip(scaled, splits, known, strict=True))
        if all(len(part.y) >= LEAST_IMAGES and np.ptp(part.y) > 0 for part in (train, validation, test)):
            results.append(readout(factor, train, validation, test, random(seed, BOOTSTRAP, number)))
    run.write_result("probe", {"readouts": [asdict(r) for r in results]})
    return tuple(results)


class Part(NamedTuple):
    """Codes (n, D) and one factor (n,) of the images of a split."""

    x: Numbers
    y: Numbers


def readout(factor: str, train: Part, validation: Part, test: Part, rng: np.random.Generator) -> Readout:
    """Fit one factor on ``train``, choose the strength on ``validation``, measure on ``test``."""
    # Factors come in any unit: without their scale no square overflows.
    unit = max(float(np.abs(part.y).max()) for part in (train, validation, test))
    train, validation, test = (Part(part.x, part.y / unit) for part in (train, validation, test))
    fits = list(ridges(*train, STRENGTHS * len(train.y)))
    best = int(np.argmax([r2(validation.y, fit(validation.x)) for fit in fits]))
    prediction = fits[best](test.x)
    low, high = interval(test.y, prediction, rng)
    return Readout(factor, r2(test.y, prediction), low, high, len(train.y), len(test.y), float(STRENGTHS[best]))
