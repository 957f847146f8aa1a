"""The distributions of pixels given what the decoder knows, and of codes.

Pixels are whole numbers, the levels 0 ... L-1, held in floating point. A distribution of pixels gives the log probability of every pixel as
a map, and samples from given uniforms, so that a sample depends on nothing else. Everything is in nats.

B batch, C colours, H and W height and width, K mixture components, U uniforms a pixel.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.core.entropy import Moments, bernoulli_moments, mixture_moments


@runtime_checkable
class PixelDistribution(Protocol):
    """The distribution of each pixel given what came before it."""

    def log_prob(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        """The log probability of every pixel, its colours together, in nats."""
        ...

    def sample(self, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B C H W"]:
        """Pixels from uniforms in (0, 1)."""
        ...


@dataclass(frozen=True)
class Bernoulli:
    """Pixels that are 0 or 1: ``p(x = 1) = sigmoid(logits)``."""

    logits: Float[Tensor, "B 1 H W"]

    def log_prob(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B H W"]:
        return -F.binary_cross_entropy_with_logits(self.logits, x, reduction="none").squeeze(1)

    def moments(self, x: Float[Tensor, "B 1 H W"]) -> Moments:
        """How surprising each pixel is expected to be."""
        return bernoulli_moments(self.logits.squeeze(1))

    def sample(self, uniforms: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        return (uniforms < torch.sigmoid(self.logits)).to(self.logits.dtype)


@dataclass(frozen=True)
class LogisticMixture:
    """A mixture of logistics over the levels of a pixel, each level with the exact mass of its interval.

    On the scale where the levels run from -1 to 1, level v has the mass of (v - h, v + h) with h = 1/(L-1); the lowest and the highest have
    everything below and above. Components are shared by the colours of a pixel, whose means follow the earlier colours linearly: that of G
    is ``means_G + slopes_0 R``, that of B ``means_B + slopes_1 R + slopes_2 G`` (Salimans et al. 2017, arXiv:1701.05517, section 2).

    The mass of an interval (a, b) is ``logsigmoid(b) + logsigmoid(-a) + log(1 - exp(a - b))``, exact however far out in the tail.
    """

    levels: int
    logits: Float[Tensor, "B K H W"]
    means: Float[Tensor, "B K C H W"]
    log_scales: Float[Tensor, "B K C H W"]
    slopes: Float[Tensor, "B K 3 H W"] | None = None

    @property
    def half(self) -> float:
        """Half the width of a level's interval."""
        return 1 / (self.levels - 1)

    def log_prob(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        return torch.logsumexp(F.log_softmax(self.logits, dim=1) + self._log_mass(x).sum(2), dim=1)

    def moments(self, x: Float[Tensor, "B C H W"]) -> Moments:
        """How surprising each pixel is expected to be; of a pixel in colour, each colour given the true earlier ones in ``x``."""
        weights = self.logits.unsqueeze(2)
        if x.shape[1] > 1:  # a component weighs more where it explained the earlier colours
            log_mass = self._log_mass(x)
            weights = weights + log_mass.cumsum(2) - log_mass
        weights = torch.softmax(weights, dim=1)
        near, rest = self._scaled(x.unsqueeze(1))
        means, scales = self._means(near + rest), torch.exp(self.log_scales)
        colours = [mixture_moments(self.levels, weights[:, :, c], means[:, :, c], scales[:, :, c]) for c in range(x.shape[1])]
        return Moments(*(torch.stack(parts).sum(0) for parts in zip(*colours, strict=True)))

    def _log_mass(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K C H W"]:
        """The log mass of the levels of each colour under each component."""
        near, rest = self._scaled(x.unsqueeze(1))
        steepness = torch.exp(-self.log_scales)
        centred = ((near - self._means(near + rest)) + rest) * steepness
        reach = self.half * steepness
        # Beyond its threshold softplus(t) is t, which in float64 would be off by 2e-9 at the default of 20.
        below = F.softplus(-(centred + reach), threshold=40)
        above = F.softplus(centred - reach, threshold=40)
        between = torch.log(-torch.expm1(-2 * reach)) - below - above
        level = x.unsqueeze(1)
        return torch.where(level < 0.5, -below, torch.where(level > self.levels - 1.5, -above, between))

    def sample(self, uniforms: Float[Tensor, "B U H W"]) -> Float[Tensor, "B C H W"]:
        chosen = (uniforms[:, :1] > torch.softmax(self.logits, dim=1).cumsum(1)[:, :-1]).sum(1, keepdim=True)
        means, log_scales = (self._pick(parts, chosen) for parts in (self.means, self.log_scales))
        spread = torch.exp(log_scales) * torch.logit(uniforms[:, 1:])
        if self.slopes is None:
            return self._levels(means + spread)
        slopes = self._pick(self.slopes, chosen)
        colours: list[Tensor] = []
        for c in range(means.shape[1]):
            v = means[:, c : c + 1] + spread[:, c : c + 1]
            for n, earlier in enumerate(colours):
                v = v + slopes[:, (c - 1) + n : c + n] * (earlier * (2 * self.half) - 1)
            colours.append(self._levels(v))
        return torch.cat(colours, dim=1)

    def _levels(self, v: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The nearest levels to numbers from -1 to 1."""
        return torch.add(v, 1).div_(2 * self.half).round_().clamp_(0, self.levels - 1)

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Levels on the scale from -1 to 1, as a number without rounding error and the small rest.

        Rounded to one float32 a 16-bit level would be off by a tenth of the smallest scale, hence its log mass by a tenth of a nat.
        """
        step = 2.0 ** -round(math.log2((self.levels - 1) / 2))
        from_middle = x - (self.levels - 1) / 2
        return from_middle * step, from_middle * (2 * self.half - step)

    def _means(self, v: Float[Tensor, "B 1 C H W"]) -> Float[Tensor, "B K C H W"]:
        if self.slopes is None:
            return self.means
        red, green = v[:, :, 0], v[:, :, 1]
        follow = [
            torch.zeros_like(self.means[:, :, 0]),
            self.slopes[:, :, 0] * red,
            self.slopes[:, :, 1] * red + self.slopes[:, :, 2] * green,
        ]
        return self.means + torch.stack(follow, dim=2)

    @staticmethod
    def _pick(parts: Float[Tensor, "B K P H W"], chosen: Int64[Tensor, "B 1 H W"]) -> Float[Tensor, "B P H W"]:
        """What the chosen component has."""
        return parts.gather(1, chosen.unsqueeze(2).expand_as(parts[:, :1])).squeeze(1)


@dataclass(frozen=True)
class BernoulliHead:
    """Turns one number a pixel into a Bernoulli distribution."""

    levels: int = 2
    colours: int = 1
    uniforms: int = 1
    outputs: int = 1

    def __call__(self, numbers: Float[Tensor, "B 1 H W"], prediction: Tensor | None) -> Bernoulli:
        assert prediction is None, "logits are not predicted linearly"
        return Bernoulli(numbers)


@dataclass(frozen=True)
class LogisticHead:
    """Turns ``outputs`` numbers a pixel into a mixture of logistics, around a linear prediction where there is one."""

    levels: int
    colours: int
    components: int

    @property
    def uniforms(self) -> int:
        """Uniforms for one pixel: one chooses the component, one each colour."""
        return 1 + self.colours

    @property
    def outputs(self) -> int:
        """Numbers for one pixel: for each component its weight, for each colour mean and scale, and three slopes for RGB."""
        return self.components * (1 + 2 * self.colours + (3 if self.colours == 3 else 0))

    def __call__(self, numbers: Float[Tensor, "B O H W"], prediction: Float[Tensor, "B C H W"] | None) -> LogisticMixture:
        per_component = numbers.unflatten(1, (self.components, -1))
        c = self.colours
        means = per_component[:, :, 1 : 1 + c]
        if prediction is not None:
            means = means + prediction.unsqueeze(1)
        # Scales start near a sixteenth of the range, and end far below a level, where a mass cannot grow any more.
        log_scales = (per_component[:, :, 1 + c : 1 + 2 * c] - 3).clamp(min=-math.log(self.levels) - 3, max=3)
        slopes = per_component[:, :, 1 + 2 * c :] if c == 3 else None
        return LogisticMixture(self.levels, per_component[:, :, 0], means, log_scales, slopes)


Head = BernoulliHead | LogisticHead


def log_normal(eps: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The log density of the standard normal, element by element, in nats."""
    return -0.5 * eps.square() - 0.5 * math.log(2 * math.pi)
