"""Evidence that an image is unlike those that a model was trained on, in bits: of its pixels, of its code, and of both together.

B images, H and W height and width, h and w places of a grid code (one place where the code is a vector, none without a code).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.codes import Posterior
from vlae.core.distributions import Bernoulli, LogisticMixture
from vlae.core.vlae import VLAE
from vlae.units import NATS_PER_BIT


class PixelEvidence(NamedTuple):
    """What a decoder makes of the pixels of images, given their codes."""

    surprise: Float[Tensor, "B H W"]
    """``-log2 p(x_i | window, z)`` less its expectation under the model at that pixel: zero on average where the model is right"""
    entropy: Float[Tensor, "B H W"]
    """that expectation: high where the image is rough"""
    variance: Float[Tensor, "B H W"]
    """the variance of the surprise that the model expects, in bits squared"""
    saved: Float[Tensor, "B H W"] | None
    """``log2 p(x_i | window, z) - log2 p(x_i | window)``, what the code explains beyond the window; None where no decoder knows the window alone"""


class Code(NamedTuple):
    """The middle of the codes of images, and what they cost."""

    z: Tensor | None
    bits: Float[Tensor, "B h w"]
    """``log2 q(z|x) - log2 p(z)`` by place"""

    @property
    def by_place(self) -> Float[Tensor, "B K h w"]:
        """The codes as grids; a vector has one place."""
        if self.z is None:
            return self.bits.unsqueeze(1)
        return self.z if self.z.dim() == 4 else self.z[:, :, None, None]


class Evidence(NamedTuple):
    """All the evidence in images."""

    pixels: PixelEvidence
    code: Code

    @property
    def gain(self) -> Float[Tensor, " B"] | None:
        """Bits for each pixel that the whole model saves over its window alone: ``log2 p(x, z) - log2 q(z|x) - log2 p_window(x)``."""
        if self.pixels.saved is None:
            return None
        return (self.pixels.saved.flatten(1).sum(1) - self.code.bits.flatten(1).sum(1)) / self.pixels.saved[0].numel()


@torch.no_grad()
def evidence(model: VLAE, x: Float[Tensor, "B C H W"]) -> Evidence:
    """The evidence in images.

    Args:
        model: on the device of the images.
        x: images as levels.
    """
    code = code_of(model, None if model.encoder is None else model.posterior(x), len(x))
    return Evidence(of_pixels(model, code.z, x), code)


@torch.no_grad()
def code_of(model: VLAE, posterior: Posterior | None, count: int) -> Code:
    """The codes of so many images and what they cost; nothing without a posterior."""
    if posterior is None:
        return Code(None, next(model.parameters()).new_zeros(count, 0, 0))
    z, log_q = posterior.sample(torch.zeros_like(posterior.mean))
    cost = (log_q - model.prior.log_prob(z)) / NATS_PER_BIT
    return Code(z, cost.sum(1) if cost.dim() == 4 else cost.sum(1).view(-1, 1, 1))


@torch.no_grad()
def of_pixels(model: VLAE, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> PixelEvidence:
    """The evidence in the pixels of images, given their codes."""
    p = model.decoder(z, x)
    assert isinstance(p, Bernoulli | LogisticMixture)
    log_p, moments = p.log_prob(x), p.moments(x)
    saved = None if model.window_only is None else (log_p - model.window_only(None, x).log_prob(x)) / NATS_PER_BIT
    return PixelEvidence((-log_p - moments.entropy) / NATS_PER_BIT, moments.entropy / NATS_PER_BIT, moments.variance / NATS_PER_BIT**2, saved)
