"""Where the evidence lies: connected regions of a map above a threshold."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vlae.engine.inspection.look import Look
from vlae.engine.inspection.reference import KINDS

# More regions than this of an image are counted, and not listed.
MOST = 50


@dataclass(frozen=True)
class Region:
    """A connected part of an image that is unlike good parts."""

    left: int
    top: int
    width: int
    height: int
    area: int
    """in pixels"""
    strength: float
    """its strongest evidence, in units of the threshold: above 1"""
    kind: str
    """which evidence is the strongest: texture or layout"""
    bits: float
    """what its pixels cost beyond what the model expected; of layout, what its code costs beyond that of good parts"""


def regions(look: Look, threshold: float) -> list[Region]:
    """The regions above a threshold, the strongest first; pixels that touch at a side or a corner belong together."""
    labels, count = ndimage.label(look.map > np.float64(threshold), structure=np.ones((3, 3), int))
    boxes = ndimage.find_objects(labels)
    found = [_region(look, box, labels[box] == n, threshold) for n, box in enumerate(boxes, start=1) if box is not None]
    assert len(found) == count
    return sorted(found, key=lambda region: -region.strength)


def _region(look: Look, box: tuple[slice, slice], inside: npt.NDArray[np.bool_], threshold: float) -> Region:
    strengths = np.where(inside, look.map[box], -np.inf)
    kind = KINDS[int(look.kind[box].flat[int(strengths.argmax())])]
    bits = look.layout_bits if kind == "layout" else look.bits
    return Region(
        left=box[1].start,
        top=box[0].start,
        width=inside.shape[1],
        height=inside.shape[0],
        area=int(inside.sum()),
        strength=float(strengths.max()) / threshold,
        kind=kind,
        bits=float(bits[box][inside].sum(dtype=np.float64)),
    )
