"""Distributions over codes: priors p(z) and posteriors q(z|x), for vectors (B, D) and for grids (B, K, H, W)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlae.core.distributions import log_normal
from vlae.core.flows import Flow


class Prior(nn.Module):
    """p(z): the standard normal, or what a flow makes of it, ``log p(z) = log N(f(z)) + log |df/dz|`` (an autoregressive prior)."""

    def __init__(self, flow: Flow | None = None) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, z: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The log density in nats, as one term for each element of the code; their sum is that of the code."""
        if self.flow is None:
            return log_normal(z)
        eps, ladj = self.flow(z)
        return log_normal(eps) + ladj

    def sample(self, noise: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Codes from standard normal noise of their shape."""
        return noise if self.flow is None else self.flow.inverse(noise)


class Code(NamedTuple):
    """A sampled code and its log density under the posterior, one term for each element, in nats."""

    z: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class Posterior:
    """q(z|x): a diagonal Gaussian, or what an inverse autoregressive flow makes of it (Kingma et al. 2016, arXiv:1606.04934)."""

    mean: Float[Tensor, "B ..."]
    log_std: Float[Tensor, "B ..."]
    flow: Flow | None = None
    context: Tensor | None = None

    def sample(self, noise: Float[Tensor, "B ..."]) -> Code:
        """A code from standard normal noise of its shape, differentiable in the posterior's parameters."""
        z = self.mean + torch.exp(self.log_std) * noise
        log_q = log_normal(noise) - self.log_std
        if self.flow is None:
            return Code(z, log_q)
        z, ladj = self.flow(z, self.context)
        return Code(z, log_q - ladj)

    @property
    def centre(self) -> Float[Tensor, "B ..."]:
        """The code of no noise: the mean, as the flow maps it."""
        return self.sample(torch.zeros_like(self.mean)).z
