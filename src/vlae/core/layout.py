"""A causal network in wavefront order: what each of its layers reads, as so many rows up and so many times ago, with all weights as matrices.

B batch, C channels of a source, D sums of a reader, H and W height and width, M channels of the code map, T taps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.causal import CausalNet
from vlae.core.schedule import Sweep, schedule
from vlae.core.taps import HERE, Offset, Reads


class Moment(NamedTuple):
    """A tap in time: a source, so many rows down, so many times ago."""

    source: int
    di: int
    delay: int


class Reader(NamedTuple):
    """Who reads: a layer, or the linear prediction (``source`` is None). What it adds up is ``weight`` times what its moments show, then the code."""

    source: int | None
    lag: int
    moments: tuple[Moment, ...]
    coded: bool
    """whether the code map stands behind the moments"""
    weight: Float[Tensor, "TC+M D"]
    bias: Float[Tensor, " D"] | None
    """None where there is no gate either: a fixed layer, or the prediction"""
    residual: Moment | None


class Layout:
    """The readers of a network over images of one size and batch, in the order in which they work at each time.

    Of every source the last ``depth`` columns are remembered, each with a place for the rows under way.

    Args:
        net: the network.
        known: channels of the code map, 0 for none.
        height, width: of the images.
    """

    def __init__(self, net: CausalNet, known: int, height: int, width: int) -> None:
        self.net, self.known, self.plan = net, known, schedule(net.layers, net.predictor)
        self.readers = [*self._layers(), *self._prediction()]
        moments = [m for reader in self.readers for m in (*reader.moments, *([reader.residual] if reader.residual else []))]
        self.depths = [1 + max([0, *(m.delay for m in moments if m.source == source)]) for source in range(len(net.layers) + 1)]
        # What is known of a pixel is asked for at the end, though the last layer may have been there before.
        self.depths[-1] = max(self.depths[-1], 1 - self.plan.lags[-1])
        self.together = all(m.di == 0 for m in moments if m.delay == 0)
        """whether at one time no pixel waits for another"""
        self.sweep = Sweep(self.plan, height, width, max(0, *(-m.di for m in moments)), max(self.depths))

    @property
    def channels(self) -> list[int]:
        """Of every source."""
        return [self.net.channels(source) for source in range(len(self.depths))]

    def _moments(self, lag: int, read: Reads, taps: tuple[Offset, ...]) -> tuple[Moment, ...]:
        ago = lag - self.plan.lags[read.source]
        return tuple(Moment(read.source, di, ago - dj - self.plan.slope * di) for di, dj in taps)

    def _layers(self) -> Iterator[Reader]:
        for number, (layer, lag) in enumerate(zip(self.net.layers, self.plan.lags[1:], strict=True)):
            if layer.fixed is not None:
                moments = tuple(m for read in layer.reads for m in self._moments(lag, read, read.taps))
                each = torch.eye(self.net.inputs, dtype=self._like.dtype, device=self._like.device)
                weight = torch.cat([w * each for weights in layer.fixed for w in weights])
                yield Reader(number + 1, lag, moments, False, weight, None, None)
                continue
            convs = self.net.convs[number]
            moments = tuple(m for read, conv in zip(layer.reads, convs, strict=True) for m in self._moments(lag, read, conv.taps))
            coded = self.known > 0 and str(number) in self.net.conditions
            weight, bias = self.net.matrix(number, coded)
            residual = None if layer.residual is None else self._moments(lag, Reads(layer.residual, (HERE,)), (HERE,))[0]
            yield Reader(number + 1, lag, moments, coded, weight.detach(), bias.detach(), residual)

    def _prediction(self) -> Iterator[Reader]:
        read, weights = self.net.predictor, self.net.prediction
        if read is not None and weights is not None:
            weight = torch.cat([w.t() for w in weights.unbind(2)]).detach()
            yield Reader(None, 0, self._moments(0, read, read.taps), False, weight, None, None)

    @property
    def _like(self) -> Tensor:
        return next(conv.b for convs in self.net.convs for conv in convs)
