"""From images to codes, and from codes to maps of the image's size: pyramids of residual or dense blocks.

B batch, C channels, H and W height and width, D dimensions of a vector code, K channels of a grid code, M channels of a code map.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.core.codes import Posterior
from vlae.core.flows import Flow
from vlae.core.layers import Conv, DenseBlock, Linear, ResBlock, Upsample, channels_last


@dataclass(frozen=True)
class Pyramid:
    """How an encoder shrinks an image: level n has ``1/2^n`` of its size, ``widths[n]`` channels and ``blocks[n]`` blocks.

    The paper's binary encoder is ``widths=(16, 16, 32, 32), blocks=(0, 1, 1, 0)``; its CIFAR-10 ResNet ``(48, 96, 96), (2, 2, 3)``, and its
    DenseNet the same with one dense block for every two ResNet blocks.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    kind: Literal["resnet", "densenet"] = "resnet"

    @property
    def levels(self) -> int:
        """How often the size is halved."""
        return len(self.widths) - 1

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The size of the last level."""
        step = 2**self.levels
        return -(-height // step), -(-width // step)

    def body(self, level: int) -> list[nn.Module]:
        """The blocks of one level."""
        width, count = self.widths[level], self.blocks[level]
        if self.kind == "resnet":
            return [ResBlock(width, width) for _ in range(count)]
        return [DenseBlock(width, width) for _ in range(-(-count // 2))]

    def down(self, inputs: int) -> nn.Sequential:
        """Image to last level."""
        layers: list[nn.Module] = []
        if self.blocks[0]:
            layers += [Conv(inputs, self.widths[0], exact=True), *self.body(0)]
            inputs = self.widths[0]
        for level in range(1, len(self.widths)):
            layers += [ResBlock(inputs, self.widths[level], stride=2, exact=not layers), *self.body(level)]
            inputs = self.widths[level]
        return nn.Sequential(*layers)

    def up(self, outputs: int) -> nn.Sequential:
        """Last level to a map of at least the image's size: the same pyramid, backwards."""
        layers: list[nn.Module] = []
        for level in range(self.levels, 0, -1):
            last = level == 1 and not self.blocks[0]
            layers += [*self.body(level), nn.ELU(), Upsample(self.widths[level], outputs if last else self.widths[level - 1])]
        if self.blocks[0]:
            layers += [*self.body(0), nn.ELU(), Conv(self.widths[0], outputs)]
        return nn.Sequential(*layers)


class VectorEncoder(nn.Module):
    """q(z|x) for a vector code: pyramid, one fully connected layer, then mean and log standard deviation."""

    def __init__(self, pyramid: Pyramid, image: tuple[int, int, int], dims: int, hidden: int, flow: Flow | None, context: int) -> None:
        super().__init__()
        channels, height, width = image
        rows, columns = pyramid.grid(height, width)
        self.down = pyramid.down(channels)
        self.hidden = Linear(pyramid.widths[-1] * rows * columns, hidden)
        self.out = Linear(hidden, 2 * dims + context, exact=True)
        self.dims, self.context, self.flow = dims, context, flow

    def forward(self, v: Float[Tensor, "B C H W"]) -> Posterior:
        h = F.elu(self.hidden(F.elu(self.down(v)).flatten(1)))
        return _posterior(self.out(h), self.dims, self.context, self.flow)

    def code_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of an image's code."""
        return (self.dims,)


class GridEncoder(nn.Module):
    """q(z|x) for a grid code: fully convolutional, for images of any size."""

    def __init__(self, pyramid: Pyramid, colours: int, channels: int, flow: Flow | None, context: int) -> None:
        super().__init__()
        self.pyramid, self.down = pyramid, pyramid.down(colours)
        self.out = Conv(pyramid.widths[-1], 2 * channels + context, kernel=1, exact=True)
        self.channels, self.context, self.flow = channels, context, flow

    def forward(self, v: Float[Tensor, "B C H W"]) -> Posterior:
        return _posterior(self.out(F.elu(self.down(v))), self.channels, self.context, self.flow)

    def code_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the code of an image of this size."""
        return (self.channels, *self.pyramid.grid(height, width))


Encoder = VectorEncoder | GridEncoder


def _posterior(numbers: Tensor, dims: int, context: int, flow: Flow | None) -> Posterior:
    mean, raw, told = numbers.split([dims, dims, context], dim=1)
    # Softplus keeps the standard deviation from exploding early on, and log keeps it exact when small.
    return Posterior(mean, torch.log(F.softplus(raw) + 1e-4), flow, told if context else None)


class VectorMap(nn.Module):
    """A vector code as a map of the image's size: the encoder backwards."""

    def __init__(self, pyramid: Pyramid, image: tuple[int, int], dims: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rows, self.columns = pyramid.grid(*image)
        self.first = Linear(dims, hidden, exact=True)
        self.second = Linear(hidden, pyramid.widths[-1] * self.rows * self.columns)
        self.up = pyramid.up(outputs)

    def forward(self, z: Float[Tensor, "B D"], image: tuple[int, int]) -> Float[Tensor, "B M H W"]:
        h = self.second(F.elu(self.first(z))).unflatten(1, (-1, self.rows, self.columns))
        return channels_last(self.up(h)[:, :, : image[0], : image[1]])


class GridMap(nn.Module):
    """A grid code as a map of the image's size."""

    def __init__(self, pyramid: Pyramid, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = Conv(channels, pyramid.widths[-1], exact=True)
        self.up = pyramid.up(outputs)

    def forward(self, z: Float[Tensor, "B K h w"], image: tuple[int, int]) -> Float[Tensor, "B M H W"]:
        return channels_last(self.up(self.first(z))[:, :, : image[0], : image[1]])


CodeMap = VectorMap | GridMap
