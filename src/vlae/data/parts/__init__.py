"""Embedded images: photographs of machined parts, drawn from known factors.

A part lies on a dark mat under one lamp. Its layout (outline, place, angle, size, holes) is what a short code should keep; its local
factors (brushed or cast texture, grain, light, sensor noise) are what a decoder can look after, and most of the bits of a picture are
theirs. Defects come with their masks.

The same seed gives the same bytes on every machine and at any time: a golden hash in the tests holds them. They are exact by construction
(`vlae.data.parts.exact`): randomness is SplitMix64 on integers, written out here; all else is ``+ - * / sqrt`` and comparisons of float64,
whose last bit IEEE 754 prescribes, one NumPy call an operation, so that nothing is fused, reordered or left to a mathematical library.

>>> part = draw(3, size=64)
>>> part.image.shape, part.defect, bool(part.mask.any())
((64, 64), None, False)
>>> bool((draw(3, size=64, defect="scratch").image == part.image).mean() > 0.9)
True
"""

from vlae.data.parts.drawing import DEFECTS, Part, draw
from vlae.data.parts.factors import Factors
from vlae.data.parts.folder import rows, write

__all__ = ["DEFECTS", "Factors", "Part", "draw", "rows", "write"]
