"""The variational lossy autoencoder: a prior, an encoder and a decoder, and the terms of its bound.

B batch, C colours, H and W height and width, G groups of the code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlae.core.codes import Posterior, Prior
from vlae.core.decoder import Decoder, Given
from vlae.core.encoder import Encoder
from vlae.core.layers import initialising


class Terms(NamedTuple):
    """The three log probabilities of the bound, in nats: ``ELBO = log p(x|z) + log p(z) - log q(z|x)``, z drawn from q(z|x)."""

    log_px_z_map: Float[Tensor, "B H W"]
    """log p(x_i | z, window_i(x)), pixel by pixel."""
    log_qz_x_parts: Float[Tensor, "B ..."]
    log_pz_parts: Float[Tensor, "B ..."]
    """log q(z|x) and log p(z), element by element of the code; of shape (B, 0) without a code."""
    log_px_map: Float[Tensor, "B H W"] | None = None
    """log p(x_i | window_i(x)) of the decoder without a code, where it is asked for."""

    @property
    def log_px_z(self) -> Float[Tensor, " B"]:
        """log p(x|z), one an image."""
        return self.log_px_z_map.flatten(1).sum(1)

    @property
    def log_qz_x(self) -> Float[Tensor, " B"]:
        """log q(z|x), one an image."""
        return self.log_qz_x_parts.flatten(1).sum(1)

    @property
    def log_pz(self) -> Float[Tensor, " B"]:
        """log p(z), one an image."""
        return self.log_pz_parts.flatten(1).sum(1)

    @property
    def kl_by_group(self) -> Float[Tensor, "B G"]:
        """log q(z|x) - log p(z) for each dimension of a vector code, or each channel of a grid code."""
        parts = self.log_qz_x_parts - self.log_pz_parts
        return parts.flatten(2).sum(2) if parts.dim() > 2 else parts

    @property
    def elbo(self) -> Float[Tensor, " B"]:
        """The evidence lower bound, one an image."""
        return self.log_px_z + self.log_pz - self.log_qz_x


class VLAE(nn.Module):
    """Variational lossy autoencoder (Chen et al. 2017, arXiv:1611.02731).

    Without an encoder it has no code, and is an unconditional autoregressive model.

    Args:
        prior: p(z).
        encoder: q(z|x).
        decoder: p(x|z).
        window_only: a decoder of the same window without a code, trained along: what the window alone explains.
    """

    def __init__(self, prior: Prior, encoder: Encoder | None, decoder: Decoder, window_only: Decoder | None = None) -> None:
        super().__init__()
        self.prior, self.encoder, self.decoder, self.window_only = prior, encoder, decoder, window_only

    def posterior(self, x: Float[Tensor, "B C H W"]) -> Posterior:
        """q(z|x)."""
        assert self.encoder is not None, "this model has no code"
        return self.encoder(self.decoder.scaled(x))

    def forward(self, x: Float[Tensor, "B C H W"], noise: Tensor, shown: Float[Tensor, "B C H W"] | None = None, learning: bool = False) -> Terms:
        """The terms of the bound.

        Args:
            x: images as levels.
            noise: standard normal, of the shape of their codes, which are drawn with it.
            shown: what the decoders see of the pixels before each, where that is not ``x``.
            learning: whether they are those that are learnt from: each member of a decoder is asked by itself, and the decoder of the window
                alone, too.
        """
        seen = x if shown is None else shown
        if self.encoder is None:
            nothing = x.new_zeros(len(x), 0)
            return Terms(_log_prob(self.decoder, None, x, seen, learning), nothing, nothing)
        z, log_q = self.posterior(x).sample(noise)
        alone = _log_prob(self.window_only, None, x, seen, learning) if learning and self.window_only is not None else None
        return Terms(_log_prob(self.decoder, z, x, seen, learning), log_q, self.prior.log_prob(z), alone)

    def code_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the code of an image of this size; (0,) without a code."""
        if self.encoder is None:
            return (0,)
        return self.encoder.code_shape(height, width)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "B C H W"], noise: Tensor, shown: Float[Tensor, "B C H W"] | None = None) -> None:
        """Data-dependent initialisation of every layer, from one batch as ``forward`` takes it."""
        seen = x if shown is None else shown
        for decoder in (self.decoder, self.window_only):
            if decoder is not None:
                decoder.fit_predictor(x, seen)
        with initialising(self):
            self(x, noise, shown)
            if self.window_only is not None:
                self.window_only(None, seen)

    @torch.no_grad()
    def sample(self, noise: Tensor, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B C H W"]:
        """Images from the model: a code from the prior, then every pixel."""
        return self.decoder.sample(None if self.encoder is None else self.prior.sample(noise), uniforms)

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "B C H W"], noise: Tensor, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B C H W"]:
        """Decodings of the images' codes: what agrees between several was kept, what differs was left to the decoder."""
        return self.decoder.sample(self.posterior(x).sample(noise).z, uniforms)

    @torch.no_grad()
    def inpaint(
        self, x: Float[Tensor, "B C H W"], known: Bool[Tensor, "B 1 H W"], noises: Sequence[Tensor], uniforms: Sequence[Float[Tensor, "B U H W"]]
    ) -> Float[Tensor, "B C H W"]:
        """Images whose unknown pixels are drawn given the known ones, which stay as they are.

        A chain that draws a code and then the unknown pixels given the code, one turn for each entry of ``noises`` and ``uniforms``: at first
        a code from the prior, then codes of the image as it stands (Rezende et al. 2014, arXiv:1401.4082, appendix F). What lies after an
        unknown pixel reaches it through the code alone: a model without a code sees only the pixels before it, and draws once, with the
        last of the random numbers.
        """
        if self.encoder is None:
            return self.decoder.sample(None, uniforms[-1], Given(x, known))
        drawn = self.decoder.sample(self.prior.sample(noises[0]), uniforms[0], Given(x, known))
        for noise, chances in zip(noises[1:], uniforms[1:], strict=True):
            drawn = self.decoder.sample(self.posterior(drawn).sample(noise).z, chances, Given(x, known))
        return drawn


def _log_prob(decoder: Decoder, z: Tensor | None, x: Float[Tensor, "B C H W"], seen: Float[Tensor, "B C H W"], apart: bool) -> Float[Tensor, "B H W"]:
    """The log probability of every pixel; of members apart the mean of theirs."""
    members = decoder.apart(z, seen) if apart else [decoder(z, seen)]
    return torch.stack([member.log_prob(x) for member in members]).mean(0)
