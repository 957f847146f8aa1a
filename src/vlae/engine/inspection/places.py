"""What the codes of good parts are at each place, given the codes at the places around it.

n images, K channels of the code, h and w places of it (one where the code is a vector), R numbers of the codes around a place.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vlae.units import NATS_PER_BIT

# The places around one are those of the square of this side.
SIDE = 3
# So many shares of the mean variance are added to the variances of what a regression reads, and to those of what it leaves: both settle
# where images are few.
READ, LEFT = 1e-3, 1e-2
# What good parts show under a fit to themselves is too little: each is judged by a fit to the others, in so many turns.
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

    @classmethod
    def fitted(cls, z: Float[Tensor, "n K h w"]) -> Self:
        """From the codes of good parts that always lie alike."""
        mean = z.mean(0)
        off, beside = z - mean, around(z - mean)
        # Row by row: what all places read is several times the codes.
        pull = torch.stack([_regression(beside[:, :, i], off[:, :, i]) for i in range(z.shape[2])])
        rest = off - torch.einsum("hwkr,nrhw->nkhw", pull, beside)
        covariance = _steadied(torch.einsum("nkhw,nlhw->hwkl", rest, rest) / max(1, len(z) - 1), LEFT)
        # In the order of memory that a file gives back: in another one the last bit of a score would be another.
        return cls(mean, pull.contiguous(), torch.linalg.inv(torch.linalg.cholesky(covariance)).contiguous())

    def bits(self, z: Float[Tensor, "n K h w"]) -> Float[Tensor, "n h w"]:
        """What codes cost beyond the likeliest one at each place: ``|W (z - E[z | around])|^2 / (2 ln 2)``."""
        off = z - self.usual
        rest = off - torch.einsum("hwkr,nrhw->nkhw", self.pull, around(off))
        return torch.einsum("hwkl,nlhw->nkhw", self.whitening, rest).square().sum(1) / (2 * NATS_PER_BIT)


def around(off: Float[Tensor, "n K h w"]) -> Float[Tensor, "n R h w"]:
    """The deviations at the places around each; beyond the border there is none."""
    whole = F.unfold(off, SIDE, padding=SIDE // 2).unflatten(1, (off.shape[1], SIDE**2)).unflatten(3, off.shape[2:])
    middle = SIDE**2 // 2
    return torch.cat([whole[:, :, :middle], whole[:, :, middle + 1 :]], 2).flatten(1, 2)


def _regression(x: Float[Tensor, "n R w"], y: Float[Tensor, "n K w"]) -> Float[Tensor, "w K R"]:
    """The linear map from ``x`` to ``y`` of least squares, column by column."""
    second = _steadied(torch.einsum("nrw,nsw->wrs", x, x).double() / len(x), READ)
    return torch.linalg.solve(second, torch.einsum("nrw,nkw->wrk", x, y).double() / len(x)).mT.to(x.dtype)


def _steadied(second: Float[Tensor, "... D D"], share: float) -> Float[Tensor, "... D D"]:
    """Second moments, to each a share of their mean added."""
    more = share * second.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-9)
    return second + torch.diag_embed(more[..., None].expand(*more.shape, second.shape[-1]))


def bits_of_good(z: Float[Tensor, "n K h w"]) -> Float[Tensor, "n h w"]:
    """What the codes of good parts cost, each under a fit to others."""
    found, turn = z.new_empty(len(z), *z.shape[2:]), torch.arange(len(z)) % FOLDS
    for mine in (turn == fold for fold in range(FOLDS)):
        found[mine] = Places.fitted(z[~mine]).bits(z[mine])
    return found
