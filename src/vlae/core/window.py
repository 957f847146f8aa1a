"""What the decoder may see of the image while it writes a pixel: the choice that decides what the code keeps."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from vlae.core.taps import HERE, IMAGE, Layer, Layers, Offset, Reads, after, everything, reach, rectangle, stack

Context = Literal["pixels", "grey", "low", "high"]

# The low-pass context is the mean over a pixel and the four that a 2x3 tap set sees before it, taken three times over.
_AROUND: tuple[Offset, ...] = ((-1, -1), (-1, 0), (-1, 1), (0, -1), HERE)
_LOW: Layers = tuple(Layer((Reads(source, _AROUND),), (tuple([0.2] * 5),)) for source in range(3))
_HIGH: Layers = (*_LOW, Layer((Reads(IMAGE, (HERE,)), Reads(len(_LOW), (HERE,))), ((1.0,), (-1.0,))))
CONTEXTS: dict[Context, Layers] = {"pixels": (), "grey": (), "low": _LOW, "high": _HIGH}


@dataclass(frozen=True)
class Window:
    """The part of the image that the decoder sees: offsets ``(di, dj)`` strictly before the pixel, of a context made from the pixels.

    Spelled as text: ``4x2`` is the paper's block of 4 columns and 2 rows above, and ceil((4-1)/2) pixels to the left; ``stack6`` six layers
    of causal 2x3 taps, a trapezoid; ``r3`` radius 3, the same as 7x3; ``all`` every earlier pixel; ``none`` nothing, the plain VAE.

    >>> Window.of("4x2").offsets == {(di, dj) for di in (-2, -1) for dj in range(-2, 2)} | {(0, -2), (0, -1)}
    True
    >>> print(Window.of("r1"))
    o o o
    o X
    """

    name: str
    seeing: Layers
    context: Context = "pixels"

    @classmethod
    def of(cls, name: str, context: Context = "pixels", image: tuple[int, int] | None = None) -> "Window":
        """Read a window from its name; ``all`` needs the size of the image.

        Raises:
            ValueError: the name is none of the five forms, or ``all`` without a size.
        """
        return cls(name, _layers_of(name, image), context)

    @property
    def layers(self) -> Layers:
        """The layers from the image on: those that make the context, then those that see it."""
        return after(CONTEXTS[self.context], self.seeing) if self.seeing else ()

    @property
    def offsets(self) -> frozenset[Offset]:
        """The offsets of the context that the decoder sees."""
        return reach(self.seeing)

    @property
    def pixels(self) -> frozenset[Offset]:
        """The offsets of the pixels behind them: wider than ``offsets`` where the context is a filtered image."""
        return reach(self.layers)

    def __str__(self) -> str:
        return draw(self.pixels)


def _layers_of(name: str, image: tuple[int, int] | None) -> Layers:
    if name == "none":
        return ()
    if name == "all":
        if image is None:
            raise ValueError("window 'all' needs the size of the image: use it with a code that is a vector, or give a size")
        return everything(*image)
    if match := re.fullmatch(r"stack([1-9][0-9]?)", name):
        return stack(int(match[1]))
    if match := re.fullmatch(r"r([1-9][0-9]?)", name):
        return rectangle(2 * int(match[1]) + 1, int(match[1]))
    if match := re.fullmatch(r"([1-9][0-9]?)x([1-9][0-9]?)", name):
        return rectangle(int(match[1]), int(match[2]))
    raise ValueError(f"a window is 'none', 'all', 'stackN', 'rN' or 'AxB' (columns x rows above); found {name!r}")


def draw(offsets: Collection[Offset]) -> str:
    """Offsets as text: ``o`` is seen, ``.`` is not, ``X`` is the pixel being written."""
    rows = range(min((di for di, _ in offsets), default=0), 1)
    columns = range(min((dj for _, dj in offsets), default=0), max((dj for _, dj in offsets), default=0) + 1)
    marks = {HERE: "X", **{o: "o" for o in offsets}}
    lines = (" ".join(marks.get((i, j), "." if i < 0 or j < 0 else " ") for j in columns).rstrip() for i in rows)
    return "\n".join(lines)
