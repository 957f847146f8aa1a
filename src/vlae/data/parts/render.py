"""The picture: a lamp, a table, a part with chamfered edges and drilled holes, and a camera.

Brightness is in levels of an 8-bit picture. Every edge is a signed distance, so that its coverage of a pixel, its chamfer and its shadow
are functions of that distance and nothing is drawn at a higher resolution first.
"""

import math

import numpy as np
from numpy.typing import NDArray

from vlae.data.parts.defects import Damage
from vlae.data.parts.exact import Array, normal, ramp, subkey, value_noise
from vlae.data.parts.factors import Factors
from vlae.data.parts.scene import Scene, inner, slopes
from vlae.data.parts.shapes import CHAMFER, HOLE, hole_distance, nearest_hole, outline_distance

FACE = {"brushed": 133.0, "cast": 127.0}
TABLE, BOTTOM, WALL = 74.0, 18.0, 80.0
THICKNESS = 0.11  # length of the shadow in radii of the part
TINTS = {"steel": (0.97, 1.0, 1.06), "brass": (1.13, 1.0, 0.66), "copper": (1.22, 0.92, 0.83), "table": (0.94, 1.0, 1.12)}


def radiance(f: Factors, s: Scene, damage: Damage, key: int) -> tuple[Array, Array]:
    """Brightness of every pixel before the camera's noise, and the share of it that metal fills."""
    rim = outline_distance(f.outline, s.u, s.v) - damage.swell
    bore = hole_distance(damage.places, s.u, s.v)
    lamp = lamplight(f, s)
    within, drilled = _coverage(inner(rim), s), _coverage(inner(bore), s)
    metal = _metal(f, s, np.maximum(rim, -bore), key) * inner(damage.gain)
    ground = _table(s, key) * _shadow(f, s, inner(rim))
    light = ground + within * (metal - ground)
    light = light + within * drilled * (_hole(s, damage) - light)
    return lamp * light, within * (1.0 - drilled)


def lamplight(f: Factors, s: Scene) -> Array:
    """Light on the table: brighter on the lamp's side, darker in the corners of the lens."""
    x, y = s.x[:, 1:-1], s.y[1:-1]
    return f.light * (1.0 + f.gradient * (s.lamp.cos * x + s.lamp.sin * y)) * (1.0 - 0.35 * (x * x + y * y))


def _coverage(distance: Array, s: Scene) -> Array:
    """Share of a pixel inside a signed distance, through a lens that spreads an edge over 1.3 pixels."""
    return np.clip(0.5 - distance / (1.3 * s.pixel), 0.0, 1.0)


def _metal(f: Factors, s: Scene, solid: Array, key: int) -> Array:
    """Brightness of the part: its face, and a chamfer along every edge that shines where it looks to the lamp."""
    right, down = slopes(solid)
    facing = (right * s.lamp.cos + down * s.lamp.sin) / (np.sqrt(right * right + down * down) + 1e-9)
    width, solid = max(CHAMFER, 1.2 * s.pixel), inner(solid)
    chamfer = ramp(-width - s.pixel, -width + s.pixel, solid)
    face = FACE[f.texture] * (1.0 + f.grain * (1.0 - 0.6 * chamfer) * texture(f, s, key))
    if f.texture == "brushed":  # brushed metal mirrors the lamp as a band across its strokes
        far = (inner(s.u) - 0.5 * s.lamp_on_part.cos - 0.1 * inner(s.v)) / 0.35
        face = face * (0.92 + 0.28 / (1.0 + far * far))
    glint, dark_edge = np.maximum(facing, 0.0), np.where(facing < 0.0, ramp(-0.012 - 0.6 * s.pixel, 0.0, solid), 0.0)
    return (face * (1.0 + 0.42 * chamfer * facing) + 45.0 * chamfer * glint * glint) * (1.0 - 0.35 * dark_edge)


def texture(f: Factors, s: Scene, key: int) -> Array:
    """Grain of the face: mean 0, deviation about 1; a larger picture has finer octaves of it.

    Brushed metal has long strokes of random brightness; cast metal is a landscape of random heights, lit from the side. Both are rougher
    in some patches than in others, and the patches are small: who sees the surroundings of a pixel learns little from knowing how rough
    the whole part is, so that grain is a local factor and not one that a code should keep.
    """
    brushed = f.texture == "brushed"
    a, b, stroke = s.u * f.size, s.v * f.size, 16.0 if brushed else 1.0
    total, scales = np.zeros(a.shape), octaves(s.unit, 5)
    even = 1.0 / math.sqrt(len(scales) - 0.84)  # the sum has the same deviation at any size
    for octave in scales:
        cells, strength = float(2**octave), even * (0.4 if octave == scales[0] else 1.0)
        height = 1.3 if brushed else 0.75 * s.unit / cells
        total += strength * height * value_noise(a * (cells / stroke), b * cells, subkey(key, "grain", octave))
    if brushed:
        grain = inner(total)
    else:
        right, down = slopes(total)
        grain = s.lamp.cos * right + s.lamp.sin * down
    return grain * _patches(inner(a), inner(b), 4.0 if brushed else 1.0, key)


def _patches(a: Array, b: Array, length: float, key: int) -> Array:
    """How rough the face is at every place."""
    wide = value_noise(a * (12.0 / length), b * 12.0, subkey(key, "patch", 0))
    fine = value_noise(a * (24.0 / length), b * 24.0, subkey(key, "patch", 1))
    return np.clip(1.0 + 0.5 * (wide + fine), 0.3, 2.0)


def octaves(unit: int, first: int) -> range:
    """Octaves of noise, 2^k cells on the smaller side, from ``first`` to the last whose cells are no smaller than a pixel; two at least."""
    return range(min(first, unit.bit_length() - 2), unit.bit_length())


def _table(s: Scene, key: int) -> Array:
    """A rubber mat: blotches and fibres."""
    x, y = np.broadcast_arrays(s.x[:, 1:-1], s.y[1:-1])
    total = np.ones(x.shape)
    for octave in octaves(s.unit, 3):
        cells = float(2**octave)
        total += (0.05 if octave > 4 else 0.03) * value_noise(y * cells, x * cells, subkey(key, "table", octave))
    return TABLE * total


def _shadow(f: Factors, s: Scene, rim: Array) -> Array:
    """Light that reaches the table: less away from the lamp, and less still in the gap under the part."""
    cast = outline_distance(f.outline, inner(s.u) + THICKNESS * s.lamp_on_part.cos, inner(s.v) + THICKNESS * s.lamp_on_part.sin)
    gap = np.maximum(rim, 0.0) / 0.07
    return (0.4 + 0.6 * ramp(-0.08, 0.12, cast)) * (1.0 - 0.45 / (1.0 + gap * gap))


def _hole(s: Scene, damage: Damage) -> Array:
    """Inside of the holes: a dark bottom, and a wall that is lit where it looks to the lamp."""
    right, down = nearest_hole(damage.places, inner(s.u), inner(s.v))
    lit = ramp(0.1, 1.1, -(right * s.lamp_on_part.cos + down * s.lamp_on_part.sin) / HOLE)
    return BOTTOM + WALL * lit * lit


def camera(light: Array, metal: Array, f: Factors, colour: bool, key: int) -> NDArray[np.uint8]:
    """Take the picture: (H, W) grey, or (H, W, 3) with the tints of metal and table; noise grows with the root of the light."""
    if not colour:
        return _sensor(light, f.noise, subkey(key, "sensor", 0))
    tints = zip(TINTS["table"], TINTS[f.metal], strict=True)
    channels = [light * (table + metal * (own - table)) for table, own in tints]
    return np.stack([_sensor(channel, f.noise, subkey(key, "sensor", c)) for c, channel in enumerate(channels)], axis=2)


def _sensor(light: Array, noise: float, key: int) -> NDArray[np.uint8]:
    """Noisy, rounded 8-bit levels of one channel."""
    height, width = light.shape
    grains = noise * normal(np.arange(height)[:, None], np.arange(width), key)
    light = np.maximum(light, 0.0)
    return np.clip(np.floor(light + grains * np.sqrt((light + 20.0) / 148.0) + 0.5), 0.0, 255.0).astype(np.uint8)
