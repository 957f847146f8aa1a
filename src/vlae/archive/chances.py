"""The chances that the range coder is driven with. A level is told by halves: whether it lies in the upper half of the levels that are left,
then again, down to one; each answer has its share of the frequencies (``mixture``), and is coded in as many bits as it is surprising.

B images, C colours, D channels of a code, K components, N pixels, P places.
"""

from functools import cache

import numpy as np
import torch

from vlae.archive.loops import Asked, Known, Rules
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


def questions(levels: int) -> int:
    """How many answers tell which of so many levels it is."""
    return (levels - 1).bit_length()


def unasked(head: WholeHead | WholeBitHead, images: int, count: int) -> Asked:
    """Room for what is asked of so many levels of some images."""
    shape = images, questions(head.levels), count
    return Asked(np.empty(shape), np.empty(shape, np.bool_))


def logistics(shares: WholeLogistics, images: int) -> tuple[WholeHead, Known]:
    """What is known of a code: of all places the mixtures (1, K, D, P), place after place, for each of some images."""
    head = WholeHead(shares.levels, 1, shares.weights.shape[1], 0)
    parts = (part.flatten(2).permute(2, 0, 1).expand(-1, images, -1).flatten(0, 1).contiguous().numpy() for part in (shares.weights, *shares.line))
    weights, slope, offset = parts
    return head, nothing_known(head, len(weights))._replace(weights=weights, slope=slope, offset=offset)


def nothing_known(head: WholeHead | WholeBitHead, count: int) -> Known:
    """Room for what there is to know of some pixels."""
    weights, slope, offset = np.empty((3, count, head.components if isinstance(head, WholeHead) else 1), np.int64)
    below_low, below_high = np.empty((2, count))
    return Known(weights, slope, offset, below_low, below_high, np.empty((head.colours, count), np.int64))


@cache
def rules_of(head: WholeHead | WholeBitHead) -> Rules:
    """How the numbers of a head become chances."""
    zeros, ahead = (np.empty(0), 2.0**-head.prediction_shift) if isinstance(head, WholeHead) else (_zeros(), 0.0)
    return Rules(
        masses=logistic().to(torch.int32).numpy(),
        inverses=inverse_scales().numpy(),
        shares=weight_shares().numpy(),
        zeros=zeros,
        levels=head.levels,
        colours=head.colours,
        mean_step=MEAN_STEP,
        slope_bits=SLOPE_STEP.bit_length() - 1,
        inverse_bits=INVERSE_BITS,
        weight_bits=WEIGHT_BITS,
        mass_bits=MASS_BITS,
        ahead=ahead,
        finer=head.levels > FINE,
        rarest=RAREST,
    )


def _zeros() -> Array:
    """The frequency of a zero for each logit."""
    told = WholeBits(torch.arange(-REACH * BIT_STEP, REACH * BIT_STEP + 1))
    zeros: Array = told.between(torch.ones_like(told.logits)).double().numpy()
    return zeros
