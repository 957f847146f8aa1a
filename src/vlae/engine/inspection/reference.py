"""What good parts look like to a model: how strong evidence usually is on them, so that the same number means the same on every image.

B images, H and W height and width, h and w places of a grid code, K channels of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vlae.engine.inspection.evidence import Code, Evidence, PixelEvidence
from vlae.engine.inspection.places import LEAST_IMAGES, Places, learned

# Sides of the squares over which surprise is summed, in pixels, and over which the cost of a code is, in places.
SIDES, PLACES = (3, 5, 9), (1, 3)
# Predicted entropy is told apart in so many bins, to find what the model gets wrong however rough a texture is.
BINS = 16
# On larger images places are not told apart; nor are they with fewer than ``LEAST_IMAGES``.
MOST_PIXELS = 2**18
# A unit of strength is what one good image in ten shows somewhere.
UNIT = 0.9
# Relative to what a statistic usually is, it is steady below the one, and so is a code below the other: many times what float32 rounds off, and far
# less than images of ordinary models differ by.
STEADY, STEADY_CODE = 1e-4, 1e-5
KINDS = ("texture", "layout")
"""texture: pixels that window and code do not explain; layout: a code that costs more or less than good parts' codes do there"""


class PixelStrengths(NamedTuple):
    """How strong the evidence in pixels is, in units of what good parts show: 1 is what one good image in ten shows somewhere."""

    texture: Float[Tensor, "B H W"]
    bits: Float[Tensor, "B H W"]
    """surprise less the residual, pixel by pixel: additive over regions"""


class LayoutStrengths(NamedTuple):
    """How strong the evidence in codes is, in the same units."""

    layout: Float[Tensor, "B h w"]
    bits: Float[Tensor, "B h w"]
    """bits that the code costs more than there on good parts, each place given the others"""


@dataclass(frozen=True)
class Reference:
    """The evidence that good parts show. All of it is tensors, so that it is kept as one file."""

    entropy: Float[Tensor, " bins"]
    """the middles of the bins of predicted entropy, in bits"""
    residual: Float[Tensor, " bins"]
    """the mean surprise there: what the model gets wrong however rough the texture"""
    excess: Float[Tensor, " bins"]
    """how many times larger the variance of the surprise is than the model expects"""
    mean: dict[str, Tensor]
    deviation: dict[str, Tensor]
    """of each statistic on good parts: by place, (H, W) or (h, w), or one number for all places, ()"""
    unit: dict[str, Tensor]
    """the quantile ``UNIT`` of the highest standardised value of good images"""
    gain: Float[Tensor, " 2"]
    """mean and standard deviation of the gain"""
    places: Places
    """the codes of good parts by place"""

    def fits(self, size: tuple[int, int] | None, code: tuple[int, ...]) -> bool:
        """Whether it can be that of images of this size (None where places are not told apart) and a code of this shape, (0,) without one.

        A file that was read may hold anything; of what is no number no evidence would ever be told.
        """
        channels, *places = code if len(code) == 3 else (code[0], 1, 1)
        layout = ("layout prior", *(f"layout place {side}" for side in PLACES if size)) if code[0] else ()
        tables = {**{f"texture {side}": size or () for side in SIDES}, **{name: tuple(places) if size else () for name in layout}}
        curves = self.entropy, self.residual, self.excess
        above_zero = *self.deviation.values(), *self.unit.values(), self.excess, self.gain.flatten()[1:]
        return (
            {tuple(t.shape) for t in curves} == {(self.entropy.numel(),)} != {(0,)}
            and self.gain.shape == (2,)
            and self.places.fits(*((channels, *places) if size and code[0] else (0, 0, 0)))
            and all({name: tuple(t.shape) for name, t in part.items()} == tables for part in (self.mean, self.deviation))
            and {name: tuple(t.shape) for name, t in self.unit.items()} == dict.fromkeys(tables, ())
            and all(bool(t.isfinite().all()) for t in (*curves, self.gain, *self.places, *self.mean.values(), *above_zero))
            and all(bool((t > 0).all()) for t in above_zero)
        )

    def pixels(self, e: PixelEvidence) -> PixelStrengths:
        """How strong the evidence in pixels is against that in good parts."""
        bits, variance = self._corrected(e)
        strongest = reduce(torch.maximum, (self._strength(name, value) for name, value in _sums(bits, variance)))
        return PixelStrengths(strongest, bits)

    def layout(self, code: Code) -> LayoutStrengths:
        """How strong the evidence in codes is; none without a code."""
        if not code.bits.numel():
            return LayoutStrengths(code.bits, code.bits)
        found = dict(self._layout(code))
        strengths = reduce(torch.maximum, (self._strength(name, value) for name, value in found.items()))
        bits = {name: value - self.mean[name] for name, value in found.items()}
        return LayoutStrengths(strengths, bits.get("layout place 1", bits["layout prior"]))

    def _layout(self, code: Code) -> Iterator[tuple[str, Tensor]]:
        """What codes cost under the prior; and, where places are told apart, given good parts' codes at each."""
        yield "layout prior", code.bits
        if self.places.usual.numel():
            yield from _by_squares(self.places.bits(self.places.rest(code.by_place)))

    def unlike(self, gain: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Global evidence: by how many standard deviations of good parts the whole model saves less over its window alone."""
        return (self.gain[0] - gain) / self.gain[1]

    def _corrected(self, e: PixelEvidence) -> tuple[Tensor, Tensor]:
        """The surprise less its residual, and its variance as it is."""
        return e.surprise - _between(e.entropy, self.entropy, self.residual), e.variance * _between(e.entropy, self.entropy, self.excess)

    def _strength(self, name: str, value: Tensor) -> Tensor:
        return ((value - self.mean[name]) / self.deviation[name]).abs() / self.unit[name]


def _sums(bits: Float[Tensor, "B H W"], variance: Float[Tensor, "B H W"]) -> Iterator[tuple[str, Tensor]]:
    """The surprise summed over squares, in units of the deviation that is expected of the sum."""
    for side in SIDES:
        yield f"texture {side}", summed(bits, side) / summed(variance, side).clamp_min(1e-6).sqrt()


def _by_squares(bits: Float[Tensor, "n h w"]) -> Iterator[tuple[str, Tensor]]:
    """What codes cost at each place, summed over squares of places."""
    for side in PLACES:
        yield f"layout place {side}", summed(bits, side)


def summed(values: Float[Tensor, "B H W"], side: int) -> Float[Tensor, "B H W"]:
    """The sum over the square of this odd side around each pixel; beyond the border there is nothing."""
    rows = F.avg_pool2d(values.unsqueeze(1), (side, 1), 1, (side // 2, 0))
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2)).squeeze(1) * side**2


def _between(at: Tensor, knots: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> Tensor:
    """Linear interpolation, constant beyond the ends."""
    if len(knots) == 1:
        return values.expand_as(at)
    right = torch.bucketize(at, knots).clamp(1, len(knots) - 1)
    low, high = knots[right - 1], knots[right]
    share = ((at - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)


def fitted(found: Sequence[Evidence], by_place: bool, unseen: Sequence[bool] = ()) -> Reference:
    """The reference of good parts from the evidence in them, batch by batch.

    Args:
        found: batches of evidence, each of images of one size; all of one size where ``by_place``.
        by_place: whether places are told apart: for parts that always lie alike.
        unseen: of each image, whether the model did not learn from it. Those tell how strong evidence usually is, unless they are fewer than
            ``LEAST_IMAGES``: a model knows the images that it learned from better.
    """
    entropy, residual, excess = _residuals([e.pixels for e in found])
    gains = torch.cat([e.gain for e in found if e.gain is not None] or [torch.tensor([0.0, 0.0])])
    gain = torch.stack([gains.mean(), gains.std().clamp_min(1e-6)])
    raw = Reference(entropy, residual, excess, {}, {}, {}, gain, Places.none())
    values, rounded = dict[str, list[Tensor]](), dict[str, Tensor]()
    for e in found:
        for name, value in (*_sums(*raw._corrected(e.pixels)), *(raw._layout(e.code) if e.code.bits.numel() else ())):
            values.setdefault(name, []).append(value)
    if by_place and found[0].code.bits.numel():
        places, rest = learned(torch.cat([e.code.by_place for e in found]))
        raw = replace(raw, places=places)
        values |= {name: [value] for name, value in _by_squares(places.bits(rest))}
        rounded = dict(_by_squares(places.bits(STEADY_CODE * (1 + places.usual.abs()).unsqueeze(0))))
    telling = torch.tensor(unseen) if sum(unseen) >= LEAST_IMAGES else slice(None)
    mean, deviation, unit = {}, {}, {}
    for name, parts in values.items():
        mean[name], spread = _by_place(torch.cat(parts)) if by_place else _everywhere(parts)
        least = STEADY * (1 + mean[name].abs()) + (rounded[name][0] if name in rounded else 0)
        deviation[name] = torch.maximum(spread, least)
        highest = torch.cat([((part - mean[name]) / deviation[name]).abs().flatten(1).amax(1) for part in parts])
        # Where nothing varies, what is rounded off is not to be magnified either.
        unit[name] = torch.maximum(highest[telling].quantile(UNIT), (least / deviation[name]).amax())
    return replace(raw, mean=mean, deviation=deviation, unit=unit)


def _residuals(found: Sequence[PixelEvidence]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean surprise, and its variance against the expected one, by bins of entropy that hold equally many pixels."""
    step = max(1, sum(e.entropy.numel() for e in found) // 2**21)
    entropy, surprise, variance = (torch.cat([getattr(e, name).flatten()[::step] for e in found]) for name in ("entropy", "surprise", "variance"))
    order = entropy.argsort()
    count = max(1, min(BINS, len(order) // 2))  # at least two pixels in each
    bins = [part.tensor_split(count) for part in (entropy[order], surprise[order], variance[order])]
    middles, residual = (torch.stack([part.mean() for part in parts]) for parts in bins[:2])
    excess = torch.stack([s.var() / v.mean().clamp_min(1e-6) for s, v in zip(bins[1], bins[2], strict=True)])
    return middles, residual, excess.clamp_min(1e-3)


def _by_place(values: Float[Tensor, "n H W"]) -> tuple[Tensor, Tensor]:
    """Mean and deviation place by place, the variance drawn towards that of all places as if ``LEAST_IMAGES`` more images had that."""
    variance = values.var(0)
    share = len(values) / (len(values) + LEAST_IMAGES)
    return values.mean(0), (share * variance + (1 - share) * variance.mean()).sqrt()


def _everywhere(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation over all places."""
    every = torch.cat([part.flatten() for part in parts])
    return every.mean(), every.std()
