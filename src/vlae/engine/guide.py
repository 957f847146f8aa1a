"""From what the code should keep to what the decoder may see: windows, and how fine a structure survived with each where it was measured."""

import math
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A window, the preset whose code goes with it, and the border of what its code kept: structures of more pixels than that."""

    window: str
    preset: str
    border: float


# The widest first. Measured on drawn parts of 64x64, a grid code of 16 channels for each 8x8 pixels:
# python benchmarks/guide.py PARTS keep.code=grid keep.stride=8 keep.channels=16 model.pointwise=0 train.steps=1000 train.batch=16 \
#     train.learning_rate=0.004 train.validate_every=500 --output FOLDER --json
GUIDE = (
    Row("stack6", "layout", 14.0),
    Row("stack4", "layout", 11.0),
    Row("stack2", "shape", 7.0),
    Row("r1", "detail", 4.0),
    Row("none", "everything", 3.0),
)
# Nothing finer than this can be drawn: a dark and a bright pixel.
FINEST = 2.0


def row_for(pixels: float) -> Row:
    """The widest window that kept structures of so many pixels; the narrowest where none did.

    >>> row_for(100).window, row_for(2).window
    ('stack6', 'none')
    """
    return next((row for row in GUIDE if row.border <= pixels), GUIDE[-1])


def in_pixels(written: Any) -> float:
    """A length in pixels as people write it.

    >>> in_pixels("8px"), in_pixels(" 8.5 px"), in_pixels(8)
    (8.0, 8.5, 8.0)

    Raises:
        ValueError: it is none, or finer than ``FINEST``.
    """
    try:
        pixels = float(written.strip().removesuffix("px") if isinstance(written, str) else written)
    except (TypeError, ValueError):
        pixels = math.nan
    if isinstance(written, bool) or not FINEST <= pixels < math.inf:
        raise ValueError(f"a length is a number of pixels from {FINEST:g} on, such as 8px")
    return pixels
