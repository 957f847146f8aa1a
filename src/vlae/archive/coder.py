"""Images as words: the code first, then every pixel with the twin's frequencies, in wavefront order, whole diagonals in one call.

A level is told by halves: whether it lies in the upper half of the levels that are left, then again, down to one. Each answer has its
share of the frequencies, and a range coder writes it in as many bits as it is surprising.

B batch, N pixels of each image that are coded at once, C colours, D channels of the code, H and W height and width.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import constriction
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.codec import Codec
from vlae.archive.mixture import Shares, WholeDistribution, halving
from vlae.archive.twin import Twin, exact_sums
from vlae.core.causal import Seen
from vlae.core.schedule import schedule
from vlae.core.wavefront import Wavefront

_ANSWER = constriction.stream.model.Bernoulli(perfect=False)

Words = npt.NDArray[np.uint32]
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
    encoders = [constriction.stream.queue.RangeEncoder() for _ in x]
    code_bits = [0.0] * len(x)
    if index is not None and codec.codebook is not None:
        levels = codec.codebook.levels(index)
        answers = list(_answers(codec.codebook.shares(levels.shape[2]), levels))
        code_bits = _write(encoders, answers, [torch.arange(levels[0].numel())])
    colours, told = x.long().unbind(1), codec.twin.along(_whole(codec, index), x)
    answers = [answer for c, level in enumerate(colours) for answer in _answers(told.colour(c, colours[:c]), level)]
    pixel_bits = _write(encoders, answers, _diagonals(codec.twin, *x.shape[2:]))
    return [Encoded(e.get_compressed(), *bits) for e, *bits in zip(encoders, code_bits, pixel_bits, strict=True)]


def _answers(shares: Shares, level: Int64[Tensor, "B H W"]) -> Iterator[tuple[Float[Tensor, "B N"], Int64[Tensor, "B N"]]]:
    """For each halving the chance of the upper half, and whether the level lies there."""
    left = halving(shares, level)
    for middle in left.middles():
        upper = level >= middle
        yield left.upper().expand_as(upper).flatten(1).clone(), upper.flatten(1)
        left.take(upper)


def _write(encoders: list[Any], answers: list[tuple[Tensor, Tensor]], together: list[Int64[Tensor, " n"]]) -> list[float]:
    """Write the answers of all images; of what is coded ``together`` all first answers come first, then all second ones. Tells the bits."""
    chances, upper = (torch.stack(values, dim=1).flatten(1).numpy() for values in zip(*answers, strict=True))
    starts = torch.arange(len(answers)).mul(answers[0][0].shape[1]).unsqueeze(1)
    order = torch.cat([(starts + some).flatten() for some in together]).numpy()
    for encoder, chance, answer in zip(encoders, chances, upper, strict=True):
        encoder.encode(answer[order].astype(np.int32), _ANSWER, chance[order])
    return (-np.log2(np.where(upper, chances, 1 - chances)).sum(1)).tolist()


def _diagonals(twin: Twin, height: int, width: int) -> list[Int64[Tensor, " n"]]:
    """The pixels in the order in which they are decoded: those of one time together, from the upper row down."""
    slope = schedule(twin.net.layers, twin.net.predictor).slope if twin.window.layers else 0
    row, column = torch.arange(height * width).div(width, rounding_mode="floor"), torch.arange(height * width).remainder(width)
    time = column + slope * row if slope else torch.zeros_like(row)
    order = torch.argsort(time, stable=True)
    return list(order.split(torch.unique(time, return_counts=True)[1].tolist()))


@torch.no_grad()
@exact_sums()
def decode(codec: Codec, words: list[Words], size: tuple[int, int]) -> Decoded:
    """The codes and the images of some words, all of one size."""
    readers = [constriction.stream.queue.RangeDecoder(some) for some in words]
    index = _read_index(codec, readers, size)
    twin, z, batch = codec.twin, _whole(codec, index), len(words)
    if not twin.window.layers:  # no pixel waits for another
        blank = torch.zeros(batch, twin.head.colours, *size, dtype=twin.dtype)
        return Decoded(index, _read_pixels(readers, cast(WholeDistribution, twin(z, blank)), blank[:, 0].long()).to(twin.dtype))
    inside = torch.ones(batch, 1, *size, dtype=twin.dtype)
    front, out = Wavefront(twin.net, twin.spread(z, size), inside), twin.out.pointwise()

    def write(seen: Seen, inside: Tensor) -> tuple[Tensor, Tensor]:
        rows = inside.view(-1, batch)[:, 0].nonzero()[:, 0]
        if not len(rows):
            return (blank := inside.new_zeros(len(inside), twin.head.colours, 1, 1)), twin.image(blank)
        order = (rows * batch + torch.arange(batch).unsqueeze(1)).flatten()
        prediction = None if seen.prediction is None else _in_a_row(seen.prediction.index_select(0, order))
        told = cast(WholeDistribution, twin.head(_in_a_row(out(seen.features.index_select(0, order))), prediction))
        levels = _read_pixels(readers, told, torch.zeros(1, 1, len(order), dtype=torch.long))
        pixels = inside.new_zeros(len(inside), twin.head.colours, 1, 1)
        pixels[:, :, 0, 0].index_copy_(0, order, levels[0, :, 0].t().to(twin.dtype))
        return pixels, twin.image(pixels)

    return Decoded(index, front.run(write))


def _in_a_row(pixels: Float[Tensor, "N C 1 1"]) -> Float[Tensor, "1 C 1 N"]:
    """Many images of one pixel as one image of many: what is done to all pixels is faster so."""
    return pixels.flatten(1).t().contiguous()[None, :, None]


def _read_index(codec: Codec, readers: list[Any], size: tuple[int, int]) -> Index:
    """The indices of the codes, which come first."""
    if codec.codebook is None:
        return None
    shape = codec.code_shape(size)
    like = torch.zeros(len(readers), shape[0], math.prod(shape[1:]), dtype=torch.long)
    level = _read(readers, codec.codebook.shares(like.shape[2]), like)
    return codec.codebook.of_levels(level).view(len(readers), *shape)


def _read_pixels(readers: list[Any], told: WholeDistribution, like: Int64[Tensor, "N H W"]) -> Int64[Tensor, "N C H W"]:
    """Pixels that are the images' in turn: first all of the first one."""
    levels: list[Tensor] = []
    for c in range(told.colours):
        levels.append(_read(readers, told.colour(c, levels), like))
    return torch.stack(levels, dim=1)


def _read(readers: list[Any], shares: Shares, like: Int64[Tensor, "N H W"]) -> Int64[Tensor, "N H W"]:
    left = halving(shares, like)
    for _ in left.middles():
        chances = left.upper().expand_as(like).reshape(len(readers), -1).numpy()
        answers = [reader.decode(_ANSWER, some) for reader, some in zip(readers, chances, strict=True)]
        left.take(torch.from_numpy(np.concatenate(answers)).view_as(like) > 0)
    return left.low


def _whole(codec: Codec, index: Index) -> Tensor | None:
    return None if index is None or codec.codebook is None else codec.codebook.whole(index).to(codec.twin.dtype)
