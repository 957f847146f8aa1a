"""The modules of a network of whole numbers.

Weights and values are integers held in floats. For every output ``sum |w| max|a| + |b| < 2^24``, so no partial sum is ever rounded in
float32; sums are brought back to small integers by powers of two and rounding; what is no sum is a table (``tables``).

B batch, C channels, D twice the width, N pixels, H and W height and width.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.archive.tables import elu, sigmoid, table
from vlae.core.causal import Operation
from vlae.core.encoder import VectorMap
from vlae.core.layers import TapConv

MOST = 2047
"""of values: ``|v| <= MOST``, which stands for ``MOST / 2^fraction``"""
GATE_FRACTION, GATE_MOST, GATE_SCALE = 5, 256, 1024


def lowered(sums: Tensor, shift: int | Tensor) -> Tensor:
    """Sums in steps of ``2^-shift``, brought back to whole numbers of 1: exact but for one rounding to the nearest."""
    return torch.mul(sums, 2.0**-shift).round_()


class WholeConv(nn.Module):
    """A convolution of whole numbers, or one read of a layer: ``2^scale`` times the sums of the real one.

    Args:
        convolve: how it reads its input, given weights.
        weights, bias: whole numbers.
        shift: by so many powers of two its sums are lowered to values; None to leave them as they are.
    """

    def __init__(self, convolve: Callable[[Tensor, Tensor, Tensor], Tensor], weights: Tensor, bias: Tensor, shift: int | None = None) -> None:
        super().__init__()
        self.convolve, self.shift = convolve, shift
        self.register_buffer("w", weights)
        self.register_buffer("b", bias)

    def weight(self) -> Tensor:
        """The weights."""
        assert isinstance(self.w, Tensor)
        return self.w

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.b, Tensor)
        sums = self.convolve(x, self.weight(), self.b)
        return sums if self.shift is None else lowered(sums, self.shift).clamp_(-MOST, MOST)


class WholeElu(nn.Module):
    """``elu`` from a table."""

    def __init__(self, fraction: int) -> None:
        super().__init__()
        self.register_buffer("table", table(elu, -MOST, 0, 2**fraction, 2**fraction).float())

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.table, Tensor)
        return self.table[(x.clamp(max=0) + MOST).long()] + x.clamp(min=0)


class WholeResBlock(nn.Module):
    """A residual block of whole numbers."""

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: Callable[[Tensor], Tensor], fraction: int) -> None:
        super().__init__()
        self.first, self.second, self.shortcut, self.elu = first, second, shortcut, WholeElu(fraction)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        return (self.shortcut(x) + self.second(self.elu(self.first(self.elu(x))))).clamp(-MOST, MOST)


class WholeGate(nn.Module):
    """``residual + a sigmoid(b)`` of sums in steps of ``2^-scale``; the sigmoid is a table."""

    def __init__(self, scale: int, fraction: int) -> None:
        super().__init__()
        self.to_value, self.to_gate = 2.0 ** (fraction - scale), 2.0 ** (GATE_FRACTION - scale)
        self.register_buffer("table", table(sigmoid, -GATE_MOST, GATE_MOST, 2**GATE_FRACTION, GATE_SCALE).float())

    def forward(self, total: Float[Tensor, "B D ..."], residual: Float[Tensor, "B C ..."] | None) -> Float[Tensor, "B C ..."]:
        assert isinstance(self.table, Tensor)
        shown, gate = total.chunk(2, dim=1)
        opened = self.table[((gate * self.to_gate).round_().clamp_(-GATE_MOST, GATE_MOST) + GATE_MOST).long()]
        out = (shown * self.to_value).round_().clamp_(-MOST, MOST).mul_(opened).mul_(1 / GATE_SCALE).round_()
        return out if residual is None else out.add_(residual).clamp_(-MOST, MOST)

    def bound(
        self, shown: Float[Tensor, "N C"], gate: Float[Tensor, "N C"], residual: Float[Tensor, "N C"] | None, out: Float[Tensor, "N C"]
    ) -> list[Operation]:
        """The same for some pixels, as operations that are repeated."""
        assert isinstance(self.table, Tensor)
        places, opened = torch.empty(gate.shape, dtype=torch.long, device=gate.device), torch.empty_like(gate)
        work: list[Operation] = [
            partial(gate.mul_, self.to_gate),
            gate.round_,
            partial(gate.clamp_, -GATE_MOST, GATE_MOST),
            partial(gate.add_, GATE_MOST),
            partial(places.copy_, gate),
            partial(torch.take, self.table, places, out=opened),
            partial(shown.mul_, self.to_value),
            shown.round_,
            partial(shown.clamp_, -MOST, MOST),
            partial(shown.mul_, opened),
            partial(shown.mul_, 1 / GATE_SCALE),
            shown.round_,
        ]
        if residual is None:
            return [*work, partial(out.copy_, shown)]
        return [*work, partial(shown.add_, residual), partial(torch.clamp, shown, -MOST, MOST, out=out)]


class WholeVectorMap(VectorMap):
    """A vector code as a map of the image's size, in whole numbers."""

    elu: WholeElu

    def forward(self, z: Float[Tensor, "B D"], image: tuple[int, int]) -> Float[Tensor, "B M H W"]:
        h = self.second(self.elu(self.first(z))).unflatten(1, (-1, self.rows, self.columns))
        return self.up(h)[:, :, : image[0], : image[1]]


class WholeTaps(WholeConv):
    """What a layer reads of one source."""

    def __init__(self, conv: TapConv, weights: Tensor, bias: Tensor) -> None:
        super().__init__(conv.grid.convolve, weights, bias)
        self.taps = conv.taps


class WholeOut(nn.Module):
    """The numbers of a head, each with a scale of its own."""

    def __init__(self, weights: Tensor, bias: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("w", weights)
        self.register_buffer("b", bias)
        self.register_buffer("step", 2.0**-scales)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        assert isinstance(self.w, Tensor) and isinstance(self.b, Tensor) and isinstance(self.step, Tensor)
        return (F.conv2d(x, self.w[:, :, None, None], self.b) * self.step.view(1, -1, 1, 1)).round_()

    def pointwise(self) -> Callable[[Tensor], Tensor]:
        """The same for images of one pixel."""
        assert isinstance(self.w, Tensor) and isinstance(self.b, Tensor) and isinstance(self.step, Tensor)
        weights, bias, step = self.w.t(), self.b, self.step
        return lambda x: torch.addmm(bias, x.view(len(x), -1), weights).mul_(step).round_().view(len(x), -1, 1, 1)
