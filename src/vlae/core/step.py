"""A time of the wavefront on a CPU, in compiled loops.

All layers at some pixels in a row, few enough that what they read and add up stays in the cache: what a layer reads is laid side by side,
multiplied by its weights in one product, and gated. Nothing is allocated on the way, and other Python threads go on meanwhile.

B batch, C channels of a source, D sums of a reader, M channels of the code map, N pixels (rows under way times B), P pixels of the image, U
numbers beside a pixel.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from vlae.core.compiled import Array, blanked, compiled, copied, shared, sigmoid


class Shape(NamedTuple):
    """The numbers of a sweep, and how few and how many pixels a thread works on at once."""

    height: int
    width: int
    batch: int
    slots: int
    slope: int
    early: int
    late: int
    least: int
    at_once: int
    threads: int


class Network(NamedTuple):
    """A layout as arrays. Sources: where each begins in memory, how many of its columns are remembered, its channels."""

    base: Array
    depth: Array
    channels: Array
    moments: Array
    """(T, 3): source, rows down and delay of all moments, reader by reader"""
    readers: Array
    """(R, 11): source (-1 for the prediction), lag, source (-1 for none) and delay of the residual, first moment and the one after the last,
    whether it reads the code, whether it has a gate, how many numbers it reads, how many it adds up, where its weights begin"""
    weights: Array
    """of all readers, one after another, (numbers that it reads, numbers that it adds up) each; of a gate the factors in pairs"""
    bias: Array
    """of all readers, D each, over and over for all pixels at once"""
    blank: int
    """where in memory zeros stand, as many as a layer has channels at all pixels at once"""


class Gating(NamedTuple):
    """A gate of whole numbers (``vlae.archive.whole``): its sigmoid's table, what brings the sums to whole numbers (in pairs, over and over for all
    pixels at once, as the biases are), the largest value, and a number so large that what is added to it is rounded. With an empty table it is
    the gate of real numbers.

    The last two are of the kind of the others: with numbers of another kind every step would be made in the wider one.
    """

    table: Array
    steps: Array
    most: Any
    rounder: Any


class State(NamedTuple):
    """What is worked on: the columns of all sources, the maps of the code (P, B, M) and of what is beside (P, B, U), room for what a reader reads
    and adds up (for each thread), and what is known of the pixels to be written: features (N, C), prediction (N, K) and what is beside (N, U).
    """

    memory: Array
    code: Array
    beside: Array
    given: Array
    sums: Array
    features: Array
    prediction: Array
    told: Array


@compiled
def rows_at(time: int, shape: Shape) -> tuple[int, int]:
    """The first row that some layer is at, and the one after the last."""
    first = max(0, -((shape.width - 1 + shape.late - time) // shape.slope))
    return first, max(first, min(shape.height - 1, (time - shape.early) // shape.slope) + 1)


@compiled
def column_of(source: int, time: int, shape: Shape, net: Network) -> int:
    """Where a source's column of a time begins in memory: slot after slot, image after image, channel after channel."""
    return net.base[source] + time % net.depth[source] * shape.slots * shape.batch * net.channels[source]


@compiled
def forget(source: int, time: int, shape: Shape, net: Network, memory: Array) -> None:
    """Blank what an old column holds of rows that are over; the others are written anew."""
    first, after = rows_at(time, shape)
    old, over = rows_at(time - net.depth[source], shape)
    numbers = shape.batch * net.channels[source]
    for row in range(max(old, after - shape.slots), min(over, first)):
        begin = column_of(source, time, shape, net) + row % shape.slots * numbers
        memory[begin : begin + numbers] = 0


@compiled
def inside(time: int, first: int, shape: Shape) -> tuple[int, int]:
    """Of the pixels of rows from ``first``, the first that is in the image at a time (less the lag), and the one after the last."""
    above = max(0, -((shape.width - 1 - time) // shape.slope))
    after = max(above, min(shape.height - 1, time // shape.slope) + 1)
    return (above - first) * shape.batch, (after - first) * shape.batch


@compiled
def spot(pixel: int, time: int, first: int, shape: Shape) -> int:
    """The place of a pixel in a map of the whole image, pixel after pixel, image after image."""
    row, image = first + pixel // shape.batch, pixel % shape.batch
    return (row * shape.width + time - shape.slope * row) * shape.batch + image


@compiled
def gate(sums: Array, bias: Array, residual: Array, out: Array) -> None:
    """``residual + a sigmoid(b)`` of sums and biases in which each b stands behind its a."""
    for k in range(len(out)):
        out[k] = residual[k] + (sums[2 * k] + bias[2 * k]) * sigmoid(sums[2 * k + 1] + bias[2 * k + 1])


@compiled
def whole(value: float, most: float, rounder: float) -> float:
    """The nearest whole number that is not too large; what is no number is the lowest, so that all have a place in a table."""
    at_least = value if value > -most else -most
    return (at_least if at_least < most else most) + rounder - rounder


@compiled
def whole_gate(gating: Gating, sums: Array, bias: Array, residual: Array, out: Array) -> None:
    """The same in whole numbers, with the sigmoid from a table."""
    most, large, steps = gating.most, gating.rounder, gating.steps
    for k in range(len(out)):  # three loops, since only the look into the table is one number at a time
        sums[2 * k] = whole((sums[2 * k] + bias[2 * k]) * steps[2 * k], most, large)
        sums[2 * k + 1] = whole((sums[2 * k + 1] + bias[2 * k + 1]) * steps[2 * k + 1], most, large) + most
    for k in range(len(out)):
        sums[2 * k + 1] = gating.table[np.uintp(np.int32(sums[2 * k + 1]))]
    for k in range(len(out)):
        out[k] = whole(residual[k] + sums[2 * k] * sums[2 * k + 1], most, large)


@compiled
def lay_side_by_side(number: int, time: int, first: int, low: int, high: int, shape: Shape, net: Network, state: State, given: Array) -> None:
    """What a reader reads at some pixels: its moments, then the code."""
    _, lag, _, _, begin, end, coded, _, inputs, _, _ = net.readers[number]
    out, places = 0, shape.slots * shape.batch
    for moment in range(begin, end):
        source, di, delay = net.moments[moment]
        column, channels = column_of(source, time - delay, shape, net), net.channels[source]
        at = (first + di) % shape.slots * shape.batch + low
        for pixel in range(high - low):
            place, here = column + (at if at < places else at - places) * channels, out + pixel * inputs
            if channels == 1:  # the most common number of the image's channels
                given[np.uintp(here)] = state.memory[np.uintp(place)]
            else:
                copied(state.memory, place, given, here, channels)
            at += 1
        out += channels
    if not coded:
        return
    begun, done = inside(time - lag, first, shape)
    numbers = inputs - out
    for pixel in range(low, high):
        here = out + (pixel - low) * inputs
        if begun <= pixel < done:
            copied(state.code, spot(pixel, time - lag, first, shape) * numbers, given, here, numbers)
        else:
            blanked(given, here, numbers)


@compiled
def settle(number: int, time: int, first: int, low: int, high: int, shape: Shape, net: Network, gating: Gating, state: State, sums: Array) -> None:
    """Write what a reader made of some pixels; outside the image that is zero, as every tap expects it."""
    source, lag, residual, delay, _, _, _, gated, _, outputs, _ = net.readers[number]
    channels, column = net.channels[source], column_of(source, time, shape, net)
    places, at = shape.slots * shape.batch, first % shape.slots * shape.batch
    begun, done = inside(time - lag, first, shape)
    begun = min(max(begun, low), high)
    done = min(max(done, begun), high)
    for pixel in range(low, high):
        if not begun <= pixel < done:
            blanked(state.memory, column + (at + pixel) % places * channels, channels)
    turn = min(max(places - at, begun), done)  # from this pixel on the places are those at the column's beginning
    for start, end in ((begun, turn), (turn, done)):
        place, count = (at + start) % places * channels, (end - start) * channels
        found, here = (start - low) * outputs, column + place
        if not gated:
            copied(sums, found, state.memory, here, count)
            continue
        before = column_of(residual, time - delay, shape, net) + place if residual >= 0 else net.blank
        added, out = state.memory[before : before + count], state.memory[here : here + count]
        given, bias = sums[found : found + 2 * count], net.bias[number * shape.at_once * outputs :]
        if len(gating.table):
            whole_gate(gating, given, bias, added, out)
        else:
            gate(given, bias, added, out)


@compiled
def tell(time: int, first: int, low: int, high: int, lag: int, shape: Shape, net: Network, state: State) -> None:
    """What is known of some pixels that are to be written: the last layer's values, and what stands beside."""
    last = len(net.base) - 1
    channels, column, numbers = net.channels[last], column_of(last, time + lag, shape, net), state.told.shape[1]
    begun, done = inside(time, first, shape)
    places, at = shape.slots * shape.batch, first % shape.slots * shape.batch + low
    features, told = state.features.reshape(-1), state.told.reshape(-1)
    for pixel in range(low, high):
        copied(state.memory, column + (at if at < places else at - places) * channels, features, pixel * channels, channels)
        if begun <= pixel < done:
            copied(state.beside, spot(pixel, time, first, shape) * numbers, told, pixel * numbers, numbers)
        else:
            blanked(told, pixel * numbers, numbers)
        at += 1


@compiled
def work(time: int, lag: int, first: int, pixels: int, thread: int, shape: Shape, net: Network, gating: Gating, state: State) -> None:
    """All that there is to do at a thread's pixels of a time. They are neighbours: so what they read is near the thread, too."""
    share, given, sums = max(shape.least, -(-pixels // shape.threads)), state.given[thread], state.sums[thread]
    end = min((thread + 1) * share, pixels)
    for low in range(thread * share, end, shape.at_once):
        high = min(low + shape.at_once, end)
        for number in range(len(net.readers)):
            source, inputs, outputs, begin = net.readers[number, 0], net.readers[number, 8], net.readers[number, 9], net.readers[number, 10]
            lay_side_by_side(number, time, first, low, high, shape, net, state, given)
            weights = net.weights[begin : begin + inputs * outputs].reshape(inputs, outputs)
            read, found = given[: (high - low) * inputs].reshape(high - low, inputs), sums[: (high - low) * outputs].reshape(high - low, outputs)
            np.dot(read, weights, found)
            if source >= 0:
                settle(number, time, first, low, high, shape, net, gating, state, sums)
            else:
                copied(sums, 0, state.prediction.reshape(-1), low * outputs, (high - low) * outputs)
        if time >= 0:
            tell(time, first, low, high, lag, shape, net, state)


@shared
def advance(time: int, lag: int, shape: Shape, net: Network, gating: Gating, state: State) -> int:
    """Let all readers work at their pixels of a time: the number of pixels of which something is then known. ``lag`` is that of the last layer."""
    first, after = rows_at(time, shape)
    pixels = (after - first) * shape.batch
    for source in range(len(net.base)):
        forget(source, time, shape, net, state.memory)
    if shape.threads == 1:  # without a pool of threads, which would not survive a fork
        for thread in range(shape.threads):
            work(time, lag, first, pixels, thread, shape, net, gating, state)
    else:
        for thread in numba.prange(shape.threads):
            work(time, lag, first, pixels, int(thread), shape, net, gating, state)  # it counts in unsigned numbers
    return pixels


@compiled
def lay(time: int, values: Array, shape: Shape, net: Network, state: State) -> None:
    """Write the image's values (N, K) of a time into memory."""
    first, after = rows_at(time, shape)
    channels, column, flat = values.shape[1], column_of(0, time, shape, net), values.reshape(-1)
    begun, done = inside(time, first, shape)
    places, at = shape.slots * shape.batch, first % shape.slots * shape.batch
    for pixel in range((after - first) * shape.batch):
        here = column + (at if at < places else at - places) * channels
        if begun <= pixel < done:
            copied(flat, pixel * channels, state.memory, here, channels)
        else:
            blanked(state.memory, here, channels)
        at += 1


@compiled
def keep(time: int, found: Array, kept: Array, shape: Shape) -> None:
    """Put what was found (N, k) of the pixels of a time into a map of the whole image (P, B, k)."""
    first, _ = rows_at(time, shape)
    numbers, flat, whole = found.shape[1], found.reshape(-1), kept.reshape(-1)
    begun, done = inside(time, first, shape)
    for pixel in range(begun, done):
        copied(flat, pixel * numbers, whole, spot(pixel, time, first, shape) * numbers, numbers)
