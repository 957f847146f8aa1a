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

from vlae.archive.mixture import WholeMixture
from vlae.archive.twin import Twin
from vlae.core.causal import Seen
from vlae.core.schedule import Sweep
from vlae.core.wavefront import Wavefront

PARTS = 2**24
_ANSWER = constriction.stream.model.Bernoulli(perfect=False)

Words = npt.NDArray[np.uint32]


class Halving:
    """The levels that are left for some pixels, and the frequencies below their ends."""

    def __init__(self, mixture: WholeMixture, like: Int64[Tensor, "B H W"]) -> None:
        self.mixture = mixture
        self.low, self.high = torch.zeros_like(like), torch.full_like(like, mixture.levels)
        self.below_low, self.below_high = mixture.below(self.low), mixture.below(self.high)

    def steps(self) -> Iterator[tuple[Int64[Tensor, "B H W"], Int64[Tensor, "B H W"]]]:
        """For each halving: the middle, and the upper half's share in parts of 2^24; ``take`` must be told which half it is."""
        for bit in reversed(range((self.mixture.levels - 1).bit_length())):
            self.middle = (self.low + 2**bit).clamp(max=self.mixture.levels)
            self.below_middle = self.mixture.below(self.middle)
            share = (self.below_high - self.below_middle) * PARTS // (self.below_high - self.below_low)
            yield self.middle, share.clamp(1, PARTS - 1)

    def take(self, upper: Bool[Tensor, "B H W"]) -> None:
        """Go on in the upper half, or in the lower."""
        self.low, self.high = torch.where(upper, self.middle, self.low), torch.where(upper, self.high, self.middle)
        self.below_low = torch.where(upper, self.below_middle, self.below_low)
        self.below_high = torch.where(upper, self.below_high, self.below_middle)


@torch.no_grad()
def encode(twin: Twin, z: Float[Tensor, "1 K h w"] | None, x: Float[Tensor, "1 1 H W"]) -> Words:
    """The words of one image, given its whole code."""
    level = x[:, 0].long()
    halving = Halving(twin(z, x), level)
    shares, answers = [], []
    for middle, share in halving.steps():
        upper = level >= middle
        halving.take(upper)
        shares.append(share.flatten())
        answers.append(upper.flatten())
    order = torch.cat([pixels.repeat(len(shares), 1).add(_offsets(len(shares), level.numel())).flatten() for pixels in _diagonals(twin, x)])
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(torch.cat(answers)[order].cpu().numpy().astype(np.int32), _ANSWER, _chances(torch.cat(shares)[order]))
    return encoder.get_compressed()


def _offsets(halvings: int, pixels: int) -> Int64[Tensor, "n 1"]:
    return torch.arange(halvings).mul(pixels).unsqueeze(1)


def _diagonals(twin: Twin, x: Tensor) -> Iterator[Int64[Tensor, " n"]]:
    """The pixels in the order in which they are decoded, those of one time together."""
    if not twin.window.layers:
        yield torch.arange(x[0, 0].numel())
        return
    sweep = sweep_of(twin, *x.shape[2:])
    for pixels in sweep.pixels(range(sweep.times.stop), lag=0):
        inside = pixels[pixels < x[0, 0].numel()]
        if len(inside):
            yield inside


def sweep_of(twin: Twin, height: int, width: int) -> Sweep:
    """The sweep of the twin over an image."""
    return Wavefront(twin.net, None, torch.zeros(1, 0, height, width)).sweep


@torch.no_grad()
def decode(twin: Twin, z: Float[Tensor, "1 K h w"] | None, words: Words, size: tuple[int, int]) -> Float[Tensor, "1 1 H W"]:
    """The image of some words, given its whole code and its size."""
    decoder = constriction.stream.queue.RangeDecoder(words)

    def read(mixture: WholeMixture, chosen: Int64[Tensor, " n"], like: Int64[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
        halving = Halving(mixture, like)
        for _, share in halving.steps():
            answers = decoder.decode(_ANSWER, _chances(share.flatten()[chosen]))
            upper = torch.zeros(like.numel(), dtype=torch.bool)
            upper[chosen] = torch.from_numpy(answers).bool()
            halving.take(upper.view_as(like))
        return halving.low

    if not twin.window.layers:
        blank = torch.zeros(1, *size, dtype=torch.long)
        return read(twin(z, blank.unsqueeze(1).to(twin.dtype)), torch.arange(blank.numel()), blank).unsqueeze(1).to(twin.dtype)
    front, out = Wavefront(twin.net, twin.spread(z, size), torch.ones(1, 1, *size, dtype=twin.dtype)), twin.out.pointwise()

    def write(seen: Seen, beside: Tensor) -> tuple[Tensor, Tensor]:
        inside = beside.flatten().nonzero().squeeze(1)
        mixture = cast(WholeMixture, twin.head(out(seen.features), seen.prediction))
        levels = read(mixture, inside, torch.zeros(len(beside), 1, 1, dtype=torch.long))
        pixels = levels.unsqueeze(1).to(beside.dtype)
        return pixels, twin.image(pixels)

    return front.run(write)


def _chances(shares: Int64[Tensor, " n"]) -> npt.NDArray[np.float64]:
    """Shares as the coder takes them: parts of a power of two, which are exact."""
    return shares.cpu().numpy() / np.float64(PARTS)
