"""The model as estimators of scikit-learn: for pipelines, grid searches and whoever has images as arrays."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

import vlae
from vlae.apps.train import prepare
from vlae.core.vlae import VLAE
from vlae.engine.batches import CODE, as_levels, normal, uniform
from vlae.engine.embed import Numbers
from vlae.engine.fit import Trainer
from vlae.engine.measure import PIXELS_AT_ONCE
from vlae.engine.settings import ImageFacts, load_settings
from vlae.errors import SettingError

Array = npt.NDArray[Any]

BATCH = 32
# What a run needs to be used: these files stay with a fitted estimator.
NEEDED = ("config.yaml", "images.json", "weights.safetensors")


class Form(NamedTuple):
    """How images lie in arrays, and which values are the levels 0 to ``top`` of the model."""

    size: tuple[int, int, int]
    """height, width and colours"""
    shape: tuple[int, ...]
    """of an image in the arrays"""
    low: float
    high: float
    """the values of black and white"""
    top: int
    dtype: np.dtype[Any]

    def levels(self, rows: Array) -> Array:
        """Images in rows, (n, F), as levels (n, c, h, w); what is darker than black is black."""
        scaled = (rows.astype(np.float64) - self.low) * (self.top / (self.high - self.low))
        height, width, colours = self.size
        return rearrange(np.rint(scaled).clip(0, self.top), "n (h w c) -> n c h w", h=height, w=width, c=colours)

    def values(self, levels: Array) -> Array:
        """Levels (n, c, h, w) as images in arrays."""
        scaled = rearrange(levels, "n c h w -> n h w c") * ((self.high - self.low) / self.top) + self.low
        return (scaled if self.dtype.kind == "f" else np.rint(scaled)).astype(self.dtype).reshape(len(levels), *self.shape)


class VLAEEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The codes of images as features (Chen et al. 2017, arXiv:1611.02731).

    X is an array of images, (n, h, w) or (n, h, w, c), or has a row for each image. Values of bool, uint8 and uint16 are the levels of 1, 8 and 16
    bits. Of any other type (real numbers, or whole ones as tables hold them) the smallest and the largest that ``fit`` sees become black and white,
    with 256 levels between; what lies beyond them later is cut off.

    A fitted estimator can be pickled: it keeps the run's files, and no folder.

    Args:
        run: the folder of a run or the name of a model of the zoo: nothing is trained, X is as that model's images are, and ``fit`` only checks it.
        shape: height and width, and colours if there are several, of an image that is given as a row; by default a row is an image one pixel high.
        depth: bits of a value as the model sees it: 1, 8 or 16; auto, those of the type.
        steps: updates of the weights.
        keep: what the code keeps: layout, shape, detail or everything.
        settings: any other settings, as ``group.name=value``.
        random_state: for the division, the training, ``score`` and the decodings.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    >>> model = make_pipeline(VLAEEncoder(steps=2), LogisticRegression()).fit(images, images[:, 0, 0] > 127)
    >>> model[0].transform(images).shape, model[0].inverse_transform(np.zeros((3, 32))).shape
    ((40, 32), (3, 8, 8))
    """

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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on images, nine of ten of them; the others tell which weights are the best.

        Raises:
            ValueError: X holds no images, or not those of the run.
            VlaeError: a setting cannot be honoured, or the model has no code.
        """
        rows, shape = self._rows(X, reset=True)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        if self.run is None:
            self.form_ = _found(rows, shape, self.shape, self.depth)
            self.files_ = self._trained(self.form_.levels(rows))
        else:
            self.form_ = _demanded(vlae._run(self.run).facts, shape, self.shape)
            self._levels(rows)  # whether they can be had
        self._model = self._load()
        if self._model.encoder is None:
            raise SettingError(
                "This model has no code", rule="Features are codes: keep.code is vector or grid", do="Give other settings or another run"
            )
        self._n_features_out = int(np.prod(self._model.code_shape(*self.form_.size[:2])))
        return self

    @torch.no_grad()
    def transform(self, X: Any) -> Numbers:
        """The middles of the posteriors q(z|x), (n, D): of a grid code all its places."""
        parts = [self._model.posterior(x).centre.flatten(1) for _, x in self._batches(X)]
        return torch.cat(parts).double().numpy()

    @torch.no_grad()
    def inverse_transform(self, X: Any) -> Array:
        """One decoding of each code, (n, D), as images of the form that ``fit`` was given; the code's share is right, the rest is made up."""
        check_is_fitted(self)
        height, width, _ = self.form_.size
        rows = check_array(X, dtype=np.float32)
        if rows.shape[1] != self._n_features_out:
            raise ValueError(f"A code has {self._n_features_out} numbers; got {rows.shape[1]}.")
        codes = torch.from_numpy(rows).unflatten(1, self._model.code_shape(height, width))
        shape, each = (self._model.decoder.head.uniforms, height, width), self._at_once
        parts = [
            self._model.decoder.sample(some, torch.stack([uniform(shape, self.seed_, first + n) for n in range(len(some))]))
            for first, some in zip(range(0, len(codes), each), codes.split(each), strict=True)
        ]
        return self.form_.values(torch.cat(parts).double().numpy())

    @torch.no_grad()
    def score(self, X: Any, y: Any = None) -> float:
        """The mean bound on log p(x), in nats an image: the higher the better, for models of levels of the same depth."""
        check_is_fitted(self)
        shape = self._model.code_shape(*self.form_.size[:2])
        parts = [
            self._model(x, torch.stack([normal(shape, self.seed_, CODE, first + n) for n in range(len(x))])).elbo for first, x in self._batches(X)
        ]
        return float(torch.cat(parts).double().mean())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "form_" in state:
            self._model = self._load()

    def _trained(self, levels: Array) -> dict[str, bytes]:
        """Train a run in a folder of its own; the files that are needed to use it."""
        order = np.random.default_rng(self.seed_).permutation(len(levels))
        validation, training = np.split(order, [-(-len(order) // 10)])
        pixels: Array = rearrange(levels, "n c h w -> n h w c").astype({1: np.bool_, 8: np.uint8, 16: np.uint16}[self.form_.top.bit_length()])
        batch = min(BATCH, len(training))
        own = (f"keep.preset={self.keep}", f"train.steps={self.steps}", f"train.batch={batch}", f"train.seed={self.seed_}", "data.test=0")
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "images.npz"
            np.savez(source, images=pixels, train_idx=training, validation_idx=validation)
            run = prepare(load_settings(None, [*own, *self.settings], {"data.folder": source}), Path(folder) / "run")
            trainer = Trainer(run, run.images())
            trainer.start()
            trainer.train(lambda: False)
            return {name: (run.folder / name).read_bytes() for name in NEEDED}

    def _load(self) -> VLAE:
        if self.run is not None:
            return vlae.load(self.run)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files_.items():
                (Path(folder) / name).write_bytes(content)
            return vlae.load(folder)

    def _rows(self, images: Any, reset: bool) -> tuple[Array, tuple[int, ...]]:
        """Images as rows, and the shape that each had."""
        if getattr(images, "ndim", 2) > 2:
            images = np.asarray(images)
            shape, images = images.shape[1:], images.reshape(len(images), -1)
            return validate_data(self, images, reset=reset, ensure_min_samples=1 + reset), shape
        rows = validate_data(self, images, reset=reset, ensure_min_samples=1 + reset)
        return rows, rows.shape[1:]

    def _levels(self, rows: Array) -> Array:
        if self.run is not None and not (np.equal(rows, np.rint(rows)).all() and 0 <= rows.min() <= rows.max() <= self.form_.top):
            raise ValueError(f"Images of this run have whole values from 0 to {self.form_.top}; got values from {rows.min()} to {rows.max()}.")
        return self.form_.levels(rows)

    def _batches(self, images: Any) -> Iterator[tuple[int, Tensor]]:
        """So many images as fit at once, with the number of the first."""
        check_is_fitted(self)
        rows, shape = self._rows(images, reset=False)
        if len(shape) > 1 and (*shape, 1)[:3] != self.form_.size:
            raise ValueError(f"X has images of shape {shape}, but VLAEEncoder was fitted on {self.form_.size}.")
        levels = self._levels(rows)
        for first in range(0, len(levels), self._at_once):
            yield first, as_levels(levels[first : first + self._at_once])

    @property
    def _at_once(self) -> int:
        height, width, _ = self.form_.size
        return max(1, PIXELS_AT_ONCE // (height * width))


def _found(rows: Array, shape: tuple[int, ...], wanted: tuple[int, ...] | None, depth: Any) -> Form:
    """The form of images that a model is to be trained on."""
    low, high = float(rows.min()), float(rows.max())
    if rows.dtype == np.bool_ or (rows.dtype.kind == "u" and high <= 1):  # as in files
        low, high, own = 0.0, 1.0, 1
    elif rows.dtype in (np.uint8, np.uint16):
        own = 8 * rows.dtype.itemsize
        low, high = 0.0, 2.0**own - 1
    else:
        own, high = 8, high if high > low else low + 1
    if depth not in ("auto", 1, 8, 16):
        raise ValueError(f"depth must be auto, 1, 8 or 16. Got {depth!r}.")
    form = Form(_size(shape, wanted), shape, low, high, 2 ** (own if depth == "auto" else depth) - 1, rows.dtype)
    return form._replace(top=1) if form.levels(rows).max() <= 1 else form  # as in files, black and the next level are 1 bit


def _demanded(facts: ImageFacts, shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> Form:
    """The form of images that the model of a run takes."""
    known = None if facts.size is None else (*facts.size, facts.colours)
    size = _size(shape, wanted or known)
    if size[2] != facts.colours or (known is not None and size != known):
        raise ValueError(f"Images of this run are {known or ('any height', 'any width', facts.colours)}; got {size}.")
    top = 2**facts.depth - 1
    return Form(size, shape, 0.0, float(top), top, np.dtype(np.uint16 if facts.depth == 16 else np.uint8))


def _size(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> tuple[int, int, int]:
    """Height, width and colours of images that have a shape in their array, or lie in rows and are ``wanted`` so."""
    size = shape if len(shape) > 1 else wanted or (1, *shape)
    height, width, colours = (*size, 1)[:3]
    if len(size) not in (2, 3) or colours not in (1, 3) or np.prod(shape) != height * width * colours:
        raise ValueError(f"An image is (h, w), (h, w, 1) or (h, w, 3), given so or as a row with shape set. Got {shape}, and shape={wanted}.")
    return height, width, colours
