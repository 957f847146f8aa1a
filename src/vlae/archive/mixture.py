"""Distributions of pixels in integers: cumulative frequencies that are the same on every machine.

Everything here is 64-bit integers. B batch, K components, H and W height and width.
"""

import math
from dataclasses import dataclass

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
WEIGHT_BITS, MASS_BITS = 15, 24
REACH, FINE = 24, 1024
"""the logistic's table: so far out, and so many entries for each unit"""
INVERSE_BITS = 20


@dataclass(frozen=True, eq=False)
class WholeMixture:
    """A mixture of logistics over the levels of a grey pixel: ``F(x) = sum_k w_k C((x - 1/2 - m_k) / s_k) + x``, strictly increasing."""

    levels: int
    weights: Int64[Tensor, "B K H W"]
    means: Int64[Tensor, "B K H W"]
    """in sixteenths of a level"""
    scales: Int64[Tensor, "B K H W"]
    """numbers of entries of the table of scales"""

    @property
    def total(self) -> int:
        """``F(levels)``: all frequencies together."""
        return 2**MASS_BITS + self.levels

    def below(self, x: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        """``F(x)``: the frequencies of all levels below ``x``, from 0 for the lowest."""
        logistic = table(sigmoid, -REACH * FINE, REACH * FINE, FINE, 2**MASS_BITS).to(x.device)
        inverse = inverse_scales().to(x.device)[self.scales]
        away = (MEAN_STEP * x - MEAN_STEP // 2).unsqueeze(1) - self.means
        place = ((away * inverse) >> INVERSE_BITS).clamp(-REACH * FINE, REACH * FINE) + REACH * FINE
        inner = (self.weights * logistic[place]).sum(1) >> WEIGHT_BITS
        edge = torch.where(x <= 0, 0, torch.where(x >= self.levels, 2**MASS_BITS, inner))
        return edge + x

    def log_prob(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B H W"]:
        """The log of each pixel's share of the frequencies, in nats."""
        level = x.squeeze(1).long()
        return torch.log((self.below(level + 1) - self.below(level)).double() / self.total)

    def sample(self, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B 1 H W"]:
        """The level in whose share a uniform falls; of the uniforms only the first is used."""
        wanted = (uniforms[:, 0].double() * self.total).long()
        low, found = self.below(torch.zeros_like(wanted)), torch.zeros_like(wanted)
        for bit in reversed(range((self.levels - 1).bit_length())):
            middle = (found + 2**bit).clamp(max=self.levels)
            low = self.below(middle)
            found = torch.where(wanted >= low, middle, found)
        return found.clamp(max=self.levels - 1).unsqueeze(1).to(uniforms.dtype)


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
    """Turns whole numbers into whole mixtures: for each component a logit, a mean in sixteenths of a level, and the number of a scale."""

    levels: int
    components: int
    prediction_shift: int
    """by so many powers of two the linear prediction is in smaller steps than a mean"""
    colours: int = 1
    uniforms: int = 2

    def __call__(self, numbers: Float[Tensor, "B O H W"], prediction: Float[Tensor, "B 1 H W"] | None) -> WholeMixture:
        logits, means, scales = numbers.long().unflatten(1, (self.components, 3)).unbind(2)
        if prediction is not None:
            means = means + (prediction * 2.0**-self.prediction_shift).round().long()
        return WholeMixture(self.levels, whole_weights(logits), means, scales.clamp(0, len(SCALES) - 1))

    def rows(self) -> list[tuple[float, float]]:
        """What each output of the float head is multiplied with, and what is added then, to give these numbers."""
        half = (self.levels - 1) / 2
        scale = SCALE_STEP * (math.log(half) - 3) - SCALES[0]
        return [(WEIGHT_STEP, 0.0), (half * MEAN_STEP, half * MEAN_STEP), (SCALE_STEP, scale)] * self.components
