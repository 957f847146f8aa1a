"""The chances that the range coder is driven with. A level is told by halves: whether it lies in the upper half of the levels that are left,
then again, down to one; each answer has its share of the frequencies (``mixture``), and is coded in as many bits as it is surprising.

C colours, K components, N pixels, O numbers of a head, Q questions a pixel.
"""

from functools import cache

import numpy as np
import torch

from vlae.archive import loops
from vlae.archive.loops import Known, Rules, Some
from vlae.archive.mixture import (
    BIT_STEP,
    FINE,
    INVERSE_BITS,
    MASS_BITS,
    MEAN_STEP,
    RAREST,
    REACH,
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

Asked = tuple[Array, Array]
"""of all questions, colour after colour (Q, N), the chance of a yes, and whether that is the answer"""


def pixels(head: WholeHead | WholeBitHead, numbers: Array, prediction: Array, levels: Array) -> Asked:
    """What is asked of pixels whose levels (C, N) are known, given the numbers (N, O) of the head and the linear prediction (N, C)."""
    rules, every, known = rules_of(head), Some(0, 1, len(numbers)), nothing_known(head, len(numbers))._replace(levels=levels)
    found = _room(rules, len(levels), len(numbers))
    for c, questions in enumerate(zip(*(some.reshape(len(levels), -1, len(numbers)) for some in found), strict=True)):
        if c == 0:
            loops.mix(every, numbers, prediction, rules, known)
        else:
            loops.follow(c, every, numbers, prediction, rules, known)
        loops.ask(c, rules, known, *questions)
    return found


def asked(rules: Rules, known: Known) -> Asked:
    """What is asked of one colour whose mixtures and levels are known."""
    found = _room(rules, 1, known.levels.shape[1])
    loops.ask(0, rules, known, *found)
    return found


def _room(rules: Rules, colours: int, count: int) -> Asked:
    shape = colours * (rules.levels - 1).bit_length(), count
    return np.empty(shape), np.empty(shape, np.bool_)


def logistics(shares: WholeLogistics, images: int) -> tuple[Rules, Known]:
    """The mixtures (1, K, D, P) of all places, for each of some images, place after place, image after image."""
    head = WholeHead(shares.levels, 1, shares.weights.shape[1], 0)
    parts = (part.flatten(2).transpose(1, 2).expand(images, -1, -1).flatten(0, 1).contiguous().numpy() for part in (shares.weights, *shares.line))
    weights, slope, offset = parts
    return rules_of(head), nothing_known(head, len(weights))._replace(weights=weights, slope=slope, offset=offset)


def nothing_known(head: WholeHead | WholeBitHead, count: int) -> Known:
    """Room for what there is to know of some pixels."""
    weights, slope, offset = np.empty((3, count, head.components if isinstance(head, WholeHead) else 1), np.int64)
    below_low, below_high = np.empty((2, count))
    return Known(weights, slope, offset, below_low, below_high, np.empty((head.colours, count), np.int64))


@cache
def rules_of(head: WholeHead | WholeBitHead) -> Rules:
    """How the numbers of a head become chances."""
    mixed = isinstance(head, WholeHead)
    return Rules(
        masses=logistic().to(torch.int32).numpy(),
        inverses=inverse_scales().numpy(),
        shares=weight_shares().numpy(),
        zeros=np.empty(0) if mixed else _zeros(),
        levels=head.levels,
        colours=head.colours,
        mean_step=MEAN_STEP,
        slope_bits=SLOPE_STEP.bit_length() - 1,
        inverse_bits=INVERSE_BITS,
        weight_bits=WEIGHT_BITS,
        mass_bits=MASS_BITS,
        ahead=2.0**-head.prediction_shift if isinstance(head, WholeHead) else 0.0,
        finer=head.levels > FINE,
        rarest=RAREST,
    )


def _zeros() -> Array:
    """The frequency of a zero for each logit."""
    told = WholeBits(torch.arange(-REACH * BIT_STEP, REACH * BIT_STEP + 1))
    zeros: Array = told.between(torch.ones_like(told.logits)).double().numpy()
    return zeros
