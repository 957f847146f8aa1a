"""Which images are unlike good ones, and where, with a threshold that keeps a promised rate of false alarms."""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from einops import rearrange
from sklearn.utils import check_consistent_length
from torch import Tensor

from vlae.data import cache
from vlae.data.imageset import ImageSet
from vlae.data.settings import DataSettings
from vlae.data.spool import identity
from vlae.engine.embed import Numbers
from vlae.engine.inspection.conformal import Promise, promise
from vlae.engine.inspection.inspect import reference_of
from vlae.engine.inspection.look import Look, look
from vlae.engine.inspection.reference import Reference
from vlae.engine.inspection.regions import Region, regions
from vlae.engine.inspection.visitors import lots_of_training
from vlae.engine.run import Run
from vlae.errors import VlaeError
from vlae.estimators.form import Array
from vlae.estimators.modelled import Modelled

# One image trains, one tells which weights are the best, and one calibrates.
LEAST = 3


class VLAEDetector(Modelled):
    """Images that are unlike good ones, found by evidence in bits, with a promised rate of false alarms (Chen et al. 2017, arXiv:1611.02731).

    ``fit`` takes good images alone. Without a run it divides them: most train a model and tell how good images look to it, and the others, which the
    model has not seen, calibrate the threshold: a fifth, or as many as the promise takes, but no more than half. With a run nothing is trained: how
    good images look is learned from the run's own images, and all of X calibrates. (Of a run without its images, X is divided as well.)
    Images with the same pixels count once.

    X is as for ``VLAEEncoder``; a higher score is more abnormal, a positive decision is an alarm, and ``predict`` says 1 for it and 0 for a good
    image. That is as in PyOD, and the other way round than in scikit-learn's ``OutlierMixin`` (-1 for an outlier): whoever inspects expects defects
    to be positive, and scores that grow with them. ``roc_auc_score(is_defective, detector.score_samples(X))`` needs no sign changed.

    Args:
        run: the folder of a run or the name of a model of the zoo; X is as that model's images are, and none of them was used to train it.
        shape, depth, steps, keep, settings, random_state: as of ``VLAEEncoder``.
        false_alarms: the share of new good images that may raise an alarm; a flagged region counts as one.

    Attributes:
        threshold_: the score above which an image raises an alarm; it may be moved.
        promise_: what is promised of its false alarms; ``promise_.kept`` is False where there were too few images.
        reference_: how good images look to the model.

    >>> images = np.random.default_rng(0).normal(120, 10, (60, 8, 8)).astype(np.uint8)
    >>> detector = VLAEDetector(steps=20).fit(images)
    >>> spoiled = images.copy()
    >>> spoiled[:, 2:5, 2:5] = 255
    >>> detector.predict(spoiled[:3]).tolist(), detector.promise_.rate, detector.maps(spoiled).shape
    ([1, 1, 1], 0.05, (60, 8, 8))
    """

    threshold_: float
    promise_: Promise
    reference_: Reference

    def __init__(
        self,
        run: str | Path | None = None,
        shape: tuple[int, ...] | None = None,
        depth: Literal["auto", 1, 8, 16] = "auto",
        steps: int = 4000,
        keep: str = "layout",
        false_alarms: float = 0.05,
        settings: Sequence[str] = (),
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        super().__init__(run, shape, depth, steps, keep, settings, random_state)
        self.false_alarms = false_alarms

    def fit(self, X: Any, y: Any = None, lots: Sequence[Any] | None = None) -> Self:
        """Learn how good images look, and set the threshold.

        Args:
            X: good images.
            y: not used.
            lots: the lot or day of each image: the promise is then one about new lots, and no lot both trains and calibrates. Images of lots
                that the run was trained on calibrate nothing, and a warning counts them.

        Raises:
            ValueError: X holds no images, too few, too few of lots that are new to the run, or not those of the run; a lot is missing; the rate is
                no share.
            VlaeError: a setting cannot be honoured, or the run is damaged.
        """
        if not (isinstance(self.false_alarms, Real) and 0 < self.false_alarms < 1):
            raise ValueError(f"false_alarms must be a share above 0 and below 1. Got {self.false_alarms!r}.")
        with self._fitting(), tempfile.TemporaryDirectory() as folder:
            rows, shape = self._rows(X, LEAST)
            rows, names = _once(rows, _checked(lots, rows))
            own = None if self.run is None else _own(Run.find(self.run))
            every = np.arange(len(rows))
            seen, unseen = (every[:0], every) if own else self._divided(len(rows), names)
            levels = self._form(rows, shape, seen)
            if own:
                _check_unseen(own, levels)
                unseen = _of_new_lots(own, names, unseen)
            run = self._use(levels[seen], Path(folder))
            self.reference_ = self._learned(run, own or self._images(run, levels[seen], Path(folder)))
            scores = np.array([found.score for found in self._looks(self._parts(levels[unseen]))])
            self.promise_ = promise(scores, self.false_alarms, None if names is None else names[unseen])
            self.threshold_ = self.promise_.threshold
        return self

    def score_samples(self, X: Any) -> Numbers:
        """The strongest evidence anywhere in each image, (n,): 1 is what one good image in ten shows somewhere, and higher is more abnormal."""
        return np.array([found.score for found in self._looks(self._batches(X))])

    def decision_function(self, X: Any) -> Numbers:
        """The score less the threshold, (n,): an alarm is above 0."""
        return self.score_samples(X) - self.threshold_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """1 for an alarm and 0 for a good image, (n,)."""
        return (self.decision_function(X) > 0).astype(np.int64)

    def maps(self, X: Any) -> npt.NDArray[np.float32]:
        """The strongest evidence at each pixel, (n, h, w), on the scale of the scores: the highest of an image is its score."""
        return np.stack([found.map for found in self._looks(self._batches(X))])

    def regions(self, X: Any) -> list[list[Region]]:
        """Where each image is unlike good ones, the strongest first: position, area, strength in units of the threshold, kind and bits."""
        return [regions(found, self.threshold_) for found in self._looks(self._batches(X))]

    def _looks(self, batches: Iterator[tuple[int, Tensor]]) -> Iterator[Look]:
        for _, x in batches:
            yield from look(self._model, self.reference_, x)

    def _divided(self, count: int, lots: Array | None) -> tuple[Array, Array]:
        """The numbers of the images that are learned from, and of those that calibrate; lots stay whole."""
        of = np.arange(count) if lots is None else np.unique(lots, return_inverse=True)[1]
        groups = int(of.max()) + 1
        needed = promise(np.zeros(groups), self.false_alarms).needed
        calibrating = max(-(-groups // 5), min(needed, groups // 2))
        unseen = np.isin(of, np.random.default_rng([self.seed_, 1]).permutation(groups)[:calibrating])
        if (~unseen).sum() < LEAST - 1:
            raise ValueError(f"Lots stay whole: it takes at least two lots, one of {LEAST - 1} images; got {count} images of {groups} lots.")
        return np.flatnonzero(~unseen), np.flatnonzero(unseen)

    def _images(self, run: Run, levels: Array, folder: Path) -> ImageSet:
        """The images to learn from where they are those of X: of the run that was trained on them, or stored for one without images."""
        if self.run is None:
            return run.images()
        return cache.load(DataSettings(folder=self._stored(levels, folder), test=0), folder / "cache")

    def _learned(self, run: Run, images: ImageSet) -> Reference:
        """How good images look."""
        reference, size = reference_of(run, self._model, images)
        if size not in (None, self.form_.size[:2]):
            raise ValueError(f"Images that are compared with good ones have their size: {size}; got {self.form_.size[:2]}.")
        return reference


def _own(run: Run) -> ImageSet | None:
    """The images of a run; None where it was handed on without them, and they are not at hand."""
    try:
        return run.images()
    except VlaeError:
        if run.handed_on:
            return None
        raise


def _checked(lots: Sequence[Any] | None, rows: Array) -> Array | None:
    """The names of the lots."""
    if lots is None:
        return None
    check_consistent_length(rows, lots)
    if missing := [n for n, lot in enumerate(lots) if lot is None or lot != lot]:  # NaN is what tables have for nothing
        raise ValueError(f"A promise about new lots needs the lot of every image; {len(missing)} have none, the first is image {missing[0]}.")
    return np.array([str(lot) for lot in lots])


def _once(rows: Array, lots: Array | None) -> tuple[Array, Array | None]:
    """Images with the same pixels count once, as they do in a folder: else a copy would calibrate what its twin has taught."""
    first = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    if len(first) < LEAST:
        raise ValueError(f"It takes at least {LEAST} images that are not the same; got {len(first)}, n_samples = {len(rows)}.")
    return rows[first], None if lots is None else lots[first]


def _check_unseen(own: ImageSet, levels: Array) -> None:
    """Refuse images that a run was trained on or chosen by: a threshold from them would not hold for new ones."""
    seen = {identity(own.pixels(n), own.depth) for split in ("train", "validation") for n in own.indices(split)}
    used = sum(identity(pixels, own.depth) in seen for pixels in rearrange(levels, "n c h w -> n h w c"))
    if used:
        raise ValueError(f"{used} of the {len(levels)} images were used to train the run; a threshold for new images is made from unseen ones.")


def _of_new_lots(own: ImageSet, lots: Array | None, numbers: Array) -> Array:
    """Of these images those of lots that the run was not trained on or chosen by: others would calibrate what their lots have taught."""
    if lots is None:
        return numbers
    known = lots_of_training(own)
    new = numbers[[lots[n] not in known for n in numbers]]
    if len(new) < LEAST:
        raise ValueError(f"It takes at least {LEAST} images of lots that the run was not trained on; got {len(new)} of {len(numbers)}.")
    if lost := len(numbers) - len(new):
        warnings.warn(f"{lost} of the {len(numbers)} images calibrate nothing: the run was trained on their lots.", stacklevel=3)
    return new
