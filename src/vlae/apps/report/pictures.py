"""Arrays as pictures inside the page: PNG in data addresses, on one fixed scale for all."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from vlae.data.imageset import ImageSet
from vlae.engine.measure import chosen

Array = npt.NDArray[Any]

# The sides that pictures are cut to, where whole ones would make the page too large.
SIDES = (300, 224, 160, 112, 64)
THUMBNAIL = 160
MAP = "cividis"


class Picture(NamedTuple):
    """A picture that needs no file."""

    uri: str
    width: int
    height: int


Rows = list[list[Picture]]


class Range(NamedTuple):
    """The levels that are shown as black and as white."""

    black: float
    white: float


def levels_shown(images: ImageSet) -> Range:
    """The range of levels for display: the whole of it for 1 and 8 bits; what training images use of it for 16."""
    if images.depth < 16:
        return Range(0, 2**images.depth - 1)
    sample = [images.pixels(int(n)) for n in chosen(images, "train", 50)]
    low, high = np.percentile(np.concatenate([s[:: max(1, len(s) // 64), :: max(1, s.shape[1] // 64)].ravel() for s in sample]), [0.1, 99.9])
    return Range(float(low), float(max(high, low + 1)))


def picture(x: Array, levels: Range) -> Picture:
    """Levels (c, h, w) in grey or colour."""
    scaled = (x.astype(np.float64) - levels.black) / (levels.white - levels.black)
    pixels = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return encoded(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def thumbnail(x: Array, levels: Range, side: int = THUMBNAIL) -> Picture:
    """Levels (c, h, w), made smaller by area averages where they are larger than ``side``."""
    step = -(-max(x.shape[1:]) // side)
    down, across = (min(step, size) for size in x.shape[1:])  # a strip stays one pixel wide
    height, width = x.shape[1] // down, x.shape[2] // across
    blocks = x[:, : height * down, : width * across].reshape(len(x), height, down, width, across)
    return picture(blocks.mean(axis=(2, 4)), levels)


def heat(values: Array, top: float) -> Picture:
    """A map (h, w) in colours: from 0, dark, to ``top`` and above, light."""
    image = Image.fromarray(np.rint(255 * (values / top).clip(0, 1)).astype(np.uint8))
    image.putpalette((matplotlib.colormaps[MAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    return encoded(image)


def scale_colours() -> str:
    """The colours of ``heat`` from 0 to the top, as the stops of a CSS gradient."""
    return ", ".join(matplotlib.colors.to_hex(c) for c in matplotlib.colormaps[MAP](np.linspace(0, 1, 9)))


def top_of(maps: Sequence[Array]) -> float:
    """Where the one scale of several maps ends: all but the highest half percent of values lie below."""
    return float(max(np.percentile(np.concatenate([m.ravel() for m in maps]), 99.5), 1e-6))


def middle(x: Array, side: int) -> Array:
    """The middle of a picture (..., h, w), at most ``side`` a side."""
    top, left = (max(0, size - side) // 2 for size in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def within(budget: int, draw: Callable[[int], Rows]) -> Rows:
    """The rows that ``draw`` makes at the largest side at which all of them together take at most ``budget`` bytes."""
    for side in SIDES:
        rows = draw(side)
        if sum(len(p.uri) for row in rows for p in row) <= budget:
            break
    return rows


def encoded(image: Image.Image) -> Picture:
    """A picture as PNG in a data address."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture("data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), image.width, image.height)
