"""What the codes of good parts are at each place, given the codes at the places around it.

n images, K channels of the code, h and w places of it (one where the code is a vector), R numbers of the codes around a place.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vlae.units import NATS_PER_BIT

# The places around one are those of the square of this side; with more numbers than these to keep for all places, none is read.
SIDE, MOST_NUMBERS = 3, 2**24
# What a regression reads is steadied by ``RIDGE + FEW (R / n)^2`` shares of its mean variance: more where images are few against its numbers.
RIDGE, FEW = 1e-3, 0.05
# So many shares of the mean variance are added to the variances of what a regression leaves.
LEFT = 1e-2
# A covariance is drawn towards the mean variances of all places as if so many more images had those.
LEAST_IMAGES = 20
# What good parts show under a fit to themselves is too little: each is judged by a fit to most of the others, in so many turns. Neighbours in
# order, which are often of one lot, go to different turns: what images of a lot share is not evidence against one of them.
FOLDS = 4


class Places(NamedTuple):
    """A normal distribution of the code at each place given those around it (a conditional autoregression: Besag 1974, JRSS B 36, section 5)."""

    usual: Float[Tensor, "K h w"]
    """the mean code"""
    pull: Float[Tensor, "h w K R"]
    """how the deviations around a place move its own"""
    whitening: Float[Tensor, "h w K K"]
    """what makes the rest standard normal"""

    @classmethod
    def none(cls) -> Self:
        """Where places are not told apart."""
        return cls(torch.empty(0, 0, 0), torch.empty(0, 0, 0, 0), torch.empty(0, 0, 0, 0))

    def fits(self, channels: int, height: int, width: int) -> bool:
        """Whether it can be that of codes of this shape."""
        place = (height, width, channels)
        wanted = (channels, height, width), (*place, reads(channels, height, width)), (*place, channels)
        return tuple(t.shape for t in self) == wanted and bool((self.whitening.diagonal(dim1=2, dim2=3) > 0).all())

    def rest(self, z: Float[Tensor, "n K h w"]) -> Float[Tensor, "n K h w"]:
        """What the places around do not explain: ``z - E[z | around]``."""
        return _rest(z, self.usual, self.pull)

    def bits(self, rest: Float[Tensor, "n K h w"]) -> Float[Tensor, "n h w"]:
        """What codes cost beyond the likeliest one at each place given the others there are, ``|W rest|^2 / (2 ln 2)``."""
        return torch.einsum("hwkl,nlhw->nkhw", self.whitening, rest).square().sum(1) / (2 * NATS_PER_BIT)


def reads(channels: int, height: int, width: int) -> int:
    """How many numbers around a place are read: none where there are no other places, or too many."""
    around_one = channels * (SIDE**2 - 1)
    return around_one if 1 < height * width <= MOST_NUMBERS // (channels * around_one) else 0


def learned(z: Float[Tensor, "n K h w"]) -> tuple[Places, Float[Tensor, "n K h w"]]:
    """The codes of good parts that always lie alike, and what remains of each under a fit to the others."""
    turn, rest = torch.arange(len(z)) % FOLDS, torch.empty_like(z)
    for mine in (turn == fold for fold in range(FOLDS)):
        rest[mine] = _rest(z[mine], *_regressed(z[~mine]))
    covariance = torch.einsum("nkhw,nlhw->hwkl", rest, rest) / len(z)
    share = len(z) / (len(z) + LEAST_IMAGES)
    common = covariance.diagonal(dim1=2, dim2=3).mean((0, 1)).clamp_min(1e-9)
    drawn = _steadied(share * covariance + (1 - share) * common.diag(), LEFT)
    # In the order of memory that a file gives back: in another one the last bit of a score would be another.
    return Places(*_regressed(z), torch.linalg.inv(torch.linalg.cholesky(drawn)).contiguous()), rest


def _rest(z: Float[Tensor, "n K h w"], usual: Float[Tensor, "K h w"], pull: Float[Tensor, "h w K R"]) -> Float[Tensor, "n K h w"]:
    off = z - usual
    return off - torch.einsum("hwkr,nrhw->nkhw", pull, around(off)) if pull.numel() else off


def _regressed(z: Float[Tensor, "n K h w"]) -> tuple[Float[Tensor, "K h w"], Float[Tensor, "h w K R"]]:
    """The mean code, and how the deviations around a place move its own."""
    usual, shape = z.mean(0), z.shape[1:]
    if not reads(*shape):
        return usual, z.new_empty(*shape[1:], shape[0], 0)
    off = z - usual
    beside = around(off)
    return usual, torch.stack([_regression(beside[:, :, i], off[:, :, i]) for i in range(shape[1])]).contiguous()


def around(off: Float[Tensor, "n K h w"]) -> Float[Tensor, "n R h w"]:
    """The deviations at the places around each; beyond the border there is none."""
    whole = F.unfold(off, SIDE, padding=SIDE // 2).unflatten(1, (off.shape[1], SIDE**2)).unflatten(3, off.shape[2:])
    middle = SIDE**2 // 2
    return torch.cat([whole[:, :, :middle], whole[:, :, middle + 1 :]], 2).flatten(1, 2)


def _regression(x: Float[Tensor, "n R w"], y: Float[Tensor, "n K w"]) -> Float[Tensor, "w K R"]:
    """The linear map from ``x`` to ``y`` of least squares, column by column."""
    second = _steadied(torch.einsum("nrw,nsw->wrs", x, x).double() / len(x), RIDGE + FEW * (x.shape[1] / len(x)) ** 2)
    return torch.linalg.solve(second, torch.einsum("nrw,nkw->wrk", x, y).double() / len(x)).mT.to(x.dtype)


def _steadied(second: Float[Tensor, "... D D"], share: float) -> Float[Tensor, "... D D"]:
    """Second moments, to each a share of their mean added."""
    more = share * second.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-9)
    return second + torch.diag_embed(more[..., None].expand(*more.shape, second.shape[-1]))
