"""Pixels in the order of the wavefront, in compiled loops: those that are known as words, and what words tell of those that are not.

B images, C colours, K channels of what the network sees, N pixels (rows under way times B), O numbers of the head, P pixels of an image.
"""

from typing import NamedTuple

import numba
import numpy as np

from vlae.archive.loops import Asked, Known, Rules, Some, ask, below, chance_of, mix
from vlae.archive.streams import CHANCE, WORD, Readers, Writers, further, share_of_no, write
from vlae.core.compiled import Array, compiled, shared
from vlae.core.step import Gating, Network, Shape, State, advance, inside, keep, lay, rows_at, spot


class LastLayer(NamedTuple):
    """A last layer of whole numbers, ``round((features W + b) steps)``."""

    weights: Array
    """(C, O)"""
    bias: Array
    steps: Array
    numbers: Array
    """(N, O), room to work in"""


@compiled
def compute(count: int, state: State, last: LastLayer) -> None:
    """What the last layer makes of some pixels."""
    np.dot(state.features[:count], last.weights, last.numbers[:count])
    for pixel in range(count):
        for k in range(len(last.bias)):
            last.numbers[pixel, k] = np.rint((last.numbers[pixel, k] + last.bias[k]) * last.steps[k])


@compiled
def write_levels(image: int, c: int, some: Some, rules: Rules, known: Known, asked: Asked, into: Writers) -> None:
    """The levels of colour ``c``, by halves: the first questions of all pixels, then the second ones."""
    chances, answers = asked.chances[image], asked.answers[image]
    ask(c, some, rules, known, chances, answers)
    for number in range(len(chances)):
        write(image, chances[number, : some.length], answers[number, : some.length], into)


@compiled
def write_pixels(image: int, some: Some, numbers: Array, prediction: Array, rules: Rules, known: Known, asked: Asked, into: Writers) -> None:
    """Pixels of an image, as the numbers of a head and the linear prediction tell them."""
    for c in range(rules.colours):
        mix(c, some, numbers, prediction, rules, known)
        write_levels(image, c, some, rules, known, asked, into)


@compiled
def write_codes(places: int, rules: Rules, known: Known, asked: Asked, into: Writers) -> None:
    """Levels of so many places whose mixtures are known, place after place, image after image."""
    images = len(into.done)
    for image in range(images):
        write_levels(image, 0, Some(image, images, places), rules, known, asked, into)


@compiled
def write_images(pixels: int, numbers: Array, prediction: Array, rules: Rules, known: Known, asked: Asked, into: Writers) -> None:
    """Pixels of which none waits for another, so many of each image, pixel after pixel, image after image."""
    images = len(into.done)
    for image in range(images):
        write_pixels(image, Some(image, images, pixels), numbers, prediction, rules, known, asked, into)


@compiled
def take(time: int, x: Array, shape: Shape, known: Known) -> None:
    """The levels of the pixels of a time, from images (P, B, C)."""
    first, _ = rows_at(time, shape)
    begun, done = inside(time, first, shape)
    flat, colours = x.reshape(-1), x.shape[2]
    for n in range(begun, done):
        here = spot(n, time, first, shape) * colours
        for c in range(colours):
            known.levels[c, n] = int(flat[here + c])


@shared
def write_time(time: int, shape: Shape, numbers: Array, prediction: Array, rules: Rules, known: Known, asked: Asked, into: Writers) -> None:
    """The pixels of a time: rows of all images."""
    begun, done = inside(time, rows_at(time, shape)[0], shape)
    rows = (done - begun) // shape.batch
    if shape.threads == 1:
        for image in range(shape.batch):
            write_pixels(image, Some(begun + image, shape.batch, rows), numbers, prediction, rules, known, asked, into)
    else:
        for image in numba.prange(shape.batch):
            write_pixels(int(image), Some(begun + int(image), shape.batch, rows), numbers, prediction, rules, known, asked, into)


@compiled
def write_times(
    begin: int,
    end: int,
    lag: int,
    shape: Shape,
    net: Network,
    gating: Gating,
    state: State,
    last: LastLayer,
    rules: Rules,
    known: Known,
    asked: Asked,
    into: Writers,
    x: Array,
) -> None:
    """All pixels of some times, which stand beside."""
    for time in range(begin, end):
        count = advance(time, lag, shape, net, gating, state)
        if time >= 0 and count:
            compute(count, state, last)
            take(time, x, shape, known)
            write_time(time, shape, last.numbers, state.prediction, rules, known, asked, into)
            lay(time, state.told, shape, net, state)


@compiled
def read_levels(image: int, c: int, some: Some, rules: Rules, known: Known, of: Readers) -> None:
    """The levels of colour ``c``, by halves: the first questions of all pixels, then the second ones."""
    for place in range(some.length):
        n = some.first + place * some.step
        known.levels[c, n], known.below_low[n], known.below_high[n] = 0, 0.0, (1 << rules.mass_bits) + rules.levels
    half = 1
    while 2 * half < rules.levels:
        half *= 2
    while half:
        read_answers(image, c, half, some, rules, known, of)
        half //= 2


@compiled
def read_answers(image: int, c: int, half: int, some: Some, rules: Rules, known: Known, of: Readers) -> None:
    """Whether each level is so far up in what is left: it is where the reader's point is in that part of its interval."""
    lower, width, point = of.lower[image], of.width[image], of.point[image]
    for place in range(some.length):
        n = some.first + place * some.step
        middle = min(known.levels[c, n] + half, rules.levels - 1)
        below_middle = below(n, middle, rules, known.weights, known.slope, known.offset)
        no = share_of_no(chance_of(known.below_low[n], below_middle, known.below_high[n], rules.rarest))
        scale = width >> np.uint64(CHANCE)
        if point - lower >= scale * no:
            lower, width = lower + scale * no, scale * (np.uint64(1 << CHANCE) - no)
            known.levels[c, n], known.below_low[n] = middle, below_middle
        else:
            width = scale * no
            known.below_high[n] = below_middle
        if width < np.uint64(1 << WORD):
            lower, width, point = lower << np.uint64(WORD), width << np.uint64(WORD), further(point, image, of)
    of.lower[image], of.width[image], of.point[image] = lower, width, point


@compiled
def read_pixels(image: int, some: Some, numbers: Array, prediction: Array, rules: Rules, known: Known, of: Readers) -> None:
    """Pixels of an image, as the numbers of a head and the linear prediction tell them."""
    for c in range(rules.colours):
        mix(c, some, numbers, prediction, rules, known)
        read_levels(image, c, some, rules, known, of)


@compiled
def read_codes(places: int, rules: Rules, known: Known, of: Readers) -> None:
    """Levels of so many places whose mixtures are known, place after place, image after image."""
    images = len(of.end)
    for image in range(images):
        read_levels(image, 0, Some(image, images, places), rules, known, of)


@compiled
def read_images(pixels: int, numbers: Array, prediction: Array, rules: Rules, known: Known, of: Readers) -> None:
    """Pixels of which none waits for another, so many of each image, pixel after pixel, image after image."""
    images = len(of.end)
    for image in range(images):
        read_pixels(image, Some(image, images, pixels), numbers, prediction, rules, known, of)


class Sight(NamedTuple):
    """What the network sees of pixels: ``2 x - (L - 1)``, or the luminance of three colours."""

    grey: Array
    """what each colour is multiplied with for that, times ``grey_step``; none where it sees the colours"""
    grey_step: int
    values: Array
    """(N, K)"""
    pixels: Array
    """(N, C), the levels"""


@compiled
def show(some: Some, rules: Rules, known: Known, sight: Sight) -> None:
    """Lay pixels out for the network, and to be kept."""
    for place in range(some.length):
        n = some.first + place * some.step
        grey = 0.0
        for c in range(rules.colours):
            sight.pixels[n, c] = known.levels[c, n]
            if len(sight.grey):
                grey += sight.grey[c] * known.levels[c, n]
            else:
                sight.values[n, c] = 2 * known.levels[c, n] - (rules.levels - 1)
        if len(sight.grey):
            sight.values[n, 0] = 2 * np.rint(grey) - sight.grey_step * (rules.levels - 1)


@shared
def read_time(time: int, shape: Shape, numbers: Array, prediction: Array, rules: Rules, known: Known, sight: Sight, of: Readers) -> None:
    """The pixels of a time: rows of all images."""
    begun, done = inside(time, rows_at(time, shape)[0], shape)
    rows = (done - begun) // shape.batch
    if shape.threads == 1:
        for image in range(shape.batch):
            read_pixels(image, Some(begun + image, shape.batch, rows), numbers, prediction, rules, known, of)
    else:
        for image in numba.prange(shape.batch):
            read_pixels(int(image), Some(begun + int(image), shape.batch, rows), numbers, prediction, rules, known, of)
    show(Some(begun, 1, done - begun), rules, known, sight)


@compiled
def read_times(
    begin: int,
    end: int,
    lag: int,
    shape: Shape,
    net: Network,
    gating: Gating,
    state: State,
    last: LastLayer,
    rules: Rules,
    known: Known,
    sight: Sight,
    of: Readers,
    kept: Array,
) -> None:
    """All pixels of some times."""
    for time in range(begin, end):
        count = advance(time, lag, shape, net, gating, state)
        if time >= 0 and count:
            compute(count, state, last)
            read_time(time, shape, last.numbers, state.prediction, rules, known, sight, of)
            lay(time, sight.values, shape, net, state)
            keep(time, sight.pixels, kept, shape)
