"""Levels as pixels for a file, and many images on one sheet."""

import math

import numpy as np
from einops import rearrange
from torch import Tensor

from vlae.data.read import Pixels


def as_pixels(x: Tensor, depth: int) -> Pixels:
    """An image of levels, (c, h, w), as pixels for a file, (h, w, c)."""
    return rearrange(x.cpu().numpy(), "c h w -> h w c").round().astype(np.uint16 if depth == 16 else np.uint8)


def sheet(images: Pixels, depth: int, gap: int = 2) -> Pixels:
    """Images of one size, (n, h, w, c), in rows on a white ground, as near to a square as they go.

    >>> sheet(np.zeros((3, 4, 4, 1), np.uint8), 8).shape
    (10, 10, 1)
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), 2**depth - 1, images.dtype)
    framed = np.pad(np.concatenate([images, blank]), ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=2**depth - 1)
    return rearrange(framed, "(r k) h w c -> (r h) (k w) c", k=columns)[:-gap, :-gap]
