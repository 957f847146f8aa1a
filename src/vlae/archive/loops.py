"""Mixtures of logistics in integers, and the halving of their levels, compiled: to the last bit what tensors give (``mixture``).

B images, C colours, K components, N pixels, O numbers of the head, Q questions that tell a level.
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
    zeros: Array
    """the frequency of a zero for each logit, where pixels are bits; else empty"""
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
    rarest: float
    """No answer is less likely."""


class Some(NamedTuple):
    """Some of all pixels: from the ``first`` every ``step``-th, so many."""

    first: int
    step: int
    length: int


class Known(NamedTuple):
    """What is known of pixels: of the colour that is next the mixture (N, K), and what is left of its levels with the frequencies below (N)."""

    weights: Array
    slope: Array
    offset: Array
    """the place of a level in the table of masses, times ``2^inverse_bits``, as a straight line; of bits the place of the logit in theirs"""
    below_low: Array
    below_high: Array
    levels: Array
    """(C, N), the lowest that are left"""


class Asked(NamedTuple):
    """What is asked of levels of some images (B, Q, N): the chance of a yes, and whether that is the answer."""

    chances: Array
    answers: Array


@compiled
def mass_below(exact: int, masses: Array, bits: int, finer: bool) -> np.int64:
    """The mass of one logistic below a level, which is ``exact / 2^bits`` in the table."""
    last = len(masses) - 1
    place = min(max(exact >> bits, 0), last)
    below = np.int64(masses[place])
    if finer:
        rise = np.int64(masses[min(place + 1, last)]) - below
        below += (rise * (exact & ((1 << bits) - 1))) >> bits
    return below


@compiled
def mix(c: int, some: Some, numbers: Array, prediction: Array, rules: Rules, known: Known) -> None:
    """The mixtures of colour ``c``, of the numbers (N, O) of the head and the linear prediction (N, C), of no colours where there is none; known are
    those of the colour before, and the levels of all earlier ones.
    """
    if c == 0:
        begin(some, numbers, rules, known)
    else:
        follow(c, some, rules, known)
    if not len(rules.zeros):
        lines(c, some, numbers, prediction, rules, known)


@compiled
def begin(some: Some, numbers: Array, rules: Rules, known: Known) -> None:
    """The weights of the first colour's components; of bits the place of the logit."""
    components = known.weights.shape[1]
    each = numbers.shape[1] // components
    for place in range(some.length):
        n = some.first + place * some.step
        if len(rules.zeros):
            reach = len(rules.zeros) // 2
            known.offset[n, 0] = int(min(max(numbers[n, 0], -reach), reach)) + reach
            continue
        most = numbers[n, 0]
        for k in range(1, components):
            most = max(most, numbers[n, k * each])
        for k in range(components):
            behind = int(max(numbers[n, k * each] - most, 1.0 - len(rules.shares)))
            known.weights[n, k] = rules.shares[behind + len(rules.shares) - 1]
        even(n, known.weights, rules.weight_bits)


@compiled
def follow(c: int, some: Some, rules: Rules, known: Known) -> None:
    """The weights of the components once the level of the colour before ``c`` is known."""
    top, all_of_it = rules.levels - 1, 1 << rules.mass_bits
    for place in range(some.length):
        n = some.first + place * some.step
        level = known.levels[c - 1, n]
        for k in range(known.weights.shape[1]):
            slope, offset = known.slope[n, k], known.offset[n, k]
            low = mass_below(slope * level + offset, rules.masses, rules.inverse_bits, rules.finer) if level > 0 else 0
            high = mass_below(slope * (level + 1) + offset, rules.masses, rules.inverse_bits, rules.finer) if level < top else all_of_it
            known.weights[n, k] *= high - low + 1  # none is ruled out by rounding alone
        even(n, known.weights, rules.weight_bits)


@compiled
def even(n: int, weights: Array, bits: int) -> None:
    """Make weights of a pixel add up to at most ``2^bits``."""
    total = 0
    for k in range(weights.shape[1]):
        total += weights[n, k]
    for k in range(weights.shape[1]):
        weights[n, k] = quotient(weights[n, k] << bits, total)


@compiled
def quotient(a: int, b: int) -> int:
    """``a // b`` of positive numbers with a small quotient, which a division of floats misses by one at most: several times as fast."""
    found = int(a / b)
    rest = a - found * b
    return found - 1 if rest < 0 else found + 1 if rest >= b else found


@compiled
def lines(c: int, some: Some, numbers: Array, prediction: Array, rules: Rules, known: Known) -> None:
    """Where the levels of colour ``c`` lie in the table: of each component's scale and its mean, which follows the earlier colours."""
    components, middle = known.weights.shape[1], (len(rules.masses) - 1) // 2 << rules.inverse_bits
    each, last = numbers.shape[1] // components, len(rules.inverses) - 1.0
    for place in range(some.length):
        n = some.first + place * some.step
        ahead = int(np.rint(prediction[n, c] * rules.ahead)) if prediction.shape[1] else 0
        for k in range(components):
            at = k * each + 1 + c
            mean = int(numbers[n, at]) + ahead
            for earlier in range(c):  # half the steps of a mean for each of the 2 x - (L - 1) that a level stands for
                slope = int(numbers[n, at + 2 * rules.colours - 1 + earlier])
                told = slope * (2 * known.levels[earlier, n] - (rules.levels - 1)) * (rules.mean_step // 2)
                mean += (told + (1 << rules.slope_bits >> 1)) >> rules.slope_bits
            inverse = rules.inverses[int(min(max(numbers[n, at + rules.colours], 0.0), last))]
            known.slope[n, k] = rules.mean_step * inverse
            known.offset[n, k] = middle - (mean + rules.mean_step // 2) * inverse


@compiled
def below(n: int, level: int, rules: Rules, weights: Array, slope: Array, offset: Array) -> float:
    """The frequencies below a level that is none of the ends."""
    if len(rules.zeros):
        return rules.zeros[offset[n, 0]]
    total = 0
    for k in range(weights.shape[1]):
        total += weights[n, k] * mass_below(slope[n, k] * level + offset[n, k], rules.masses, rules.inverse_bits, rules.finer)
    return float((total >> rules.weight_bits) + level)


@compiled
def chance_of(below_low: float, below_middle: float, below_high: float, rarest: float) -> float:
    """The share of the upper half of what is left, never quite nothing or all."""
    return min(max((below_high - below_middle) / (below_high - below_low), rarest), 1 - rarest)


@compiled
def ask(c: int, some: Some, rules: Rules, known: Known, chances: Array, answers: Array) -> None:
    """All questions that tell the levels of a colour: the chance of a yes, and whether that is the answer, (Q, N) both."""
    for place in range(some.length):
        n = some.first + place * some.step
        level, low, below_low, below_high = known.levels[c, n], 0, 0.0, (1 << rules.mass_bits) + float(rules.levels)
        for number in range(len(chances)):
            middle = min(low + (1 << (len(chances) - 1 - number)), rules.levels - 1)
            below_middle = below(n, middle, rules, known.weights, known.slope, known.offset)
            upper = level >= middle
            chances[number, place], answers[number, place] = chance_of(below_low, below_middle, below_high, rules.rarest), upper
            low, below_low, below_high = (middle, below_middle, below_high) if upper else (low, below_low, below_middle)
