"""Draw the images of an archive from their codes alone: the paper's lossy decompression (Chen et al. 2017, arXiv:1611.02731, section 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from vlae.archive.archive import Archive
from vlae.archive.parts import Damaged, Row
from vlae.data.form import Form, convert
from vlae.data.read import Pixels, write_png
from vlae.engine.batches import uniform
from vlae.engine.run import output_folder
from vlae.errors import SettingError


@dataclass(frozen=True)
class Previewed:
    """How many images were drawn, with how many bytes of code all together, and what could not be."""

    images: int
    code_bytes: float
    left_out: tuple[Damaged, ...]


def preview(archive: Archive, output: Path, limit: int | None = None, progress: Callable[[int, int], None] | None = None) -> Previewed:
    """Write ``NAME.png`` for each image, drawn from its code: what the code keeps is right, the rest is made up.

    No stream is read. The random numbers are the image's own, so that the same archive gives the same pictures everywhere.

    Raises:
        SettingError: the model has no code.
        DiskError: the folder is not new, or cannot be written.
    """
    if archive.codec.codebook is None:
        raise SettingError("The model of this archive has no code", rule="A preview is drawn from codes", do="Use vlae decompress")
    rows = list(archive.rows())[:limit]
    left_out: list[Damaged] = []
    code_bits = 0.0
    with output_folder(output):
        for number, row in enumerate(rows, start=1):
            if isinstance(row, Damaged):
                left_out.append(row)
            elif not row.packed.code.size:
                left_out.append(Damaged(row.about.name, "the model has no code for images of this size or form"))
            else:
                write_png(output / f"{row.about.name}.png", _drawn(archive, row), row.packed.stored.form.depth)
                code_bits += row.packed.code_bits
            if progress:
                progress(number, len(rows))
    return Previewed(len(rows) - len(left_out), code_bits / 8, tuple(left_out))


def _drawn(archive: Archive, row: Row) -> Pixels:
    codec, stored = archive.codec, row.packed.stored
    assert codec.codebook is not None
    index = torch.from_numpy(row.packed.code.astype("int64"))
    z = codec.codebook.whole(index.view(1, *codec.code_shape(stored.size))).to(codec.twin.dtype)
    uniforms = uniform((codec.twin.head.uniforms, *stored.size), 0, int.from_bytes(row.about.sha256[:4]))
    pixels = codec.twin.sample(z, uniforms.unsqueeze(0).to(codec.twin.dtype))[0].permute(1, 2, 0)
    model = Form(codec.plan.levels.bit_length() - 1, codec.plan.colours)
    drawn = pixels.numpy().astype("uint16" if model.depth == 16 else "uint8")
    return drawn if model == stored.form else convert(drawn, model, stored.form)[0]
