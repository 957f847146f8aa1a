"""Signed distances of the outlines and of their holes, and the places where holes are drilled.

Everything is in the part's own frame: its circumscribed circle has radius 1, u points right and v down before the part is turned.
A signed distance is negative inside.
"""

from typing import NamedTuple

import numpy as np

from vlae.data.parts.exact import Array

Places = tuple[tuple[float, float], ...]

HOLE, CHAMFER = 0.175, 0.045  # radius of every hole, width of every chamfer
SLOTS = ((0.5, 0.0), (0.25, 0.433), (-0.25, 0.433), (-0.5, 0.0), (-0.25, -0.433), (0.25, -0.433))  # the bolt circle, clockwise


class Outline(NamedTuple):
    """A polygon grown by ``radius``, together with a disc; a turn by 360 / ``symmetry`` degrees leaves it as it is."""

    vertices: Places
    radius: float
    disc: float
    symmetry: int


OUTLINES = {
    "plate": Outline(((-0.67, -0.58), (0.67, -0.58), (0.67, 0.58), (-0.67, 0.58)), 0.12, 0.0, 2),
    "disc": Outline((), 0.0, 0.86, 6),
    "hexagon": Outline(((0.86, 0.0), (0.43, 0.7448), (-0.43, 0.7448), (-0.86, 0.0), (-0.43, -0.7448), (0.43, -0.7448)), 0.1, 0.0, 6),
    "flange": Outline(((0.8, 0.0), (0.4205, 0.3995), (-0.4205, 0.3995), (-0.8, 0.0), (-0.4205, -0.3995), (0.4205, -0.3995)), 0.2, 0.78, 2),
}


def outline_distance(outline: str, u: Array, v: Array) -> Array:
    """Signed distance of the points (u, v) to an outline without its holes.

    >>> outline_distance("plate", np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.8])).round(2)
    array([-0.7 ,  0.21,  0.28])
    """
    shape = OUTLINES[outline]
    square, inside = np.full(u.shape, np.inf), np.zeros(u.shape, bool)
    for (au, av), (bu, bv) in zip(shape.vertices, shape.vertices[1:] + shape.vertices[:1], strict=True):
        eu, ev, pu, pv = bu - au, bv - av, u - au, v - av
        along = np.clip((pu * eu + pv * ev) / (eu * eu + ev * ev), 0.0, 1.0)
        qu, qv = pu - along * eu, pv - along * ev
        square = np.minimum(square, qu * qu + qv * qv)
        if ev:  # a ray towards +u that crosses this edge goes once more in or out
            inside ^= ((av <= v) != (bv <= v)) & (pu < pv * (eu / ev))
    distance = np.sqrt(square)
    return np.minimum(np.where(inside, -distance, distance) - shape.radius, np.sqrt(u * u + v * v) - shape.disc)


def hole_distance(places: Places, u: Array, v: Array) -> Array:
    """Signed distance of the points (u, v) to the nearest hole, infinite where there is none."""
    square = np.full(u.shape, np.inf)
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
