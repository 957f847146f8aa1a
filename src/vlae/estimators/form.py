"""How images lie in arrays, and which levels their values are."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from einops import rearrange

from vlae.engine.settings import ImageFacts

Array = npt.NDArray[Any]


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


def found(rows: Array, shape: tuple[int, ...], wanted: tuple[int, ...] | None, depth: Any) -> Form:
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


def demanded(facts: ImageFacts, shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> Form:
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
