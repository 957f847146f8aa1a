"""Defects: what each does to a part, and the pixels that it spoils."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlae.data.parts.exact import Array, ramp, subkey, turn, uniform, value_noise
from vlae.data.parts.factors import Factors
from vlae.data.parts.scene import Scene
from vlae.data.parts.shapes import CHAMFER, Places, hole_distance, outline_distance


class Damage(NamedTuple):
    """What is drawn instead of the good part. Arrays have the shape of the scene's."""

    places: Places  # the holes that are really there
    gain: Array  # factor of the brightness of the face
    swell: Array  # by how much the outline is pushed outwards, in radii of the part
    mask: NDArray[np.bool_]


def no_damage(f: Factors, s: Scene) -> Damage:
    """The good part."""
    return Damage(f.places, np.ones(s.u.shape), np.zeros(s.u.shape), np.zeros(s.u.shape, bool))


def _scratch(f: Factors, s: Scene, key: int) -> Damage:
    """A bent furrow: one flank shines, the other lies in shadow."""
    (u, v), (angle, length, bend) = _on_face(f, 0.1, key), uniform(subkey(key, "scratch"), 3)
    cos, sin = turn(360.0 * angle)
    along, across = (cos * (s.u - u) + sin * (s.v - v)) / (0.25 + 0.2 * length), cos * (s.v - v) - sin * (s.u - u)
    across = (across + (0.2 * bend - 0.1) * along * along) / max(0.02, 0.75 * s.pixel)
    depth = (1.0 - ramp(0.6, 1.0, abs(along))) * _drilled(f, s)
    shine, shade = 1.0 - ramp(0.0, 1.0, abs(across)), 1.0 - ramp(0.0, 1.0, abs(across - 1.2))
    return no_damage(f, s)._replace(gain=1.0 + depth * (0.75 * shine - 0.5 * shade), mask=depth * (shine + shade) > 0.3)


def _dent(f: Factors, s: Scene, key: int) -> Damage:
    """A round hollow: the wall far from the lamp shines, the near one is dark."""
    (u, v), (size,) = _on_face(f, 0.12, key), uniform(subkey(key, "dent"), 1)
    du, dv = (s.u - u) / (0.16 + 0.07 * size), (s.v - v) / (0.16 + 0.07 * size)
    hollow = np.maximum(1.0 - du * du - dv * dv, 0.0) * _drilled(f, s)
    tilt = -(du * s.lamp_on_part.cos + dv * s.lamp_on_part.sin)
    return no_damage(f, s)._replace(gain=1.0 + hollow * (1.5 * tilt - 0.25), mask=hollow > 0.1)


def _stain(f: Factors, s: Scene, key: int) -> Damage:
    """A spot of oil with a ragged, darker edge."""
    (u, v), (size,) = _on_face(f, 0.1, key), uniform(subkey(key, "stain"), 1)
    du, dv = (s.u - u) / (0.2 + 0.1 * size), (s.v - v) / (0.2 + 0.1 * size)
    reach = np.sqrt(du * du + dv * dv) + 0.12 * value_noise(du * 2.0, dv * 2.0, subkey(key, "edge", 0))
    reach += 0.06 * value_noise(du * 5.0, dv * 5.0, subkey(key, "edge", 1))
    wet = (1.0 - ramp(0.75, 1.0, reach)) * _drilled(f, s)
    return no_damage(f, s)._replace(gain=1.0 - wet * (0.28 + 0.2 * ramp(0.55, 0.9, reach)), mask=wet > 0.4)


def _missing_hole(f: Factors, s: Scene, key: int) -> Damage:
    """A hole that was never drilled."""
    k = int(len(f.places) * uniform(subkey(key, "which"), 1)[0])
    left = f.places[:k] + f.places[k + 1 :]
    return no_damage(f, s)._replace(places=left, mask=hole_distance(f.places[k : k + 1], s.u, s.v) < CHAMFER)


def _shifted_hole(f: Factors, s: Scene, key: int) -> Damage:
    """A hole drilled beside its place, where there is most room for it."""
    k = int(len(f.places) * uniform(subkey(key, "which"), 1)[0])
    left, (u, v) = f.places[:k] + f.places[k + 1 :], f.places[k]
    far = np.array(uniform(subkey(key, "far"), 24))[:, None] * 0.08 + 0.17
    tries = np.array([u, v]) + far * np.array([turn(360.0 * way) for way in uniform(subkey(key, "way"), 24)])
    room = np.minimum(-outline_distance(f.outline, tries[:, 0], tries[:, 1]), hole_distance(left, tries[:, 0], tries[:, 1]))
    place = (float(tries[room.argmax(), 0]), float(tries[room.argmax(), 1]))
    return no_damage(f, s)._replace(places=(*left, place), mask=hole_distance((f.places[k], place), s.u, s.v) < CHAMFER)


def _burr(f: Factors, s: Scene, key: int) -> Damage:
    """Ragged metal that stands out over the outline."""
    (u, v), raggedness = _on_edge(f, key), value_noise(s.u * 10.0, s.v * 10.0, subkey(key, "ragged"))
    du, dv = (s.u - u) / 0.28, (s.v - v) / 0.28
    swell = 0.15 * np.maximum(1.0 - du * du - dv * dv, 0.0) * np.clip(0.8 + 0.5 * raggedness, 0.2, 1.3)
    rim = outline_distance(f.outline, s.u, s.v)
    return no_damage(f, s)._replace(swell=swell, mask=(rim < swell) & (rim > -CHAMFER) & (swell > 0.3 * s.pixel))


def _drilled(f: Factors, s: Scene) -> Array:
    """1 where there is metal to be damaged, 0 in the holes and beyond the outline."""
    return ((hole_distance(f.places, s.u, s.v) > 0.0) & (outline_distance(f.outline, s.u, s.v) < 0.0)).astype(np.float64)


def _on_face(f: Factors, margin: float, key: int) -> tuple[float, float]:
    """A random place on the face, as far as ``margin`` from holes and outline, or the freest of all tried."""
    tries = np.array(uniform(subkey(key, "face"), 128)).reshape(2, 64) * 1.6 - 0.8
    room = np.minimum(-outline_distance(f.outline, tries[0], tries[1]), hole_distance(f.places, tries[0], tries[1]))
    best = int((room > margin).argmax()) if (room > margin).any() else int(room.argmax())
    return float(tries[0, best]), float(tries[1, best])


def _on_edge(f: Factors, key: int) -> tuple[float, float]:
    """The place where a ray from the middle in a random direction leaves the outline."""
    cos, sin = turn(360.0 * uniform(subkey(key, "ray"), 1)[0])
    far = np.arange(256) / 200.0
    leaves = float(far[(outline_distance(f.outline, far * cos, far * sin) > 0.0).argmax()])
    return leaves * cos, leaves * sin


DAMAGES: dict[str, Callable[[Factors, Scene, int], Damage]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
    "missing_hole": _missing_hole,
    "shifted_hole": _shifted_hole,
    "burr": _burr,
}
NEED_HOLES = ("missing_hole", "shifted_hole")
