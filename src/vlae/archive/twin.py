"""The integer twin of a decoder: the same network in whole numbers (``whole``), so that every sum is exact and hence the same in any order,
anywhere. Real values are ``2^fraction`` times as large here, pixels are ``2 x - (L - 1)``, codes are multiples of ``2^-CODE_FRACTION``.

B batch, C channels, H and W height and width.
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

from vlae.archive.mixture import MEAN_STEP, WholeBitHead, WholeDistribution, WholeHead
from vlae.archive.whole import MOST, WholeConv, WholeElu, WholeGate, WholeOut, WholeResBlock, WholeTaps, WholeVectorMap
from vlae.core.causal import CausalNet, Gate
from vlae.core.decoder import Decoder
from vlae.core.distributions import Head, LogisticHead
from vlae.core.encoder import VectorMap
from vlae.core.layers import Conv, Linear, ResBlock, Upsample
from vlae.core.taps import IMAGE

EXACT = 2**24
"""Below it, float32 holds every whole number."""
CODE_FRACTION, CODE_MOST = 4, 511


def quantised(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A code in whole numbers."""
    return (z * 2**CODE_FRACTION).round().clamp(-CODE_MOST, CODE_MOST)


def back(z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The code that whole numbers stand for."""
    return z / 2**CODE_FRACTION


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

    def forward(self, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> WholeDistribution:
        return cast(WholeDistribution, super().forward(z, x))

    def image(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        return 2 * x - (self.head.levels - 1)


@torch.no_grad()
def twin(decoder: Decoder, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> Twin:
    """The integer twin of a trained decoder, calibrated on some images and their codes: values have room for a little more than these need.

    Raises:
        NotImplementedError: it has a part that has no twin.
        ValueError: its values or weights are too large for whole numbers.
    """
    if decoder.head.levels > 256 or decoder.window.context != "pixels":
        raise NotImplementedError("only images of at most 8 bits, seen as pixels, have a twin")
    return _Maker(_fraction(decoder, z, x)).twin(decoder)


def _fraction(decoder: Decoder, z: Tensor | None, x: Tensor) -> int:
    """The finest steps in which the values of these images, and a quarter more, do not exceed ``MOST``."""
    largest = 2.0**-20

    def look(module: nn.Module, given: tuple[Tensor, ...], value: Tensor) -> None:
        nonlocal largest
        largest = max(largest, value.abs().max().item())

    watched = [m for part in (decoder.code_map, decoder.net) if part for m in part.modules() if isinstance(m, Conv | Linear | ResBlock | Gate)]
    conditions = set(decoder.net.conditions.values())
    hooks = [module.register_forward_hook(look) for module in watched if module not in conditions]
    try:
        decoder(z, x)
    finally:
        for hook in hooks:
            hook.remove()
    if not math.isfinite(largest):
        raise ValueError("the decoder's values are not finite, or too large for whole numbers")
    return max(0, math.floor(math.log2(MOST / (1.25 * largest))))  # what is too large for that is cut off


class _Maker:
    """Makes the twins of modules whose values are in steps of ``2^-fraction``."""

    def __init__(self, fraction: int) -> None:
        self.fraction = fraction

    def twin(self, decoder: Decoder) -> Twin:
        whole = copy.deepcopy(decoder)
        whole.__class__ = Twin
        assert isinstance(whole, Twin)
        if whole.code_map is not None:
            if isinstance(whole.code_map, VectorMap):
                whole.code_map.__class__ = WholeVectorMap
                whole.code_map.elu, whole.code_map.second = WholeElu(self.fraction), self.conv(whole.code_map.second)  # type: ignore[assignment]
            whole.code_map.first = self.conv(whole.code_map.first, CODE_FRACTION, CODE_MOST)  # type: ignore[assignment]
            whole.code_map.up = nn.Sequential(*(self.module(module) for module in whole.code_map.up))
        self.net(whole.net, decoder.head.levels)
        head = _head(decoder.head, _prediction(whole.net, decoder.head.levels))
        whole.head, whole.out = head, self.out(whole.out, head)  # type: ignore[assignment]
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

    def conv(self, conv: Conv | Linear, fraction: int | None = None, most: int = MOST) -> WholeConv:
        """A convolution, or a linear map, whose input has its own ``fraction`` and ``most``, and whose output is values."""
        given = self.fraction if fraction is None else fraction
        weights, bias = conv.weight().double(), conv.b.double()
        scale = _largest(lambda s: _bound(weights * 2.0 ** (s - given), most) + (bias * 2.0**s).round().abs())
        whole = (weights * 2.0 ** (scale - given)).round().float(), (bias * 2.0**scale).round().float()
        maps = F.linear if isinstance(conv, Linear) else partial(_convolved, stride=conv.stride, padding=conv.padding)
        return WholeConv(maps, *whole, scale - self.fraction)

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

    def out(self, out: Conv, head: WholeHead | WholeBitHead) -> WholeOut:
        """The last layer: each of its numbers has a scale of its own."""
        factors, offsets = torch.tensor(head.rows(), dtype=torch.float64).unbind(1)
        weights, bias = out.weight().double().flatten(1) * factors.unsqueeze(1) * 2.0**-self.fraction, out.b.double() * factors + offsets
        parts = [_Part(w.unsqueeze(0), b.unsqueeze(0), 1.0, MOST) for w, b in zip(weights, bias, strict=True)]
        scales = torch.tensor([_largest(partial(_layer_bound, [part])) for part in parts], dtype=torch.float64)
        return WholeOut((weights * 2.0 ** scales.unsqueeze(1)).round().float(), (bias * 2.0**scales).round().float(), scales.float())


def _head(head: Head, prediction_shift: int) -> WholeHead | WholeBitHead:
    return WholeHead(head.levels, head.colours, head.components, prediction_shift) if isinstance(head, LogisticHead) else WholeBitHead()


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
    for scale in range(30, -30, -1):
        if (bound(scale) < EXACT).all():
            return scale
    raise ValueError("the decoder's weights are too large for whole numbers")
