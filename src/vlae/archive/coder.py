"""Images as streams of bits: every pixel is coded with the twin's frequencies, in wavefront order, whole diagonals in one call.

A level is told by halves: whether it lies in the upper half of the levels that are left, then again, down to one. Each answer has the exact
share of the frequencies, in parts of 2^24, and a range coder writes it in as many bits as it is surprising.
"""

from collections.abc import Iterator
from typing import cast

import constriction
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vlae.archive.mixture import Shares, WholeDistribution
from vlae.archive.twin import Twin
from vlae.core.causal import Seen
from vlae.core.wavefront import Wavefront

PARTS = 2**24
_ANSWER = constriction.stream.model.Bernoulli(perfect=False)

Words = npt.NDArray[np.uint32]


class Halving:
    """The levels that are left for one colour of some pixels, and the frequencies below their ends."""

    def __init__(self, shares: Shares, like: Int64[Tensor, "B H W"]) -> None:
        self.shares = shares
        self.low, self.high = torch.zeros_like(like), torch.full_like(like, shares.levels)
        self.below_low, self.below_high = shares.below(self.low), shares.below(self.high)

    def steps(self) -> Iterator[tuple[Int64[Tensor, "B H W"], Int64[Tensor, "B H W"]]]:
        """For each halving: the middle, and the upper half's share in parts of 2^24; ``take`` must be told which half it is."""
        for bit in reversed(range((self.shares.levels - 1).bit_length())):
            self.middle = self.low + 2**bit
            self.below_middle = self.shares.below(self.middle)
            share = (self.below_high - self.below_middle) * PARTS // (self.below_high - self.below_low)
            yield self.middle, share.clamp(1, PARTS - 1)

    def take(self, upper: Bool[Tensor, "B H W"]) -> None:
        """Go on in the upper half, or in the lower."""
        self.low, self.high = torch.where(upper, self.middle, self.low), torch.where(upper, self.high, self.middle)
        self.below_low = torch.where(upper, self.below_middle, self.below_low)
        self.below_high = torch.where(upper, self.below_high, self.below_middle)


@torch.no_grad()
def encode(twin: Twin, z: Tensor | None, x: Float[Tensor, "1 C H W"]) -> Words:
    """The words of one image, given its whole code."""
    levels, pixels = x.long().unbind(1), twin(z, x)
    shares, answers = [], []
    for c, level in enumerate(levels):
        halving = Halving(pixels.colour(c, levels[:c]), level)
        for middle, share in halving.steps():
            upper = level >= middle
            halving.take(upper)
            shares.append(share.flatten())
            answers.append(upper.flatten())
    # Of the pixels of one time all first answers come first, then all second ones.
    starts = torch.arange(len(shares)).mul(levels[0].numel()).unsqueeze(1)
    order = torch.cat([(starts + together).flatten() for together in _diagonals(twin, *x.shape[2:])])
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(torch.cat(answers)[order].cpu().numpy().astype(np.int32), _ANSWER, _chances(torch.cat(shares)[order]))
    return encoder.get_compressed()


def _diagonals(twin: Twin, height: int, width: int) -> Iterator[Int64[Tensor, " n"]]:
    """The pixels in the order in which they are decoded, those of one time together."""
    if not twin.window.layers:
        yield torch.arange(height * width)
        return
    sweep = Wavefront(twin.net, None, torch.zeros(1, 0, height, width)).sweep
    for pixels in sweep.pixels(range(sweep.times.stop), lag=0):
        yield pixels[pixels < height * width]


@torch.no_grad()
def decode(twin: Twin, z: Tensor | None, words: Words, size: tuple[int, int]) -> Float[Tensor, "1 C H W"]:
    """The image of some words, given its whole code and its size."""
    decoder = constriction.stream.queue.RangeDecoder(words)

    def read(pixels: WholeDistribution, chosen: Int64[Tensor, " n"], like: Int64[Tensor, "B H W"]) -> Float[Tensor, "B C H W"]:
        levels: list[Tensor] = []
        for c in range(pixels.colours):
            halving = Halving(pixels.colour(c, levels), like)
            for _, share in halving.steps():
                answers = decoder.decode(_ANSWER, _chances(share.flatten()[chosen]))
                upper = torch.zeros(like.numel(), dtype=torch.bool)
                upper[chosen] = torch.from_numpy(answers).bool()
                halving.take(upper.view_as(like))
            levels.append(halving.low)
        return torch.stack(levels, dim=1).to(twin.dtype)

    if not twin.window.layers:
        blank = torch.zeros(1, twin.head.colours, *size, dtype=twin.dtype)
        return read(twin(z, blank), torch.arange(blank[0, 0].numel()), blank[:, 0].long())
    front, out = Wavefront(twin.net, twin.spread(z, size), torch.ones(1, 1, *size, dtype=twin.dtype)), twin.out.pointwise()

    def write(seen: Seen, beside: Tensor) -> tuple[Tensor, Tensor]:
        told = cast(WholeDistribution, twin.head(out(seen.features), seen.prediction))
        pixels = read(told, beside.flatten().nonzero().squeeze(1), torch.zeros(len(beside), 1, 1, dtype=torch.long))
        return pixels, twin.image(pixels)

    return front.run(write)


def _chances(shares: Int64[Tensor, " n"]) -> npt.NDArray[np.float64]:
    """Shares as the coder takes them: parts of a power of two, which are exact."""
    return shares.cpu().numpy() / np.float64(PARTS)
