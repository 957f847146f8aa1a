"""Changes of images whose price tells what a code keeps: each a pure function of images and a random generator.

B images, C colours, H and W height and width. What leaves the sides of an image is continued by reflection (d c b a | a b c d | d c b a).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from einops import rearrange
from scipy import ndimage

Levels = npt.NDArray[np.float64]

# Width of the Gaussian that blurs, and side of the medians that part the grain from the rest, in pixels.
BLUR, GRAIN = 1.0, 3
# Side in pixels of the patches that change places within squares of two by two.
PATCH = 8
# So many times the image's own noise, which is taken for at least half a level; of 1-bit images, the share of the pixels that flip.
NOISE, LEAST_NOISE, FLIPPED = 1.5, 0.5, 0.02
# Around the grey axis, on which red, green and blue are equal.
HUE_DEGREES = 30.0


class Images(NamedTuple):
    """Images, for each of them another one of the same set, and the highest level."""

    x: Levels
    """(B, C, H, W), from 0 to ``top``"""
    others: Levels
    top: int


Change = Callable[[Images, np.random.Generator], Levels]


def changed(name: str, images: Images, rng: np.random.Generator) -> Levels:
    """The images after a change of ``CHANGES``, rounded to levels and clipped, (B, C, H, W).

    >>> x = np.array([[[[0.0, 10.0, 20.0]]], [[[200.0, 250.0, 255.0]]]])
    >>> changed("brightness", Images(x, x[::-1], 255), np.random.default_rng(0))[:, 0, 0].tolist()
    [[0.0, 11.0, 22.0], [220.0, 255.0, 255.0]]
    """
    return np.rint(CHANGES[name](images, rng)).clip(0, images.top)


def _shift(pixels: int) -> Change:
    """Shifted by so many pixels up, down, left or right."""
    ways = pixels * np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])

    def shift(images: Images, rng: np.random.Generator) -> Levels:
        steps = ways[rng.integers(0, len(ways), len(images.x))]
        return np.stack([ndimage.shift(x, (0, *step), order=0, mode="reflect") for x, step in zip(images.x, steps, strict=True)])

    return shift


def _turned(images: Images, rng: np.random.Generator) -> Levels:
    """Turned about the middle by 2 degrees, this way or that."""
    angles = np.radians(2.0) * _signs(images, rng)
    matrices = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return np.stack([_mapped(x, matrix) for x, matrix in zip(images.x, matrices, strict=True)])


def _scaled(images: Images, rng: np.random.Generator) -> Levels:
    """Larger or smaller by 3%, about the middle."""
    return np.stack([_mapped(x, np.eye(2) * 1.03**sign) for x, sign in zip(images.x, _signs(images, rng), strict=True)])


def _mapped(x: Levels, matrix: Levels) -> Levels:
    """An image (C, H, W) whose pixel at ``v`` from the middle is what was at ``matrix v``, by cubic splines."""
    middle = (np.array(x.shape[1:]) - 1) / 2
    return np.stack([ndimage.affine_transform(plane, matrix, middle - matrix @ middle, order=3, mode="reflect") for plane in x])


def _brighter(images: Images, rng: np.random.Generator) -> Levels:
    """10% more light, or less."""
    return images.x * (1 + 0.1 * _each(_signs(images, rng)))


def _contrast(images: Images, rng: np.random.Generator) -> Levels:
    """20% further from the mean of the image, or nearer to it."""
    mean = images.x.mean((1, 2, 3), keepdims=True)
    return mean + (images.x - mean) * (1 + 0.2 * _each(_signs(images, rng)))


def _hue(images: Images, rng: np.random.Generator) -> Levels:
    """Colours turned about the grey axis; grey images stay as they are."""
    if images.x.shape[1] == 1:
        return images.x
    angles = _each(np.radians(HUE_DEGREES) * _signs(images, rng))
    grey = images.x.mean(1, keepdims=True)
    away = images.x - grey
    # Rodrigues' formula: the axis is (1, 1, 1) over the root of 3, and ``away`` is square to it.
    across = (np.roll(away, 1, axis=1) - np.roll(away, -1, axis=1)) / np.sqrt(3)
    return grey + np.cos(angles) * away + np.sin(angles) * across


def _blurred(images: Images, rng: np.random.Generator) -> Levels:
    return ndimage.gaussian_filter(images.x, (0, 0, BLUR, BLUR), mode="reflect")


def _noisy(images: Images, rng: np.random.Generator) -> Levels:
    """New noise on top, until there is half as much again; of 1-bit images a few pixels flip."""
    if images.top == 1:
        return np.where(rng.random(images.x.shape) < FLIPPED, 1 - images.x, images.x)
    return images.x + _each(np.sqrt(NOISE**2 - 1) * noise(images.x)) * rng.standard_normal(images.x.shape)


def noise(x: Levels) -> Levels:
    """The standard deviation of the noise of each image, (B,): that of a difference of Laplacians, which outlines hardly touch.

    From the mean of its absolute values (Immerkaer 1996, doi:10.1006/cviu.1996.0060); fine grain counts as noise.
    """
    laplacians = ndimage.convolve(x, np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None], mode="reflect")
    return np.maximum(np.sqrt(np.pi / 2) * np.abs(laplacians).mean((1, 2, 3)) / 6, LEAST_NOISE)


def _grain_swapped(images: Images, rng: np.random.Generator) -> Levels:
    """The grain of another image in place of its own: what differs from the median around, so that outlines stay where they are."""
    smooth, other = (ndimage.median_filter(x, (1, 1, GRAIN, GRAIN), mode="reflect") for x in (images.x, images.others))
    return smooth + images.others - other


def _patches_shuffled(images: Images, rng: np.random.Generator) -> Levels:
    """In each square of two by two patches these change places: what is seen through a small window stays, where it is does not."""
    x = images.x.copy()
    side = max(1, min(PATCH, *(size // 2 for size in x.shape[2:])))
    rows, columns = (size // (2 * side) for size in x.shape[2:])
    whole = x[:, :, : 2 * rows * side, : 2 * columns * side]
    squares = rearrange(whole, "b c (r i p) (k j q) -> (b r k) (i j) c p q", i=2, j=2, p=side, q=side)
    order = rng.permuted(np.tile(np.arange(4), (len(squares), 1)), axis=1)
    shuffled = squares[np.arange(len(squares))[:, None], order]
    whole[...] = rearrange(shuffled, "(b r k) (i j) c p q -> b c (r i p) (k j q)", b=len(x), r=rows, k=columns, i=2)
    return x


def _part_replaced(images: Images, rng: np.random.Generator) -> Levels:
    """A square, half as high as the shorter side, shows what another image has there."""
    x = images.x.copy()
    side = max(1, min(x.shape[2:]) // 2)
    corners = rng.integers(0, np.array(x.shape[2:]) - side, (len(x), 2), endpoint=True)
    for image, other, (top, left) in zip(x, images.others, corners, strict=True):
        image[:, top : top + side, left : left + side] = other[:, top : top + side, left : left + side]
    return x


def _signs(images: Images, rng: np.random.Generator) -> Levels:
    """1 or -1 for each image."""
    return rng.choice([-1.0, 1.0], len(images.x))


def _each(values: Levels) -> Levels:
    """A number for each image, against (B, C, H, W)."""
    return values[:, None, None, None]


CHANGES: Mapping[str, Change] = {
    "shift_1px": _shift(1),
    "shift_2px": _shift(2),
    "shift_4px": _shift(4),
    "turn_2deg": _turned,
    "scale_3pct": _scaled,
    "brightness": _brighter,
    "contrast": _contrast,
    "hue": _hue,
    "blur": _blurred,
    "noise": _noisy,
    "grain_swapped": _grain_swapped,
    "patches_shuffled": _patches_shuffled,
    "part_replaced": _part_replaced,
}
