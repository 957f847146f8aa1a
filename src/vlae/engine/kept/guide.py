"""From what the code should keep to what the decoder may see: windows, and how fine a structure survived with each where it was measured."""

import math
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A window, the preset whose code goes with it, and the finest structures that its code kept for certain, in pixels."""

    window: str
    preset: str
    finest: float


# Nothing finer than this can be drawn: a dark and a bright pixel.
LEAST = 2.0
# The widest first, those that kept more than every wider one. On drawn parts of 64x64 with 16 numbers for each 8x8 pixels, all windows alike
# (benchmarks/results/guide-parts.json; with stack6 the code was given up): python benchmarks/guide.py PARTS keep.code=grid keep.stride=8 \
#     keep.channels=16 train.steps=1200 train.batch=16 train.optimizer=adam train.learning_rate=0.004 train.decay=0.5 \
#     train.precision=bf16-mixed train.validate_every=300 --output FOLDER --json
# The last row is what is left where no other kept so much.
GUIDE = (
    Row("stack5", "detail", 8.0),
    Row("stack4", "detail", 7.12),
    Row("stack3", "detail", 4.58),
    Row("r1", "detail", 4.27),
    Row("1x1", "detail", 4.0),
    Row("none", "everything", LEAST),
)


def row_for(pixels: float) -> Row:
    """The widest window that kept structures of so many pixels; the narrowest where none did.

    >>> row_for(100).window, row_for(2).window
    ('stack5', 'none')
    """
    return next((row for row in GUIDE if row.finest <= pixels), GUIDE[-1])


def in_pixels(written: Any) -> float:
    """A length in pixels as people write it.

    >>> in_pixels("8px"), in_pixels(" 8.5 px"), in_pixels(8)
    (8.0, 8.5, 8.0)

    Raises:
        ValueError: it is none, or finer than ``LEAST``.
    """
    try:
        pixels = float(written.strip().removesuffix("px") if isinstance(written, str) else written)
    except (TypeError, ValueError):
        pixels = math.nan
    if isinstance(written, bool) or not LEAST <= pixels < math.inf:
        raise ValueError(f"a length is a number of pixels from {LEAST:g} on, such as 8px")
    return pixels
