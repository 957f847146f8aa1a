"""Weight-normalised layers with data-dependent initialisation, and the residual and dense blocks made of them.

B batch, C channels, H and W height and width.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlae.core.taps import Offset


class WeightNorm(nn.Module):
    """Weights as a direction and a length: ``w = g v / ||v||`` for each output, plus a bias.

    While it initialises, an output is shifted and scaled to mean 0 and standard deviation ``scale`` over the batch, and ``g`` and ``b`` are
    set so that it stays so (Salimans and Kingma 2016, arXiv:1602.07868, equation 6).
    """

    def __init__(self, outputs: int, fan: tuple[int, ...], scale: float = 1.0, exact: bool = False) -> None:
        super().__init__()
        self.v = nn.Parameter(0.05 * torch.randn(outputs, *fan))
        self.g = nn.Parameter(torch.ones(outputs))
        self.b = nn.Parameter(torch.zeros(outputs))
        self.scale, self.exact = scale, exact
        self.own: Tensor | None
        self.register_buffer("own", None, persistent=False)
        self.initialising = False

    def turn_with(self, other: "WeightNorm") -> None:
        """Have the direction of another layer from now on: one parameter, which is learnt, moved and kept as the other's."""
        del self.v
        self.__dict__["v"] = other.v  # a module would register an attribute

    def forward(self, x: Tensor) -> Tensor:
        """The map of ``x``; one that is ``exact`` keeps the weights' precision where autocast lowers it elsewhere.

        Pixels, means and codes need that: bfloat16 rounds a pixel to a quarter of an 8-bit level.
        """
        if not self.exact:
            return self.settled(self.mapped(x))
        with full_precision(x):
            return self.settled(self.mapped(x.to(self.v.dtype)))

    def mapped(self, x: Tensor) -> Tensor:
        """What the layer makes of its input."""
        raise NotImplementedError

    def weight(self) -> Tensor:
        """The weights ``g v / ||v||``, computed once a step."""
        if not self.v.numel():  # of none, which a file may ask for, torch's operation would end the process
            return self.v
        v = self.v if self.own is None else self.v * self.own
        # In one operation, as torch's own weight normalisation has them: small layers are many, and each operation costs more than its arithmetic.
        return torch._weight_norm(v, self.g.view(-1, *[1] * (self.v.dim() - 1)), 0)

    def settled(self, y: Tensor) -> Tensor:
        """The output; while initialising, standardised over all but its channels (dimension 1), which are fixed there."""
        if not self.initialising:
            return y
        over = [d for d in range(y.dim()) if d != 1]
        mean, std = y.detach().mean(over), y.detach().std(over, correction=0)
        # What does not vary but for rounding (a batch of one image, blank images) tells nothing of the scale to come.
        gain = self.scale / torch.where(std > 1e-6, std, 1.0)
        with torch.no_grad():
            self.g.mul_(gain)
            self.b.sub_(mean).mul_(gain)
        shape = [-1 if d == 1 else 1 for d in range(y.dim())]
        return (y - mean.view(shape)) * gain.view(shape)


def full_precision(x: Tensor) -> torch.autocast:
    """Within it, nothing on the device of ``x`` is computed in less than its own precision."""
    return torch.autocast(x.device.type, enabled=False)


def lowered(x: Tensor) -> Tensor:
    """The values in the precision that autocast wants, where it is on."""
    kind = x.device.type
    # As autocast itself does, float64 is left alone.
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) and x.dtype != torch.float64 else x


@contextmanager
def initialising(model: nn.Module) -> Iterator[None]:
    """Within it, every weight-normalised layer of ``model`` initialises itself from the first batch that passes through."""
    layers = [m for m in model.modules() if isinstance(m, WeightNorm)]
    try:
        for layer in layers:
            layer.initialising = True
        with torch.no_grad():
            yield
    finally:
        for layer in layers:
            layer.initialising = False


class Linear(WeightNorm):
    """A weight-normalised linear map."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0, exact: bool = False) -> None:
        super().__init__(outputs, (inputs,), scale, exact)

    def mapped(self, x: Float[Tensor, "B i"]) -> Float[Tensor, "B o"]:
        return F.linear(x, self.weight(), self.b)


class Conv(WeightNorm):
    """A weight-normalised convolution that keeps the size, or divides it by ``stride``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, scale: float = 1.0, exact: bool = False) -> None:
        super().__init__(outputs, (inputs, kernel, kernel), scale, exact)
        self.stride, self.padding = stride, kernel // 2

    def mapped(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        return channels_last(F.conv2d(x, self.weight(), self.b, self.stride, self.padding))

    def pointwise(self) -> Callable[[Tensor], Tensor]:
        """The same for a kernel of 1x1 and images of one pixel, with the weights computed once: for many calls with few pixels."""
        weight, b = self.weight().flatten(1).t(), self.b
        return lambda x: torch.addmm(b, x.view(len(x), -1), weight).view(len(x), -1, 1, 1)


class TapConv(WeightNorm):
    """A weight-normalised convolution that reads a set of causal taps: only those have weights."""

    def __init__(self, inputs: int, outputs: int, taps: tuple[Offset, ...], exact: bool = False) -> None:
        super().__init__(outputs, (inputs, len(taps)), exact=exact)
        self.taps = tuple(sorted(taps))
        self.grid = TapGrid(self.taps)

    def part(self, members: int) -> None:
        """Let outputs read the inputs of their own member alone: both stand member after member, of outputs in each of two halves."""
        inputs = torch.eye(members).repeat_interleave(self.v.shape[1] // members, dim=1)
        self.own = inputs.repeat_interleave(len(self.v) // (2 * members), dim=0).repeat(2, 1).unsqueeze(2)
        with torch.no_grad():
            self.v.mul_(self.own)

    def mapped(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        return self.grid.convolve(x, self.weight(), self.b)


class TapGrid:
    """The smallest (dilated) kernel that holds a set of causal taps, and where it stands relative to the pixel."""

    def __init__(self, taps: tuple[Offset, ...]) -> None:
        self.rows, self.columns = _axis([di for di, _ in taps]), _axis([dj for _, dj in taps])
        self.height, self.width = len(self.rows), len(self.columns)
        self.dilation = (max(1, self.rows.step), max(1, self.columns.step))
        self.cells = [self.rows.index(di) * self.width + self.columns.index(dj) for di, dj in taps]
        self.full = self.cells == list(range(self.height * self.width))

    def kernel(self, weight: Float[Tensor, "o i t"]) -> Float[Tensor, "o i kh kw"]:
        """Weights of the taps laid out on the kernel; cells without a tap are zero."""
        if not self.full:
            blank = weight.new_zeros(*weight.shape[:2], self.height * self.width)
            weight = blank.index_copy(2, torch.tensor(self.cells, device=weight.device), weight)
        return weight.unflatten(2, (self.height, self.width))

    def read(self, x: Float[Tensor, "B H W"]) -> list[Float[Tensor, "B H W"]]:
        """What each of the taps reads at every pixel."""
        height, width = x.shape[1:]
        above, left = max(0, -self.rows.start), max(0, -self.columns.start)
        padded = F.pad(x, (left, max(0, self.columns[-1]), above, max(0, self.rows[-1])))
        places = ((self.rows[cell // self.width], self.columns[cell % self.width]) for cell in self.cells)
        return [padded[:, above + di : above + di + height, left + dj : left + dj + width] for di, dj in places]

    def convolve(self, x: Float[Tensor, "B i H W"], weight: Float[Tensor, "o i t"], bias: Tensor | None) -> Float[Tensor, "B o H W"]:
        """Read the taps around every pixel, zero outside the image."""
        if x.shape[1] == 1 and len(self.cells) <= len(weight):
            # A convolution of one channel to many is slow, and loses the order of channels on its way back, where a product of what is read does
            # neither. The gradient of weights that stand tap by tap in memory takes a third of the time.
            return F.linear(torch.stack(self.read(x[:, 0]), dim=-1), weight.flatten(1).t().contiguous().t(), bias).movedim(-1, 1)
        # Only what lacks on one side is padded beforehand: cutting rows off the result instead costs a copy of it in the backward pass.
        left, right = -self.columns.start, self.columns[-1]
        alike = max(0, min(left, right))
        lacks = (left - alike, right - alike, -self.rows.start, self.rows[-1])
        padded = F.pad(x, [max(0, n) for n in lacks])
        if min(lacks) < 0:
            padded = padded[:, :, : padded.shape[2] + lacks[3], max(0, -lacks[0]) : padded.shape[3] + min(0, lacks[1])]
        return channels_last(F.conv2d(padded, self.kernel(weight), bias, padding=(0, alike), dilation=self.dilation))


def _axis(positions: list[int]) -> range:
    """The positions and what lies between them, as far apart as can be."""
    first = min(positions)
    return range(first, max(positions) + 1, math.gcd(*(p - first for p in positions)) or 1)


def channels_last(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The same values with channels last in memory, which a convolution of a single channel forgets: no copy where they are."""
    return x.contiguous(memory_format=torch.channels_last)


class ResBlock(nn.Module):
    """``shortcut(x) + conv(elu(conv(elu(x))))``, optionally halving the size (Kingma et al. 2016, arXiv:1606.04934, appendix B)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, exact: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, stride=stride, exact=exact)
        self.second = Conv(outputs, outputs, scale=0.1)
        self.shortcut: Callable[[Tensor], Tensor] = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = Conv(inputs, outputs, stride=stride, exact=exact)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        return self.shortcut(x) + self.second(F.elu(self.first(F.elu(x))))


class DenseBlock(nn.Module):
    """Steps that each add ``growth`` channels to all that came before, then a 1x1 layer back to ``outputs`` channels.

    The paper replaces every two ResNet blocks by one dense block of 3 steps of about the same width (Huang et al. 2017, arXiv:1608.06993).
    """

    def __init__(self, inputs: int, outputs: int, steps: int = 3) -> None:
        super().__init__()
        growth = max(1, outputs // steps)
        self.steps = nn.ModuleList(Conv(inputs + k * growth, growth) for k in range(steps))
        self.merge = Conv(inputs + steps * growth, outputs, kernel=1)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        for step in self.steps:
            x = torch.cat([x, step(F.elu(x))], dim=1)
        return self.merge(F.elu(x))


class Upsample(nn.Module):
    """Double the size: four times the channels, each four laid out as a square (a transposed convolution without its seams)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, 4 * outputs)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        return channels_last(F.pixel_shuffle(self.conv(x), 2))
