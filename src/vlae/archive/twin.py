"""The integer twin of a decoder: the same network in whole numbers (``whole``), so that every sum is exact and hence the same in any order,
anywhere. Real values are powers of two times as large here, those of the layers with a gain for each channel besides; pixels are
``2 x - (L - 1)``, codes are multiples of ``2^-CODE_FRACTION``.

B batch, C channels, H and W height and width.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.archive.mixture import MEAN_STEP, WholeBitHead, WholeDistribution, WholeHead
from vlae.archive.whole import MOST, WholeConv, WholeDenseBlock, WholeElu, WholeGate, WholeOut, WholeResBlock, WholeTaps, WholeVectorMap
from vlae.core.causal import CausalNet, Gate
from vlae.core.decoder import Decoder
from vlae.core.distributions import Head, LogisticHead
from vlae.core.encoder import VectorMap
from vlae.core.layers import Conv, DenseBlock, Linear, ResBlock, TapConv, Upsample
from vlae.core.taps import IMAGE

EXACT = {torch.float32: 2**24, torch.float64: 2**53}
"""Below it, floats hold every whole number."""
CODE_FRACTION, CODE_MOST = 4, 511
SMALL = 127
MOST_GAIN = 16
"""how much more than another a channel may be multiplied with: one that hardly says anything must not cost the others' weights their precision"""
GREY, GREY_STEP = (77.0, 150.0, 29.0), 4
"""The luminance of red, green and blue in steps of a quarter of a level, times ``2^6``."""


@contextmanager
def exact_sums() -> Iterator[None]:
    """Within it, torch adds up whole numbers as they are.

    Without oneDNN it hands convolutions to NNPACK, and on a GPU to cuDNN, which transform them (Winograd) and so round; and who uses it may
    have asked for products in a lower precision.
    """
    with _full_products(), torch.backends.nnpack.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
        yield


@contextmanager
def _full_products() -> Iterator[None]:
    newer: list[tuple[Any, str]] = []
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # so torch answers who has used its newer settings, of which each product has one
        before, backends = "highest", cast(Any, torch.backends)
        newer = [(backend, backend.fp32_precision) for backend in (backends.cuda.matmul, backends.mkldnn.matmul)]
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for backend, precision in newer:
            backend.fp32_precision = precision


class _Part(NamedTuple):
    """What a layer adds up: weights, bias, what the weights are multiplied with besides the scale, and how large their inputs can become."""

    weights: Tensor
    bias: Tensor
    factor: float
    most: int


class Twin(Decoder):
    """A decoder of whole numbers: it takes whole codes, and its distributions are whole mixtures."""

    fraction: int

    @property
    def dtype(self) -> torch.dtype:
        """Of the floats that hold its whole numbers."""
        return next(buffer for buffer in self.out.buffers()).dtype

    @exact_sums()
    def spread(self, z: Tensor | None, size: tuple[int, int]) -> Float[Tensor, "B M H W"] | None:
        return super().spread(z, size)

    @exact_sums()
    def forward(self, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> WholeDistribution:
        return cast(WholeDistribution, super().forward(z, x))

    def image(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        steps = 1
        if self.window.context == "grey" and self.head.colours == 3:
            steps = GREY_STEP
            x = (x * x.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True).mul_(steps / sum(GREY)).round_()
        return 2 * x - steps * (self.head.levels - 1)


@torch.no_grad()
def twin(decoder: Decoder, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> Twin:
    """The integer twin of a trained decoder, calibrated on some images and their codes: values have room for a little more than these need.

    Raises:
        NotImplementedError: it has a part that has no twin.
        ValueError: its values or weights are too large for whole numbers.
    """
    if decoder.window.context in ("low", "high"):
        raise NotImplementedError("a decoder that sees the low-pass or the high-pass cannot be computed exactly in whole numbers")
    return _Maker(decoder, _steps(decoder, z, x)).twin()


@torch.no_grad()
def blank(decoder: Decoder, fraction: int) -> Twin:
    """A twin of the same kind, with values in steps of ``2^-fraction``, to be filled with the numbers of another."""
    return _Maker(decoder, _Steps(fraction, 0, torch.ones(decoder.net.width))).twin()


class _Steps(NamedTuple):
    """The map of the code is in steps of ``2^-fraction``; layers' values, each channel multiplied with its gain, are in steps of ``2^-values``."""

    fraction: int
    values: int
    gains: Float[Tensor, " C"]


def _steps(decoder: Decoder, z: Tensor | None, x: Tensor) -> _Steps:
    """The finest steps in which the values of these images, and a quarter more, do not exceed ``MOST``; what is too large for that is cut off.

    Channels that are small have room for larger gains: what those before make larger, those behind make smaller again (Nagel et al. 2019,
    arXiv:1906.04721, section 4.1).
    """
    told, seen = torch.tensor(2.0**-20), torch.full((decoder.net.width,), 2.0**-20)

    def look(module: nn.Module, given: tuple[Tensor, ...], value: Tensor) -> None:
        nonlocal told, seen
        if isinstance(module, Gate):
            seen = torch.maximum(seen, value.abs().amax((0, 2, 3)))
        else:
            told = torch.maximum(told, value.abs().max())

    watched = [m for m in decoder.code_map.modules() if isinstance(m, Conv | Linear | ResBlock)] if decoder.code_map else []
    hooks = [module.register_forward_hook(look) for module in [*watched, decoder.net.gate]]
    try:
        for n in range(len(x)):  # one image after another, in the memory of one
            code = decoder.spread(None if z is None else z[n : n + 1], (x.shape[2], x.shape[3]))
            if decoder.window.layers:  # by convolutions: compiled loops tell nothing of the layers between
                decoder.net.convolved(decoder.net.contexts(decoder.image(x[n : n + 1])), code)
    finally:
        for hook in hooks:
            hook.remove()
    if not (told.isfinite() and seen.isfinite().all()):
        raise ValueError("the decoder's values are not finite, or too large for whole numbers")
    fraction, values = (max(0, math.floor(math.log2(MOST / (1.25 * most)))) for most in (told.item(), seen.max().item()))
    room = seen.double().clamp_min(seen.max().item() / MOST_GAIN)
    return _Steps(fraction, values, MOST / (1.25 * 2.0**values * room))


class _Maker:
    """Makes the twin of a decoder."""

    def __init__(self, decoder: Decoder, steps: _Steps) -> None:
        self.decoder, self.levels, self.fraction = decoder, decoder.head.levels, steps.fraction
        self.gains = steps.gains.double()
        self.values, self.behind = (steps.values, self.gains) if decoder.window.layers else (steps.fraction, torch.ones(1))
        self.dtype = torch.float32 if self.levels <= 256 else torch.float64
        self.exact = EXACT[self.dtype]

    def twin(self) -> Twin:
        whole = copy.deepcopy(self.decoder)
        whole.__class__ = Twin
        assert isinstance(whole, Twin)
        whole.fraction = self.fraction
        if whole.code_map is not None:
            if isinstance(whole.code_map, VectorMap):
                whole.code_map.__class__ = WholeVectorMap
                whole.code_map.elu, whole.code_map.second = WholeElu(self.fraction), self.conv(whole.code_map.second)  # type: ignore[assignment]
            whole.code_map.first = self.conv(whole.code_map.first, CODE_FRACTION, CODE_MOST)  # type: ignore[assignment]
            whole.code_map.up = nn.Sequential(*(self.module(module) for module in whole.code_map.up))
        self.net(whole.net)
        whole.head = _head(whole.head, self.prediction(whole.net))  # type: ignore[assignment]
        whole.out = self.out(whole.out, whole.head)  # type: ignore[assignment,arg-type]
        return whole.requires_grad_(False).to(self.dtype)

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
        if isinstance(module, DenseBlock):
            return WholeDenseBlock(map(self.conv, cast(Iterable[Conv], module.steps)), self.conv(module.merge), self.fraction)
        raise NotImplementedError(f"{type(module).__name__} has no twin")

    def conv(self, conv: Conv | Linear, fraction: int | None = None, most: int = MOST) -> WholeConv:
        """A convolution, or a linear map, whose input has its own ``fraction`` and ``most``, and whose output is values."""
        given = self.fraction if fraction is None else fraction
        weights, bias = conv.weight().double(), conv.b.double()
        finest = SMALL / weights.abs().max().clamp(min=2.0**-30)  # the map of the code has most of the weights, and need not be finer
        scale = self.largest(lambda s: _bound(weights * 2.0 ** (s - given), most) + (bias * 2.0**s).round().abs(), given + int(finest.log2().floor()))
        whole = (weights * 2.0 ** (scale - given)).round(), (bias * 2.0**scale).round()
        maps = F.linear if isinstance(conv, Linear) else partial(_convolved, stride=conv.stride, padding=conv.padding)
        return WholeConv(maps, *whole, scale - self.fraction)

    def net(self, net: CausalNet) -> None:
        """Turn a causal network into whole numbers: the sums of an output have one scale in all layers, the finest that all of them allow."""
        per_layer = [self.parts(net, number) for number in range(len(net.layers))]
        scales = torch.tensor([self.scale(per_layer, output) for output in range(2 * net.width)], dtype=torch.float64)
        for number, parts in enumerate(per_layer):
            wholes = [(_scaled(w * factor, scales).round(), _scaled(b, scales).round()) for w, b, factor, _ in parts]
            for k, conv in enumerate(net.convs[number]):
                net.convs[number][k] = WholeTaps(conv, *wholes[k])  # type: ignore[index]
            if str(number) in net.conditions:
                net.conditions[str(number)] = WholeConv(partial(_convolved, stride=1, padding=0), *wholes[-1])
        net.gate = WholeGate(scales, self.values, self.dtype)

    def scale(self, per_layer: list[list[_Part]], output: int) -> int:
        """The finest scale of an output of all layers."""
        of_output = [[_Part(w[output, None], b[output, None], factor, most) for w, b, factor, most in parts] for parts in per_layer]
        return min((self.largest(partial(_layer_bound, parts)) for parts in of_output), default=0)

    def parts(self, net: CausalNet, number: int) -> list[_Part]:
        """What a layer adds up: its reads, and the code."""
        parts: list[_Part] = []
        brightest = (self.levels - 1) * (GREY_STEP if net.inputs < self.decoder.head.colours else 1)
        for read, conv in zip(net.layers[number].reads, net.convs[number], strict=True):
            factor, most = (1 / brightest, brightest) if read.source == IMAGE else (2.0**-self.values, MOST)
            parts.append(self.part(conv, 1.0 if read.source == IMAGE else self.gains.view(-1, 1), factor, most))
        if str(number) in net.conditions:
            parts.append(self.part(cast(Conv, net.conditions[str(number)]), 1.0, 2.0**-self.fraction, MOST))
        return parts

    def part(self, conv: Conv | TapConv, given: Tensor | float, factor: float, most: int) -> _Part:
        """A read of a layer, whose input was multiplied with ``given`` and whose first half of sums is to be multiplied with the gains."""
        gains = torch.cat([self.gains, torch.ones_like(self.gains)])
        weights = conv.weight().double().flatten(2) / given * gains.view(-1, 1, 1)
        return _Part(weights.view_as(conv.v), conv.b.double() * gains, factor, most)

    def out(self, out: Conv, head: WholeHead | WholeBitHead) -> WholeOut:
        """The last layer: each of its numbers has a scale of its own."""
        factors, offsets = torch.tensor(head.rows(), dtype=torch.float64).unbind(1)
        weights, bias = out.weight().double().flatten(1) / self.behind * factors.unsqueeze(1) * 2.0**-self.values, out.b.double() * factors + offsets
        parts = [_Part(w.unsqueeze(0), b.unsqueeze(0), 1.0, MOST) for w, b in zip(weights, bias, strict=True)]
        scales = torch.tensor([self.largest(partial(_layer_bound, [part])) for part in parts], dtype=torch.float64)
        return WholeOut((weights * 2.0 ** scales.unsqueeze(1)).round(), (bias * 2.0**scales).round(), scales)

    def prediction(self, net: CausalNet) -> int:
        """Turn the linear prediction into whole numbers, and tell by how many powers of two its sums are smaller than the steps of a mean."""
        if net.prediction is None:
            return 0
        weights = net.prediction.double() * MEAN_STEP / 2
        shift = self.largest(lambda s: _bound(weights * 2.0**s, self.levels - 1))
        net.prediction = nn.Parameter((weights * 2.0**shift).round(), requires_grad=False)
        return shift

    def largest(self, bound: Callable[[int], Tensor], most: int = 30) -> int:
        """The largest scale, up to ``most``, at which every sum is exact."""
        for scale in range(min(30, most), -30, -1):
            if (bound(scale) < self.exact).all():
                return scale
        raise ValueError("the decoder's weights are too large for whole numbers")


def _head(head: Head, prediction_shift: int) -> WholeHead | WholeBitHead:
    return WholeHead(head.levels, head.colours, head.components, prediction_shift) if isinstance(head, LogisticHead) else WholeBitHead()


def _convolved(x: Tensor, weights: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    return F.conv2d(x, weights, bias, stride, padding)


def _scaled(values: Tensor, scales: Tensor) -> Tensor:
    """Each output's values in steps of ``2^-scale``."""
    return values * 2.0 ** scales.view(-1, *[1] * (values.dim() - 1))


def _bound(weights: Tensor, most: int) -> Tensor:
    """How large the sum of each output can become."""
    return weights.round().abs().flatten(1).sum(1) * most


def _layer_bound(parts: Sequence[_Part], scale: int) -> Tensor:
    return torch.stack([_bound(w * 2.0**scale * factor, most) + (b * 2.0**scale).round().abs() for w, b, factor, most in parts]).sum(0)
