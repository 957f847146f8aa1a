"""Pixels drawn within the compiled loops of the wavefront: the last layer, the head's distribution, a sample of it, and what it looks like to
the network. The same as the heads of ``distributions`` do for all pixels at once.

K channels of what the network sees, C colours, N pixels, O numbers of the head, U uniforms a pixel.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from vlae.core.compiled import Array, compiled, shared
from vlae.core.step import Gating, Network, Shape, State, advance, keep, lay

TOGETHER = 64
"""Several threads draw so many pixels."""


class Painter(NamedTuple):
    """How features become pixels.

    Without components a pixel is 0 or 1, and the number its logit; with them it follows a mixture of logistics.
    """

    weights: Array
    """(width, O)"""
    bias: Array
    levels: int
    colours: int
    components: int
    grey: bool
    """whether the network sees the luminance of three colours alone"""
    given: bool
    """whether beside the uniforms it stands if a pixel is known, and its colours"""
    numbers: Array
    """(N, O), room to work in"""
    pixels: Array
    """(N, C), those drawn"""
    values: Array
    """(N, K), what the network sees of them"""


@shared
def paint(count: int, threads: int, painter: Painter, state: State) -> None:
    """Draw some pixels, each with its own uniforms; what is known already stays."""
    np.dot(state.features[:count], painter.weights, painter.numbers[:count])
    if threads == 1 or count < TOGETHER:
        for pixel in range(count):
            paint_one(pixel, painter, state)
    else:
        for pixel in numba.prange(count):
            paint_one(int(pixel), painter, state)  # it counts in unsigned numbers, for which all would be compiled again


@compiled
def paint_one(pixel: int, painter: Painter, state: State) -> None:
    """Draw a pixel."""
    uniforms = painter.colours + (1 if painter.components else 0)
    told, colours = state.told[pixel], painter.pixels[pixel]
    if painter.given and told[uniforms] > 0:
        for c in range(painter.colours):
            colours[c] = told[uniforms + 1 + c]
    elif not painter.components:
        logit = painter.numbers[pixel, 0] + painter.bias[0]
        colours[0] = 1.0 if told[0] * (1 + math.exp(-logit)) < 1 else 0.0
    else:
        mix(pixel, painter, state, told, colours)
    show(pixel, painter, colours)


@compiled
def mix(pixel: int, painter: Painter, state: State, uniforms: Array, colours: Array) -> None:
    """A pixel of a mixture: the first uniform chooses the component, the others the colours, each given the earlier ones."""
    numbers, bias, count = painter.numbers[pixel], painter.bias, painter.colours
    each, step = len(bias) // painter.components, 2 / (painter.levels - 1)
    at = chosen(numbers, bias, painter.components, uniforms[0]) * each
    for c in range(count):
        mean = numbers[at + 1 + c] + bias[at + 1 + c]
        if state.prediction.shape[1] == count:
            mean += state.prediction[pixel, c]
        log_scale = numbers[at + 1 + count + c] + bias[at + 1 + count + c] - 3
        log_scale = min(max(log_scale, -math.log(painter.levels) - 3), 3)
        v = mean + math.exp(log_scale) * math.log(uniforms[1 + c] / (1 - uniforms[1 + c]))
        for earlier in range(c):
            slope = at + 1 + 2 * count + (c - 1) + earlier
            v += (numbers[slope] + bias[slope]) * (colours[earlier] * step - 1)
        colours[c] = min(max(np.rint((v + 1) / step), 0), painter.levels - 1)


@compiled
def chosen(numbers: Array, bias: Array, components: int, uniform: float) -> int:
    """The component in whose share of all weights the uniform falls."""
    each = len(bias) // components
    most = numbers[0] + bias[0]
    for k in range(1, components):
        most = max(most, numbers[k * each] + bias[k * each])
    total = 0.0
    for k in range(components):
        total += math.exp(numbers[k * each] + bias[k * each] - most)
    below = 0.0
    for k in range(components - 1):
        below += math.exp(numbers[k * each] + bias[k * each] - most)
        if uniform * total <= below:
            return k
    return components - 1


@compiled
def show(pixel: int, painter: Painter, colours: Array) -> None:
    """What the network sees of a pixel: its colours as numbers from -1 to 1, or their luminance."""
    step, values = 2 / (painter.levels - 1), painter.values[pixel]
    if painter.grey:
        values[0] = 0.299 * (colours[0] * step - 1) + 0.587 * (colours[1] * step - 1) + 0.114 * (colours[2] * step - 1)
        return
    for c in range(painter.colours):
        values[c] = colours[c] * step - 1


@compiled
def drawn(begin: int, end: int, lag: int, shape: Shape, net: Network, gating: Gating, state: State, painter: Painter, kept: Array) -> None:
    """All pixels of some times."""
    for time in range(begin, end):
        count = advance(time, lag, shape, net, gating, state)
        if time >= 0 and count:
            paint(count, shape.threads, painter, state)
            lay(time, painter.values, shape, net, state)
            keep(time, painter.pixels, kept, shape)
