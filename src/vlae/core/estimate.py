"""Estimators of likelihoods and of the bits they cost, each with its standard error.

B batch, S samples.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

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
        model: its encoder runs once an image, its decoder once a sample.
        x: images.
        noises: standard normal noise for the codes in pieces; one sample of all images is decoded at once.
    """
    posterior = model.posterior(x)
    total: WeightSum | None = None
    for noise in noises:
        log_weights = torch.stack([_log_weight(model, x, posterior.sample(n)) for n in noise])
        total = total or WeightSum.empty(log_weights[0])
        total.add(log_weights)
    assert total is not None, "at least one sample is needed"
    return total.likelihood()


def _log_weight(model: VLAE, x: Tensor, code: tuple[Tensor, Tensor]) -> Float[Tensor, " B"]:
    z, log_q = code
    log_px_z = model.decoder(z, x).log_prob(x).flatten(1).sum(1)
    return log_px_z + (model.prior.log_prob(z) - log_q).flatten(1).sum(1)
