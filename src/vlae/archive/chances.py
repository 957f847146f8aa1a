"""The chances that the range coder is driven with. A level is told by halves: whether it lies in the upper half of the levels that are left,
then again, down to one; each answer has its share of the frequencies (``mixture``), and is coded in as many bits as it is surprising.

B images, C colours, D channels of a code, O numbers of a head, P pixels or places of each image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vlae.archive import loops
from vlae.archive.mixture import (
    FINE,
    INVERSE_BITS,
    MASS_BITS,
    MEAN_STEP,
    RAREST,
    SLOPE_STEP,
    WEIGHT_BITS,
    WholeBitHead,
    WholeBits,
    WholeHead,
    WholeLogistics,
    inverse_scales,
    logistic,
    weight_shares,
)
from vlae.core.compiled import Array


class Asked(ABC):
    """What is asked of one colour of some pixels, question after question."""

    low: Array
    """(B, P): after the last question, the levels"""

    @abstractmethod
    def questions(self) -> Iterator[tuple[Array, Array]]:
        """Of each question the levels from which on the answer is yes, and its chance, (B, P) both; ``take`` must be told the answers."""

    @abstractmethod
    def take(self, upper: Array) -> None:
        """Take the answers (B, P)."""


class Halves(Asked):
    """The halves of a mixture's levels."""

    def __init__(self, rules: loops.Rules, mixtures: loops.Mixtures, shape: tuple[int, int]) -> None:
        self.rules, self.mixtures = rules, mixtures
        total = float(2**rules.mass_bits + rules.levels)
        whole, real = np.zeros((2, *shape), np.int64), np.zeros((4, *shape))
        self.left = loops.Left(whole[0], whole[1], real[0], real[1], np.full(shape, total), real[2])
        self.low = self.left.low

    def questions(self) -> Iterator[tuple[Array, Array]]:
        for bit in reversed(range((self.rules.levels - 1).bit_length())):
            loops.halve(2**bit, RAREST, self.rules, self.mixtures, self.left)
            yield self.left.middle, self.left.upper

    def take(self, upper: Array) -> None:
        loops.take(upper, self.left)


class Bits(Asked):
    """Pixels of two levels."""

    def __init__(self, told: WholeBits) -> None:
        one = torch.ones_like(told.logits)
        self.chance = ((told.total - told.between(one)).double() / told.total).clamp_(RAREST, 1 - RAREST).flatten(1).numpy()
        self.low = np.zeros(self.chance.shape, np.int64)

    def questions(self) -> Iterator[tuple[Array, Array]]:
        yield np.ones_like(self.low), self.chance

    def take(self, upper: Array) -> None:
        self.low[:] = upper


class Pixels:
    """Some pixels as the numbers of a head tell them.

    Args:
        head: what it is.
        numbers: whole numbers.
        prediction: the linear prediction, where there is one.
    """

    def __init__(self, head: WholeHead | WholeBitHead, numbers: Float[Tensor, "B P O"], prediction: Float[Tensor, "B P C"] | None) -> None:
        self.head, self.numbers = head, numbers.contiguous()
        self.prediction = numbers.new_empty(0, 0, 0) if prediction is None else prediction.contiguous()
        self.before: loops.Mixtures | None = None

    def colour(self, c: int, levels: Array) -> Asked:
        """What is asked of colour ``c``, given the levels (c, B, P) of the earlier ones: of one colour after the other."""
        images, pixels, _ = self.numbers.shape
        if isinstance(self.head, WholeBitHead):
            return Bits(WholeBits(self.numbers.long()[..., 0]))
        rules = _rules(self.head.levels, self.head.colours, self.head.prediction_shift)
        given = self.numbers.numpy(), self.prediction.numpy()
        found = loops.Mixtures(*np.empty((3, images, pixels, self.head.components), np.int64))
        if self.before is None:
            loops.mix(*given, rules, found)
        else:
            loops.follow(c, *given, levels, rules, self.before, found)
        self.before = found
        return Halves(rules, found, (images, pixels))


def logistics(shares: WholeLogistics, images: int) -> Asked:
    """What is asked where all images have the same mixtures (1, K, D, P): (images, D P)."""
    parts = (part.flatten(2).transpose(1, 2).contiguous().numpy() for part in (shares.weights, *shares.line))
    mixtures = loops.Mixtures(*parts)
    return Halves(_rules(shares.levels, 1, 0), mixtures, (images, mixtures.weights.shape[1]))


@cache
def _rules(levels: int, colours: int, shift: int) -> loops.Rules:
    return loops.Rules(
        masses=logistic().numpy(),
        inverses=inverse_scales().numpy(),
        shares=weight_shares().numpy(),
        levels=levels,
        colours=colours,
        mean_step=MEAN_STEP,
        slope_bits=SLOPE_STEP.bit_length() - 1,
        inverse_bits=INVERSE_BITS,
        weight_bits=WEIGHT_BITS,
        mass_bits=MASS_BITS,
        ahead=2.0**-shift,
        finer=levels > FINE,
    )
