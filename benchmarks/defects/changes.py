"""Good images after changes that are no defects: what a plant sees after a new camera, a new lamp, a new batch of metal or a worn fixture."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from vlae.data.parts.defects import no_damage
from vlae.data.parts.exact import subkey
from vlae.data.parts.factors import draw_factors
from vlae.data.parts.render import camera, radiance
from vlae.data.parts.scene import scene
from vlae.engine.kept.changes import Images, changed

from .sets import Collection, Example

MORE_NOISE, LIGHT, SHIFT = 1.5, 0.1, 2
NAMES = ("noise x1.5", "new grain", "light +10%", "light -10%", "shifted by 2 pixels")


def variants(collection: Collection, examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """The images (n, h, w) after each change: parts are drawn anew from changed factors, photographs are altered.

    Of a photograph the noise is what is estimated of the image itself, grain included; the new grain is that of the next image.
    """
    if collection.name == "parts":
        return {name: np.stack([redrawn(e, name) for e in examples]) for name in NAMES}
    x = np.stack([e.pixels for e in examples])
    return {name: np.rint(change(x.astype(np.float64))).clip(0, 255).astype(np.uint8) for name, change in zip(NAMES, ALTERED, strict=True)}


def redrawn(example: Example, change: str = "") -> np.ndarray:
    """A good part drawn again, but for one change."""
    key = subkey(0, int(example.name.removeprefix("part-")))
    f, (height, width) = draw_factors(key), example.pixels.shape
    new = {
        "noise x1.5": {"noise": MORE_NOISE * f.noise},
        "light +10%": {"light": (1 + LIGHT) * f.light},
        "light -10%": {"light": (1 - LIGHT) * f.light},
        "shifted by 2 pixels": {"x": f.x + SHIFT / width},
    }.get(change, {})
    f = replace(f, **new)
    place = scene(f, height, width)
    light, metal = radiance(f, place, no_damage(f, place), subkey(key, "new") if change == "new grain" else key)
    return camera(light, metal, f, False, key)


def noise(x: np.ndarray) -> np.ndarray:
    """The standard deviation of the noise of each image (n, h, w), by a mask that edges hardly touch (Immerkaer 1996, doi:10.1006/cviu.1996.0060)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64)
    left = np.abs(ndimage.convolve(x, kernel[None]))[:, 1:-1, 1:-1]
    return np.sqrt(np.pi / 2) * left.mean((1, 2)) / 6


def _noisier(x: np.ndarray) -> np.ndarray:
    added = np.sqrt(MORE_NOISE**2 - 1) * noise(x)[:, None, None]
    return x + added * np.random.default_rng(0).standard_normal(x.shape)


def _grained(x: np.ndarray) -> np.ndarray:
    return changed("grain_swapped", Images(x[:, None], np.roll(x, 1, axis=0)[:, None], 255), np.random.default_rng(0))[:, 0]


ALTERED: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    _noisier,
    _grained,
    lambda x: x * (1 + LIGHT),
    lambda x: x * (1 - LIGHT),
    lambda x: ndimage.shift(x, (0, 0, SHIFT), order=0, mode="reflect"),
)
