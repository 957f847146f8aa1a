"""Autoregressive flows between a code and noise of the same shape, for vectors (MADE) and for grids (masked convolutions).

A step maps y to ``(y - shift(y_before)) exp(-log_scale(y_before))``, all elements at once; its inverse goes element by element. Read as
z -> eps the flow is an autoregressive prior, whose density is fast; read as eps -> z an inverse autoregressive posterior, whose samples are
(Chen et al. 2017, arXiv:1611.02731, section 3.2).

B batch, D elements of a vector, K channels of a grid, H and W its height and width.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.core.causal import CausalNet, Seen
from vlae.core.layers import Conv, Linear
from vlae.core.taps import stack
from vlae.core.wavefront import Wavefront


class Mapped(NamedTuple):
    """A flow's value and the logarithm of its Jacobian's diagonal, element by element."""

    value: Tensor
    ladj: Tensor


class Made(nn.Module):
    """Shift and log scale of each element of a vector from the elements before it (Germain et al. 2015, arXiv:1502.03509).

    Hidden unit h sees the first ``degree(h)`` elements; element d is told by units of degree at most d. A context is given to all units.
    """

    def __init__(self, dims: int, hidden: int, layers: int, scaled: bool, context: int = 0) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError("a flow over a vector needs a hidden layer: at least 2 layers")
        if hidden < dims - 1:
            raise ValueError(f"a flow over {dims} dimensions needs at least {dims - 1} hidden units, or some would not see all before them")
        inner = (torch.arange(hidden) % max(1, dims - 1) + 1).sort().values
        degrees = [torch.arange(1, dims + 1), *[inner] * (layers - 1)]
        outer = torch.arange(dims).repeat(2 if scaled else 1)
        masks = [a[None, :] <= b[:, None] for a, b in zip(degrees, [*degrees[1:], outer], strict=True)]
        inner_linears = [MaskedLinear(mask, exact=n == 0) for n, mask in enumerate(masks[:-1])]
        linears = [*inner_linears, MaskedLinear(masks[-1], scale=0.1, exact=True)]
        self.linears: Sequence[MaskedLinear] = nn.ModuleList(linears)  # type: ignore[assignment]
        self.context = Linear(context, hidden) if context else None
        self.scaled = scaled
        self.last = [int((inner <= degree).sum()) for degree in range(dims + 1)]
        """how many hidden units of a layer see at most so many elements"""

    def forward(self, y: Float[Tensor, "B D"], context: Float[Tensor, "B M"] | None = None) -> tuple[Tensor, Tensor]:
        h = y
        for number, linear in enumerate(self.linears[:-1]):
            h = linear(h)
            if number == 0 and self.context is not None:
                h = h + self.context(context)
            h = F.relu(h)
        return _shift_and_log_scale(self.linears[-1](h), self.scaled)

    def inverse(self, value: Float[Tensor, "B D"], context: Float[Tensor, "B M"] | None = None) -> Float[Tensor, "B D"]:
        """The elements one after another: every unit is computed once, as soon as all that it reads is known."""
        sums = [linear.b.expand(len(value), -1).clone() for linear in self.linears]
        if self.context is not None:
            sums[0] += self.context(context)
        weights = [linear.weight().t() for linear in self.linears]
        if value.device.type != "cpu" or torch.is_grad_enabled():
            return self._one_by_one(value, sums, weights)
        from vlae.core import elements  # the compiler takes a while to load, and not every command draws

        whole, flat = torch.cat(sums, dim=1), torch.cat([w.flatten() for w in weights])
        return torch.from_numpy(elements.inverse(value.contiguous().numpy(), whole.numpy(), flat.numpy(), np.array(self.last), self.scaled))

    def _one_by_one(self, value: Float[Tensor, "B D"], sums: list[Tensor], weights: list[Tensor]) -> Float[Tensor, "B D"]:
        dims, units = value.shape[1], [after - before for before, after in pairwise(self.last)]
        # Everything is cut up at once: one cut at a time costs as much as the arithmetic.
        inputs = [[1] * dims, *[units] * (len(sums) - 1)]
        cut = [some.split(parts) for some, parts in zip(weights, inputs, strict=True)]
        hidden = [total.split(units, dim=1) for total in sums[:-1]]
        ends, given = sums[-1].unflatten(1, (-1, dims)).unbind(2), value.split(1, dim=1)
        known: list[Tensor] = []
        for d in range(dims):
            values = _unmapped(given[d], ends[d], self.scaled)
            known.append(values)
            for number, total in enumerate(sums):
                total.addmm_(values, cut[number][d])
                if number < len(hidden):
                    values = F.relu(hidden[number][d])
        return torch.cat(known, dim=1)


class MaskedLinear(Linear):
    """A weight-normalised linear map in which output o reads input i only where ``mask[o, i]``."""

    def __init__(self, mask: Tensor, scale: float = 1.0, exact: bool = False) -> None:
        super().__init__(mask.shape[1], mask.shape[0], scale, exact)
        self.register_buffer("mask", mask.to(self.v.dtype), persistent=False)

    def weight(self) -> Tensor:
        assert isinstance(self.mask, Tensor)
        v = self.v * self.mask
        # An output that may read nothing has no direction: its weights stay zero and its bias alone speaks.
        return v * (self.g / v.norm(dim=1).clamp_min(1e-6)).unsqueeze(1)


class MaskedGrid(nn.Module):
    """Shift and log scale of each position of a grid from the positions before it in raster order: causal convolutions of 2x3 taps."""

    def __init__(self, channels: int, hidden: int, layers: int, scaled: bool, context: int = 0) -> None:
        super().__init__()
        self.net = CausalNet(stack(layers), channels, hidden, code=context)
        self.out = Conv(hidden, channels * (2 if scaled else 1), kernel=1, scale=0.1, exact=True)
        self.scaled = scaled

    def forward(self, y: Float[Tensor, "B K H W"], context: Float[Tensor, "B M H W"] | None = None) -> tuple[Tensor, Tensor]:
        return _shift_and_log_scale(self.out(self.net(y, context).features), self.scaled)

    def inverse(self, value: Float[Tensor, "B K H W"], context: Float[Tensor, "B M H W"] | None = None) -> Float[Tensor, "B K H W"]:
        """The positions in wavefront order."""
        front, out, scaled = Wavefront(self.net, context, beside=value), self.out.pointwise(), self.scaled

        def write(seen: Seen, beside: Tensor) -> tuple[Tensor, Tensor]:
            y = _unmapped(beside, out(seen.features), scaled)
            return y, y

        return front.run(write)


def _shift_and_log_scale(numbers: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
    if not scaled:
        return numbers, torch.zeros_like(numbers)
    shift, log_scale = numbers.chunk(2, dim=1)
    # Bounded, so that an early step cannot blow up a code: a scale between exp(-2) and exp(2).
    return shift, 2 * torch.tanh(log_scale / 2)


def _unmapped(value: Tensor, numbers: Tensor, scaled: bool) -> Tensor:
    """What a step maps to ``value``, from the numbers that what comes before it tells."""
    if not scaled:
        return value + numbers
    shift, log_scale = _shift_and_log_scale(numbers, scaled)
    return torch.addcmul(shift, value, torch.exp(log_scale))


class Step(nn.Module):
    """One step of a flow; every other one reads the elements in reversed order."""

    def __init__(self, net: Made | MaskedGrid, reverse: bool) -> None:
        super().__init__()
        self.net, self.reverse = net, reverse

    def forward(self, y: Tensor, context: Tensor | None = None) -> Mapped:
        y, context = self._turned(y), self._turned_context(context)
        shift, log_scale = self.net(y, context)
        return Mapped(self._turned((y - shift) * torch.exp(-log_scale)), self._turned(-log_scale))

    def inverse(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        value, context = self._turned(value), self._turned_context(context)
        return self._turned(self.net.inverse(value, context))

    def _turned(self, y: Tensor) -> Tensor:
        return y.flip(list(range(1 if y.dim() == 2 else 2, y.dim()))) if self.reverse else y

    def _turned_context(self, context: Tensor | None) -> Tensor | None:
        return context if context is None or context.dim() == 2 else self._turned(context)


class Flow(nn.Module):
    """Steps in a row."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps: Sequence[Step] = nn.ModuleList(steps)  # type: ignore[assignment]

    def forward(self, y: Tensor, context: Tensor | None = None) -> Mapped:
        """The parallel direction: z -> eps for a prior, eps -> z for a posterior."""
        total = torch.zeros_like(y)
        for step in self.steps:
            y, ladj = step(y, context)
            total = total + ladj
        return Mapped(y, total)

    @torch.no_grad()
    def inverse(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """The sequential direction."""
        for step in reversed(self.steps):
            value = step.inverse(value, context)
        return value


def vector_flow(dims: int, steps: int, hidden: int, layers: int = 3, scaled: bool = False, context: int = 0) -> Flow:
    """Steps of MADEs; the paper's prior has 4 of 3 layers with 640 hidden units, mean-only."""
    return Flow([Step(Made(dims, hidden, layers, scaled, context), reverse=n % 2 == 1) for n in range(steps)])


def grid_flow(channels: int, steps: int, hidden: int, layers: int = 2, scaled: bool = False, context: int = 0) -> Flow:
    """Steps of masked convolutions; the paper's CIFAR-10 prior has 6 of 2 layers with 128 maps."""
    return Flow([Step(MaskedGrid(channels, hidden, layers, scaled, context), reverse=n % 2 == 1) for n in range(steps)])
