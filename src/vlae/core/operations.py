"""The work of the wavefront as tensor operations, for a GPU: what a layer reads at all its pixels of a time, one product, the gate.

B batch, C channels of a source, K channels of the image, k numbers kept of a pixel, M channels of the code map, N pixels (rows under way
times B), P pixels of the image, U numbers beside a pixel.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.causal import Seen
from vlae.core.layout import Layout, Moment, Reader


class Operations:
    """Times one after another, for some images.

    Args:
        layout: of the network.
        code: the map of the code, pixel after pixel.
        beside: what stands beside each pixel.
    """

    def __init__(self, layout: Layout, code: Float[Tensor, "P B M"] | None, beside: Float[Tensor, "P B U"]) -> None:
        self.layout, self.code, self.beside, self.batch = layout, code, beside, beside.shape[1]
        slots, like = layout.sweep.slots, layout.readers[0].weight
        self.columns = [like.new_zeros(d, slots, self.batch, c) for d, c in zip(layout.depths, layout.channels, strict=True)]
        self.ring = torch.arange(2 * slots, device=like.device) % slots
        self.found: Tensor | None = None

    def advance(self, time: int) -> tuple[Seen, Float[Tensor, "N U 1 1"]]:
        """Let all layers work at their pixels of a time: what is then known of those to be written, and what is beside them."""
        prediction = None
        for columns in self.columns:
            columns[time % len(columns)].zero_()
        for reader in self.layout.readers:
            rows = self.layout.sweep.rows(time - reader.lag)
            if reader.source is None:
                prediction = _images(self._read(reader, time, rows) @ reader.weight)
                continue
            column = self.columns[reader.source][time % len(self.columns[reader.source])]
            if rows:
                column.index_copy_(0, self._slots(rows), self._value(reader, time, rows).view(len(rows), self.batch, -1))
        rows = self.layout.sweep.rows(time)
        last = Moment(len(self.columns) - 1, 0, -self.layout.plan.lags[-1])
        return Seen(_images(self._at(last, time, rows)), prediction), _images(self.beside[self._pixels(time, rows)].flatten(0, 1))

    def lay(self, time: int, found: Float[Tensor, "N k 1 1"], values: Float[Tensor, "N K 1 1"]) -> None:
        """Take the image's values of a time, and keep what was found."""
        rows = self.layout.sweep.rows(time)
        column = self.columns[0][time % len(self.columns[0])]
        column.index_copy_(0, self._slots(rows), values.view(len(rows), self.batch, -1))
        if self.found is None:
            self.found = found.new_empty(*self.beside.shape[:2], found.shape[1])
        self.found[self._pixels(time, rows)] = found.view(len(rows), self.batch, -1)

    def kept(self) -> Float[Tensor, "P B k"]:
        """All that was found."""
        assert self.found is not None
        return self.found

    def _value(self, reader: Reader, time: int, rows: range) -> Float[Tensor, "N C"]:
        """What a layer makes of what it reads."""
        read = self._read(reader, time, rows)
        if reader.bias is None:
            return read @ reader.weight
        total = torch.addmm(reader.bias, read, reader.weight)
        residual = None if reader.residual is None else _images(self._at(reader.residual, time, rows))
        return self.layout.net.gate(_images(total), residual).flatten(1)

    def _read(self, reader: Reader, time: int, rows: range) -> Float[Tensor, "N T"]:
        parts = [self._at(moment, time, rows) for moment in reader.moments]
        if reader.coded and self.code is not None:
            parts.append(self.code[self._pixels(time - reader.lag, rows)].flatten(0, 1))
        return torch.cat(parts, dim=1)

    def _at(self, moment: Moment, time: int, rows: range) -> Float[Tensor, "N C"]:
        columns = self.columns[moment.source]
        there = range(rows.start + moment.di, rows.stop + moment.di)
        return columns[(time - moment.delay) % len(columns)].index_select(0, self._slots(there)).flatten(0, 1)

    def _slots(self, rows: range) -> Tensor:
        """The places of some rows; above the first one stands nothing."""
        first = rows.start % self.layout.sweep.slots
        return self.ring[first : first + len(rows)]

    def _pixels(self, time: int, rows: range) -> slice:
        """The pixels of some rows at a time: they stand in even steps (where the image is narrower than the slope, there is one at most)."""
        step = self.layout.sweep.width - self.layout.plan.slope
        first = rows.start * step + time
        return slice(first, first + max(1, step) * (len(rows) - 1) + 1, max(1, step)) if rows else slice(0, 0)


def _images(values: Float[Tensor, "N C"]) -> Float[Tensor, "N C 1 1"]:
    """Pixels as images of one pixel each."""
    return values[:, :, None, None]
