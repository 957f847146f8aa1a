"""Pixels from one form into another: size, channels, depth. Exact and documented, for images (h, w, c) of uint8 or uint16."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlae.data.read import Pixels


def resize(pixels: Pixels, size: tuple[int, int], depth: int = 8) -> Pixels:
    """Resize to ``size`` (h, w) by the average over the area of each new pixel, rounded to the nearest level.

    Values of ``depth`` 1 go through 8 bits, so that an average of half of white is 1 as in ``to_depth``, not rounded to even.

    >>> resize(np.array([[[0], [10]], [[20], [30]]], np.uint8), (1, 1)).item()
    15
    """
    if depth == 1:
        return to_depth(resize(to_depth(pixels, 1, 8), size), 8, 1)
    planes = [_area_average(pixels[..., channel], size) for channel in range(pixels.shape[2])]
    return np.rint(np.stack(planes, axis=-1)).astype(pixels.dtype)


def resize_mask(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Resize a mask (h, w) so that a new pixel is marked where any of its area was: thin scratches stay."""
    return _area_average(mask, size) > 1e-6


def _area_average(plane: npt.NDArray[np.generic], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))


def equal_channels(pixels: Pixels) -> bool:
    """Whether an RGB image shows greys only (as every grey WebP or JPEG saved in colour does)."""
    return pixels.shape[2] == 3 and bool((pixels[..., :1] == pixels[..., 1:]).all())


def to_grey(pixels: Pixels) -> Pixels:
    """Luma of an 8-bit RGB image (ITU-R BT.601): 0.299 R + 0.587 G + 0.114 B, rounded.

    >>> to_grey(np.array([[[255, 0, 0]]], np.uint8)).item()
    76
    """
    weights = np.array([299, 587, 114], np.uint32)
    return ((pixels @ weights + 500) // 1000).astype(np.uint8)[..., None]


def to_depth(pixels: Pixels, depth: int, target: int) -> Pixels:
    """Values of ``depth`` 1, 8 or 16 bits as values of ``target`` bits: black stays black, white stays white.

    More bits multiply (so that going back is exact); 16 to 8 keeps the upper byte; to 1 bit, a value of at least half of white is 1.

    >>> [to_depth(np.array([v], np.uint8), 8, 1).item() for v in (127, 128)]
    [0, 1]
    """
    if target == 1:
        return (pixels >= 1 << (depth - 1)).astype(np.uint8)
    if target < depth:
        return (pixels >> 8).astype(np.uint8)
    factor = (2**target - 1) // (2**depth - 1)
    return (pixels.astype(np.uint32) * factor).astype(np.uint16 if target == 16 else np.uint8)
