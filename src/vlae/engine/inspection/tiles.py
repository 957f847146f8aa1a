"""Evidence in large images, tile by tile: the same as of the whole image, in memory that the networks' maps of one tile bound.

B images, C colours, H and W height and width; places are those of a grid code.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.codes import Posterior
from vlae.core.encoder import GridEncoder
from vlae.core.vlae import VLAE
from vlae.engine.inspection.evidence import Evidence, PixelEvidence, code_of, of_pixels

# The side of a tile without what it sees beyond its border, in pixels.
TILE = 512

Box = tuple[slice, slice]


class Tile(NamedTuple):
    """A part of an image, in units of some pixels."""

    core: Box
    """the rows and columns that it stands for"""
    outer: Box
    """the same with what they depend on"""

    @property
    def inner(self) -> Box:
        """The core within the outer part."""
        rows, columns = (slice(c.start - o.start, c.stop - o.start) for c, o in zip(self.core, self.outer, strict=True))
        return rows, columns

    def times(self, unit: int) -> "Tile":
        """The same in pixels."""
        core, outer = (tuple(slice(s.start * unit, s.stop * unit) for s in box) for box in self)
        return Tile(core, outer)  # type: ignore[arg-type]


@torch.no_grad()
def evidence_in_tiles(model: VLAE, x: Float[Tensor, "1 C H W"], side: int | None = None) -> Evidence:
    """The evidence in one image of any size: first its code tile by tile, then its pixels given that.

    Args:
        model: one with a grid code or none.
        x: the image as levels.
        side: of a tile, in pixels; unset, ``TILE``.
    """
    unit, side = _unit(model), side or TILE
    rows, columns = -(-x.shape[2] // unit), -(-x.shape[3] // unit)
    code = code_of(model, None if model.encoder is None else _posterior(model, x, side), 1)
    beyond = -(-reach_of_decoder(model) // unit)
    maps: list[Tensor] = []
    for tile in tiles(rows, columns, max(1, side // unit), beyond):
        z = None if code.z is None else code.z[:, :, *tile.outer]
        at = tile.times(unit)
        found = [part for part in of_pixels(model, z, x[:, :, *at.outer]) if part is not None]
        maps = maps or [torch.empty(1, *x.shape[2:], dtype=x.dtype) for _ in found]
        for whole, part in zip(maps, found, strict=True):
            whole[:, *at.core] = part[:, *at.inner]
    surprise, entropy, variance, *saved = maps
    return Evidence(PixelEvidence(surprise, entropy, variance, saved[0] if saved else None), code)


def tiles(rows: int, columns: int, side: int, beyond: int) -> Iterator[Tile]:
    """Squares that cover so many rows and columns, each with what lies ``beyond`` its border inside the image.

    >>> [tile.core[1].stop for tile in tiles(2, 5, 2, 1)]
    [2, 4, 5]
    """
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            core = slice(top, min(rows, top + side)), slice(left, min(columns, left + side))
            outer = tuple(slice(max(0, s.start - beyond), min(length, s.stop + beyond)) for s, length in zip(core, (rows, columns), strict=True))
            yield Tile(core, outer)  # type: ignore[arg-type]


def _posterior(model: VLAE, x: Float[Tensor, "1 C H W"], side: int) -> Posterior:
    """q(z|x) of the whole image."""
    unit = _unit(model)
    rows, columns = model.code_shape(*x.shape[2:])[1:]
    found: list[tuple[Tile, Posterior]] = []
    for tile in tiles(rows, columns, max(1, side // unit), -(-reach_of_encoder(model) // unit)):
        found.append((tile, model.posterior(x[:, :, *tile.times(unit).outer])))

    def joined(part: Callable[[Posterior], Tensor]) -> Tensor:
        whole = x.new_empty(1, part(found[0][1]).shape[1], rows, columns)
        for tile, posterior in found:
            whole[:, :, *tile.core] = part(posterior)[:, :, *tile.inner]
        return whole

    first = found[0][1]
    context = None if first.context is None else joined(lambda p: p.context)  # type: ignore[arg-type, return-value]
    return Posterior(joined(lambda p: p.mean), joined(lambda p: p.log_std), first.flow, context)


def _unit(model: VLAE) -> int:
    """The side of a place of the code in pixels; 1 without a code."""
    assert model.encoder is None or isinstance(model.encoder, GridEncoder)
    return 1 if model.encoder is None else 2**model.encoder.pyramid.levels


def reach_of_encoder(model: VLAE) -> int:
    """How far from a place, in pixels, the image can change its posterior."""
    unit = _unit(model)
    return _reach(lambda x: model.posterior(x).mean.repeat_interleave(unit, 2).repeat_interleave(unit, 3), model.decoder.head.colours, unit, 1)


def reach_of_decoder(model: VLAE) -> int:
    """How far from a pixel, in pixels, the image or the code can change its distribution."""
    unit, decoder = _unit(model), model.decoder
    shape = model.code_shape(unit, unit)[:1]

    def given(x: Tensor) -> Tensor:
        z = None if model.encoder is None else x.new_zeros(1, *shape, *model.code_shape(*x.shape[2:])[1:])
        return decoder(z, x).log_prob(torch.zeros_like(x))[:, None]

    def coded(z: Tensor) -> Tensor:
        x = z.new_zeros(1, decoder.head.colours, z.shape[2] * unit, z.shape[3] * unit)
        return decoder(z, x).log_prob(x)[:, None]

    around = _reach(given, decoder.head.colours, unit, 1)
    return around if model.encoder is None else max(around, _reach(coded, shape[0], unit, unit))


def _reach(network: Callable[[Tensor], Tensor], channels: int, unit: int, each: int) -> int:
    """How far a network carries one value of its input, found by making it not a number: whatever depends on it is none either.

    Args:
        network: from (1, channels, h, w) to maps of pixels.
        channels: of its input.
        unit: its input's sides are multiples of this many pixels.
        each: pixels for each place of the input.
    """
    places = 4 * max(1, unit // each)
    while True:
        places *= 2
        middle = places // 2
        values = torch.zeros(1, channels, places, places)
        values[:, :, middle, middle] = torch.nan
        lost = network(values).isnan().any(1)[0].nonzero()
        if not len(lost):
            return unit
        first, last = lost.amin(0), lost.amax(0)
        if first.min() > 0 and last.max() < places * each - 1:
            return int(torch.cat([middle * each - first, last - middle * each]).max()) + unit
