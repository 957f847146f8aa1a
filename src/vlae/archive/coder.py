"""Images as words: the code first, then every pixel with the twin's frequencies, in wavefront order, whole diagonals in one call.

B batch, C colours, D channels of the code, H and W height and width, N pixels of each image that are coded at once, P pixels of each image.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.chances import Asked, asked, logistics, nothing_known, pixels, rules_of, unasked
from vlae.archive.codec import Codec, Words
from vlae.archive.mixture import WholeBitHead, WholeHead
from vlae.archive.streams import Readers, closed, readers, write, writer
from vlae.archive.times import LastLayer, Sight, ask_times, read_codes, read_images, read_times
from vlae.archive.twin import GREY, GREY_STEP, Twin, exact_sums
from vlae.archive.whole import WholeOut
from vlae.core.compiled import Array
from vlae.core.schedule import schedule
from vlae.core.wavefront import Wavefront

Index = Int64[Tensor, "B D ..."] | None
"""the codes' indices; None for a decoder without a code"""


class Encoded(NamedTuple):
    """One image: its words, and the bits that its code and its pixels account for."""

    words: Words
    code_bits: float
    pixel_bits: float


class Decoded(NamedTuple):
    """What words tell: the codes' indices, and the images."""

    code: Index
    x: Float[Tensor, "B C H W"]


@torch.no_grad()
def encode(codec: Codec, index: Index, x: Float[Tensor, "B C H W"]) -> list[Encoded]:
    """The words of each image, given the indices of its code."""
    of_code, (of_pixels, starts) = _code(codec, index), _pixels(codec.twin, _whole(codec, index), x)
    return [_encoded(_of(of_code, n, len(x)), _of(of_pixels, n, len(x)), starts) for n in range(len(x))]


def _of(told: Asked, image: int, images: int) -> Asked:
    """What is asked of one of the images."""
    return told[0][:, image::images], told[1][:, image::images]


def _encoded(of_code: Asked, of_pixels: Asked, starts: Array) -> Encoded:
    """An image of which all questions (Q, P) are known, those of its pixels in the order in which they are decoded, time after time."""
    into = writer(of_code[0].size + of_pixels[0].size)
    code_bits = write(*of_code, np.array([0, of_code[0].shape[1]]), into)
    pixel_bits = write(*of_pixels, starts, into)
    return Encoded(closed(into), code_bits, pixel_bits)


def _code(codec: Codec, index: Index) -> Asked:
    """What is asked of the codes' places, place after place, image after image; of no code, nothing."""
    if index is None or codec.codebook is None:
        return np.empty((0, 0)), np.empty((0, 0), np.bool_)
    levels = codec.codebook.levels(index)
    head, known = logistics(codec.codebook.shares(levels.shape[2]), len(levels))
    return asked(head, known._replace(levels=levels.flatten(1).t().reshape(1, -1).numpy()))


@exact_sums()
def _pixels(twin: Twin, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> tuple[Asked, Array]:
    """What is asked of the pixels of each time, row after row, image after image; and how many pixels of an image come before each time."""
    size, head = (x.shape[2], x.shape[3]), cast(WholeHead | WholeBitHead, twin.head)
    if not twin.window.layers:  # all at one time
        numbers = _numbers(twin, z, size)
        return pixels(head, numbers, numbers[:, :0].copy(), x.long().permute(1, 2, 3, 0).flatten(1).numpy()), np.array([0, math.prod(size)])
    order, starts = _order(schedule(twin.net.layers, twin.net.predictor).slope, *size)
    levels = x.long().permute(1, 2, 3, 0).flatten(1, 2)[:, order].flatten(1).numpy()
    found = unasked(head, levels.shape[1])
    with Wavefront(twin.net, twin.spread(z, size), twin.image(x)).loops() as loops:
        rows, at = len(loops.state.features), 0
        work = _last_layer(twin, rows), rules_of(head), nothing_known(head, rows), levels, *found
        for begin, end in loops.stretches():
            at = ask_times(begin, end, at, loops.lag, loops.shape, loops.net, loops.gating, loops.state, *work)
    return found, starts


def _numbers(twin: Twin, z: Tensor | None, size: tuple[int, int]) -> Array:
    """The numbers of the head (P B, O) of a decoder that sees no pixel, pixel after pixel, image after image."""
    code = twin.spread(z, size)
    assert code is not None
    numbers: Array = twin.out(code).permute(2, 3, 0, 1).flatten(0, 2).contiguous().numpy()
    return numbers


@lru_cache(16)
def _order(slope: int, height: int, width: int) -> tuple[Int64[Tensor, " P"], Array]:
    """Pixels in the order in which they are decoded, those of one time from the upper row down; and how many come before each time."""
    row, column = torch.arange(height * width).div(width, rounding_mode="floor"), torch.arange(height * width).remainder(width)
    time = column + slope * row
    return torch.argsort(time, stable=True), np.cumsum([0, *torch.unique(time, return_counts=True)[1].tolist()])


def _last_layer(twin: Twin, rows: int) -> LastLayer:
    weights, bias, steps = (some.contiguous().numpy() for some in cast(WholeOut, twin.out).parts())
    return LastLayer(weights, bias, steps, np.empty((rows, len(bias)), bias.dtype))


@torch.no_grad()
@exact_sums()
def decode(codec: Codec, words: list[Words], size: tuple[int, int]) -> Decoded:
    """The codes and the images of some words, all of one size."""
    streams, twin, head = readers(words), codec.twin, cast(WholeHead | WholeBitHead, codec.twin.head)
    index = _read_index(codec, streams, size)
    z, images = _whole(codec, index), len(words)
    if not twin.window.layers:  # no pixel waits for another
        numbers = _numbers(twin, z, size)
        known = nothing_known(head, len(numbers))
        read_images(math.prod(size), numbers, numbers[:, :0].copy(), rules_of(head), known, streams)
        return Decoded(index, torch.from_numpy(known.levels).view(-1, *size, images).permute(3, 0, 1, 2).to(twin.dtype))
    with Wavefront(twin.net, twin.spread(z, size), torch.empty(images, 0, *size, dtype=twin.dtype)).loops() as loops:
        rows, dtype = len(loops.state.features), loops.state.memory.dtype
        found = np.empty((math.prod(size), images, head.colours), dtype)
        work = _last_layer(twin, rows), rules_of(head), nothing_known(head, rows), _sight(twin, rows, dtype), streams, found
        for begin, end in loops.stretches():
            read_times(begin, end, loops.lag, loops.shape, loops.net, loops.gating, loops.state, *work)
    return Decoded(index, torch.from_numpy(found).view(*size, images, head.colours).permute(2, 3, 0, 1).contiguous())


def _sight(twin: Twin, rows: int, dtype: np.dtype[Any]) -> Sight:
    """What the network sees of so many pixels at once."""
    seen, colours = twin.net.inputs, twin.head.colours
    grey = np.array(GREY if seen < colours else (), dtype) * (GREY_STEP / sum(GREY))
    return Sight(grey, GREY_STEP, np.empty((rows, seen), dtype), np.empty((rows, colours), dtype))


def _read_index(codec: Codec, streams: Readers, size: tuple[int, int]) -> Index:
    """The indices of the codes, which come first."""
    if codec.codebook is None:
        return None
    images, shape = len(streams.end), codec.code_shape(size)
    head, known = logistics(codec.codebook.shares(math.prod(shape[1:])), images)
    read_codes(known.levels.shape[1] // images, rules_of(head), known, streams)
    return codec.codebook.of_levels(torch.from_numpy(known.levels).view(-1, images).t().contiguous()).view(images, *shape)


def _whole(codec: Codec, index: Index) -> Tensor | None:
    return None if index is None or codec.codebook is None else codec.codebook.whole(index).to(codec.twin.dtype)
