"""The range coder, compiled: answers to questions as words, and back.

The words are those of constriction's range coder (Bamler 2022, arXiv:2201.01741; Martin 1979), one answer after another without a call for
each: of 32 bits, from an interval whose ends have 64, with chances in 24 bits.

B images, N answers, Q questions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlae.core.compiled import Array, compiled

WORD, CHANCE = 32, 24
"""bits of a word, and of a chance"""


class Writer(NamedTuple):
    """The words of an image under way, and the interval that the answers so far leave: from ``lower``, so wide (1 each)."""

    words: Array
    done: Array
    lower: Array
    width: Array


class Readers(NamedTuple):
    """The words of some images, and where in the interval that is left each of them points to (B)."""

    words: Array
    """of all images, one after another"""
    next: Array
    end: Array
    lower: Array
    width: Array
    point: Array


def writer(answers: int) -> Writer:
    """With room for so many answers, however surprising."""
    room = answers * (CHANCE + 1) // WORD + 3
    return Writer(np.empty(room, np.uint32), np.zeros(1, np.int64), np.zeros(1, np.uint64), np.full(1, 2**64 - 1, np.uint64))


def readers(words: Sequence[Array]) -> Readers:
    """At the beginning of the words of each image."""
    end = np.cumsum([len(some) for some in words])
    zero, whole = np.zeros((2, len(words)), np.uint64), np.full(len(words), 2**64 - 1, np.uint64)
    found = Readers(np.concatenate(words).astype(np.uint32), end - [len(some) for some in words], end, zero[0], whole, zero[1])
    for image in range(len(words)):
        for _ in range(2):
            found.point[image] = further(found.point[image], image, found)
    return found


@compiled
def share_of_no(chance: float) -> np.uint64:
    """How many of ``2^CHANCE`` parts of an interval mean no, at this chance of a yes: one at least."""
    return np.uint64(np.int64((1.0 - chance) * ((1 << CHANCE) - 2)) + 1)


@compiled
def write(chances: Array, answers: Array, starts: Array, into: Writer) -> float:
    """Write answers (Q, N), given the chance of a yes of each: of those between two of the ``starts`` all first ones, then all second ones, and so
    on. Tells how surprising they are together, in bits.
    """
    bits = 0.0
    for some in range(len(starts) - 1):
        for question in range(len(chances)):
            bits += write_some(chances[question, starts[some] : starts[some + 1]], answers[question, starts[some] : starts[some + 1]], into)
    return bits


@compiled
def write_some(chances: Array, answers: Array, into: Writer) -> float:
    """Write answers (N), one after another."""
    lower, width, count, bits, likely = into.lower[0], into.width[0], into.done[0], 0.0, 1.0
    for n in range(len(answers)):
        no, scale = share_of_no(chances[n]), width >> np.uint64(CHANCE)
        if answers[n]:
            lower += scale * no
            if lower < scale * no:  # it has passed 2^64
                carry(into.words, count)
            width = scale * (np.uint64(1 << CHANCE) - no)
            likely *= chances[n]
        else:
            width = scale * no
            likely *= 1.0 - chances[n]
        if width < np.uint64(1 << WORD):
            into.words[count] = lower >> np.uint64(WORD)
            count += 1
            lower, width = lower << np.uint64(WORD), width << np.uint64(WORD)
        if likely < 1e-200:
            bits, likely = bits - np.log2(likely), 1.0
    into.lower[0], into.width[0], into.done[0] = lower, width, count
    return bits - np.log2(likely)


@compiled
def carry(words: Array, count: int) -> None:
    """Add one to the number that the words so far are."""
    for place in range(count - 1, -1, -1):
        words[place] += np.uint32(1)
        if words[place]:
            break


def closed(into: Writer) -> Array:
    """The words, and behind them as few as tell a point of the interval that is left, whatever follows."""
    lower, width, count = int(into.lower[0]), int(into.width[0]), int(into.done[0])
    if not count and width == 2**64 - 1:
        return into.words[:0]
    point = lower + 2 ** (64 - WORD) - 1
    if point >> 64:
        carry(into.words, count)
    told = (point >> WORD) % 2**WORD
    rest = [told] if (lower + width >> WORD) % 2**WORD != told else [told, 0]
    return np.concatenate([into.words[:count], np.array(rest, np.uint32)])


@compiled
def further(point: np.uint64, image: int, of: Readers) -> np.uint64:
    """The point with a word more; behind the last there are zeros."""
    point <<= np.uint64(WORD)
    if of.next[image] < of.end[image]:
        point |= np.uint64(of.words[of.next[image]])
        of.next[image] += 1
    return point
