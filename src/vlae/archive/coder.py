"""Images as words: the code first, then every pixel with the twin's frequencies, in wavefront order, whole diagonals in one call.

B batch, C colours, D channels of the code, H and W height and width, N pixels of each image that are coded at once, P pixels of each image.
"""

import math
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.chances import Asked, asked, logistics, nothing_known, pixels, rules_of
from vlae.archive.codec import Codec, Words
from vlae.archive.mixture import WholeBitHead, WholeHead
from vlae.archive.reading import Sight, read_codes, read_images, read_times
from vlae.archive.streams import Readers, closed, readers, write, writer
from vlae.archive.twin import GREY, GREY_STEP, Twin, exact_sums
from vlae.archive.whole import WholeOut
from vlae.core.compiled import Array
from vlae.core.loops import Loops
from vlae.core.schedule import schedule
from vlae.core.wavefront import InLoops, Wavefront

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
    order, starts = _times(codec.twin, *x.shape[2:])
    numbers, prediction = _arrays(*codec.twin.along(_whole(codec, index), x), order)
    levels = x.flatten(2)[..., order].transpose(0, 1).flatten(1).long().numpy()
    told = [pixels(_head(codec), numbers, prediction, levels)]
    if index is not None and codec.codebook is not None:
        code = codec.codebook.levels(index)
        rules, known = logistics(codec.codebook.shares(code.shape[2]), len(x))
        told.insert(0, asked(rules, known._replace(levels=code.reshape(1, -1).numpy())))
    of_images = [tuple(some.reshape(len(some), len(x), -1) for some in questions) for questions in told]
    return [_encoded([(chances[:, image], answers[:, image]) for chances, answers in of_images], starts) for image in range(len(x))]


def _encoded(told: list[Asked], starts: Array) -> Encoded:
    """An image of which all questions (Q, P) are known: of its code, if it has one, and of its pixels, which are coded time after time."""
    into = writer(sum(chances.size for chances, _ in told))
    bits = [write(*some, np.array([0, some[0].shape[1]]), into) for some in told[:-1]]
    pixel_bits = write(*told[-1], starts, into)
    return Encoded(closed(into), sum(bits), pixel_bits)


def _times(twin: Twin, height: int, width: int) -> tuple[Int64[Tensor, " P"], Array]:
    """The pixels in the order in which they are decoded, and where in it each time begins and ends."""
    return _order(schedule(twin.net.layers, twin.net.predictor).slope if twin.window.layers else 0, height, width)


@lru_cache(16)
def _order(slope: int, height: int, width: int) -> tuple[Int64[Tensor, " P"], Array]:
    """The pixels of one time together, from the upper row down; where none waits for another there is but one time."""
    row, column = torch.arange(height * width).div(width, rounding_mode="floor"), torch.arange(height * width).remainder(width)
    time = column + slope * row if slope else torch.zeros_like(row)
    return torch.argsort(time, stable=True), np.cumsum([0, *torch.unique(time, return_counts=True)[1].tolist()])


def _arrays(numbers: Float[Tensor, "B P O"], prediction: Float[Tensor, "B P C"] | None, order: Int64[Tensor, " P"]) -> tuple[Array, Array]:
    """What is told of pixels, in their order, image after image: (B P, O), and (B P, C), of no colours where there is none."""
    told = numbers[..., :0] if prediction is None else prediction
    return numbers[:, order].flatten(0, 1).numpy(), told[:, order].flatten(0, 1).numpy()


def _head(codec: Codec) -> WholeHead | WholeBitHead:
    return cast(WholeHead | WholeBitHead, codec.twin.head)


@torch.no_grad()
@exact_sums()
def decode(codec: Codec, words: list[Words], size: tuple[int, int]) -> Decoded:
    """The codes and the images of some words, all of one size."""
    streams, twin, batch = readers(words), codec.twin, len(words)
    index = _read_index(codec, streams, size)
    z = _whole(codec, index)
    if twin.window.layers:
        front = Wavefront(twin.net, twin.spread(z, size), torch.empty(batch, 0, *size, dtype=twin.dtype))
        return Decoded(index, front.run(_Reader(codec, streams)))
    blank = torch.zeros(batch, twin.head.colours, *size, dtype=twin.dtype)  # no pixel waits for another
    numbers, prediction = _arrays(*twin.along(z, blank), torch.arange(math.prod(size)))
    known = nothing_known(_head(codec), len(numbers))
    read_images(math.prod(size), numbers, prediction, rules_of(_head(codec)), known, streams)
    return Decoded(index, torch.from_numpy(known.levels).view(-1, *blank[:, 0].shape).transpose(0, 1).to(twin.dtype))


class _Reader(InLoops):
    """What the wavefront writes: the levels that words tell."""

    def __init__(self, codec: Codec, streams: Readers) -> None:
        self.twin, self.head, self.streams = codec.twin, _head(codec), streams

    def in_loops(self, loops: Loops) -> Float[Tensor, "P B C"]:
        """All levels."""
        state, dtype, colours = loops.state, loops.state.memory.dtype, self.head.colours
        rows, found = len(state.features), loops.room(colours)
        grey = np.array(GREY if self.twin.net.inputs < colours else (), dtype) * (GREY_STEP / sum(GREY))
        sight = Sight(grey, GREY_STEP, *(np.empty((rows, numbers), dtype) for numbers in (self.twin.net.inputs, colours)))
        last, known = loops.last_layer(*cast(WholeOut, self.twin.out).parts()), nothing_known(self.head, rows)
        given = last, rules_of(self.head), known, sight, self.streams, found
        for begin, end in loops.stretches():
            read_times(begin, end, loops.lag, loops.shape, loops.net, loops.gating, state, *given)
        return torch.from_numpy(found)


def _read_index(codec: Codec, streams: Readers, size: tuple[int, int]) -> Index:
    """The indices of the codes, which come first."""
    if codec.codebook is None:
        return None
    images, shape = len(streams.end), codec.code_shape(size)
    rules, known = logistics(codec.codebook.shares(math.prod(shape[1:])), images)
    read_codes(known.levels.shape[1] // images, rules, known, streams)
    return codec.codebook.of_levels(torch.from_numpy(known.levels).view(images, -1)).view(images, *shape)


def _whole(codec: Codec, index: Index) -> Tensor | None:
    return None if index is None or codec.codebook is None else codec.codebook.whole(index).to(codec.twin.dtype)
