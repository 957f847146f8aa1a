"""The modules of a network of whole numbers.

Weights and values are integers held in floats. For every output ``sum |w| max|a| + |b| < 2^24``, so no partial sum is ever rounded in
float32; sums are brought back to small integers by powers of two and rounding; what is no sum is a table (``tables``).

B batch, C channels, D twice the width, N pixels, H and W height and width.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.archive.tables import elu, sigmoid, table
from vlae.core.causal import Gate, Whole
from vlae.core.encoder import VectorMap
from vlae.core.layers import TapConv

MOST = 2047
"""of values: ``|v| <= MOST``, which stands for ``MOST / 2^fraction``"""
GATE_FRACTION, GATE_SCALE = 5, 1024


def rounder(dtype: torch.dtype) -> float:
    """A number so large that what is added to it is rounded to the nearest whole number, of two the even one."""
    return 1.5 * 2.0 ** {torch.float32: 23, torch.float64: 52}[dtype]


class WholeConv(nn.Module):
    """A convolution of whole numbers, or one read of a layer: ``2^scale`` times the sums of the real one.

    Args:
        convolve: how it reads its input, given weights.
        weights, bias: whole numbers.
        shift: by so many powers of two its sums are lowered to values, with one rounding to the nearest; None to leave them as they are.
    """

    def __init__(self, convolve: Callable[[Tensor, Tensor, Tensor], Tensor], weights: Tensor, bias: Tensor, shift: int | None = None) -> None:
        super().__init__()
        self.convolve = convolve
        self.register_buffer("w", weights)
        self.register_buffer("b", bias)
        self.register_buffer("step", None if shift is None else torch.tensor(2.0**-shift, dtype=weights.dtype))

    def weight(self) -> Tensor:
        """The weights."""
        assert isinstance(self.w, Tensor)
        return self.w

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.b, Tensor)
        sums = self.convolve(x, self.weight(), self.b)
        return sums.mul_(self.step).round_().clamp_(-MOST, MOST) if isinstance(self.step, Tensor) else sums


class WholeElu(nn.Module):
    """``elu`` from a table."""

    def __init__(self, fraction: int) -> None:
        super().__init__()
        negative = table(elu, -MOST, 0, 2**fraction, 2**fraction)
        self.register_buffer("table", torch.cat([negative, torch.arange(1, MOST + 1)]).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.table, Tensor)
        return torch.index_select(self.table, 0, (x + MOST).to(torch.int32).flatten()).view(x.shape)


class WholeResBlock(nn.Module):
    """A residual block of whole numbers."""

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: Callable[[Tensor], Tensor], fraction: int) -> None:
        super().__init__()
        self.first, self.second, self.shortcut, self.elu = first, second, shortcut, WholeElu(fraction)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        return (self.shortcut(x) + self.second(self.elu(self.first(self.elu(x))))).clamp(-MOST, MOST)


class WholeDenseBlock(nn.Module):
    """A dense block of whole numbers."""

    def __init__(self, steps: Iterable[nn.Module], merge: nn.Module, fraction: int) -> None:
        super().__init__()
        self.steps, self.merge, self.elu = nn.ModuleList(steps), merge, WholeElu(fraction)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        for step in self.steps:
            x = torch.cat([x, step(self.elu(x))], dim=1)
        return self.merge(self.elu(x))


class WholeGate(Gate):
    """``residual + a sigmoid(b)`` of the halves of sums in steps of ``2^-scales``; the sigmoid is a table.

    Both halves are brought to whole numbers at once, by adding a number so large that only these are left; the bits of the sum then tell the
    place in the table.
    """

    def __init__(self, scales: Float[Tensor, " D"], fraction: int, dtype: torch.dtype) -> None:
        super().__init__()
        fractions = torch.tensor([fraction, GATE_FRACTION]).repeat_interleave(len(scales) // 2)
        self.register_buffer("steps", (2.0 ** (fractions - scales)).to(dtype))
        opened = table(sigmoid, -MOST, MOST, 2**GATE_FRACTION, GATE_SCALE).to(dtype) / GATE_SCALE
        self.register_buffer("table", opened, persistent=False)

    @property
    def whole(self) -> Whole:
        """What the compiled loops need to know."""
        assert isinstance(self.table, Tensor) and isinstance(self.steps, Tensor)
        return Whole(self.table, self.steps, MOST)

    def forward(self, total: Float[Tensor, "B D ..."], residual: Float[Tensor, "B C ..."] | None) -> Float[Tensor, "B C ..."]:
        rows = total.movedim(1, -1)
        kept = None if residual is None else residual.movedim(1, -1)
        return self._of_rows(rows.clone(), kept).movedim(-1, 1)

    def _of_rows(self, total: Float[Tensor, "... D"], residual: Float[Tensor, "... C"] | None) -> Float[Tensor, "... C"]:
        table, steps, most = self.whole
        large, kind = rounder(total.dtype), torch.int32 if total.dtype == torch.float32 else torch.int64
        first = int(total.new_tensor(large - most).view(kind))
        torch.addcmul(total.new_tensor(large), total, steps, out=total).clamp_(large - most, large + most)
        shown, gate = total.chunk(2, dim=-1)
        opened = table[gate.contiguous().view(kind) - first]
        out = torch.full_like(opened, large) if residual is None else residual + large
        return out.addcmul_(shown.sub_(large), opened).sub_(large).clamp_(-most, most)


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

    def parts(self) -> tuple[Float[Tensor, "C O"], Float[Tensor, " O"], Float[Tensor, " O"]]:
        """Weights, bias, and what each sum is multiplied with before it is rounded."""
        assert isinstance(self.w, Tensor) and isinstance(self.b, Tensor) and isinstance(self.step, Tensor)
        return self.w.t(), self.b, self.step

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        weights, bias, step = self.parts()
        return (F.conv2d(x, weights.t()[:, :, None, None], bias) * step.view(1, -1, 1, 1)).round_()

    def pointwise(self) -> Callable[[Tensor], Tensor]:
        """The same for images of one pixel."""
        weights, bias, step = self.parts()
        return lambda x: torch.addmm(bias, x.view(len(x), -1), weights).mul_(step).round_().view(len(x), -1, 1, 1)
