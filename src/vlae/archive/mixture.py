"""Distributions of pixels in integers: cumulative frequencies that are the same on every machine.

Everything here is 64-bit integers. B batch, K components, H and W height and width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int64
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
RAREST = 2.0**-24


class Shares(ABC):
    """How the frequencies of one colour of some pixels are shared out among its levels."""

    levels: int

    @property
    def total(self) -> int:
        """``F(levels)``: all frequencies together."""
        return 2**MASS_BITS + self.levels

    @abstractmethod
    def between(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        """``F(x)``: the frequencies of all levels below ``x``, which is none of the ends 0 and ``levels``; strictly increasing."""

    def below(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        """``F(x)`` for any ``x`` from 0 to ``levels``."""
        inner = self.between(x.clamp(1, self.levels - 1))
        return torch.where(x <= 0, 0, torch.where(x >= self.levels, self.total, inner))


@dataclass(frozen=True, eq=False)
class WholeLogistics(Shares):
    """A mixture of logistics over the levels of one colour: ``F(x) = sum_k w_k C((x - 1/2 - m_k) / s_k) + x``."""

    levels: int
    weights: Int64[Tensor, "B K H W"]
    means: Int64[Tensor, "B K H W"]
    """in sixteenths of a level"""
    scales: Int64[Tensor, "B K H W"]
    """numbers of entries of the table of scales"""

    def between(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        return self.between_each(x).mul_(self.weights).sum(1).bitwise_right_shift_(WEIGHT_BITS).add_(x)

    def between_each(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B K H W"]:
        """The mass of each component below ``x``, of ``2^24``."""
        slope, offset = self.line
        exact, masses = torch.addcmul(offset, x.unsqueeze(1), slope), logistic().to(x.device)
        place = (exact >> INVERSE_BITS).clamp_(0, 2 * REACH * FINE)
        below = torch.take(masses, place)
        if self.levels <= FINE:
            return below
        # One of more levels may be narrower than an entry of the table: between two entries the mass grows evenly.
        rise = torch.take(masses, (place + 1).clamp_(max=2 * REACH * FINE)) - below
        return below + (rise * (exact & (2**INVERSE_BITS - 1)) >> INVERSE_BITS)

    @cached_property
    def line(self) -> tuple[Int64[Tensor, "B K H W"], Int64[Tensor, "B K H W"]]:
        """The place of a level in the logistic's table, times ``2^20``, as a straight line: its slope and its offset."""
        inverse = torch.take(inverse_scales().to(self.scales.device), self.scales)
        return MEAN_STEP * inverse, (REACH * FINE << INVERSE_BITS) - (self.means + MEAN_STEP // 2) * inverse

    def given(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B K H W"]:
        """The weights of the components once this colour is known to be ``x``."""
        low, high = (self.between_each(level.clamp(1, self.levels - 1)) for level in (x, x + 1))
        above = torch.where((x + 1 >= self.levels).unsqueeze(1), 2**MASS_BITS, high)
        mass = above - torch.where((x <= 0).unsqueeze(1), 0, low) + 1  # none is ruled out by rounding alone
        share = self.weights * mass
        return (share << WEIGHT_BITS) // share.sum(1, keepdim=True)


class Halving:
    """The levels that are left for one colour of some pixels, and the frequencies below their ends.

    The frequencies are held in float64, which is exact for them; a share is one division, which IEEE 754 rounds the same everywhere.
    """

    def __init__(self, shares: Shares, like: Int64[Tensor, "B H W"]) -> None:
        self.shares, self.low = shares, torch.zeros_like(like)
        self.below_low = torch.zeros_like(like, dtype=torch.float64)
        self.below_high = torch.full_like(self.below_low, shares.total)

    def middles(self) -> Iterator[Int64[Tensor, "B H W"]]:
        """The middle of each halving, down to one level; ``take`` must be told which half it is."""
        levels = self.shares.levels
        for bit in reversed(range((levels - 1).bit_length())):
            self.middle = self.low + 2**bit
            if levels & (levels - 1):  # the upper half may hold none
                self.middle.clamp_(max=levels - 1)
            self.below_middle = self.shares.between(self.middle).double()
            yield self.middle

    def upper(self) -> Float[Tensor, "B H W"]:
        """The share of the upper half of what is left, never quite nothing or all."""
        share = (self.below_high - self.below_middle).div_(self.below_high - self.below_low)
        return share.clamp_(RAREST, 1 - RAREST)

    def take(self, upper: Bool[Tensor, "B H W"]) -> None:
        """Go on in the upper half, or in the lower."""
        self.low = torch.where(upper, self.middle, self.low)
        self.below_low = torch.where(upper, self.below_middle, self.below_low)
        self.below_high = torch.where(upper, self.below_high, self.below_middle)


class WholeDistribution(ABC):
    """The distribution of pixels in whole numbers, colour after colour."""

    @property
    @abstractmethod
    def colours(self) -> int:
        """How many colours a pixel has."""

    @abstractmethod
    def colour(self, c: int, earlier: Sequence[Int64[Tensor, "B H W"]]) -> Shares:
        """The shares of colour ``c``, given the levels of the earlier ones."""

    def log_prob(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        """The log of each pixel's share of the frequencies, all colours together, in nats."""
        levels = x.long().unbind(1)
        total = torch.zeros_like(levels[0], dtype=torch.float64)
        for c, level in enumerate(levels):
            shares = self.colour(c, levels[:c])
            total = total + torch.log((shares.below(level + 1) - shares.below(level)).double() / shares.total)
        return total

    def sample(self, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B C H W"]:
        """The levels in whose shares the last uniforms fall, one for each colour."""
        levels: list[Tensor] = []
        for c, chance in enumerate(uniforms[:, -self.colours :].double().unbind(1)):
            shares = self.colour(c, levels)
            wanted = (chance * shares.total).long()
            left = Halving(shares, wanted)
            for _ in left.middles():
                left.take(wanted >= left.below_middle)
            levels.append(left.low)
        return torch.stack(levels, dim=1).to(uniforms.dtype)


@dataclass(frozen=True, eq=False)
class WholePixels(WholeDistribution):
    """Mixtures of logistics: each colour's means follow the earlier colours, which also tell the components apart."""

    levels: int
    weights: Int64[Tensor, "B K H W"]
    means: Int64[Tensor, "B K C H W"]
    scales: Int64[Tensor, "B K C H W"]
    slopes: Int64[Tensor, "B K 3 H W"] | None
    """in steps of ``1 / SLOPE_STEP``"""

    @property
    def colours(self) -> int:
        return self.means.shape[2]

    def colour(self, c: int, earlier: Sequence[Int64[Tensor, "B H W"]]) -> Shares:
        weights, means = self.weights, self.means[:, :, c]
        for n, level in enumerate(earlier):
            weights = cast(WholeLogistics, self.colour(n, earlier[:n])).given(level)
            assert self.slopes is not None
            # Half the steps of a mean for each of the 2 x - (L - 1) that a level stands for.
            follow = self.slopes[:, :, max(c - 1, 0) + n] * ((2 * level - (self.levels - 1)) * (MEAN_STEP // 2)).unsqueeze(1)
            means = means + (follow + SLOPE_STEP // 2).div(SLOPE_STEP, rounding_mode="floor")
        return WholeLogistics(self.levels, weights, means, self.scales[:, :, c])


@dataclass(frozen=True, eq=False)
class WholeBits(Shares, WholeDistribution):
    """Pixels of two levels, from their logits in steps of ``1 / BIT_STEP``: their own shares, since they have but one colour."""

    logits: Int64[Tensor, "B H W"]
    levels: int = 2

    @property
    def colours(self) -> int:
        return 1

    def colour(self, c: int, earlier: Sequence[Int64[Tensor, "B H W"]]) -> Shares:
        return self

    def between(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        chances = table(sigmoid, -REACH * BIT_STEP, REACH * BIT_STEP, BIT_STEP, 2**MASS_BITS).to(x.device)
        return torch.take(chances, REACH * BIT_STEP - self.logits.clamp(-REACH * BIT_STEP, REACH * BIT_STEP)) + 1


def logistic() -> Int64[Tensor, " n"]:
    """The mass of the standard logistic below each of ``FINE`` places a unit, from ``-REACH`` to ``REACH``."""
    return table(sigmoid, -REACH * FINE, REACH * FINE, FINE, 2**MASS_BITS)


@cache
def inverse_scales() -> Int64[Tensor, " n"]:
    """For each scale: entries of the logistic's table for each step of a mean, times ``2^20``."""
    first, last = SCALES[0], SCALES[-1]
    return table(exp, -last, -first, SCALE_STEP, FINE * 2**INVERSE_BITS // MEAN_STEP).flip(0)


def weight_shares() -> Int64[Tensor, " n"]:
    """``exp``, times ``2^15``, of a logit's steps below the largest, from 16 nats below it."""
    return table(exp, -16 * WEIGHT_STEP, 0, WEIGHT_STEP, 2**WEIGHT_BITS)


def whole_weights(logits: Int64[Tensor, "B K H W"]) -> Int64[Tensor, "B K H W"]:
    """Weights that add up to at most ``2^15``, from logits in steps of a sixteenth of a nat."""
    shares = weight_shares().to(logits.device)
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
