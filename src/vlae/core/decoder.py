"""The decoder p(x|z): each pixel from the code and from the window before it.

B batch, C colours, H and W height and width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlae.core.causal import CausalNet, Conditioning, Seen, luminance
from vlae.core.distributions import Head, LogisticHead, PixelDistribution
from vlae.core.encoder import CodeMap
from vlae.core.layers import Conv, full_precision
from vlae.core.schedule import schedule
from vlae.core.taps import Reads, with_pointwise
from vlae.core.wavefront import Wavefront
from vlae.core.window import CONTEXTS, Window

# The linear prediction reads at most so far: farther pixels are left to the network.
PREDICTOR_REACH = 6


class Given(NamedTuple):
    """Pixels that are known already, and which they are."""

    x: Float[Tensor, "B C H W"]
    known: Bool[Tensor, "B 1 H W"]


class Decoder(nn.Module):
    """``p(x|z) = prod_i p(x_i | z, window_i(x))`` (Chen et al. 2017, arXiv:1611.02731, section 4.2).

    Args:
        window: what it sees of the image.
        head: the distribution of one pixel.
        code_map: makes a map of the image's size from the code; None for a decoder without a code (the unconditional PixelCNN).
        map_channels: channels of that map.
        width: channels of the causal layers.
        pointwise: layers of 1x1 taps after each layer that reads the window but the last.
        condition: where the code map enters.
        members: so many networks, among whom the width is shared out, learn apart; a pixel's logit is the mean of theirs.

    Raises:
        ValueError: nothing to decode from (no window and no code), or taps that have no order of evaluation.
    """

    def __init__(
        self,
        window: Window,
        head: Head,
        code_map: CodeMap | None,
        map_channels: int,
        width: int,
        pointwise: int,
        condition: Conditioning,
        members: int = 1,
    ) -> None:
        super().__init__()
        if not window.layers and code_map is None:
            raise ValueError("a decoder needs a window or a code")
        self.window, self.head, self.code_map = window, head, code_map
        channels = 1 if window.context == "grey" else head.colours
        layers = with_pointwise(window.layers, pointwise)
        predictor = self._predictor(window, head)
        schedule(layers, predictor)
        self.net = CausalNet(layers, channels, width, map_channels if code_map else 0, condition, predictor, members)
        self.out = Conv(width if layers else map_channels, head.outputs, kernel=1, scale=0.1, exact=True)

    @staticmethod
    def _predictor(window: Window, head: Head) -> Reads | None:
        near = sorted((di, dj) for di, dj in window.offsets if max(-di, abs(dj)) <= PREDICTOR_REACH)
        linear = isinstance(head, LogisticHead) and (window.context != "grey" or head.colours == 1)
        return Reads(len(CONTEXTS[window.context]), tuple(near)) if near and linear else None

    def scaled(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Levels as numbers from -1 to 1."""
        return x * (2 / (self.head.levels - 1)) - 1

    def image(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """What the causal network is shown of the pixels: all of them, or their luminance."""
        v = self.scaled(x)
        return luminance(v) if self.window.context == "grey" and self.head.colours == 3 else v

    def spread(self, z: Tensor | None, size: tuple[int, int]) -> Float[Tensor, "B M H W"] | None:
        """The map of the code."""
        return None if z is None or self.code_map is None else self.code_map(z, size)

    def forward(self, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> PixelDistribution:
        """The distribution of every pixel given the code and the pixels before it in ``x``."""
        size = (x.shape[2], x.shape[3])
        return self._told(self.net(self.image(x), self.spread(z, size)))

    def apart(self, z: Tensor | None, x: Float[Tensor, "B C H W"]) -> list[PixelDistribution]:
        """What each member by itself makes of every pixel: ``p_m = sigmoid(logits_m)``, where ``forward`` has the mean of the logits.

        By Hoelder's inequality what that gives, ``prod p_m^(1/M) / sum prod p_m^(1/M)``, makes no pixel less likely than ``exp(mean log p_m)`` does:
        what the members learn apart is a bound of what they reach together.
        """
        members = self.net.members
        if members == 1:
            return [self(z, x)]
        features = self.net(self.image(x), self.spread(z, (x.shape[2], x.shape[3]))).features
        with full_precision(features):
            weight = members * self.out.weight().view(members, -1, 1, 1)
            logits = F.conv2d(features.to(weight.dtype), weight, self.out.b.expand(members), groups=members)
        return [self.head(one, None) for one in logits.split(1, dim=1)]

    def _told(self, seen: Seen) -> PixelDistribution:
        return self.head(self.out(seen.features), seen.prediction)

    @torch.no_grad()
    def sample(self, z: Tensor | None, uniforms: Float[Tensor, "B U H W"], given: Given | None = None) -> Float[Tensor, "B C H W"]:
        """An image for every code, each pixel drawn with its own uniforms, in wavefront order; what is ``given`` stays."""
        batch, _, height, width = uniforms.shape
        x = uniforms.new_zeros(batch, self.head.colours, height, width) if given is None else given.x
        if not self.window.layers:  # no pixel waits for another
            drawn = self(z, x).sample(uniforms)
            return drawn if given is None else torch.where(given.known, x, drawn)
        known = [] if given is None else [given.known.to(x.dtype), x]
        front = Wavefront(self.net, self.spread(z, (height, width)), torch.cat([uniforms, *known], dim=1))
        return front.run(Drawing(self, given is not None))

    @torch.no_grad()
    def fit_predictor(self, x: Float[Tensor, "B C H W"], seen: Float[Tensor, "B C H W"], ridge: float = 1e-4) -> None:
        """Set the linear prediction to the least squares one of these images from what is ``seen`` of them, where the decoder has one."""
        if self.net.predictor is None or self.net.prediction is None:
            return
        context = self.net.contexts(self.image(seen).double())[self.net.predictor.source]
        seen = shifted(context, self.net.predictor.taps)
        design, target = rearrange(seen, "t b k h w -> (b h w) (k t)"), rearrange(self.scaled(x).double(), "b p h w -> (b h w) p")
        gram = design.T @ design + ridge * len(design) * torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
        weights = torch.linalg.solve(gram, design.T @ target)
        self.net.prediction.copy_(rearrange(weights, "(k t) p -> p k t", t=len(self.net.predictor.taps)))


class Drawing:
    """What a decoder draws where its turn has come, and what its network sees of that.

    Args:
        decoder: who draws.
        given: whether beside the uniforms it stands which pixels are known, and what they are.
    """

    def __init__(self, decoder: Decoder, given: bool) -> None:
        self.decoder, self.given, self.out = decoder, given, decoder.out.pointwise()

    def __call__(self, seen: Seen, beside: Float[Tensor, "N U 1 1"]) -> tuple[Float[Tensor, "N C 1 1"], Float[Tensor, "N K 1 1"]]:
        head = self.decoder.head
        pixels = head(self.out(seen.features), seen.prediction).sample(beside[:, : head.uniforms])
        if self.given:
            is_known, already = beside[:, head.uniforms :].split([1, head.colours], dim=1)
            pixels = torch.where(is_known > 0, already, pixels)
        return pixels, self.decoder.image(pixels)


def shifted(image: Float[Tensor, "B K H W"], taps: tuple[tuple[int, int], ...]) -> Float[Tensor, "t B K H W"]:
    """The image as each tap sees it from every pixel, zero outside."""
    height, width = image.shape[2:]
    around = max(max(abs(di), abs(dj)) for di, dj in taps)
    padded = torch.nn.functional.pad(image, (around,) * 4)
    return torch.stack([padded[:, :, around + di : around + di + height, around + dj : around + dj + width] for di, dj in taps])
