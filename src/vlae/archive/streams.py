"""The range coder, compiled: answers to questions as words, and back.

The words are those of constriction's range coder (Bamler 2022, arXiv:2201.01741; Martin 1979), one answer after another without a call for
each: of 32 bits, from an interval whose ends have 64, with chances in 24 bits.

B images, N answers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlae.core.compiled import Array, compiled

WORD, CHANCE = 32, 24
"""bits of a word, and of a chance"""


class Writers(NamedTuple):
    """The words of some images under way, the interval that the answers so far leave each of them: from ``lower``, so wide; and how surprising
    these were, in bits (B).
    """

    words: Array
    """(B, room)"""
    done: Array
    lower: Array
    width: Array
    bits: Array


class Readers(NamedTuple):
    """The words of some images, and where in the interval that is left each of them points to (B)."""

    words: Array
    """of all images, one after another"""
    next: Array
    end: Array
    lower: Array
    width: Array
    point: Array


def writers(images: int, answers: int) -> Writers:
    """With room for so many answers of each image, however surprising."""
    room = answers * (CHANCE + 1) // WORD + 3
    whole = np.full(images, 2**64 - 1, np.uint64)
    return Writers(np.empty((images, room), np.uint32), np.zeros(images, np.int64), np.zeros(images, np.uint64), whole, np.zeros(images))


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
def write(image: int, chances: Array, answers: Array, into: Writers) -> None:
    """Write answers (N), given the chance of a yes of each."""
    lower, width, count, bits, likely = into.lower[image], into.width[image], into.done[image], 0.0, 1.0
    words = into.words[image]
    for n in range(len(answers)):
        no, scale = share_of_no(chances[n]), width >> np.uint64(CHANCE)
        if answers[n]:
            lower += scale * no
            if lower < scale * no:  # it has passed 2^64
                carry(words, count)
            width = scale * (np.uint64(1 << CHANCE) - no)
            likely *= chances[n]
        else:
            width = scale * no
            likely *= 1.0 - chances[n]
        if width < np.uint64(1 << WORD):
            words[count] = lower >> np.uint64(WORD)
            count += 1
            lower, width = lower << np.uint64(WORD), width << np.uint64(WORD)
        if likely < 1e-200:
            bits, likely = bits - np.log2(likely), 1.0
    into.lower[image], into.width[image], into.done[image] = lower, width, count
    into.bits[image] += bits - np.log2(likely)


@compiled
def carry(words: Array, count: int) -> None:
    """Add one to the number that the words so far are."""
    for place in range(count - 1, -1, -1):
        words[place] += np.uint32(1)
        if words[place]:
            break


def closed(image: int, into: Writers) -> Array:
    """The words of an image, and behind them as few as tell a point of the interval that is left, whatever follows."""
    lower, width, written = int(into.lower[image]), int(into.width[image]), into.words[image, : into.done[image]]
    if not len(written) and width == 2**64 - 1:
        return written
    point = lower + 2 ** (64 - WORD) - 1
    if point >> 64:
        carry(written, len(written))
    told = (point >> WORD) % 2**WORD
    rest = [told] if (lower + width >> WORD) % 2**WORD != told else [told, 0]
    return np.concatenate([written, np.array(rest, np.uint32)])


@compiled
def further(point: np.uint64, image: int, of: Readers) -> np.uint64:
    """The point with a word more; behind the last there are zeros."""
    point <<= np.uint64(WORD)
    if of.next[image] < of.end[image]:
        point |= np.uint64(of.words[of.next[image]])
        of.next[image] += 1
    return point
