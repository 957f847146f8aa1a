"""Distributions of pixels in integers: cumulative frequencies that are the same on every machine.

Everything here is 64-bit integers. B batch, K components, H and W height and width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.tables import exp, sigmoid, table

WEIGHT_STEP = 16
"""steps of a weight's logit for each nat"""
MEAN_STEP = 16
"""steps of a mean for each level"""
SCALE_STEP = 16
"""steps of a scale for each factor e"""
SCALES = range(-3 * SCALE_STEP, 9 * SCALE_STEP)
"""of these, in levels: from a twentieth of a level to eight thousand"""
SLOPE_STEP, BIT_STEP = 256, 64
"""steps of a slope, and of the logit of a pixel of two levels, for 1"""
WEIGHT_BITS, MASS_BITS = 15, 24
REACH, FINE = 24, 1024
"""the logistic's table: so far out, and so many entries for each unit"""
INVERSE_BITS = 20


class Shares(Protocol):
    """How the frequencies of one colour of some pixels are shared out among its levels."""

    @property
    def levels(self) -> int:
        """How many levels there are."""
        ...

    @property
    def total(self) -> int:
        """``F(levels)``: all frequencies together."""
        ...

    def below(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        """``F(x)``: the frequencies of all levels below ``x``, from 0 for the lowest; strictly increasing."""
        ...


@dataclass(frozen=True, eq=False)
class WholeLogistics:
    """A mixture of logistics over the levels of one colour: ``F(x) = sum_k w_k C((x - 1/2 - m_k) / s_k) + x``."""

    levels: int
    weights: Int64[Tensor, "B K H W"]
    means: Int64[Tensor, "B K H W"]
    """in sixteenths of a level"""
    scales: Int64[Tensor, "B K H W"]
    """numbers of entries of the table of scales"""

    @property
    def total(self) -> int:
        return 2**MASS_BITS + self.levels

    def below(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        return ((self.weights * self.below_each(x)).sum(1) >> WEIGHT_BITS).where(x < self.levels, 2**MASS_BITS) + x

    def below_each(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B K H W"]:
        """The mass of each component below ``x``, of ``2^24``."""
        logistic = table(sigmoid, -REACH * FINE, REACH * FINE, FINE, 2**MASS_BITS).to(x.device)
        inverse = inverse_scales().to(x.device)[self.scales]
        away = (MEAN_STEP * x - MEAN_STEP // 2).unsqueeze(1) - self.means
        place = ((away * inverse) >> INVERSE_BITS).clamp(-REACH * FINE, REACH * FINE) + REACH * FINE
        level = x.unsqueeze(1)
        return torch.where(level <= 0, 0, torch.where(level >= self.levels, 2**MASS_BITS, logistic[place]))

    def given(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B K H W"]:
        """The weights of the components once this colour is known to be ``x``."""
        mass = self.below_each(x + 1) - self.below_each(x) + 1  # none is ruled out by rounding alone
        share = self.weights * mass
        return (share << WEIGHT_BITS) // share.sum(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class WholeBit:
    """A pixel of two levels, from its logit in steps of ``1 / BIT_STEP``."""

    logits: Int64[Tensor, "B H W"]
    levels: int = 2

    @property
    def total(self) -> int:
        return 2**MASS_BITS + self.levels

    def below(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        chances = table(sigmoid, -REACH * BIT_STEP, REACH * BIT_STEP, BIT_STEP, 2**MASS_BITS).to(x.device)
        black = chances[REACH * BIT_STEP - self.logits.clamp(-REACH * BIT_STEP, REACH * BIT_STEP)]
        return torch.where(x <= 0, 0, torch.where(x >= 2, 2**MASS_BITS, black)) + x


@dataclass(frozen=True, eq=False)
class WholePixels:
    """The distribution of pixels, colour after colour: each colour's means follow the earlier ones, which also tell the components apart."""

    levels: int
    weights: Int64[Tensor, "B K H W"]
    means: Int64[Tensor, "B K C H W"]
    scales: Int64[Tensor, "B K C H W"]
    slopes: Int64[Tensor, "B K 3 H W"] | None
    """in steps of ``1 / SLOPE_STEP``"""

    @property
    def colours(self) -> int:
        """How many colours a pixel has."""
        return self.means.shape[2]

    def colour(self, c: int, earlier: Sequence[Int64[Tensor, "B H W"]]) -> Shares:
        """The shares of colour ``c``, given the levels of the earlier ones."""
        weights, means = self.weights, self.means[:, :, c]
        for n, level in enumerate(earlier):
            weights = cast(WholeLogistics, self.colour(n, earlier[:n])).given(level)
            assert self.slopes is not None
            # Half the steps of a mean for each of the 2 x - (L - 1) that a level stands for.
            follow = self.slopes[:, :, max(c - 1, 0) + n] * ((2 * level - (self.levels - 1)) * (MEAN_STEP // 2)).unsqueeze(1)
            means = means + (follow + SLOPE_STEP // 2).div(SLOPE_STEP, rounding_mode="floor")
        return WholeLogistics(self.levels, weights, means, self.scales[:, :, c])

    def log_prob(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        """The log of each pixel's share of the frequencies, in nats."""
        return log_shares(self, x)

    def sample(self, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B C H W"]:
        """The levels in whose share the uniforms fall; one for each colour is used, after the first."""
        return sampled(self, uniforms[:, 1:])


@dataclass(frozen=True, eq=False)
class WholeBits:
    """The distribution of pixels of two levels."""

    logits: Int64[Tensor, "B H W"]
    colours: int = 1

    def colour(self, c: int, earlier: Sequence[Int64[Tensor, "B H W"]]) -> Shares:
        """The shares of the only colour."""
        return WholeBit(self.logits)

    def log_prob(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B H W"]:
        """The log of each pixel's share of the frequencies, in nats."""
        return log_shares(self, x)

    def sample(self, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B 1 H W"]:
        """The levels in whose share the uniforms fall."""
        return sampled(self, uniforms)


WholeDistribution = WholePixels | WholeBits


def log_shares(pixels: WholeDistribution, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
    """The log of each pixel's share of the frequencies, all colours together, in nats."""
    levels = x.long().unbind(1)
    total = torch.zeros_like(levels[0], dtype=torch.float64)
    for c, level in enumerate(levels):
        shares = pixels.colour(c, levels[:c])
        total = total + torch.log((shares.below(level + 1) - shares.below(level)).double() / shares.total)
    return total


def sampled(pixels: WholeDistribution, uniforms: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The levels in whose share the uniforms of each colour fall."""
    levels: list[Tensor] = []
    for c, chance in enumerate(uniforms.double().unbind(1)):
        shares = pixels.colour(c, levels)
        wanted, found = (chance * shares.total).long(), torch.zeros_like(chance, dtype=torch.long)
        for bit in reversed(range((shares.levels - 1).bit_length())):
            middle = (found + 2**bit).clamp(max=shares.levels)
            found = torch.where(wanted >= shares.below(middle), middle, found)
        levels.append(found.clamp(max=shares.levels - 1))
    return torch.stack(levels, dim=1).to(uniforms.dtype)


def inverse_scales() -> Int64[Tensor, " n"]:
    """For each scale: entries of the logistic's table for each step of a mean, times ``2^20``."""
    first, last = SCALES[0], SCALES[-1]
    return table(exp, -last, -first, SCALE_STEP, FINE * 2**INVERSE_BITS // MEAN_STEP).flip(0)


def whole_weights(logits: Int64[Tensor, "B K H W"]) -> Int64[Tensor, "B K H W"]:
    """Weights that add up to at most ``2^15``, from logits in steps of a sixteenth of a nat."""
    shares = table(exp, -16 * WEIGHT_STEP, 0, WEIGHT_STEP, 2**WEIGHT_BITS).to(logits.device)
    behind = (logits - logits.amax(1, keepdim=True)).clamp(min=-16 * WEIGHT_STEP)
    share = shares[behind + 16 * WEIGHT_STEP]
    return (share << WEIGHT_BITS) // share.sum(1, keepdim=True)


@dataclass(frozen=True)
class WholeHead:
    """Turns whole numbers into distributions: for each component a logit, and for each colour a mean and the number of a scale; slopes."""

    levels: int
    colours: int
    components: int
    prediction_shift: int
    """by so many powers of two the linear prediction is in smaller steps than a mean"""

    @property
    def uniforms(self) -> int:
        """As the float head: one for the component, though none is chosen here, and one for each colour."""
        return 1 + self.colours

    def __call__(self, numbers: Float[Tensor, "B O H W"], prediction: Float[Tensor, "B C H W"] | None) -> WholePixels:
        c, each = self.colours, numbers.long().unflatten(1, (self.components, -1))
        means, scales = each[:, :, 1 : 1 + c], each[:, :, 1 + c : 1 + 2 * c].clamp(0, len(SCALES) - 1)
        if prediction is not None:
            means = means + (prediction * 2.0**-self.prediction_shift).round().long().unsqueeze(1)
        return WholePixels(self.levels, whole_weights(each[:, :, 0]), means, scales, each[:, :, 1 + 2 * c :] if c == 3 else None)

    def rows(self) -> list[tuple[float, float]]:
        """What each output of the float head is multiplied with, and what is added then, to give these numbers."""
        half = (self.levels - 1) / 2
        mean, scale = (half * MEAN_STEP, half * MEAN_STEP), (SCALE_STEP, SCALE_STEP * (math.log(half) - 3) - SCALES[0])
        slopes = [(SLOPE_STEP, 0.0)] * (3 if self.colours == 3 else 0)
        return [(WEIGHT_STEP, 0.0), *[mean] * self.colours, *[scale] * self.colours, *slopes] * self.components


@dataclass(frozen=True)
class WholeBitHead:
    """Turns one whole number a pixel into its distribution."""

    levels: int = 2
    colours: int = 1
    uniforms: int = 1

    def __call__(self, numbers: Float[Tensor, "B 1 H W"], prediction: None) -> WholeBits:
        return WholeBits(numbers.squeeze(1).long())

    def rows(self) -> list[tuple[float, float]]:
        """As those of ``WholeHead``."""
        return [(BIT_STEP, 0.0)]
