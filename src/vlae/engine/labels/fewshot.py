"""What a few labels are worth with the code of a run, as frozen values that go to and from JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

from vlae.data.source import LeftOut
from vlae.engine.labels.classify import FITS
from vlae.engine.labels.curve import Point

PREDICTIONS = "fewshot-predictions.csv"


@dataclass(frozen=True)
class Accuracy:
    """How often a classifier is right about images that it is fitted without."""

    of: str
    """what it reads: code or, of a grid, code without regard to place (code, anywhere)"""
    classifier: str
    labels: int
    right: int
    accuracy: float
    low: float
    high: float
    """bounds of its 95% interval (Wilson 1927), which takes the images for independent of one another"""
    certain: int
    certain_right: int
    """how many of them it was certain of, and right about these"""


@dataclass(frozen=True)
class Fewshot:
    """What a few labels are worth with the code of a run."""

    source: str | None
    """the folder that the images were given in, with a slash; None for the run's own"""
    images: int
    labels: Mapping[str, int]
    """how many of each class"""
    lots: int
    """lots of the labelled images, which are never divided; an image without a lot is one of its own"""
    accuracies: tuple[Accuracy, ...]
    read: str
    best: str
    """what is read and by which classifier, to make the predictions: what was most often right"""
    sure: float
    """the probability from which a prediction counts as certain"""
    unlabelled: int
    certain: int
    """images without a label, and how many of them the best classifier is certain of"""
    draws: int
    """of the labels, for the curve, that tell: lots may leave nothing to learn in others"""
    curve: tuple[Point, ...]
    """empty where no draw tells"""
    kinship: float
    """how often neighbours are of one class, beyond chance"""
    next: tuple[str, ...]
    """images to label next, the most telling first; drawn at random where neighbours are too seldom of one class to choose better"""
    left_out: tuple[LeftOut, ...]
    weights: str
    """fingerprint of the weights that made the codes"""

    def __post_init__(self) -> None:
        """Raises ValueError for names that there are not: a file is anybody's."""
        tried = {(a.of, a.classifier) for a in self.accuracies}
        if (self.read, self.best) not in tried or not {kind for _, kind in tried} | {p.classifier for p in self.curve} <= FITS.keys():
            raise ValueError("it names classifiers that there are not")

    @property
    def chosen(self) -> Accuracy:
        """The accuracy of the classifier that makes the predictions."""
        return next(a for a in self.accuracies if (a.of, a.classifier) == (self.read, self.best))
