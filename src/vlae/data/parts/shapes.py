"""Signed distances of the outlines, and the places where each outline has room for a hole.

Everything is in the part's own frame: its circumscribed circle has radius 1, u points right and v down before the part is turned.
A signed distance is negative inside.
"""

from typing import NamedTuple

import numpy as np

from vlae.data.parts.exact import Array

Places = tuple[tuple[float, float], ...]

HOLE, CHAMFER = 0.185, 0.045  # radius of every hole, width of every chamfer
SLOTS = ((0.5, 0.0), (0.25, 0.433), (-0.25, 0.433), (-0.5, 0.0), (-0.25, -0.433), (0.25, -0.433))  # the bolt circle, clockwise


class Outline(NamedTuple):
    """A polygon grown by ``radius`` (the disc grows from a point), which a turn by 360 / ``symmetry`` degrees leaves as it is."""

    vertices: Places
    radius: float
    symmetry: int


OUTLINES = {
    "plate": Outline(((-0.69, -0.53), (0.69, -0.53), (0.69, 0.53), (-0.69, 0.53)), 0.13, 2),
    "disc": Outline(((0.0, 0.0),), 0.86, 6),
    "hexagon": Outline(((0.86, 0.0), (0.43, 0.7448), (-0.43, 0.7448), (-0.86, 0.0), (-0.43, -0.7448), (0.43, -0.7448)), 0.1, 6),
    "flange": Outline(((0.8, 0.0), (0.365, 0.398), (0.196, 0.503), (0.0, 0.54), (-0.196, 0.503), (-0.365, 0.398), (-0.8, 0.0), (-0.365, -0.398), (-0.196, -0.503), (0.0, -0.54), (0.196, -0.503), (0.365, -0.398)), 0.2, 2),
}


def outline_distance(outline: str, u: Array, v: Array) -> Array:
    """Signed distance of the points (u, v) to an outline without its holes."""
    shape = OUTLINES[outline]
    square, inside = np.full(np.broadcast(u, v).shape, np.inf), np.zeros(np.broadcast(u, v).shape, bool)
    for (au, av), (bu, bv) in zip(shape.vertices, shape.vertices[1:] + shape.vertices[:1], strict=True):
        eu, ev, pu, pv = bu - au, bv - av, u - au, v - av
        along = np.clip((pu * eu + pv * ev) / max(eu * eu + ev * ev, 1e-12), 0.0, 1.0)
        qu, qv = pu - along * eu, pv - along * ev
        square = np.minimum(square, qu * qu + qv * qv)
        if ev:  # a ray towards +u crosses this edge: once more in or out
            inside ^= ((av <= v) != (bv <= v)) & (pu < pv * (eu / ev))
    distance = np.sqrt(square)
    return np.where(inside, -distance, distance) - shape.radius


def hole_distance(places: Places, u: Array, v: Array) -> Array:
    """Signed distance of the points (u, v) to the nearest hole, infinite where there is none."""
    square = np.full(np.broadcast(u, v).shape, np.inf)
    for hu, hv in places:
        square = np.minimum(square, (u - hu) * (u - hu) + (v - hv) * (v - hv))
    return np.sqrt(square) - HOLE


def nearest_hole(places: Places, u: Array, v: Array) -> tuple[Array, Array]:
    """Offset of the points (u, v) from the middle of the nearest hole, zero where there is none."""
    du, dv, square = np.zeros(u.shape), np.zeros(u.shape), np.full(u.shape, np.inf)
    for hu, hv in places:
        new = (u - hu) * (u - hu) + (v - hv) * (v - hv)
        near = new < square
        du, dv, square = np.where(near, u - hu, du), np.where(near, v - hv, dv), np.where(near, new, square)
    return du, dv
