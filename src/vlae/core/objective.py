"""What training minimises: pure functions of the terms of the bound, in nats an image.

Averages over a batch that is spread over several processes are taken by ``mean``, so that a floor is on the average of the whole batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.vlae import Terms

Mean = Callable[[Tensor], Tensor]


def window_only(terms: Terms) -> Float[Tensor, ""]:
    """``-log p(x)`` of the decoder without a code that is trained along; it shares no weights with the rest, and nothing of it reaches them."""
    assert terms.log_px_map is not None, "there is none, or it was not asked for"
    return -terms.log_px_map.flatten(1).sum(1).mean()


def elbo(terms: Terms, beta: float = 1.0) -> Float[Tensor, ""]:
    """``-log p(x|z) + beta KL``, the negative evidence lower bound at beta = 1; a beta that grows from 0 is KL warm-up."""
    return (-terms.log_px_z + beta * (terms.log_qz_x - terms.log_pz)).mean()


def free_bits(terms: Terms, floor: float, beta: float = 1.0, mean: Mean = lambda t: t) -> Float[Tensor, ""]:
    """``-log p(x|z) + beta sum_g max(floor, E[KL_g])``: the first ``floor`` nats of each group of the code are free.

    The expectation is over the minibatch (Kingma et al. 2016, arXiv:1606.04934, equation 15). ``mean`` averages over processes.
    """
    here = terms.kl_by_group.mean(0)
    # Where the average over all processes lies below the floor the group costs the floor, and pushes nothing. NaN is not below it.
    paid = torch.where(mean(here.detach()) < floor, floor, here)
    return -terms.log_px_z.mean() + beta * paid.sum()


def weighted(terms: Terms, weight: float) -> Float[Tensor, ""]:
    """``-log p(x|z) + weight KL``, for the weight of a ``RateControl``."""
    return elbo(terms, beta=weight)


class RateControl(NamedTuple):
    """Holds the cost of the code near a target by the weight of the KL term.

    The weight grows by 10% when the KL is more than 5% above the target, and shrinks by 10% when it is more than 5% below. With
    ``most = 1`` these are the soft free bits of Chen et al. 2017 (arXiv:1611.02731, appendix C), which never charge more than the bound
    does; with no limit it is a rate target.
    """

    target: float
    """nats an image"""
    weight: float = 1.0
    least: float = 1e-3
    most: float = 1.0

    def after(self, kl: float) -> "RateControl":
        """The control after a step in which the code cost ``kl`` nats on average."""
        factor = 1.1 if kl > 1.05 * self.target else 1 / 1.1 if kl < 0.95 * self.target else 1.0
        return self._replace(weight=min(self.most, max(self.least, self.weight * factor)))
