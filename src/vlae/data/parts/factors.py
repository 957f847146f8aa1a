"""The factors of a part: what is drawn at random, and the columns by which a manifest names them."""

from dataclasses import dataclass

from vlae.data.parts.exact import subkey, uniform
from vlae.data.parts.shapes import OUTLINES, SLOTS


@dataclass(frozen=True)
class Factors:
    """Everything that a picture of a part is made from; layout first, then what is local.

    ``outline``: plate, disc, hexagon or flange. ``x``, ``y``: centre in fractions of width and height. ``angle``: degrees, clockwise as
    seen. ``size``: radius of the circumscribed circle as a fraction of the smaller side. ``places``: centres of the ``holes`` holes in
    the part's frame, where that circle has radius 1.

    ``texture``: brushed or cast. ``grain``: standard deviation of the texture relative to the local brightness. ``light``: brightness of
    the lamp (1 is nominal); ``light_angle``: degrees, the side it stands on (0 right, 90 below); ``gradient``: how much brighter, relative
    to the middle, the picture is on that side than on the other. ``noise``: standard deviation of the sensor's noise in grey levels at
    level 128. ``metal``: steel, brass or copper, which only a colour picture shows.
    """

    outline: str
    x: float
    y: float
    angle: float
    size: float
    holes: int
    places: tuple[tuple[float, float], ...]
    texture: str
    grain: float
    light: float
    light_angle: float
    gradient: float
    noise: float
    metal: str


def draw_factors(key: int) -> Factors:
    """Draw the factors of the image that has this key: each one uniform and independent of the others."""

    def between(name: str, low: float, high: float) -> float:
        return low + (high - low) * uniform(subkey(key, name), 1)[0]

    def choice(name: str, options: tuple[str, ...]) -> str:
        return options[int(between(name, 0, len(options)))]

    outline, holes = choice("outline", tuple(OUTLINES)), int(between("holes", 0, 7))
    return Factors(
        outline=outline,
        x=between("x", 0.4, 0.6),
        y=between("y", 0.4, 0.6),
        angle=between("angle", -12.0, 12.0),
        size=between("size", 0.34, 0.39),
        holes=holes,
        places=_places(holes, key),
        texture=choice("texture", ("brushed", "cast")),
        grain=between("grain", 0.07, 0.12),
        light=between("light", 0.94, 1.06),
        light_angle=between("lamp", 180.0, 360.0),
        gradient=between("gradient", 0.1, 0.4),
        noise=between("noise", 1.0, 3.0),
        metal=choice("metal", ("steel", "brass", "copper")),
    )


def _places(holes: int, key: int) -> tuple[tuple[float, float], ...]:
    """Choose slots of the bolt circle for the holes, and move each by the tolerance of a drill."""
    order = uniform(subkey(key, "slots"), 6)
    shifts = uniform(subkey(key, "drill"), 12)
    slots = sorted(sorted(range(6), key=order.__getitem__)[:holes])
    return tuple((SLOTS[slot][0] + 0.03 * shifts[slot] - 0.015, SLOTS[slot][1] + 0.03 * shifts[slot + 6] - 0.015) for slot in slots)
