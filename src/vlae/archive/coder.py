"""Images as words: the code first, then every pixel with the twin's frequencies, in wavefront order, whole diagonals in one call.

B batch, C colours, D channels of the code, H and W height and width, N pixels of each image that are coded at once, P pixels of each image.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import constriction
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.chances import Asked, Pixels, logistics
from vlae.archive.codec import Codec, Words
from vlae.archive.mixture import WholeBitHead, WholeHead
from vlae.archive.twin import Twin, exact_sums
from vlae.core.causal import Seen
from vlae.core.compiled import Array
from vlae.core.schedule import schedule
from vlae.core.wavefront import Wavefront

_ANSWER = constriction.stream.model.Bernoulli(perfect=False)

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
        asked = logistics(codec.codebook.shares(levels.shape[2]), len(x))
        code_bits = _write(encoders, list(_answers(asked, levels.flatten(1).numpy())), [torch.arange(levels[0].numel())])
    colours, told = x.flatten(2).long().transpose(0, 1).contiguous().numpy(), _pixels(codec.twin, *codec.twin.along(_whole(codec, index), x))
    answers = [answer for c, level in enumerate(colours) for answer in _answers(told.colour(c, colours[:c]), level)]
    pixel_bits = _write(encoders, answers, _diagonals(codec.twin, *x.shape[2:]))
    return [Encoded(e.get_compressed(), *bits) for e, *bits in zip(encoders, code_bits, pixel_bits, strict=True)]


def _pixels(twin: Twin, numbers: Float[Tensor, "B P O"], prediction: Float[Tensor, "B P C"] | None) -> Pixels:
    return Pixels(cast(WholeHead | WholeBitHead, twin.head), numbers, prediction)


def _answers(asked: Asked, levels: Array) -> Iterator[tuple[Array, Array]]:
    """The chance of each answer, and whether the level (B, P) is in the upper half."""
    for middle, chance in asked.questions():
        upper = levels >= middle
        yield chance.copy(), upper
        asked.take(upper)


def _write(encoders: list[Any], answers: list[tuple[Array, Array]], together: list[Int64[Tensor, " n"]]) -> list[float]:
    """Write the answers of all images; of what is coded ``together`` all first answers come first, then all second ones. Tells the bits."""
    chances, upper = (np.stack(values, axis=1).reshape(len(encoders), -1) for values in zip(*answers, strict=True))
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
        return Decoded(index, _read_pixels(readers, _pixels(twin, *twin.along(z, blank))).view_as(blank).to(twin.dtype))
    front, out = Wavefront(twin.net, twin.spread(z, size), torch.ones(batch, 1, *size, dtype=twin.dtype)), twin.out.pointwise()

    def write(seen: Seen, inside: Float[Tensor, "N 1 1 1"]) -> tuple[Tensor, Tensor]:
        pixels = inside.new_zeros(len(inside), twin.head.colours, 1, 1)
        if len(rows := inside.view(-1, batch)[:, 0].nonzero()[:, 0]):
            here = slice(int(rows[0]) * batch, (int(rows[-1]) + 1) * batch)
            prediction = None if seen.prediction is None else _by_image(seen.prediction[here], batch)
            levels = _read_pixels(readers, _pixels(twin, _by_image(out(seen.features[here]), batch), prediction))
            pixels[here, :, 0, 0] = levels.permute(2, 0, 1).flatten(0, 1).to(twin.dtype)
        return pixels, twin.image(pixels)

    return Decoded(index, front.run(write))


def _by_image(pixels: Float[Tensor, "N K 1 1"], batch: int) -> Float[Tensor, "B n K"]:
    """Row after row of all images as the pixels of each."""
    return pixels.view(-1, batch, pixels.shape[1]).transpose(0, 1)


def _read_index(codec: Codec, readers: list[Any], size: tuple[int, int]) -> Index:
    """The indices of the codes, which come first."""
    if codec.codebook is None:
        return None
    shape = codec.code_shape(size)
    levels = _read(readers, logistics(codec.codebook.shares(math.prod(shape[1:])), len(readers)))
    return codec.codebook.of_levels(torch.from_numpy(levels)).view(len(readers), *shape)


def _read_pixels(readers: list[Any], told: Pixels) -> Int64[Tensor, "B C P"]:
    levels = np.empty((told.head.colours, len(readers), told.numbers.shape[1]), np.int64)
    for c in range(len(levels)):
        levels[c] = _read(readers, told.colour(c, levels[:c]))
    return torch.from_numpy(levels).transpose(0, 1)


def _read(readers: list[Any], asked: Asked) -> Array:
    for _, chances in asked.questions():
        asked.take(np.stack([reader.decode(_ANSWER, some) for reader, some in zip(readers, chances, strict=True)]))
    return asked.low


def _whole(codec: Codec, index: Index) -> Tensor | None:
    return None if index is None or codec.codebook is None else codec.codebook.whole(index).to(codec.twin.dtype)
