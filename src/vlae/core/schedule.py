"""When each layer of a causal network runs, and which pixels are worked on at one time.

Layer l is at pixel (i, j) at the time ``j + s i + a_l``. If every tap reads something earlier, all work of one time is independent: the pixels
of a slanted line. An image of H rows and W columns takes ``W + s (H - 1)`` times instead of ``H W``, and about ``W / s`` rows are under way at
once.
"""

from typing import NamedTuple

from vlae.core.taps import IMAGE, Layers, Reads


class Schedule(NamedTuple):
    """When each layer runs: at pixel (i, j) layer l runs at time ``j + slope i + lags[l]``."""

    slope: int
    lags: tuple[int, ...]
    """One for every source: 0 for the image, whose pixel is known at the end of its time, then the layers'."""


def schedule(layers: Layers, predictor: Reads | None = None) -> Schedule:
    """The schedule with the smallest slope: the longest path over the taps gives the lags, and the last layer may not be late.

    >>> from vlae.core.taps import stack, rectangle
    >>> schedule(stack(6)).slope, schedule(rectangle(5, 3)).slope, schedule(rectangle(7, 4)).slope
    (2, 3, 4)

    Raises:
        ValueError: no slope will do, since a pixel would be needed before it is written.
    """
    together = [*(layer.reads for layer in layers), *([(predictor,)] if predictor else [])]
    farthest = 2 + sum(max(abs(dj) for read in reads for _, dj in read.taps) for reads in together)
    for slope in range(1, farthest + 1):
        lags = [0]
        for layer in layers:
            lags.append(max(_earliest(read, lags, slope) for read in layer.reads))
        if lags[-1] <= 0 and (predictor is None or _earliest(predictor, lags, slope) <= 0):
            return Schedule(slope, tuple(lags))
    raise ValueError("these taps have no schedule: the network would need a pixel before it is written")


def _earliest(read: Reads, lags: list[int], slope: int) -> int:
    return max(lags[read.source] + dj + slope * di for di, dj in read.taps) + (1 if read.source == IMAGE else 0)


class Sweep:
    """The rows under way: each holds a slot from its begin, and hands it on to a row far below once it has been over for long.

    Args:
        plan: the schedule.
        height, width: of the image.
        above: how many rows up a tap reaches.
        depth: how many times are remembered.
    """

    def __init__(self, plan: Schedule, height: int, width: int, above: int, depth: int) -> None:
        self.plan, self.height, self.width = plan, height, width
        self.early, self.late = min(plan.lags), max(plan.lags)
        # Who takes over a slot finds it blank, and nobody still looks up into it. Beside the first row stands nothing.
        busy = -(-(width + depth + self.late - self.early) // plan.slope) + above + 1
        self.slots = min(height + above, busy)

    @property
    def times(self) -> range:
        """From the first layer's first pixel to the last pixel."""
        return range(self.early, self.width + self.plan.slope * (self.height - 1))

    def rows(self, time: int) -> range:
        """The rows of the pixels whose turn it is; of a layer, at the time less its lag. In row i that is column ``time - slope i``."""
        first = max(0, -((self.width - 1 - time) // self.plan.slope))
        return range(first, max(first, min(self.height - 1, time // self.plan.slope) + 1))
