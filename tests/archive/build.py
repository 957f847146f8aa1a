"""Codecs of small random decoders, images that they code well, and small archives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vlae.archive.archive import Archive
from vlae.archive.codebook import Codebook
from vlae.archive.codec import Codec
from vlae.archive.coder import Index
from vlae.archive.pack import Encoder, Packed, Plain, pack
from vlae.archive.parts import About, Row, write_part
from vlae.archive.twin import twin
from vlae.archive.whole import WholeConv, WholeGate, WholeOut
from vlae.core.causal import Conditioning
from vlae.core.decoder import Decoder
from vlae.core.plan import DecoderPlan
from vlae.core.window import Context
from vlae.data.spool import identity

from ..core.build import PYRAMID, levels, randomise

Code = Literal["none", "vector", "grid"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Made:
    """A decoder, its codec, and the indices and images that it was calibrated on."""

    real: Decoder
    codec: Codec
    index: Index
    x: Tensor

    @property
    def z(self) -> Tensor | None:
        """The codes in the twin's whole numbers."""
        return None if self.index is None or self.codec.codebook is None else self.codec.codebook.whole(self.index).to(self.codec.twin.dtype)

    @property
    def codes(self) -> Tensor | None:
        """The codes as the decoder takes them."""
        return None if self.index is None or self.codec.codebook is None else self.codec.codebook.code(self.index).float()


def plan(
    name: str = "stack2",
    context: Context = "pixels",
    levels: int = 256,
    colours: int = 1,
    code: Code = "grid",
    size: Size | None = None,
    condition: Conditioning = "layers",
    pointwise: int = 1,
) -> DecoderPlan:
    """A decoder of 4 channels with a vector code of 3 dimensions, a grid code of 2 channels, or no code."""
    dims = {"none": 0, "vector": 3, "grid": 2}[code]
    image = size if code == "vector" or name == "all" else None
    components, hidden = (0 if levels == 2 else 2), (5 if code == "vector" else 0)
    shape = (PYRAMID.widths, PYRAMID.blocks, PYRAMID.kind, 2, 4, pointwise)
    return DecoderPlan(name, context, image, levels, colours, components, code, dims, hidden, *shape, condition)


def made(wanted: DecoderPlan, batch: int = 3, size: Size = (6, 7), coarseness: float = 1.0, tame: bool = False) -> Made:
    """All of random weights; a ``tame`` decoder expects every pixel to be about half of white, see ``expected``."""
    real = wanted.decoder()
    randomise(real)
    if tame:
        with torch.no_grad():
            real.out.g.mul_(0.03)
            real.out.b.zero_()
            if real.net.prediction is not None:
                real.net.prediction.zero_()
    x, codebook, index, z = levels(wanted.head, batch, size).float(), None, None, None
    if wanted.code != "none":
        codes = torch.randn(batch, wanted.dims, *(PYRAMID.grid(*size) if wanted.code == "grid" else ()))
        codebook = Codebook.of(codes, 0.1 + 0.4 * torch.rand_like(codes), coarseness)
        index = codebook.index(codes)
        z = codebook.code(index).float()
    codec = Codec(wanted, twin(real, z, x), codebook, "0" * 64)
    return Made(real, codec, index, x.to(codec.twin.dtype))


def encoder(codec: Codec) -> Encoder | None:
    """Codes of images: their pixels, thinned out. (One multiplication of float64 each: the same on every machine.)"""
    if codec.plan.code == "none":
        return None
    top = codec.plan.levels - 1

    def thinned(x: Tensor) -> Tensor:
        some = x[:, :1, ::2, ::2].double() * (2 / top) - 1
        return some.expand(-1, codec.plan.dims, -1, -1) if codec.plan.code == "grid" else some.flatten(1)[:, : codec.plan.dims]

    return thinned


def expected(form: tuple[int, int], size: Size, seed: int = 0) -> Plain:
    """An image of this depth and so many channels that a tame decoder codes well."""
    depth, channels = form
    random = np.random.default_rng(seed)
    if depth == 1:
        return Plain(random.integers(0, 2, (*size, channels), np.uint8), 1)
    values = (0.5 + random.logistic(0, 0.5 / 20, (*size, channels))) * (2**depth - 1)
    return Plain(values.clip(0, 2**depth - 1).astype(np.uint16 if depth == 16 else np.uint8), depth)


def tensors(whole: Decoder, z: Tensor | None, x: Tensor) -> list[Tensor]:
    """Every layer's values and the frequencies of a twin."""
    found: list[Tensor] = []
    kinds = (WholeConv, WholeGate, WholeOut)
    hooks = [m.register_forward_hook(lambda m, given, value: found.append(value.clone())) for m in whole.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        told = whole(z, x)
    for hook in hooks:
        hook.remove()
    colours = x.long().unbind(1)
    return [*found, *(told.colour(c, colours[:c]).below(level) for c, level in enumerate(colours))]


def row(name: str, image: Plain, packed: Packed) -> Row:
    """An image of an archive, upright and without a profile."""
    return Row(About(name, bytes.fromhex(identity(image.pixels, image.depth)), 1, None, None, image.pixels.nbytes), packed)


def archive(folder: Path, codec: Codec, images: dict[str, Plain], each: int = 256) -> Archive:
    """An archive of images, so many a part."""
    new = Archive.create(folder, codec)
    rows = [row(name, image, packed) for (name, image), packed in zip(images.items(), pack(codec, encoder(codec), [*images.values()]), strict=True)]
    for first in range(0, len(rows), each):
        write_part(new.new_part(0), rows[first : first + each], codec)
    return new
