"""The learned layers of a causal network for all pixels at once on a CPU, with their gradients, in compiled loops.

A layer works on a line at a time, a row of so many images that stand side by side: what its pixels read is laid one below another, multiplied by
the layer's weights in one product, and gated, all in the cache. Backwards the same in reverse: the gate's gradient, two products, and what lay one
below another is added up where it was read. No layer looks further down than it is, so that this goes from the lowest rows up, all layers at a few
rows at a time, and of gradients no more rows are remembered than are still added to. Threads share the rows of a layer, and backwards the groups of
images: results do not depend on how many there are.

B batch, C channels of a source, D sums of a layer, G groups, H and W height and width, L learned layers, M channels of the code map, N pixels of
a line, T taps.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlae.core.causal import CausalNet, Gate
from vlae.core.compiled import Array, blanked, compiled, copied, shared, sharing, sigmoid
from vlae.core.taps import Layers

LINE = 128
"""Pixels of a line, where the images are narrow: products pay, and what a layer of common width reads and adds up stays in the cache."""


ROWS = 16
"""So many lines of a group are a thread's work, of one layer; and so many are gone back at once, of all layers."""
LEAST = np.float32(1e-30)


class Shape(NamedTuple):
    """How images stand: groups of some side by side, the last group filled up with blank ones."""

    groups: int
    height: int
    across: int
    width: int


class Net(NamedTuple):
    """The learned layers as arrays."""

    base: Array
    """where each source begins in memory"""
    channels: Array
    """of each source"""
    taps: Array
    """(n, 3): source, rows down and columns right, layer by layer"""
    layers: Array
    """(L, 8): source, residual (-1 for none), first tap and the one after the last, channels of the code, how many numbers a pixel reads, where the
    weights begin, whether somebody asks for the gradient of what it reads"""
    reach: int
    """how many rows up a tap looks, at most"""


class Values(NamedTuple):
    """What is computed with and from, each in one piece."""

    weights: Array
    """(TC+M, D) of each layer"""
    bias: Array
    """(L, D)"""
    memory: Array
    """(G, H, C, N) of each source"""
    code: Array
    """(G, H, M, N)"""
    kept: Array
    """(L, G, H, C, N) where gradients are asked for: the sigmoid of every gate"""


class Gradients(NamedTuple):
    """Of the values of the same names; of weights and biases for each group, of the memory the part that is asked for: the contexts', or nothing."""

    last: Array
    """(G, H, C, N), what is given: the gradient of the last layer"""
    weights: Array
    bias: Array
    memory: Array
    code: Array


@compiled
def added(values: Array, begin: int, out: Array, to: int, count: int) -> None:
    """Add a few numbers of an array to those of another."""
    a, b = np.uintp(begin), np.uintp(to)
    for k in range(np.uintp(max(0, count))):
        out[b + k] += values[a + k]


@compiled
def blank_sides(given: Array, begin: int, dj: int, count: int, width: int) -> None:
    """Set to zero what so many rows of images that stand side by side would read of their neighbours."""
    side = min(abs(dj), width)
    first = begin + (width - side if dj > 0 else 0)
    for row in range(count if side else 0):
        for k in range(side):
            given[np.uintp(first + row * width + k)] = 0


@compiled
def lay(number: int, group: int, row: int, shape: Shape, net: Net, values: Values, given: Array) -> None:
    """What the pixels of a line read, one below another: each tap a line read in one piece, which outside the image is zero."""
    _, _, begin, end, coded, _, _, _ = net.layers[number]
    line, out = shape.across * shape.width, 0
    for tap in range(begin, end):
        source, di, dj = net.taps[tap]
        channels, count = net.channels[source], net.channels[source] * line
        if 0 <= row + di < shape.height and abs(dj) < shape.width:
            here, left = net.base[source] + (group * shape.height + row + di) * count, max(0, -dj)
            copied(values.memory, here + dj + left, given, out + left, count - abs(dj))
            blank_sides(given, out, dj, channels * shape.across, shape.width)
        else:
            blanked(given, out, count)
        out += count
    copied(values.code, (group * shape.height + row) * coded * line, given, out, coded * line)


@compiled
def slots_of(shape: Shape, net: Net) -> int:
    """Of how many rows gradients are remembered."""
    return min(shape.height, ROWS + net.reach)


@compiled
def slot(source: int, row: int, shape: Shape, net: Net) -> int:
    """Where the gradient of a source's row is remembered."""
    slots = slots_of(shape, net)
    return (net.channels[:source].sum() * slots + row % slots * net.channels[source]) * shape.across * shape.width


@compiled
def begin_row(group: int, row: int, shape: Shape, net: Net, grads: Gradients, memory: Array) -> None:
    """The gradients of a row to which nothing was added yet: that of the last layer is given."""
    line, last = shape.across * shape.width, len(net.channels) - 1
    for source in range(last):
        blanked(memory, slot(source, row, shape, net), net.channels[source] * line)
    count = net.channels[last] * line
    copied(grads.last, (group * shape.height + row) * count, memory, slot(last, row, shape, net), count)


@compiled
def end_row(group: int, row: int, shape: Shape, net: Net, grads: Gradients, memory: Array) -> None:
    """Hand on the gradients of a row to which nothing will be added any more, of the sources that are asked for."""
    for source in range(len(net.channels)):
        count = net.channels[source] * shape.across * shape.width
        here = net.base[source] + (group * shape.height + row) * count
        if here + count <= len(grads.memory):
            copied(memory, slot(source, row, shape, net), grads.memory, here, count)


@compiled
def give_back(number: int, group: int, row: int, shape: Shape, net: Net, given: Array, grads: Gradients, memory: Array) -> None:
    """Add the gradients of what the pixels of a line read to those of where they read it: ``lay`` in reverse."""
    _, _, begin, end, coded, _, _, wanted = net.layers[number]
    line, out = shape.across * shape.width, 0
    for tap in range(begin, end):
        source, di, dj = net.taps[tap]
        channels, count = net.channels[source], net.channels[source] * line
        if wanted and 0 <= row + di < shape.height and abs(dj) < shape.width:
            left = max(0, -dj)
            blank_sides(given, out, dj, channels * shape.across, shape.width)
            added(given, out + left, memory, slot(source, row + di, shape, net) + dj + left, count - abs(dj))
        out += count
    added(given, out, grads.code, (group * shape.height + row) * coded * line, coded * line)


@compiled
def gate(sums: Array, bias: Array, number: int, memory: Array, residual: int, to: int, kept: Array, keep: int, channels: int, line: int) -> None:
    """``residual + a sigmoid(b)`` of a line; where there is room, the sigmoid is kept."""
    half, count = np.uintp(channels * line), np.uintp(line)
    for channel in range(channels):
        first, second = bias[(2 * number) * channels + channel], bias[(2 * number + 1) * channels + channel]
        a, out = np.uintp(channel * line), np.uintp(to + channel * line)
        b, k = a + half, np.uintp(keep + channel * line)
        if len(kept):
            for n in range(count):
                kept[k + n] = opened = sigmoid(sums[b + n] + second)
                memory[out + n] = (sums[a + n] + first) * opened
        else:
            for n in range(count):
                memory[out + n] = (sums[a + n] + first) * sigmoid(sums[b + n] + second)
    if residual >= 0:
        added(memory, residual, memory, to, channels * line)


@compiled
def flushed(value: float) -> float:
    """Nothing for next to nothing: products of denormal numbers, which closed gates leave, take many times as long."""
    return value if abs(value) > LEAST else 0 * value


@compiled
def of_gate(grads: Array, begin: int, memory: Array, residual: int, to: int, kept: Array, keep: int, sums: Array, count: int) -> None:
    """The gradients of the a and b of a line from that of ``residual + a sigmoid(b)``."""
    g, k, out, half = np.uintp(begin), np.uintp(keep), np.uintp(to), np.uintp(count)
    before = np.uintp(max(0, residual))
    for n in range(half):
        product = memory[out + n] - memory[before + n] if residual >= 0 else memory[out + n]
        sums[n] = flushed(grads[g + n] * kept[k + n])
        sums[half + n] = flushed(grads[g + n] * product * (1 - kept[k + n]))


@compiled
def room(shape: Shape, net: Net, memory: Array) -> tuple[Array, Array]:
    """Room for what the pixels of a line read, and for what they add up."""
    line = shape.across * shape.width
    return np.empty(line * net.layers[:, 5].max(), memory.dtype), np.empty(line * 2 * net.channels[-1], memory.dtype)


@compiled
def pieces_of(shape: Shape) -> int:
    """How many pieces of rows a group has."""
    return (shape.height + ROWS - 1) // ROWS


@compiled
def forward_of(number: int, piece: int, shape: Shape, net: Net, values: Values) -> None:
    """A layer at some rows of a group of images."""
    weights, bias, memory, _, kept = values
    width, line, (given, sums) = net.channels[-1], shape.across * shape.width, room(shape, net, memory)
    source, residual, _, _, _, inputs, begin, _ = net.layers[number]
    matrix = weights[begin : begin + inputs * 2 * width].reshape(inputs, 2 * width)
    group, first = piece // pieces_of(shape), piece % pieces_of(shape) * ROWS
    for row in range(first, min(first + ROWS, shape.height)):
        lay(number, group, row, shape, net, values, given)
        np.dot(matrix.T, given[: inputs * line].reshape(inputs, line), sums.reshape(2 * width, line))
        here, keep = (group * shape.height + row) * width * line, ((number * shape.groups + group) * shape.height + row) * width * line
        beside = net.base[residual] + here if residual >= 0 else -1
        gate(sums, bias, number, memory, beside, net.base[source] + here, kept, keep, width, line)


class Work(NamedTuple):
    """Room to work in on the way back."""

    given: Array
    sums: Array
    product: Array
    total: Array
    ones: Array
    memory: Array
    """the gradients of all sources at the rows that are remembered"""


@compiled
def backward_of(group: int, shape: Shape, net: Net, values: Values, grads: Gradients) -> None:
    """All layers of a group of images in reverse, from the lowest rows up."""
    width, line, dtype = net.channels[-1], shape.across * shape.width, values.memory.dtype
    given, sums = room(shape, net, values.memory)
    product, total, ones = np.empty(net.layers[:, 5].max() * 2 * width, dtype), np.empty(2 * width, dtype), np.ones(line, dtype)
    work = Work(given, sums, product, total, ones, np.empty(slots_of(shape, net) * net.channels.sum() * line, dtype))
    begun = shape.height
    for piece in range(pieces_of(shape) - 1, -1, -1):
        first = piece * ROWS
        upper, after = max(0, first - net.reach), min(first + ROWS, shape.height)
        for row in range(upper, begun):
            begin_row(group, row, shape, net, grads, work.memory)
        begun = upper
        for number in range(len(net.layers) - 1, -1, -1):
            for row in range(first, after):
                backward_at(number, group, row, shape, net, values, grads, work)
        for row in range(first, after):
            end_row(group, row, shape, net, grads, work.memory)


@compiled
def backward_at(number: int, group: int, row: int, shape: Shape, net: Net, values: Values, grads: Gradients, work: Work) -> None:
    """A layer at a row of a group in reverse."""
    given, sums, product, total, ones, memory = work
    width, line = net.channels[-1], shape.across * shape.width
    source, residual, _, _, coded, inputs, begin, wanted = net.layers[number]
    read, numbers, of_sums = given[: inputs * line].reshape(inputs, line), inputs * 2 * width, sums.reshape(2 * width, line)
    here, keep = (group * shape.height + row) * width * line, ((number * shape.groups + group) * shape.height + row) * width * line
    at, beside = slot(source, row, shape, net), net.base[residual] + here if residual >= 0 else -1
    of_gate(memory, at, values.memory, beside, net.base[source] + here, values.kept, keep, sums, width * line)
    if residual >= 0:
        added(memory, at, memory, slot(residual, row, shape, net), width * line)
    np.dot(of_sums, ones, total)
    added(total, 0, grads.bias, (group * len(net.layers) + number) * 2 * width, 2 * width)
    lay(number, group, row, shape, net, values, given)
    np.dot(read, of_sums.T, product[:numbers].reshape(inputs, 2 * width))
    added(product, 0, grads.weights, group * len(values.weights) + begin, numbers)
    if wanted or coded:
        np.dot(values.weights[begin : begin + numbers].reshape(inputs, 2 * width), of_sums, read)
        give_back(number, group, row, shape, net, given, grads, memory)


@compiled
def forward_alone(shape: Shape, net: Net, values: Values) -> None:
    """All layers of all images, piece after piece, since no layer looks further down than it is: without a pool of threads, which would not survive
    a fork.
    """
    for piece in range(shape.groups * pieces_of(shape)):
        for number in range(len(net.layers)):
            forward_of(number, piece, shape, net, values)


@shared
def forward_together(number: int, shape: Shape, net: Net, values: Values) -> None:
    """A layer of all images."""
    for piece in numba.prange(shape.groups * pieces_of(shape)):
        forward_of(number, int(piece), shape, net, values)  # it counts in unsigned numbers


@shared
def backward_together(shape: Shape, net: Net, values: Values, grads: Gradients) -> None:
    """All layers of all images in reverse."""
    for group in numba.prange(shape.groups):
        backward_of(int(group), shape, net, values, grads)


@cache
def _net(layers: Layers, channels: tuple[int, ...], coded: tuple[int, ...], wanted: bool, pixels: int) -> Net:
    """The arrays of learned layers, which come after the fixed ones, for so many pixels."""
    taps: list[tuple[int, int, int]] = []
    rows: list[list[int]] = []
    begin, fixed = 0, sum(layer.fixed is not None for layer in layers)
    for number, layer in enumerate(layers[fixed:], start=fixed):
        first = len(taps)
        taps += [(read.source, *tap) for read in layer.reads for tap in sorted(read.taps)]
        inputs = sum(channels[source] for source, _, _ in taps[first:]) + coded[number]
        asked = wanted or any(read.source > fixed for read in layer.reads)
        residual = -1 if layer.residual is None else layer.residual
        rows.append([number + 1, residual, first, len(taps), coded[number], inputs, begin, asked])
        begin += inputs * 2 * channels[-1]
    base = accumulate((pixels * count for count in channels[:-1]), initial=0)
    return Net(np.array(list(base)), np.array(channels), np.array(taps), np.array(rows), max(-di for _, di, _ in taps))


def fits(net: CausalNet, image: Tensor) -> bool:
    """Whether a network can be computed here: on a CPU, with gates of real numbers, in no less than the precision of its weights."""
    lowered = torch.is_autocast_enabled("cpu") and image.dtype != torch.float64
    plain = type(net.gate) is Gate and not any(conv.initialising for convs in net.convs for conv in convs)
    return image.device.type == "cpu" and not lowered and plain and not all(net.fixed) and image.numel() > 0


def features(net: CausalNet, contexts: Sequence[Float[Tensor, "B K H W"]], code: Float[Tensor, "B M H W"] | None) -> Float[Tensor, "B C H W"]:
    """The values of a network's last layer, from the image and its contexts, and the map of the code."""
    if net.members == 1:
        return _features(net, contexts, code, None)
    return torch.cat([_features(net, contexts, code, member) for member in range(net.members)], dim=1)


def _features(
    net: CausalNet, contexts: Sequence[Float[Tensor, "B K H W"]], code: Float[Tensor, "B M H W"] | None, member: int | None
) -> Float[Tensor, "B c H W"]:
    """The same of one of its members, or of all of it."""
    matrices = [net.matrix(number, code is not None, member) for number in range(len(contexts) - 1, len(net.layers))]
    weights, bias = (torch.cat([some.flatten() for some in parts]) for parts in zip(*matrices, strict=True))
    coded = tuple(0 if code is None or str(n) not in net.conditions else code.shape[1] for n in range(len(net.layers)))
    layer = net.width if member is None else net.width // net.members
    channels = (*(context.shape[1] for context in contexts), *[layer] * len(matrices))
    batch, _, height, width = contexts[0].shape
    groups = -(-batch // max(1, LINE // width))
    shape, told = Shape(groups, height, -(-batch // groups), width), contexts[0].new_empty(batch, 0, height, width) if code is None else code
    wanted = torch.is_grad_enabled() and any(some.requires_grad for some in contexts)
    asked = wanted or (torch.is_grad_enabled() and any(some.requires_grad for some in (weights, bias, told)))
    arrays = _net(net.layers, channels, coded, wanted, shape.groups * shape.height * shape.across * shape.width)
    last: Tensor = _Fused.apply(shape, arrays, asked, weights, bias, told, *contexts)
    return last


class _Fused(torch.autograd.Function):
    """The layers as one operation."""

    @staticmethod
    def forward(
        ctx: Any, shape: Shape, net: Net, asked: bool, weights: Tensor, bias: Tensor, code: Tensor, *contexts: Tensor
    ) -> Float[Tensor, "B C H W"]:
        last = shape.groups * shape.height * shape.across * shape.width * int(net.channels[-1])
        memory = weights.new_empty(int(net.base[-1]) + last)
        for base, context in zip(net.base, contexts, strict=False):
            laid = _laid(context, shape)
            memory[base : base + len(laid)] = laid
        kept = weights.new_empty(len(net.layers) * last if asked else 0)
        values = Values(*(some.numpy() for some in (weights, bias, memory, _laid(code, shape), kept)))
        with sharing() as threads:
            if threads == 1:
                forward_alone(shape, net, values)
            for number in range(len(net.layers) if threads > 1 else 0):
                forward_together(number, shape, net, values)
        if asked:
            ctx.shape, ctx.net, ctx.values = shape, net, values
        return _images(memory[net.base[-1] :], shape, len(code))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "B C H W"]) -> tuple[Any, ...]:
        shape, net, values = ctx.shape, ctx.net, ctx.values
        wanted = ctx.needs_input_grad[6:]
        memory, code = grad.new_empty(int(net.base[len(wanted)]) if any(wanted) else 0), grad.new_zeros(len(values.code))
        weights, bias = (grad.new_zeros(shape.groups, len(some)) for some in (values.weights, values.bias))
        grads = Gradients(*(some.numpy() for some in (_laid(grad, shape), weights.flatten(), bias.flatten(), memory, code)))
        with sharing() as threads:
            if threads > 1:
                backward_together(shape, net, values, grads)
            for group in range(shape.groups if threads == 1 else 0):
                backward_of(group, shape, net, values, grads)
        parts = zip(net.base, net.base[1:], wanted, strict=False)
        contexts = [_images(memory[base:end], shape, len(grad)) if asked else None for base, end, asked in parts]
        return None, None, None, weights.sum(0), bias.sum(0), _images(code, shape, len(grad)), *contexts


def _laid(x: Float[Tensor, "B C H W"], shape: Shape) -> Float[Tensor, " n"]:
    """Images as lines."""
    full = F.pad(x, (0, 0, 0, 0, 0, 0, 0, shape.groups * shape.across - len(x)))
    return full.unflatten(0, (shape.groups, shape.across)).permute(0, 3, 2, 1, 4).flatten()


def _images(lines: Float[Tensor, " n"], shape: Shape, batch: int) -> Float[Tensor, "B C H W"]:
    """Lines as images, channels last in memory."""
    groups, height, across, width = shape
    parted = lines.view(groups, height, len(lines) // (groups * height * across * width), across, width)
    return parted.permute(0, 3, 1, 4, 2).flatten(0, 1)[:batch].movedim(-1, 1)
