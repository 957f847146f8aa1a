"""The opponent of ``training.py``: the same model as people usually write it.

Every set of causal taps becomes a square kernel multiplied by a mask, every weight-normalised layer torch's own parametrisation; the model
runs eagerly, in float32, channels first. It computes the same function from the same weights.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vlae.core.causal import CausalNet, Seen
from vlae.core.flows import MaskedLinear
from vlae.core.layers import Conv, Linear, TapConv, Upsample
from vlae.core.vlae import VLAE


class MaskedConv(nn.Conv2d):
    """A square convolution whose kernel is multiplied by a mask."""

    def __init__(self, ours: TapConv) -> None:
        radius = max(max(abs(di), abs(dj)) for di, dj in ours.taps)
        outputs, inputs = ours.v.shape[:2]
        super().__init__(inputs, outputs, 2 * radius + 1, padding=radius)
        kernel = torch.zeros_like(self.weight)
        mask = torch.zeros(1, 1, 2 * radius + 1, 2 * radius + 1)
        for k, (di, dj) in enumerate(ours.taps):
            kernel[:, :, radius + di, radius + dj] = ours.v[:, :, k]
            mask[:, :, radius + di, radius + dj] = 1
        self.weight.data, self.bias.data = kernel, ours.b.detach().clone()
        self.register_buffer("mask", mask)
        weight_norm(self)
        self.parametrizations.weight.original0.data = ours.g.detach().clone().view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PlainCausalNet(CausalNet):
    """The causal network with torch's own gated linear unit."""

    def forward(self, image: Tensor, code: Tensor | None = None) -> Seen:
        values = self.contexts(image)
        for number, layer in list(enumerate(self.layers))[len(values) - 1 :]:
            total = sum(conv(values[read.source]) for read, conv in zip(layer.reads, self.convs[number], strict=True))
            condition = self.condition(number, code)
            gated = F.glu(total if condition is None else total + condition, dim=1)
            values.append(gated if layer.residual is None else gated + values[layer.residual])
        return Seen(values[-1], self.predict(values))


class PlainMaskedLinear(nn.Linear):
    """A linear map whose weights are multiplied by a mask."""

    def __init__(self, ours: MaskedLinear) -> None:
        super().__init__(ours.v.shape[1], ours.v.shape[0])
        self.register_buffer("mask", ours.mask.clone())
        weight = ours.v.detach() * ours.mask
        weight[~ours.mask.bool().any(1), 0] = 1.0  # a row that may read nothing has no direction of its own
        self.weight.data, self.bias.data = weight, ours.b.detach().clone()
        weight_norm(self)
        self.parametrizations.weight.original0.data = ours.g.detach().clone().view(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class PlainUpsample(nn.Module):
    """Double the size, channels first."""

    def __init__(self, ours: Upsample) -> None:
        super().__init__()
        self.conv = _conv(ours.conv)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def _conv(ours: Conv) -> nn.Module:
    outputs, inputs, kernel, _ = ours.v.shape
    conv = nn.Conv2d(inputs, outputs, kernel, stride=ours.stride, padding=ours.padding)
    conv.weight.data, conv.bias.data = ours.v.detach().clone(), ours.b.detach().clone()
    weight_norm(conv)
    conv.parametrizations.weight.original0.data = ours.g.detach().clone().view(-1, 1, 1, 1)
    return conv


def _linear(ours: Linear) -> nn.Module:
    linear = nn.Linear(ours.v.shape[1], ours.v.shape[0])
    linear.weight.data, linear.bias.data = ours.v.detach().clone(), ours.b.detach().clone()
    weight_norm(linear)
    linear.parametrizations.weight.original0.data = ours.g.detach().clone().view(-1, 1)
    return linear


def plain(model: VLAE) -> VLAE:
    """The same model, layer by layer in its usual form."""
    twin = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for net in [m for m in twin.modules() if type(m) is CausalNet]:
        net.__class__ = PlainCausalNet
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Upsample):
                setattr(parent, name, PlainUpsample(child))
            elif isinstance(child, MaskedLinear):
                setattr(parent, name, PlainMaskedLinear(child))
            elif isinstance(child, TapConv):
                setattr(parent, name, MaskedConv(child))
            elif isinstance(child, Linear):
                setattr(parent, name, _linear(child))
            elif isinstance(child, Conv):
                setattr(parent, name, _conv(child))
    return twin
