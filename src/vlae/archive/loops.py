"""The halving of levels under a mixture in integers, pixel by pixel, compiled: to the last bit what tensors give (``mixture``).

B images, K components, P pixels of each.
"""

from typing import NamedTuple

import numpy as np

from vlae.core.compiled import Array, compiled


class Mixtures(NamedTuple):
    """Mixtures of logistics over the levels of pixels; those of one image may be all images'."""

    weights: Array
    """(B, K, P)"""
    slope: Array
    offset: Array
    """(B, K, P): the place of a level in the table of masses, times ``2^inverse_bits``, as a straight line"""
    masses: Array
    levels: int
    inverse_bits: int
    weight_bits: int
    finer: bool
    """whether mass grows evenly between two entries of the table"""


class Left(NamedTuple):
    """What is left for each pixel (B, P), and the frequencies below: the lowest level, the middle, and the end of those left."""

    low: Array
    middle: Array
    below_low: Array
    below_middle: Array
    below_high: Array
    upper: Array
    """the share of the upper half"""


@compiled
def halve(half: int, rarest: float, mixtures: Mixtures, left: Left) -> None:
    """Find the middle of what is left, ``half`` levels up, and the share of the upper half, never quite nothing or all."""
    images, pixels = left.low.shape
    components, last, rest = mixtures.weights.shape[1], len(mixtures.masses) - 1, (1 << mixtures.inverse_bits) - 1
    for b in range(images):
        of = b if len(mixtures.weights) > 1 else 0
        for p in range(pixels):
            middle = min(left.low[b, p] + half, mixtures.levels - 1)
            total = 0
            for k in range(components):
                exact = mixtures.slope[of, k, p] * middle + mixtures.offset[of, k, p]
                place = min(max(exact >> mixtures.inverse_bits, 0), last)
                below = mixtures.masses[place]
                if mixtures.finer:
                    rise = mixtures.masses[min(place + 1, last)] - below
                    below += (rise * (exact & rest)) >> mixtures.inverse_bits
                total += mixtures.weights[of, k, p] * below
            below_middle = np.float64((total >> mixtures.weight_bits) + middle)
            share = (left.below_high[b, p] - below_middle) / (left.below_high[b, p] - left.below_low[b, p])
            left.middle[b, p], left.below_middle[b, p] = middle, below_middle
            left.upper[b, p] = min(max(share, rarest), 1 - rarest)


@compiled
def take(upper: Array, left: Left) -> None:
    """Go on in the upper half, or in the lower."""
    images, pixels = left.low.shape
    for b in range(images):
        for p in range(pixels):
            if upper[b, p]:
                left.low[b, p], left.below_low[b, p] = left.middle[b, p], left.below_middle[b, p]
            else:
                left.below_high[b, p] = left.below_middle[b, p]
