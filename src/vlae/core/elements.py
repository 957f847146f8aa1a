"""The inverse of a masked network over a vector (MADE), one element after another, compiled.

B batch, D elements, L layers of hidden units, H hidden units of each, E numbers that tell the elements: D, or 2 D with scales.
"""

import math

import numpy as np

from vlae.core.compiled import Array, compiled


@compiled
def inverse(value: Array, sums: Array, weights: Array, last: Array, scaled: bool) -> Array:
    """The elements (B, D) whose shifted and scaled ones are ``value``. Every unit is worked out once, as soon as all that it reads is known.

    ``sums`` (B, L H + E) holds the biases, and what a context adds; ``weights`` those of the linear maps one after another, (inputs, outputs)
    each; ``last[d]`` how many hidden units of a layer see at most d elements.
    """
    batch, dims = value.shape
    hidden, told = last[dims], (2 if scaled else 1) * dims
    layers = (sums.shape[1] - told) // hidden
    elements, flat, known = np.empty_like(value), sums.reshape(-1), np.empty(hidden + 1, value.dtype)
    for d in range(dims):
        for b in range(batch):
            ends = b * sums.shape[1] + layers * hidden
            scale = math.exp(2 * math.tanh(flat[ends + dims + d] / 2)) if scaled else 1.0
            elements[b, d] = flat[ends + d] + value[b, d] * scale
        begin = 0
        for layer in range(layers + 1):
            first, after = (d, d + 1) if layer == 0 else (last[d], last[d + 1])
            outputs = hidden if layer < layers else told
            # Of the hidden units only those that are not known yet read these.
            start = last[d] if layer < layers else 0
            for b in range(batch):
                to = b * sums.shape[1] + layer * hidden
                for unit in range(first, after):
                    known[unit - first] = elements[b, d] if layer == 0 else max(flat[to - hidden + unit], 0)
                tell(known, after - first, weights, begin + first * outputs + start, outputs, flat, to + start, outputs - start)
            begin += (dims if layer == 0 else hidden) * outputs
    return elements


@compiled
def tell(known: Array, units: int, weights: Array, begin: int, stride: int, sums: Array, to: int, count: int) -> None:
    """Add what some units tell some sums, four units at a time: so fewer numbers go to and fro. Indices are unsigned, as in ``compiled``."""
    out, row, outputs = np.uintp(to), np.uintp(stride), np.uintp(count)
    for unit in range(units // 4):
        a, k0 = np.uintp(begin + 4 * unit * stride), 4 * unit
        for k in range(outputs):
            first = known[k0] * weights[a + k] + known[k0 + 1] * weights[a + row + k]
            second = known[k0 + 2] * weights[a + row + row + k] + known[k0 + 3] * weights[a + row + row + row + k]
            sums[out + k] += first + second
    for unit in range(units // 4 * 4, units):
        a = np.uintp(begin + unit * stride)
        for k in range(outputs):
            sums[out + k] += known[unit] * weights[a + k]
