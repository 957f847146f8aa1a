"""What the estimators share: a model that is trained on X or that of a run, and that stays with a fitted estimator."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

import vlae
from vlae.apps.train import prepare
from vlae.core.vlae import VLAE
from vlae.engine.batches import as_levels
from vlae.engine.fit import Trainer
from vlae.engine.measure import PIXELS_AT_ONCE
from vlae.engine.memory import without_denormals
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.estimators.form import Array, Form, demanded, found

BATCH = 32
# What a run needs to be used: these files stay with a fitted estimator.
NEEDED = ("config.yaml", "images.json", "weights.safetensors")
LEARNED = ("_model", "_n_features_out")
"""attributes that ``fit`` sets, beside those whose names end in an underscore"""


class Modelled(BaseEstimator):  # type: ignore[misc]
    """An estimator with a model. It keeps the files of the run, and no folder, so that it can be pickled."""

    form_: Form
    seed_: int
    files_: dict[str, bytes]
    _model: VLAE

    def __init__(
        self,
        run: str | Path | None = None,
        shape: tuple[int, ...] | None = None,
        depth: Literal["auto", 1, 8, 16] = "auto",
        steps: int = 4000,
        keep: str = "layout",
        settings: Sequence[str] = (),
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.run = run
        self.shape = shape
        self.depth = depth
        self.steps = steps
        self.keep = keep
        self.settings = settings
        self.random_state = random_state

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """For all of ``fit``: what an earlier one has left is gone before, and what one that fails has left is gone after."""
        self._forget()
        try:
            yield
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Be as before any ``fit``: by the names that scikit-learn has for what is fitted, and ours."""
        for name in [name for name in vars(self) if name.endswith("_") or name in LEARNED]:
            delattr(self, name)

    def _form(self, rows: Array, shape: tuple[int, ...], seen: Array | slice = slice(None)) -> Array:
        """The levels of the images that ``fit`` is given; their form is found from those that may be seen, or that of the run's images demanded."""
        if self.run is None:
            self.form_ = found(rows[seen], shape, self.shape, self.depth)
        else:
            self.form_ = demanded(Run.find(self.run).facts, shape, self.shape)
        return self._levels(rows)

    def _use(self, levels: Array, folder: Path) -> Run:
        """Take the model of the run that was given, or of one that is trained on these levels in an empty folder."""
        run = self._trained(levels, folder) if self.run is None else Run.find(self.run)
        self._model = run.model(torch.device("cpu"))
        self.files_ = {name: (run.folder / name).read_bytes() for name in NEEDED}
        return run

    def _trained(self, levels: Array, folder: Path) -> Run:
        batch = min(BATCH, len(levels) - _validation(len(levels)))
        own = (f"keep.preset={self.keep}", f"train.steps={self.steps}", f"train.batch={batch}", f"train.seed={self.seed_}", "data.test=0")
        source = self._stored(levels, folder)
        run = prepare(load_settings(None, [*own, *self.settings], {"data.folder": source}), folder / "run")
        with without_denormals():
            trainer = Trainer(run, run.images())
            trainer.start()
            trainer.train(lambda: False)
        return run

    def _stored(self, levels: Array, folder: Path) -> Path:
        """Levels as a file of images, nine of ten for training; the others tell which weights are the best."""
        order = np.random.default_rng(self.seed_).permutation(len(levels))
        validation, training = np.split(order, [_validation(len(levels))])
        pixels: Array = rearrange(levels, "n c h w -> n h w c").astype({1: np.bool_, 8: np.uint8, 16: np.uint16}[self.form_.top.bit_length()])
        np.savez(folder / "images.npz", images=pixels, train_idx=training, validation_idx=validation)
        return folder / "images.npz"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "files_" not in state:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files_.items():
                (Path(folder) / name).write_bytes(content)
            self._model = vlae.load(folder)

    def _rows(self, images: Any, least: int | None = None) -> tuple[Array, tuple[int, ...]]:
        """Images as rows, and the shape that each had; at least so many in ``fit``, which draws the seed."""
        if least is not None:
            self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        checks = {"reset": least is not None, "ensure_min_samples": least or 1}
        if getattr(images, "ndim", 2) > 2:
            images = np.asarray(images)
            shape, images = images.shape[1:], images.reshape(len(images), math.prod(images.shape[1:]))
            return validate_data(self, images, **checks), shape
        rows = validate_data(self, images, **checks)
        return rows, rows.shape[1:]

    def _levels(self, rows: Array) -> Array:
        if self.run is not None and not (np.equal(rows, np.rint(rows)).all() and 0 <= rows.min() <= rows.max() <= self.form_.top):
            raise ValueError(f"Images of this run have whole values from 0 to {self.form_.top}; got values from {rows.min()} to {rows.max()}.")
        return self.form_.levels(rows)

    def _batches(self, images: Any) -> Iterator[tuple[int, Tensor]]:
        """Images as levels, so many as fit at once, with the number of the first."""
        check_is_fitted(self)
        rows, shape = self._rows(images)
        if len(shape) > 1 and (*shape, 1)[:3] != self.form_.size:
            raise ValueError(f"X has images of shape {shape}, but {type(self).__name__} was fitted on {self.form_.size}.")
        yield from self._parts(self._levels(rows))

    def _parts(self, levels: Array) -> Iterator[tuple[int, Tensor]]:
        for first in range(0, len(levels), self._at_once):
            yield first, as_levels(levels[first : first + self._at_once])

    @property
    def _at_once(self) -> int:
        height, width, _ = self.form_.size
        return max(1, PIXELS_AT_ONCE // (height * width))


def _validation(count: int) -> int:
    """How many of so many images are for validation."""
    return -(-count // 10)
