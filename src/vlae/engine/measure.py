"""Bits over a data set: what every use of a model shares."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlae.core.vlae import VLAE, Terms
from vlae.data import batches as data
from vlae.data.imageset import ImageSet
from vlae.engine.batches import CODE, DYNAMIC, as_levels, crops, normal, random, uniform
from vlae.engine.settings import Settings
from vlae.errors import DataError

# Pixels that go through the networks at once, at most, unless one image has more.
PIXELS_AT_ONCE = 2**18


class Group(NamedTuple):
    """Images of one size, as levels, and their numbers in the set."""

    numbers: np.ndarray
    x: Tensor


def groups(images: ImageSet, numbers: np.ndarray, seed: int, at_once: int = PIXELS_AT_ONCE) -> Iterator[Group]:
    """Whole images, batched with others of their size, in a fixed order."""
    by_shape: dict[tuple[int, int, int], list[int]] = {}
    for n in numbers.tolist():
        by_shape.setdefault(images.shape(n), []).append(n)
    for (height, width, _), members in by_shape.items():
        each = max(1, at_once // (height * width))
        for first in range(0, len(members), each):
            chosen = np.array(members[first : first + each])
            yield Group(chosen, load(images, chosen, seed))


def load(images: ImageSet, numbers: np.ndarray, seed: int) -> Tensor:
    """Images of one size as levels; those of a dynamic binarisation are drawn once and for all, each from its number."""
    pixels = data.stack(images, numbers)
    if images.dynamic:
        pixels = np.stack([data.binarise_dynamic(p, random(seed, DYNAMIC, 2**32 + int(n))) for p, n in zip(pixels, numbers, strict=True)])
    return as_levels(pixels)


def noise_for(model: VLAE, group: Group, seed: int, sample: int = 0) -> Tensor:
    """Noise for the codes of images, drawn by their numbers, so that it does not depend on the batch."""
    shape = model.code_shape(*group.x.shape[2:])
    return torch.stack([normal(shape, seed + sample, CODE, 2**32 + int(n)) for n in group.numbers])


@torch.no_grad()
def validation_elbo(model: VLAE, images: ImageSet, settings: Settings) -> float:
    """The mean bound of validation images (or of one crop of each) with fixed noise, in nats for an image or crop."""
    train = settings.train
    like = next(model.parameters())
    chosen = images.indices("validation")[: train.validate_images]
    total = 0.0
    each = max(1, PIXELS_AT_ONCE // (train.crop**2 if train.crop else int(np.prod(images.shape(int(chosen[0]))[:2]))))
    for first in range(0, len(chosen), each):
        numbers = chosen[first : first + each]
        if train.crop:
            x = as_levels(crops(images, numbers, train, 2**32 + first))
        else:
            x = load(images, numbers, train.seed)
        x = x.to(like.device, like.dtype)
        noise = noise_for(model, Group(numbers, x), train.seed).to(like.device, like.dtype)
        terms: Terms = model(x, noise)
        total += terms.elbo.double().sum().item()
    return total / len(chosen)


def placed(tensor: Tensor, model: VLAE) -> Tensor:
    """A tensor on the device and in the precision of a model."""
    like = next(model.parameters())
    return tensor.to(like.device, like.dtype)


def chosen(images: ImageSet, split: str, limit: int | None) -> np.ndarray:
    """The numbers of a split's images, at most ``limit`` of them, evenly spaced."""
    numbers = images.indices(split)
    if not len(numbers):
        raise DataError(
            f"There are no {split} images", rule="The split must hold at least one image", do=f"Set data.{split} above 0, or choose --split"
        )
    return numbers if limit is None or limit >= len(numbers) else numbers[np.linspace(0, len(numbers) - 1, limit).round().astype(int)]


@dataclass(frozen=True)
class Cost:
    """What images cost, in nats: one entry an image."""

    numbers: np.ndarray
    distortion: np.ndarray
    """-log p(x|z)"""
    rate: np.ndarray
    """log q(z|x) - log p(z), one sample"""
    by_group: np.ndarray
    """the rate by dimension or channel of the code, (n, G)"""
    pixels: np.ndarray
    """height times width"""


@torch.no_grad()
def costs(model: VLAE, images: ImageSet, numbers: np.ndarray, seed: int) -> Iterator[tuple[Cost, Tensor]]:
    """The terms of the bound of whole images, group by group, with the map of nats over pixels (b, h, w)."""
    like = next(model.parameters())
    for group in groups(images, numbers, seed):
        x = group.x.to(like.device, like.dtype)
        terms: Terms = model(x, noise_for(model, group, seed).to(like.device, like.dtype))
        size = np.full(len(group.numbers), x.shape[2] * x.shape[3])
        found = (-terms.log_px_z, terms.log_qz_x - terms.log_pz, terms.kl_by_group)
        distortion, rate, by_group = (t.double().cpu().numpy() for t in found)
        yield Cost(group.numbers, distortion, rate, by_group, size), -terms.log_px_z_map


def joined(parts: list[Cost]) -> Cost:
    """The costs of several groups of images as one, in the order of their numbers."""
    order = np.argsort(np.concatenate([p.numbers for p in parts]))
    fields = (np.concatenate([getattr(p, name) for p in parts])[order] for name in ("numbers", "distortion", "rate", "by_group", "pixels"))
    return Cost(*fields)


def decode(model: VLAE, group: Group, seed: int, sample: int = 0) -> Tensor:
    """One decoding of each image's code; the random numbers are those of the image and of the sample."""
    height, width = group.x.shape[2:]
    shape = (model.decoder.head.uniforms, height, width)
    uniforms = torch.stack([uniform(shape, seed + sample, int(n)) for n in group.numbers])
    return model.reconstruct(placed(group.x, model), placed(noise_for(model, group, seed, sample), model), placed(uniforms, model))
