"""The integer twin of a decoder: the same network in whole numbers, whose every sum is exact and hence the same in any order, anywhere.

Weights and values are integers held in floats. For every output ``sum |w| max|a| + |b| < 2^24``, so no partial sum is ever rounded in
float32; sums are brought back to small integers by powers of two and rounding; what is no sum is a table (``tables``). Real values are
``2^fraction`` times as large here, pixels are ``2 x - (L - 1)``, codes are multiples of ``2^-CODE_FRACTION``.

B batch, C channels, D twice the width, N pixels, H and W height and width.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.archive.mixture import MEAN_STEP, WholeHead, WholeMixture
from vlae.archive.tables import elu, sigmoid, table
from vlae.core.causal import CausalNet, Gate, Operation
from vlae.core.decoder import Decoder
from vlae.core.distributions import LogisticHead
from vlae.core.encoder import GridMap
from vlae.core.layers import Conv, ResBlock, TapConv, Upsample
from vlae.core.taps import IMAGE

EXACT = 2**24
"""Below it, float32 holds every whole number."""
MOST = 2047
"""of values: ``|v| <= MOST``, which stands for ``MOST / 2^fraction``"""
CODE_FRACTION, CODE_MOST = 4, 511
GATE_FRACTION, GATE_MOST, GATE_SCALE = 5, 256, 1024


def quantised(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A code in whole numbers."""
    return (z * 2**CODE_FRACTION).round().clamp(-CODE_MOST, CODE_MOST)


def back(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The code that whole numbers stand for."""
    return z / 2**CODE_FRACTION


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

    def bound(self, sums: Float[Tensor, "N D"], residual: Float[Tensor, "N C"] | None, out: Float[Tensor, "N C"]) -> list[Operation]:
        """The same for some pixels, as operations that are repeated."""
        assert isinstance(self.table, Tensor)
        shown, gate = sums.chunk(2, dim=1)
        places, opened = torch.empty(gate.shape, dtype=torch.long, device=sums.device), torch.empty_like(gate)
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


class _Part(NamedTuple):
    """What a layer adds up: weights, bias, what the weights are multiplied with besides the scale, and how large their inputs can become."""

    weights: Tensor
    bias: Tensor
    factor: float
    most: int


class Twin(Decoder):
    """A decoder of whole numbers: it takes whole codes, and its distributions are whole mixtures."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the floats that hold its whole numbers."""
        return next(buffer for buffer in self.out.buffers()).dtype

    def forward(self, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> WholeMixture:
        return cast(WholeMixture, super().forward(z, x))

    def image(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        return 2 * x - (self.head.levels - 1)


@torch.no_grad()
def twin(decoder: Decoder, z: Float[Tensor, "B K h w"] | None, x: Float[Tensor, "B C H W"]) -> Twin:
    """The integer twin of a trained decoder, calibrated on some images and their codes: values have room for a little more than these need.

    Raises:
        NotImplementedError: it has a part that has no twin.
    """
    head, code_map = decoder.head, decoder.code_map
    if not isinstance(head, LogisticHead) or head.colours != 1 or head.levels != 256 or decoder.window.context != "pixels":
        raise NotImplementedError("only 8-bit grey images seen as pixels")
    if code_map is not None and not isinstance(code_map, GridMap):
        raise NotImplementedError("only grid codes")
    return _Maker(_fraction(decoder, z, x)).twin(decoder)


def _fraction(decoder: Decoder, z: Tensor | None, x: Tensor) -> int:
    """The finest steps in which the values of these images, and a quarter more, do not exceed ``MOST``."""
    largest = 2.0**-20

    def look(module: nn.Module, given: tuple[Tensor, ...], value: Tensor) -> None:
        nonlocal largest
        largest = max(largest, value.abs().max().item())

    watched = [m for part in (decoder.code_map, decoder.net) if part for m in part.modules() if isinstance(m, Conv | ResBlock | Gate)]
    conditions = set(decoder.net.conditions.values())
    hooks = [module.register_forward_hook(look) for module in watched if module not in conditions]
    try:
        decoder(z, x)
    finally:
        for hook in hooks:
            hook.remove()
    return math.floor(math.log2(MOST / (1.25 * largest)))


class _Maker:
    """Makes the twins of modules whose values are in steps of ``2^-fraction``."""

    def __init__(self, fraction: int) -> None:
        self.fraction = fraction

    def twin(self, decoder: Decoder) -> Twin:
        head, whole = decoder.head, copy.deepcopy(decoder)
        assert isinstance(head, LogisticHead)
        whole.__class__ = Twin
        assert isinstance(whole, Twin)
        if isinstance(whole.code_map, GridMap):
            whole.code_map.first = self.conv(whole.code_map.first, CODE_FRACTION, CODE_MOST)  # type: ignore[assignment]
            whole.code_map.up = nn.Sequential(*(self.module(module) for module in whole.code_map.up))
        self.net(whole.net, head.levels)
        shift = _prediction(whole.net, head.levels)
        whole.head = WholeHead(head.levels, head.components, shift)  # type: ignore[assignment]
        whole.out = self.out(whole.out, whole.head)  # type: ignore[arg-type,assignment]
        return whole.requires_grad_(False)

    def module(self, module: nn.Module) -> nn.Module:
        """The twin of a module of the code map."""
        if isinstance(module, Conv):
            return self.conv(module)
        if isinstance(module, nn.ELU):
            return WholeElu(self.fraction)
        if isinstance(module, Upsample):
            module.conv = self.conv(module.conv)  # type: ignore[assignment]
            return module
        if isinstance(module, ResBlock):
            shortcut = self.conv(module.shortcut) if isinstance(module.shortcut, Conv) else module.shortcut
            return WholeResBlock(self.conv(module.first), self.conv(module.second), shortcut, self.fraction)
        raise NotImplementedError(f"{type(module).__name__} has no twin")

    def conv(self, conv: Conv, fraction: int | None = None, most: int = MOST) -> WholeConv:
        """A convolution whose input has its own ``fraction`` and ``most``, and whose output is values."""
        given = self.fraction if fraction is None else fraction
        weights, bias = conv.weight().double(), conv.b.double()
        scale = _largest(lambda s: _bound(weights * 2.0 ** (s - given), most) + (bias * 2.0**s).round().abs())
        whole = (weights * 2.0 ** (scale - given)).round().float(), (bias * 2.0**scale).round().float()
        return WholeConv(partial(_convolved, stride=conv.stride, padding=conv.padding), *whole, scale - self.fraction)

    def net(self, net: CausalNet, levels: int) -> None:
        """Turn a causal network into whole numbers: all its layers have sums of one scale."""
        per_layer = [self.parts(net, number, levels) for number in range(len(net.layers))]
        scale = min((_largest(partial(_layer_bound, parts)) for parts in per_layer), default=0)
        for number, parts in enumerate(per_layer):
            wholes = [((w * 2.0**scale * factor).round().float(), (b * 2.0**scale).round().float()) for w, b, factor, _ in parts]
            for k, conv in enumerate(net.convs[number]):
                net.convs[number][k] = WholeTaps(conv, *wholes[k])  # type: ignore[index]
            if str(number) in net.conditions:
                net.conditions[str(number)] = WholeConv(partial(_convolved, stride=1, padding=0), *wholes[-1])
        net.gate = WholeGate(scale, self.fraction)  # type: ignore[assignment]

    def parts(self, net: CausalNet, number: int, levels: int) -> list[_Part]:
        """What a layer adds up: its reads, and the code."""
        parts: list[_Part] = []
        for read, conv in zip(net.layers[number].reads, net.convs[number], strict=True):
            of_pixels = read.source == IMAGE
            factor, most = (1 / (levels - 1), levels - 1) if of_pixels else (2.0**-self.fraction, MOST)
            parts.append(_Part(conv.weight().double(), conv.b.double(), factor, most))
        if str(number) in net.conditions:
            condition = cast(Conv, net.conditions[str(number)])
            parts.append(_Part(condition.weight().double(), condition.b.double(), 2.0**-self.fraction, MOST))
        return parts

    def out(self, out: Conv, head: WholeHead) -> WholeOut:
        """The last layer: each of its numbers has a scale of its own."""
        factors, offsets = torch.tensor(head.rows(), dtype=torch.float64).unbind(1)
        weights, bias = out.weight().double().flatten(1) * factors.unsqueeze(1) * 2.0**-self.fraction, out.b.double() * factors + offsets
        parts = [_Part(w.unsqueeze(0), b.unsqueeze(0), 1.0, MOST) for w, b in zip(weights, bias, strict=True)]
        scales = torch.tensor([_largest(partial(_layer_bound, [part])) for part in parts], dtype=torch.float64)
        return WholeOut((weights * 2.0 ** scales.unsqueeze(1)).round().float(), (bias * 2.0**scales).round().float(), scales.float())


def _prediction(net: CausalNet, levels: int) -> int:
    """Turn the linear prediction into whole numbers, and tell by how many powers of two its sums are sixteenths of a level."""
    if net.prediction is None:
        return 0
    weights = net.prediction.double() * MEAN_STEP / 2
    shift = _largest(lambda s: _bound(weights * 2.0**s, levels - 1))
    net.prediction = nn.Parameter((weights * 2.0**shift).round().float(), requires_grad=False)
    return shift


def _convolved(x: Tensor, weights: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    return F.conv2d(x, weights, bias, stride, padding)


def _bound(weights: Tensor, most: int) -> Tensor:
    """How large the sum of each output can become."""
    return weights.round().abs().flatten(1).sum(1) * most


def _layer_bound(parts: Sequence[_Part], scale: int) -> Tensor:
    return torch.stack([_bound(w * 2.0**scale * factor, most) + (b * 2.0**scale).round().abs() for w, b, factor, most in parts]).sum(0)


def _largest(bound: Callable[[int], Tensor]) -> int:
    """The largest scale at which every sum is exact."""
    return next(scale for scale in range(30, -30, -1) if (bound(scale) < EXACT).all())
