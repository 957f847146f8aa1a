"""Where every pixel of a picture lies: in the picture, on the part, and from the lamp."""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlae.data.parts.exact import Array, Turn, turn
from vlae.data.parts.factors import Factors

T = TypeVar("T", np.float64, np.bool_)


class Scene(NamedTuple):
    """Coordinates of the pixel centres of a picture of H x W pixels, and of one more pixel beyond each side."""

    x: Array  # (1, W + 2) and (H + 2, 1): places in the picture, which goes from -0.5 to 0.5
    y: Array
    u: Array  # (H + 2, W + 2): places in the part's frame
    v: Array
    pixel: float  # side of a pixel in the part's frame
    unit: int  # smaller side of the picture in pixels
    lamp: Turn  # towards the lamp, in the picture
    lamp_on_part: Turn  # the same in the part's frame


def scene(f: Factors, height: int, width: int) -> Scene:
    """Lay the part of these factors on the table."""
    unit = min(height, width)
    columns, rows = np.arange(-1, width + 1)[None, :] + 0.5, np.arange(-1, height + 1)[:, None] + 0.5
    right, down = (columns - f.x * width) / (f.size * unit), (rows - f.y * height) / (f.size * unit)
    (cos, sin), lamp = turn(f.angle), turn(f.light_angle)
    return Scene(
        x=columns / width - 0.5,
        y=rows / height - 0.5,
        u=cos * right + sin * down,
        v=cos * down - sin * right,
        pixel=1.0 / (f.size * unit),
        unit=unit,
        lamp=lamp,
        lamp_on_part=Turn(cos * lamp.cos + sin * lamp.sin, cos * lamp.sin - sin * lamp.cos),
    )


def inner(field: NDArray[T]) -> NDArray[T]:
    """Take away the pixels beyond the picture."""
    return field[1:-1, 1:-1]


def slopes(field: Array) -> tuple[Array, Array]:
    """Rise of a field from left to right and from top to bottom over two pixels, within the picture."""
    return field[1:-1, 2:] - field[1:-1, :-2], field[2:, 1:-1] - field[:-2, 1:-1]
