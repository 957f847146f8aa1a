"""Mixtures of logistics in integers, and the halving of their levels, compiled: to the last bit what tensors give (``mixture``).

B images, C colours, K components, O numbers of the head, P pixels of each image.
"""

from typing import NamedTuple

import numpy as np

from vlae.core.compiled import Array, compiled


class Rules(NamedTuple):
    """How numbers become mixtures of logistics over the levels of pixels, and these frequencies: the tables and steps of ``mixture``."""

    masses: Array
    """the logistic's table"""
    inverses: Array
    """of the scales"""
    shares: Array
    """of the weights' logits below the largest"""
    levels: int
    colours: int
    mean_step: int
    slope_bits: int
    inverse_bits: int
    weight_bits: int
    mass_bits: int
    ahead: float
    """what the linear prediction is multiplied with to be in steps of a mean"""
    finer: bool
    """whether mass grows evenly between two entries of the table"""


class Mixtures(NamedTuple):
    """Mixtures of one colour (B, P, K); those of one image may be all images'."""

    weights: Array
    slope: Array
    offset: Array
    """the place of a level in the table of masses, times ``2^inverse_bits``, as a straight line"""


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
def mass_below(level: int, slope: int, offset: int, rules: Rules) -> int:
    """The mass of one logistic below a level."""
    last, exact = len(rules.masses) - 1, slope * level + offset
    place = min(max(exact >> rules.inverse_bits, 0), last)
    below = rules.masses[place]
    if rules.finer:
        rise = rules.masses[min(place + 1, last)] - below
        below += (rise * (exact & ((1 << rules.inverse_bits) - 1))) >> rules.inverse_bits
    return below


@compiled
def mix(numbers: Array, prediction: Array, rules: Rules, found: Mixtures) -> None:
    """The mixtures of the first colour: of numbers (B, P, O) and the linear prediction (B, P, C), of no colours where there is none."""
    images, pixels, components = found.weights.shape
    each = numbers.shape[2] // components
    for b in range(images):
        for p in range(pixels):
            most = numbers[b, p, 0]
            for k in range(1, components):
                most = max(most, numbers[b, p, k * each])
            for k in range(components):
                behind = int(max(numbers[b, p, k * each] - most, 1.0 - len(rules.shares)))
                found.weights[b, p, k] = rules.shares[behind + len(rules.shares) - 1]
            even(b, p, rules, found)
            for k in range(components):
                line(b, p, k, 0, 0, numbers, prediction, rules, found)


@compiled
def follow(c: int, numbers: Array, prediction: Array, levels: Array, rules: Rules, before: Mixtures, found: Mixtures) -> None:
    """The mixtures of colour ``c``, given the levels (c, B, P) of the earlier ones and the mixtures of the last of these."""
    images, pixels, components = found.weights.shape
    each = numbers.shape[2] // components
    for b in range(images):
        for p in range(pixels):
            for k in range(components):
                mass = mass_of(levels[c - 1, b, p], before.slope[b, p, k], before.offset[b, p, k], rules)
                found.weights[b, p, k] = before.weights[b, p, k] * mass
            even(b, p, rules, found)
            for k in range(components):
                further = 0
                for n in range(c):  # half the steps of a mean for each of the 2 x - (L - 1) that a level stands for
                    slope = int(numbers[b, p, k * each + 1 + 2 * rules.colours + c - 1 + n])
                    told = slope * (2 * levels[n, b, p] - (rules.levels - 1)) * (rules.mean_step // 2)
                    further += (told + (1 << rules.slope_bits >> 1)) >> rules.slope_bits
                line(b, p, k, c, further, numbers, prediction, rules, found)


@compiled
def mass_of(level: int, slope: int, offset: int, rules: Rules) -> int:
    """The mass of one logistic at a level; none is ruled out by rounding alone."""
    low = mass_below(level, slope, offset, rules) if level > 0 else 0
    high = mass_below(level + 1, slope, offset, rules) if level + 1 < rules.levels else 1 << rules.mass_bits
    return high - low + 1


@compiled
def even(b: int, p: int, rules: Rules, found: Mixtures) -> None:
    """Make weights add up to at most ``2^weight_bits``."""
    total = 0
    for k in range(found.weights.shape[2]):
        total += found.weights[b, p, k]
    for k in range(found.weights.shape[2]):
        found.weights[b, p, k] = quotient(found.weights[b, p, k] << rules.weight_bits, total)


@compiled
def quotient(a: int, b: int) -> int:
    """``a // b`` of positive numbers with a small quotient, which a division of floats misses by one at most: several times as fast."""
    found = int(a / b)
    rest = a - found * b
    return found - 1 if rest < 0 else found + 1 if rest >= b else found


@compiled
def line(b: int, p: int, k: int, c: int, further: int, numbers: Array, prediction: Array, rules: Rules, found: Mixtures) -> None:
    """Where the levels of a component lie in the table: of its mean, ``further`` up, and its scale."""
    at = k * (numbers.shape[2] // found.weights.shape[2]) + 1 + c
    mean = int(numbers[b, p, at]) + further
    if prediction.shape[2]:
        mean += int(np.rint(prediction[b, p, c] * rules.ahead))
    scale = int(min(max(numbers[b, p, at + rules.colours], 0.0), len(rules.inverses) - 1.0))
    inverse = rules.inverses[scale]
    found.slope[b, p, k] = rules.mean_step * inverse
    found.offset[b, p, k] = (((len(rules.masses) - 1) // 2) << rules.inverse_bits) - (mean + rules.mean_step // 2) * inverse


@compiled
def halve(half: int, rarest: float, rules: Rules, mixtures: Mixtures, left: Left) -> None:
    """Find the middle of what is left, ``half`` levels up, and the share of the upper half, never quite nothing or all."""
    images, pixels = left.low.shape
    for b in range(images):
        of = b if len(mixtures.weights) > 1 else 0
        for p in range(pixels):
            middle = min(left.low[b, p] + half, rules.levels - 1)
            total = 0
            for k in range(mixtures.weights.shape[2]):
                total += mixtures.weights[of, p, k] * mass_below(middle, mixtures.slope[of, p, k], mixtures.offset[of, p, k], rules)
            below_middle = np.float64((total >> rules.weight_bits) + middle)
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
