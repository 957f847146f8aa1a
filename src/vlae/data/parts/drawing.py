"""One part, drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlae.data.parts.defects import DAMAGES, NEED_HOLES, Damage, no_damage
from vlae.data.parts.exact import subkey
from vlae.data.parts.factors import Factors, draw_factors
from vlae.data.parts.render import camera, radiance
from vlae.data.parts.scene import Scene, inner, scene
from vlae.errors import DataError, SettingError

DEFECTS: tuple[str, ...] = tuple(DAMAGES)
SMALLEST, LARGEST = 16, 4096


@dataclass(frozen=True)
class Part:
    """A picture of a part, what it was made from, and where it is spoiled.

    ``image``: (H, W) grey or (H, W, 3) RGB, uint8. ``factors``: those of the good part, whatever the defect. ``mask``: (H, W), the pixels
    that the defect spoils; none of a good part. ``defect``: its name, or None.
    """

    image: NDArray[np.uint8]
    factors: Factors
    mask: NDArray[np.bool_]
    defect: str | None


def draw(index: int, size: int | tuple[int, int] = 64, seed: int = 0, colour: bool = False, defect: str | None = None) -> Part:
    """Draw image ``index`` of a seed: the same part at every size, in grey or colour, good or with a defect.

    ``size`` is the side in pixels, or (height, width), from 16 to 4096. Errors: ``SettingError`` where size, index, seed or defect is not
    possible; ``DataError`` for a missing or shifted hole of a part that has no hole.

    >>> draw(0, size=(32, 48), colour=True).image.shape
    (32, 48, 3)
    >>> draw(0, size=32).factors == draw(0, size=(128, 256), defect="dent").factors
    True
    """
    height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    check_whole("height", height, SMALLEST, LARGEST)
    check_whole("width", width, SMALLEST, LARGEST)
    check_whole("index", index, 0, 2**63 - 1)
    check_whole("seed", seed, 0, 2**63 - 1)
    key = subkey(seed, index)
    factors = draw_factors(key)
    place = scene(factors, height, width)
    damage = _damage(defect, factors, place, index, key)
    light, metal = radiance(factors, place, damage, key)
    return Part(camera(light, metal, factors, colour, key), factors, inner(damage.mask), defect)


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse a number that is not whole or out of bounds by a ``SettingError``."""
    if not (isinstance(value, int) and low <= value <= high):
        rule = f"It is a whole number from {low} to {high}"
        raise SettingError(f"The {name} of parts cannot be drawn", rule=rule, found=value, do="Give such a number")


def check_defect(defect: str) -> None:
    """Refuse the name of no defect by a ``SettingError``."""
    if defect not in DAMAGES:
        raise SettingError("There is no such defect", rule=f"Defects are {', '.join(DEFECTS)}", found=defect, do="Name one of them")


def possible(defect: str, factors: Factors) -> bool:
    """Say whether a part can have a defect: one without holes has none to miss or to shift."""
    return bool(factors.holes) or defect not in NEED_HOLES


def _damage(defect: str | None, factors: Factors, place: Scene, index: int, key: int) -> Damage:
    if defect is None:
        return no_damage(factors, place)
    check_defect(defect)
    if not possible(defect, factors):
        what = f"Part {index} cannot have a {defect.replace('_', ' ')}"
        raise DataError(what, rule="It needs a hole", found="a part without holes", do="Draw another part")
    return DAMAGES[defect](factors, place, subkey(key, defect))
