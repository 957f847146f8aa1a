"""Images as words: the code first, then every pixel with the twin's frequencies, in wavefront order, whole diagonals in one call.

B batch, C colours, D channels of the code, H and W height and width, N pixels of each image that are coded at once, P pixels of each image.
"""

import math
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.chances import logistics, nothing_known, questions, rules_of, unasked
from vlae.archive.codebook import LEVELS
from vlae.archive.codec import Codec, Words
from vlae.archive.mixture import WholeBitHead, WholeHead
from vlae.archive.streams import Readers, Writers, closed, readers, writers
from vlae.archive.times import LastLayer, Sight, read_codes, read_images, read_times, write_codes, write_images, write_times
from vlae.archive.twin import GREY, GREY_STEP, Twin, exact_sums
from vlae.archive.whole import WholeOut
from vlae.core.compiled import Array
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
@exact_sums()
def encode(codec: Codec, index: Index, x: Float[Tensor, "B C H W"]) -> list[Encoded]:
    """The words of each image, given the indices of its code."""
    into = writers(len(x), questions(LEVELS) * _each(index) + questions(codec.twin.head.levels) * _each(x))
    _write_index(codec, index, into)
    code_bits = into.bits.tolist()
    _write_pixels(codec.twin, _map(codec, index, (x.shape[2], x.shape[3])), x, into)
    return [Encoded(closed(n, into), code_bits[n], into.bits[n].item() - code_bits[n]) for n in range(len(x))]


def _each(values: Tensor | None) -> int:
    """How many values an image has."""
    return 0 if values is None else values[0].numel()


def _write_index(codec: Codec, index: Index, into: Writers) -> None:
    """The codes' places, place after place; of no code, nothing."""
    if index is None or codec.codebook is None:
        return
    levels = codec.codebook.levels(index)
    head, known = logistics(codec.codebook.shares(levels.shape[2]), len(levels))
    known.levels[:] = levels.flatten(1).t().reshape(1, -1).numpy()
    places = known.levels.shape[1] // len(levels)
    write_codes(places, rules_of(head), known, unasked(head, len(levels), places), into)


def _write_pixels(twin: Twin, code: Tensor | None, x: Float[Tensor, "B C H W"], into: Writers) -> None:
    images, pixels, head = len(x), x.shape[2] * x.shape[3], cast(WholeHead | WholeBitHead, twin.head)
    levels = x.permute(2, 3, 0, 1).flatten(0, 1).contiguous().numpy()
    if not twin.window.layers:  # no pixel waits for another
        numbers = _numbers(twin, code)
        known = nothing_known(head, len(numbers))
        known.levels[:] = levels.reshape(len(numbers), -1).T
        write_images(pixels, numbers, numbers[:, :0].copy(), rules_of(head), known, unasked(head, images, pixels), into)
        return
    with Wavefront(twin.net, code, twin.image(x)).loops() as loops:
        rows = len(loops.state.features)
        work = _last_layer(twin, rows), rules_of(head), nothing_known(head, rows), unasked(head, images, rows // images), into, levels
        for begin, end in loops.stretches():
            write_times(begin, end, loops.lag, loops.shape, loops.net, loops.gating, loops.state, *work)


def _numbers(twin: Twin, code: Tensor | None) -> Array:
    """The numbers of the head (P B, O) of a decoder that sees no pixel, pixel after pixel, image after image."""
    assert code is not None
    numbers: Array = twin.out(code).permute(2, 3, 0, 1).flatten(0, 2).contiguous().numpy()
    return numbers


def _last_layer(twin: Twin, rows: int) -> LastLayer:
    weights, bias, steps = (some.contiguous().numpy() for some in cast(WholeOut, twin.out).parts())
    return LastLayer(weights, bias, steps, np.empty((rows, len(bias)), bias.dtype))


@torch.no_grad()
@exact_sums()
def decode(codec: Codec, words: list[Words], size: tuple[int, int]) -> Decoded:
    """The codes and the images of some words, all of one size."""
    streams, twin, head = readers(words), codec.twin, cast(WholeHead | WholeBitHead, codec.twin.head)
    index = _read_index(codec, streams, size)
    code, images = _map(codec, index, size), len(words)
    if not twin.window.layers:  # no pixel waits for another
        numbers = _numbers(twin, code)
        known = nothing_known(head, len(numbers))
        read_images(math.prod(size), numbers, numbers[:, :0].copy(), rules_of(head), known, streams)
        return Decoded(index, torch.from_numpy(known.levels).view(-1, *size, images).permute(3, 0, 1, 2).to(twin.dtype))
    with Wavefront(twin.net, code, torch.empty(images, 0, *size, dtype=twin.dtype)).loops() as loops:
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


def _map(codec: Codec, index: Index, size: tuple[int, int]) -> Float[Tensor, "B M H W"] | None:
    """The codes as maps of an image's size: of equal codes, one."""
    if index is None or codec.codebook is None:
        return None
    each, which = codec.codebook.whole(index).to(codec.twin.dtype).unique(dim=0, return_inverse=True)
    spread = codec.twin.spread(each, size)
    return None if spread is None else spread[which]
