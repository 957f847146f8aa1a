"""Images as streams of bits: every pixel is coded with the twin's frequencies, in wavefront order, whole diagonals in one call.

A level is told by halves: whether it lies in the upper half of the levels that are left, then again, down to one. Each answer has the exact
share of the frequencies, in parts of 2^24, and a range coder writes it in as many bits as it is surprising.
"""

from typing import cast

import constriction
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.archive.mixture import Halving, WholeDistribution
from vlae.archive.twin import Twin
from vlae.core.causal import Seen
from vlae.core.schedule import schedule
from vlae.core.wavefront import Wavefront

PARTS = 2**24
_ANSWER = constriction.stream.model.Bernoulli(perfect=False)

Words = npt.NDArray[np.uint32]


@torch.no_grad()
def encode(twin: Twin, z: Tensor | None, x: Float[Tensor, "1 C H W"]) -> Words:
    """The words of one image, given its whole code."""
    levels, pixels = x.long().unbind(1), twin(z, x)
    chances, answers = [], []
    for c, level in enumerate(levels):
        halving = Halving(pixels.colour(c, levels[:c]), level)
        for middle in halving.middles():
            upper = level >= middle
            chances.append(_chances(halving).flatten())
            answers.append(upper.flatten())
            halving.take(upper)
    # Of the pixels of one time all first answers come first, then all second ones.
    starts = torch.arange(len(answers)).mul(levels[0].numel()).unsqueeze(1)
    order = torch.cat([(starts + together).flatten() for together in _diagonals(twin, *x.shape[2:])])
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(torch.cat(answers)[order].numpy().astype(np.int32), _ANSWER, torch.cat(chances)[order].numpy())
    return encoder.get_compressed()


def _diagonals(twin: Twin, height: int, width: int) -> list[Int64[Tensor, " n"]]:
    """The pixels in the order in which they are decoded: those of one time together, from the upper row down."""
    slope = schedule(twin.net.layers, twin.net.predictor).slope if twin.window.layers else 0
    row, column = torch.arange(height * width).div(width, rounding_mode="floor"), torch.arange(height * width).remainder(width)
    time = column + slope * row if slope else torch.zeros_like(row)
    order = torch.argsort(time, stable=True)
    return list(order.split(torch.unique(time, return_counts=True)[1].tolist()))


@torch.no_grad()
def decode(twin: Twin, z: Tensor | None, words: Words, size: tuple[int, int]) -> Float[Tensor, "1 C H W"]:
    """The image of some words, given its whole code and its size."""
    decoder = constriction.stream.queue.RangeDecoder(words)

    def read(pixels: WholeDistribution, chosen: Int64[Tensor, " n"], like: Int64[Tensor, "B H W"]) -> Float[Tensor, "B C H W"]:
        levels: list[Tensor] = []
        for c in range(pixels.colours):
            halving = Halving(pixels.colour(c, levels), like)
            for _ in halving.middles():
                answers = decoder.decode(_ANSWER, _chances(halving).flatten()[chosen].numpy())
                upper = torch.zeros(like.numel(), dtype=torch.bool)
                upper[chosen] = torch.from_numpy(answers).bool()
                halving.take(upper.view_as(like))
            levels.append(halving.low)
        return torch.stack(levels, dim=1).to(twin.dtype)

    if not twin.window.layers:
        blank = torch.zeros(1, twin.head.colours, *size, dtype=twin.dtype)
        return read(twin(z, blank), torch.arange(blank[0, 0].numel()), blank[:, 0].long())
    # Beside each pixel stands its row, counted from 1: so the order of the words is that of the rows, and no matter of the engine's memory.
    rows = torch.arange(1.0, size[0] + 1, dtype=twin.dtype).view(1, 1, -1, 1).expand(1, 1, *size)
    front, out = Wavefront(twin.net, twin.spread(z, size), rows), twin.out.pointwise()

    def write(seen: Seen, beside: Tensor) -> tuple[Tensor, Tensor]:
        told = cast(WholeDistribution, twin.head(out(seen.features), seen.prediction))
        row = beside.flatten()
        inside = torch.argsort(row)[int((row == 0).sum()) :]
        pixels = read(told, inside, torch.zeros(len(row), 1, 1, dtype=torch.long))
        return pixels, twin.image(pixels)

    return front.run(write)


def _chances(halving: Halving) -> Float[Tensor, "B H W"]:
    """The chance of the upper half as the coder takes it: so many parts of a power of two, which is exact."""
    share = (halving.below_high - halving.below_middle) * PARTS // (halving.below_high - halving.below_low)
    return share.clamp(1, PARTS - 1).double() / PARTS
