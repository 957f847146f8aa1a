"""Codes in whole numbers, and how likely each is: what is stored of a code is an index for each of its elements.

C channels of a grid code or dimensions of a vector code, P places (1 for a vector).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.mixture import MEAN_STEP, SCALE_STEP, SCALES, WEIGHT_BITS, WholeLogistics
from vlae.archive.twin import CODE_FRACTION, CODE_MOST

LEVELS = 2 * (CODE_MOST + 1)
"""An index is coded as one of so many levels; 0 is the one in the middle."""
RARELY, MIDDLE, WIDE = 256, MEAN_STEP * LEVELS // 2, round(SCALE_STEP * math.log(LEVELS / 16)) - SCALES[0]
"""One code in so many is unlike those that the codebook was made from: then it may lie anywhere."""


@dataclass(frozen=True, eq=False)
class Codebook:
    """For each channel the steps of its index, and the distribution that its indices are coded with: a logistic, or rarely anything."""

    steps: Int64[Tensor, " C"]
    """whole numbers of a twin's code (``2^-CODE_FRACTION``) for one step of the index"""
    means: Int64[Tensor, " C"]
    """of the level, in sixteenths"""
    scales: Int64[Tensor, " C"]
    """numbers of entries of the table of scales"""

    @classmethod
    def of(cls, codes: Float[Tensor, "B C ..."], stds: Float[Tensor, "B C ..."], coarseness: float) -> "Codebook":
        """The codebook for codes like these, whose posteriors have these standard deviations.

        A code is known to its posterior's standard deviation and no better; steps of ``coarseness sqrt(12)`` of it blur a code as much as
        the posterior does for ``coarseness`` 1. They are powers of two.
        """
        spread = stds.double().transpose(0, 1).flatten(1).square().mean(1).sqrt()
        wanted = coarseness * math.sqrt(12) * spread * 2**CODE_FRACTION
        steps = 2 ** wanted.log2().round().clamp(0, math.log2(CODE_MOST + 1)).long()
        blank = cls(steps, torch.zeros_like(steps), torch.zeros_like(steps))
        index = blank.index(codes).transpose(0, 1).flatten(1).double()
        means = (MEAN_STEP * (index.mean(1) + CODE_MOST + 1)).round().long()
        return cls(steps, means, _number(index.var(1, correction=0)))

    @property
    def only(self) -> Int64[Tensor, " C"] | None:
        """The index of each channel, where the codes that the codebook was made from had all the same one: a code that was not used, or dropped."""
        return self.of_levels((self.means + MEAN_STEP // 2) // MEAN_STEP) if (self.scales == _number(torch.zeros(1))).all() else None

    def index(self, codes: Float[Tensor, "B C ..."]) -> Int64[Tensor, "B C ..."]:
        """The nearest index of each element."""
        steps = self._like(codes)
        return (codes.double() * (2**CODE_FRACTION / steps)).round().long().clamp(-(CODE_MOST // steps), CODE_MOST // steps)

    def whole(self, index: Int64[Tensor, "B C ..."]) -> Int64[Tensor, "B C ..."]:
        """The code in a twin's whole numbers."""
        return index * self._like(index)

    def code(self, index: Int64[Tensor, "B C ..."]) -> Float[Tensor, "B C ..."]:
        """The code itself."""
        return self.whole(index).double() / 2**CODE_FRACTION

    def levels(self, index: Int64[Tensor, "B C ..."]) -> Int64[Tensor, "B C P"]:
        """What indices are coded as."""
        return index.reshape(*index.shape[:2], -1) + CODE_MOST + 1

    def of_levels(self, levels: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
        """The indices of what was coded."""
        return levels - (CODE_MOST + 1)

    def shares(self, places: int) -> WholeLogistics:
        """The frequencies of the levels of each channel, at each place: (1, C, P)."""
        whole = 2**WEIGHT_BITS
        parts = (
            (self.means, self.scales, whole - whole // RARELY),
            (torch.full_like(self.means, MIDDLE), torch.full_like(self.scales, WIDE), whole // RARELY),
        )
        means, scales, weights = (torch.stack([torch.as_tensor(p[k]).expand_as(self.means) for p in parts]) for k in range(3))
        return WholeLogistics(LEVELS, *(values.unsqueeze(0).unsqueeze(-1).expand(-1, -1, -1, places) for values in (weights, means, scales)))

    def _like(self, codes: Tensor) -> Int64[Tensor, "C ..."]:
        return self.steps.view(-1, *[1] * (codes.dim() - 2))


def _number(variances: Float[Tensor, " C"]) -> Int64[Tensor, " C"]:
    """Of the scales of logistics with these variances, but at least a tenth of an index wide: where they stand in the table."""
    scales = (variances + 0.01).sqrt() * math.sqrt(3) / math.pi
    return ((SCALE_STEP * scales.log()).round().long() - SCALES[0]).clamp(0, len(SCALES) - 1)
