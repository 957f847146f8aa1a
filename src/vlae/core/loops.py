"""The work of the wavefront on a CPU, in compiled loops (``step``): a layout as arrays, and the memory that the loops work in.

B batch, K channels of the image, k numbers kept of a pixel, M channels of the code map, N pixels (rows under way times B), P pixels of the
image, U numbers beside a pixel.
"""

from collections.abc import Iterator

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core import painting, step
from vlae.core.causal import Gate, Seen
from vlae.core.compiled import Array
from vlae.core.decoder import Decoder, Drawing
from vlae.core.distributions import LogisticHead
from vlae.core.layout import Layout
from vlae.core.painting import Painter
from vlae.core.step import Gating, Network, Shape, State

LEAST, AT_ONCE = 8, 128
"""So many pixels at once: products pay, and what a layer of common width reads and adds up for them stays in the cache."""

WITHOUT_A_STOP = 64
"""So many times in one go."""


class Loops:
    """Times one after another, for some images.

    Args:
        layout: of the network.
        code: the map of the code, pixel after pixel.
        beside: what stands beside each pixel.
    """

    def __init__(self, layout: Layout, code: Float[Tensor, "P B M"] | None, beside: Float[Tensor, "P B U"]) -> None:
        self.sweep = sweep = layout.sweep
        _, self.batch, numbers = beside.shape
        slots, like = sweep.slots * self.batch, layout.readers[0].weight.new_empty(0).cpu().numpy()
        least, at_once = (LEAST, AT_ONCE) if layout.together else (slots, slots)
        threads = numba.get_num_threads() if layout.together else 1
        self.shape = Shape(sweep.height, sweep.width, self.batch, sweep.slots, layout.plan.slope, sweep.early, sweep.late, least, at_once, threads)
        self.lag, self.net, self.gating = layout.plan.lags[-1], _network(layout, slots, at_once), _gating(layout.net.gate, like, at_once)
        rows = self.net.readers
        self.state = State(
            memory=np.zeros(self.net.blank + at_once * layout.net.width, like.dtype),
            code=np.zeros(0, like.dtype) if code is None else code.flatten().numpy(),
            beside=beside.flatten().numpy(),
            given=np.empty((threads, at_once * int(rows[:, 8].max())), like.dtype),
            sums=np.empty((threads, at_once * int(rows[:, 9].max())), like.dtype),
            features=np.empty((slots, layout.net.width), like.dtype),
            prediction=np.empty((slots, layout.net.inputs if layout.net.predictor else 0), like.dtype),
            told=np.empty((slots, numbers), like.dtype),
        )
        state, predicted = self.state, layout.net.predictor is not None
        self.features, self.told = (torch.from_numpy(some)[:, :, None, None] for some in (state.features, state.told))
        self.prediction = torch.from_numpy(state.prediction)[:, :, None, None] if predicted else None
        self.found: Array | None = None

    def advance(self, time: int) -> tuple[Seen, Float[Tensor, "N U 1 1"]]:
        """Let all layers work at their pixels of a time: what is then known of those to be written, and what is beside them."""
        n = step.advance(time, self.lag, self.shape, self.net, self.gating, self.state)
        return Seen(self.features[:n], None if self.prediction is None else self.prediction[:n]), self.told[:n]

    def lay(self, time: int, found: Float[Tensor, "N k 1 1"], values: Float[Tensor, "N K 1 1"]) -> None:
        """Take the image's values of a time, and keep what was found."""
        values, found = (some.reshape(len(some), -1).contiguous() for some in (values, found))
        if self.found is None:
            self.found = self._room(found.shape[1])
        step.lay(time, values.numpy(), self.shape, self.net, self.state)
        step.keep(time, found.numpy(), self.found, self.shape)

    def drawn(self, write: object) -> Float[Tensor, "P B C"] | None:
        """All pixels, where it is a decoder of real numbers that draws them: the loops know by themselves what to write."""
        if not (isinstance(write, Drawing) and type(write.decoder) is Decoder):
            return None
        painter = self._painter(write)
        found = self._room(painter.colours)
        for begin, end in self.stretches():
            painting.drawn(begin, end, self.lag, self.shape, self.net, self.gating, self.state, painter, found)
        return torch.from_numpy(found)

    def _room(self, numbers: int) -> Array:
        return np.empty((self.shape.height * self.shape.width, self.batch, numbers), self.state.memory.dtype)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """All times, some at a time: between them Python is asked whether somebody wants to stop."""
        times = self.sweep.times
        yield from ((begin, min(begin + WITHOUT_A_STOP, times.stop)) for begin in range(times.start, times.stop, WITHOUT_A_STOP))

    def _painter(self, drawing: Drawing) -> Painter:
        decoder, head, features = drawing.decoder, drawing.decoder.head, self.state.features
        weights, bias = decoder.out.weight().detach().flatten(1).t().contiguous().numpy(), decoder.out.b.detach().numpy()
        components = head.components if isinstance(head, LogisticHead) else 0
        room = (np.empty((len(features), numbers), features.dtype) for numbers in (head.outputs, head.colours, decoder.net.inputs))
        return Painter(weights, bias, head.levels, head.colours, components, decoder.net.inputs < head.colours, drawing.given, *room)

    def kept(self) -> Float[Tensor, "P B k"]:
        """All that was found."""
        assert self.found is not None
        return torch.from_numpy(self.found)


def _network(layout: Layout, slots: int, at_once: int) -> Network:
    rows: list[list[int]] = []
    first, begin = 0, 0
    for reader in layout.readers:
        source, residual = -1 if reader.source is None else reader.source, reader.residual
        after, link = first + len(reader.moments), (-1, 0) if residual is None else (residual.source, residual.delay)
        flags = int(reader.coded), int(reader.bias is not None)
        rows.append([source, reader.lag, *link, first, after, *flags, *reader.weight.shape, begin])
        first, begin = after, begin + reader.weight.numel()
    sizes = [depth * slots * channels for depth, channels in zip(layout.depths, layout.channels, strict=True)]
    none = layout.readers[0].weight.new_zeros(2 * layout.net.width)
    return Network(
        base=np.cumsum([0, *sizes[:-1]]),
        depth=np.array(layout.depths),
        channels=np.array(layout.channels),
        moments=np.array([moment for reader in layout.readers for moment in reader.moments]),
        readers=np.array(rows),
        weights=torch.cat([(reader.weight if reader.bias is None else _paired(reader.weight)).flatten() for reader in layout.readers]).numpy(),
        bias=torch.cat([(none if reader.bias is None else _paired(reader.bias)).repeat(at_once) for reader in layout.readers]).numpy(),
        blank=sum(sizes),
    )


def _paired(halves: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """What a gate multiplies, the one beside the other: so all gates of neighbours are one long loop."""
    return halves.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def _gating(gate: Gate, like: Array, at_once: int) -> Gating:
    if gate.whole is None:
        return Gating(like, like, like.dtype.type(0), like.dtype.type(0))
    table, steps, most = gate.whole
    rounder = 1.5 * 2.0 ** np.finfo(like.dtype).nmant
    return Gating(table.numpy(), _paired(steps).repeat(at_once).numpy(), like.dtype.type(most), like.dtype.type(rounder))
