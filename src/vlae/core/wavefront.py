"""Evaluate a causal network in wavefront order: everything that does not wait for one another at once.

Give layer l the time ``j + s i + a_l`` at pixel (i, j). If every tap reads something earlier, all work of one time is independent: the
pixels of a slanted line, in every image of the batch. An image of H rows and W columns takes ``W + s (H - 1)`` steps instead of
``H W``, and about the arithmetic of one pass over all pixels.

B batch, n active rows, H rows, D channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.causal import CausalNet, Seen, combine
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


Write = Callable[[Seen, Tensor, Tensor], Float[Tensor, "B K n"]]
"""From what is known about the active pixels ((B, C, n, 1) each) and their rows and columns: the image's values there."""


class _Columns:
    """The last few columns, in time, of one source: ``(depth, rows above + H, B, D)``."""

    def __init__(self, depth: int, above: int, like: Float[Tensor, "H B D"]) -> None:
        self.values = like.new_zeros(depth, above + like.shape[0], *like.shape[1:])
        self.above = above

    def put(self, time: int, rows: range, values: Float[Tensor, "n B D"]) -> None:
        column = self.values[time % len(self.values)]
        column.zero_()
        column[self.above + rows.start : self.above + rows.stop] = values

    def get(self, time: int, rows: range) -> Float[Tensor, "n B D"]:
        return self.values[time % len(self.values), self.above + rows.start : self.above + rows.stop]


class Wavefront:
    """A causal network ready to run in wavefront order over images of one size and batch."""

    def __init__(self, net: CausalNet, code: Float[Tensor, "B M H W"] | None, batch: int, height: int, width: int) -> None:
        self.net, self.height, self.width = net, height, width
        self.plan = schedule(net.layers, net.predictor)
        like = next(net.parameters()).detach()
        self.conditions = [None if c is None else c.permute(2, 3, 0, 1) for c in (net.condition(n, code) for n in range(len(net.layers)))]
        channels = [net.channels(source) for source in range(len(net.layers) + 1)]
        self.columns = [_Columns(self._depth(s), self._above(s), like.new_zeros(height, batch, c)) for s, c in enumerate(channels)]
        self.weights = [[(c.weight().flatten(1).t(), c.b) for c in convs] for convs in net.convs]

    def _readers(self, source: int) -> list[tuple[int, Reads]]:
        """Who reads a source, each with its lag."""
        readers = [(self.plan.lags[n + 1], r) for n, layer in enumerate(self.net.layers) for r in layer.reads]
        readers += [(0, self.net.predictor)] if self.net.predictor else []
        return [(lag, read) for lag, read in readers if read.source == source]

    def _depth(self, source: int) -> int:
        delays = (self._delay(lag, source, di, dj) for lag, read in self._readers(source) for di, dj in read.taps)
        return 1 + max([0, *delays, -self.plan.lags[source]])

    def _above(self, source: int) -> int:
        return max([0, *(-di for _, read in self._readers(source) for di, _ in read.taps)])

    def _delay(self, lag: int, source: int, di: int, dj: int) -> int:
        return lag - self.plan.lags[source] - dj - self.plan.slope * di

    def run(self, write: Write) -> None:
        """Visit every pixel once; ``write`` is told what is known there and gives the image's values, on which later pixels rest."""
        first = min(self.plan.lags)
        for time in range(first, self.width + self.plan.slope * (self.height - 1)):
            for number in range(len(self.net.layers)):
                self._advance(number, time)
            rows = self._active(time, 0)
            if rows:
                i = torch.arange(rows.start, rows.stop)
                j = time - self.plan.slope * i
                values = write(self._seen(time, rows), i, j)
                self.columns[IMAGE].put(time, rows, values.permute(2, 0, 1))
            else:
                self.columns[IMAGE].values[time % len(self.columns[IMAGE].values)].zero_()

    def _active(self, time: int, lag: int) -> range:
        """The rows whose pixel of this time lies inside the image."""
        now, slope = time - lag, self.plan.slope
        return range(max(0, -((self.width - 1 - now) // slope)), max(0, min(self.height, now // slope + 1)))

    def _gather(self, time: int, lag: int, read: Reads, rows: range) -> Float[Tensor, "n B D t"]:
        moved = ((di, time - self._delay(lag, read.source, di, dj)) for di, dj in sorted(read.taps))
        return torch.stack([self.columns[read.source].get(then, range(rows.start + di, rows.stop + di)) for di, then in moved], dim=-1)

    def _advance(self, number: int, time: int) -> None:
        layer, lag = self.net.layers[number], self.plan.lags[number + 1]
        rows = self._active(time, lag)
        column = self.columns[number + 1]
        if not rows:
            column.values[time % len(column.values)].zero_()
            return
        gathered = [self._gather(time, lag, read, rows) for read in layer.reads]
        if layer.fixed:
            pairs = [sorted(zip(r.taps, w, strict=True)) for r, w in zip(layer.reads, layer.fixed, strict=True)]
            column.put(time, rows, torch.stack([g @ g.new_tensor([w for _, w in p]) for g, p in zip(gathered, pairs, strict=True)]).sum(0))
            return
        column.put(time, rows, self._layer(number, time, rows, gathered))

    def _layer(self, number: int, time: int, rows: range, gathered: list[Tensor]) -> Float[Tensor, "n B D"]:
        layer, lag = self.net.layers[number], self.plan.lags[number + 1]
        parts = [torch.addmm(bias, g.flatten(2).flatten(0, 1), weight) for g, (weight, bias) in zip(gathered, self.weights[number], strict=True)]
        condition, residual = self.conditions[number], None
        if condition is not None:
            i = torch.arange(rows.start, rows.stop)
            condition = condition[i, time - lag - self.plan.slope * i].flatten(0, 1)
        if layer.residual is not None:
            then = time - self._delay(lag, layer.residual, 0, 0)
            residual = self.columns[layer.residual].get(then, rows).flatten(0, 1)
        return combine(parts, condition, residual).unflatten(0, (len(rows), -1))

    def _seen(self, time: int, rows: range) -> Seen:
        """What is known at the pixels of this time, as (B, channels, n, 1)."""
        features = self.columns[-1].get(time + self.plan.lags[-1], rows)
        prediction = None
        if self.net.predictor and self.net.prediction is not None:
            gathered = self._gather(time, 0, self.net.predictor, rows)
            prediction = torch.einsum("nbkt,pkt->nbp", gathered, self.net.prediction).permute(1, 2, 0).unsqueeze(-1)
        return Seen(features.permute(1, 2, 0).unsqueeze(-1), prediction)
