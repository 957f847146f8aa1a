"""Estimators of likelihoods and of the bits they cost, each with its standard error.

B batch, S samples.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vlae.core.codes import Posterior
from vlae.core.vlae import VLAE


class Estimate(NamedTuple):
    """A mean over n independent values, and its standard error (not a number for n = 1)."""

    value: float
    se: float
    n: int

    @classmethod
    def of(cls, values: Float[Tensor, " n"]) -> "Estimate":
        """The mean of values that are independent of one another.

        >>> Estimate.of(torch.tensor([1.0, 3.0]))
        Estimate(value=2.0, se=1.0, n=2)
        """
        v = values.detach().double()
        se = v.std().item() / math.sqrt(len(v)) if len(v) > 1 else math.nan
        return cls(v.mean().item(), se, len(v))

    def times(self, factor: float) -> "Estimate":
        """The same in another unit."""
        return Estimate(self.value * factor, self.se * abs(factor), self.n)


class Likelihood(NamedTuple):
    """The importance-sampled log likelihood of each image, in nats, and how many samples carried it."""

    log_px: Float[Tensor, " B"]
    effective_samples: Float[Tensor, " B"]
    """(sum w)^2 / sum w^2, between 1 and the number of samples: near 1, one sample decides and the value is a loose bound."""


@dataclass
class WeightSum:
    """A running ``log sum w`` and ``log sum w^2`` over importance weights that come in pieces, in bounded memory."""

    log_sum: Float[Tensor, " B"]
    log_sum_of_squares: Float[Tensor, " B"]
    count: int = 0

    @classmethod
    def empty(cls, like: Float[Tensor, " B"]) -> "WeightSum":
        """The sum of nothing, for a batch of images."""
        nothing = torch.full_like(like, -math.inf, dtype=torch.float64)
        return cls(nothing, nothing.clone())

    def add(self, log_weights: Float[Tensor, "S B"]) -> None:
        """Take in the weights of more samples."""
        new = log_weights.double()
        self.log_sum = torch.logaddexp(self.log_sum, new.logsumexp(0))
        self.log_sum_of_squares = torch.logaddexp(self.log_sum_of_squares, (2 * new).logsumexp(0))
        self.count += len(new)

    def likelihood(self) -> Likelihood:
        """``log 1/K sum w``, and the effective number of samples."""
        return Likelihood(self.log_sum - math.log(self.count), torch.exp(2 * self.log_sum - self.log_sum_of_squares))


@torch.no_grad()
def importance_sampled(model: VLAE, x: Float[Tensor, "B C H W"], noises: Iterable[Float[Tensor, "_ B ..."]]) -> Likelihood:
    """``log p(x) >= log 1/K sum_k p(x, z_k) / q(z_k|x)``, z_k from q(z|x) (Burda et al. 2016, arXiv:1509.00519, equation 8).

    Tight as K grows; in expectation never above the log likelihood, and never falling with K.

    Args:
        model: its encoder runs once an image, its decoder once a piece.
        x: images.
        noises: standard normal noise for the codes in pieces; all samples of a piece are decoded at once, so its size bounds the memory.
    """
    posterior = model.posterior(x)
    total: WeightSum | None = None
    for noise in noises:
        log_weights = _log_weights(model, x, posterior, noise)
        total = total or WeightSum.empty(log_weights[0])
        total.add(log_weights)
    assert total is not None, "at least one sample is needed"
    return total.likelihood()


def _log_weights(model: VLAE, x: Float[Tensor, "B C H W"], posterior: Posterior, noise: Float[Tensor, "S B ..."]) -> Float[Tensor, "S B"]:
    """``log p(x, z) - log q(z|x)`` for several codes z of each image."""

    def again(tensor: Tensor) -> Tensor:
        return repeat(tensor, "b ... -> (s b) ...", s=len(noise))

    context = None if posterior.context is None else again(posterior.context)
    z, log_q = replace(posterior, mean=again(posterior.mean), log_std=again(posterior.log_std), context=context).sample(noise.flatten(0, 1))
    many = again(x)
    log_px_z = model.decoder(z, many).log_prob(many).flatten(1).sum(1)
    return rearrange(log_px_z + (model.prior.log_prob(z) - log_q).flatten(1).sum(1), "(s b) -> s b", s=len(noise))
