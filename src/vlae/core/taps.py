"""What every layer of a causal network reads: sets of taps, from which all else about the network follows.

A tap ``(di, dj)`` reads the source at row ``i + di`` and column ``j + dj``. Source 0 is the image; source ``n`` is layer ``n``, counted
from 1. A layer whose weights are fixed makes a context (a smoothed image, say) of the image; the others are learned.
"""

import math
from dataclasses import dataclass

Offset = tuple[int, int]

IMAGE = 0
HERE: Offset = (0, 0)


@dataclass(frozen=True)
class Reads:
    """One layer reads one source at these taps."""

    source: int
    taps: tuple[Offset, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a causal network: what it reads, and the weights of its taps where they are fixed.

    A learned layer is ``residual + gate(sum over reads of W x + C code + b)``; a fixed one is the weighted sum, channel by channel.
    """

    reads: tuple[Reads, ...]
    fixed: tuple[tuple[float, ...], ...] | None = None

    @property
    def residual(self) -> int | None:
        """The source that a learned layer adds to its output: the first that it reads at the pixel itself."""
        return None if self.fixed else next((r.source for r in self.reads if HERE in r.taps), None)


Layers = tuple[Layer, ...]


def is_before(offset: Offset) -> bool:
    """Whether the pixel at this offset comes earlier in raster order.

    >>> is_before((-1, 5)), is_before((0, -1)), is_before((0, 0))
    (True, True, False)
    """
    return offset < HERE


def stack(depth: int) -> Layers:
    """Causal 2x3 taps, ``depth`` times: three above, one to the left and, after the first layer, the pixel itself.

    The window is a trapezoid: ``depth`` rows above, row ``i - k`` from column ``j - depth`` to ``j + k``.

    >>> sorted(reach(stack(1)))
    [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    """
    above_and_left = ((-1, -1), (-1, 0), (-1, 1), (0, -1))
    return tuple(Layer((Reads(level, above_and_left + ((HERE,) if level else ())),)) for level in range(depth))


def rectangle(columns: int, rows: int) -> Layers:
    """The paper's A x B window: a block A wide and B tall right above the pixel, and ceil((A-1)/2) pixels to its left.

    Vertical layers grow the block; horizontal layers carry it to the pixel and see what is to the left (Chen et al. 2017,
    arXiv:1611.02731, section 4.2; the 4x2 window has one vertical and two horizontal layers, 5x3 has 2/2, 7x4 has 3/3).

    >>> reach(rectangle(4, 2)) == {(di, dj) for di in (-2, -1) for dj in (-2, -1, 0, 1)} | {(0, -2), (0, -1)}
    True
    """
    left, right = columns // 2, (columns - 1) // 2
    vertical = max(rows - 1, right, 1)
    layers: list[Layer] = []
    for level in range(1, vertical + 1):
        heights = ((-2, -1) if rows > 1 else (-1,)) if level == 1 else ((-1, 0) if level < rows else (0,))
        widths = (-1, 0, 1) if level <= right else (0,)
        layers.append(Layer((Reads(level - 1, tuple((di, dj) for di in heights for dj in widths)),)))
    for level in range(1, max(left, 1) + 1):
        block = Reads(level if level < right else vertical, (HERE, (0, -1)) if columns == 2 else (HERE,))
        before = Reads(IMAGE, ((0, -1),)) if level == 1 else Reads(len(layers), (HERE, (0, -1)))
        layers.append(Layer((before, block) if left else (block,)))
    return tuple(layers)


def everything(height: int, width: int) -> Layers:
    """Every earlier pixel of an image of this size: vertical and horizontal layers whose taps double their distance.

    >>> len(reach(everything(5, 7)) & {(di, dj) for di in range(-4, 1) for dj in range(-6, 7)})
    58
    """
    doublings = max(1, math.ceil(math.log2(max(height, width, 2))))
    steps = [2**k for k in range(doublings)]
    layers = [Layer((Reads(IMAGE, tuple((di, dj) for di in (-2, -1) for dj in (-1, 0, 1))),))]
    layers += [Layer((Reads(k + 1, tuple((di, dj) for di in (-d, 0) for dj in (-d, 0, d))),)) for k, d in enumerate(steps)]
    top = len(layers)
    layers.append(Layer((Reads(IMAGE, ((0, -1),)), Reads(top, (HERE,)))))
    layers += [Layer((Reads(top + 1 + k, (HERE, (0, -d))), Reads(top, (HERE,)))) for k, d in enumerate(steps)]
    return tuple(layers)


def with_pointwise(layers: Layers, count: int) -> Layers:
    """The same taps with ``count`` layers of 1x1 taps after each learned layer but the last: capacity without reach.

    >>> reach(with_pointwise(stack(3), 2)) == reach(stack(3)), len(with_pointwise(stack(3), 2))
    (True, 7)
    """
    out: list[Layer] = []
    now_at = {IMAGE: IMAGE}
    for number, layer in enumerate(layers, start=1):
        out.append(Layer(tuple(Reads(now_at[r.source], r.taps) for r in layer.reads), layer.fixed))
        more = 0 if layer.fixed or number == len(layers) else count
        out += [Layer((Reads(len(out) + k, (HERE,)),)) for k in range(more)]
        now_at[number] = len(out)
    return tuple(out)


def after(first: Layers, then: Layers) -> Layers:
    """Both in a row: what ``then`` reads of the image it reads of the last layer of ``first``."""
    moved = tuple(Layer(tuple(Reads(r.source + len(first), r.taps) for r in layer.reads), layer.fixed) for layer in then)
    return first + moved


def reaches(layers: Layers) -> list[frozenset[Offset]]:
    """The offsets of the image that each layer depends on, by adding up the taps along every path."""
    seen: list[frozenset[Offset]] = [frozenset({HERE})]
    for layer in layers:
        paths = ((a, b) for read in layer.reads for a in seen[read.source] for b in read.taps)
        seen.append(frozenset((a[0] + b[0], a[1] + b[1]) for a, b in paths))
    return seen[1:]


def reach(layers: Layers) -> frozenset[Offset]:
    """The offsets of the image that the last layer depends on: the window of the network.

    >>> reach(())
    frozenset()
    """
    return reaches(layers)[-1] if layers else frozenset()
