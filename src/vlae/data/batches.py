"""Batches from a set of images: pure functions of the set, the chosen images and a random generator.

Nothing is decoded here; pixels are copied out of the memory map and keep their type.
"""

import numpy as np
import numpy.typing as npt

from vlae.data.imageset import ImageSet
from vlae.data.read import Pixels

Indices = npt.NDArray[np.int64]


def crops(images: ImageSet, indices: Indices, size: int, rng: np.random.Generator, step: int = 1) -> Pixels:
    """Cut one square of ``size`` pixels at a random place, a multiple of ``step``, out of each chosen image: (n, c, size, size).

    No image may have a side shorter than ``size`` (``DataSettings.minimum`` sees to it).
    """
    room = images.sizes[indices] - size
    assert (room >= 0).all(), "an image is smaller than the crops: set DataSettings.minimum to their size"
    corners = (step * rng.integers(0, room // step, endpoint=True)).tolist()
    out = _empty(images, len(indices), size, size)
    for crop, i, (top, left) in zip(out, indices, corners, strict=True):
        crop[...] = images.pixels(i)[top : top + size, left : left + size].transpose(2, 0, 1)
    return out


def stack(images: ImageSet, indices: Indices) -> Pixels:
    """Copy whole images of one size: (n, c, h, w)."""
    height, width, _ = images.shape(int(indices[0]))
    assert (images.sizes[indices] == (height, width)).all(), "images of different sizes do not stack: set DataSettings.size, or use crops"
    out = _empty(images, len(indices), height, width)
    for copy, i in zip(out, indices, strict=True):
        copy[...] = images.pixels(i).transpose(2, 0, 1)
    return out


def moved(pixels: Pixels, shift: int, mirror: bool, rng: np.random.Generator) -> Pixels:
    """Images (n, c, h, w), each moved at random by up to ``shift`` pixels down or up and to a side, the edge repeated behind it; and, with
    ``mirror``, each second one on average mirrored left and right.

    >>> moved(np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3), 1, False, np.random.default_rng(2))[0, 0].tolist()
    [[1, 2, 2], [1, 2, 2]]
    """
    n, _, height, width = pixels.shape
    moves = rng.integers(-shift, shift, (n, 2), endpoint=True)
    turned = rng.integers(0, 2, (n, 1)) * mirror > 0
    rows = np.clip(np.arange(height) - moves[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - moves[:, 1:], 0, width - 1)
    columns = np.where(turned, width - 1 - columns, columns)
    out: Pixels = pixels[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
    return out


def binarise_dynamic(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw 1-bit images from 8-bit ones, each value v becoming 1 with the exact probability v / 255.

    >>> binarise_dynamic(np.array([0, 255], np.uint8), np.random.default_rng(0)).tolist()
    [0, 1]
    """
    return (rng.integers(0, 255, size=pixels.shape, dtype=np.uint8) < pixels).astype(np.uint8)


def _empty(images: ImageSet, n: int, height: int, width: int) -> Pixels:
    return np.empty((n, images.channels, height, width), np.uint16 if images.depth == 16 else np.uint8)
