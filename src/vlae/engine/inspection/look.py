"""What a run makes of an image against good parts: a map, and the strength of each kind of evidence.

B images, C colours, H and W height and width, h and w places of a grid code.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlae.core.encoder import VectorEncoder
from vlae.core.vlae import VLAE
from vlae.engine.inspection.evidence import Evidence, evidence
from vlae.engine.inspection.reference import MOST_PIXELS, Reference
from vlae.engine.inspection.tiles import evidence_in_tiles


class Look(NamedTuple):
    """One image against good parts."""

    map: npt.NDArray[np.float32]
    """the strongest evidence at each pixel, (H, W), in units of what good parts show"""
    kind: npt.NDArray[np.uint8]
    """which of ``KINDS`` it is"""
    bits: npt.NDArray[np.float32]
    """surprise pixel by pixel, in bits; additive over regions"""
    layout_bits: npt.NDArray[np.float32]
    """bits of code beyond those of good parts, shared out among the pixels of each place and summed over regions"""
    kinds: tuple[float, ...]
    """the strongest of each kind anywhere"""
    unlike: float | None
    """global evidence: by how many standard deviations of good parts the whole model saves less over its window alone"""

    @property
    def score(self) -> float:
        """The strongest evidence anywhere."""
        return max(self.kinds)


@torch.no_grad()
def look(model: VLAE, reference: Reference, x: Tensor) -> Iterator[Look]:
    """Look at images of one size, (B, C, H, W), one after the other."""
    if x.shape[2] * x.shape[3] <= MOST_PIXELS or isinstance(model.encoder, VectorEncoder):
        yield from _looks(reference, evidence(model, x))
        return
    for one in x.split(1):
        yield from _looks(reference, evidence_in_tiles(model, one))


def _looks(reference: Reference, e: Evidence) -> Iterator[Look]:
    pixels, layout = reference.pixels(e.pixels), reference.layout(e.code)
    size = (pixels.bits.shape[1], pixels.bits.shape[2])
    kinds, per_pixel = [pixels.texture], torch.zeros_like(pixels.bits)
    if layout.layout.numel():
        kinds.append(spread(layout.layout, size))
        per_pixel = spread(layout.bits / _areas(layout.bits, size), size)
    strongest, kind = torch.stack(kinds, 1).max(1)
    anywhere = torch.stack([k.flatten(1).amax(1) for k in kinds], 1)
    unlike = None if e.gain is None else reference.unlike(e.gain)
    for n in range(len(strongest)):
        fields = (strongest[n].numpy(), kind[n].to(torch.uint8).numpy(), pixels.bits[n].numpy(), per_pixel[n].numpy())
        yield Look(*fields, tuple(anywhere[n].tolist()), None if unlike is None else float(unlike[n]))


def spread(places: Tensor, size: tuple[int, int]) -> Tensor:
    """Values of places, (B, h, w), at the pixels that they stand for, (B, H, W); of one place, at all pixels."""
    side = _side(places, size)
    return places.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, : size[0], : size[1]]


def _side(places: Tensor, size: tuple[int, int]) -> int:
    """The side of the squares that places stand for: a power of two, of which the last may be cut off by the border."""
    side = max(-(-size[0] // places.shape[1]), -(-size[1] // places.shape[2]))
    return side if places[0].numel() == 1 else 1 << (side - 1).bit_length()


def _areas(places: Tensor, size: tuple[int, int]) -> Tensor:
    """How many pixels each place stands for, (h, w)."""
    side = _side(places, size)
    rows, columns = (torch.tensor([min(side, length - side * n) for n in range(count)]) for count, length in zip(places.shape[1:], size, strict=True))
    return rows[:, None] * columns
