"""Draw the images of an archive from their codes alone: the paper's lossy decompression (Chen et al. 2017, arXiv:1611.02731, section 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from vlae.archive.archive import Archive
from vlae.archive.parts import Damaged, Row
from vlae.data.exact import png
from vlae.data.files import beside
from vlae.data.form import convert
from vlae.data.read import Pixels
from vlae.engine.batches import uniform
from vlae.engine.folders import output_folder
from vlae.engine.places import OUTSIDE, places, unnamed
from vlae.errors import DiskError, SettingError


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
    names = [row.name if isinstance(row, Damaged) else row.about.name for row in rows]
    left_out: list[Damaged] = []
    code_bits = 0.0
    with output_folder(output):
        for number, (row, name, place) in enumerate(zip(rows, names, places(names, always=True), strict=True), start=1):
            if reason := row.reason if isinstance(row, Damaged) else _write(archive, row, output, place):
                left_out.append(Damaged(name, reason))
            else:
                assert isinstance(row, Row)
                code_bits += row.packed.code_bits
            if progress:
                progress(number, len(rows))
    return Previewed(len(rows) - len(left_out), code_bits / 8, tuple(left_out))


def _write(archive: Archive, row: Row, output: Path, place: str | None) -> str | None:
    """Draw an image; why not, where that lies in the image."""
    if not row.packed.code.size:
        return "the model has no code for images of this size or form"
    if place is None:
        return OUTSIDE
    try:
        data = png(_drawn(archive, row), row.packed.stored.form.depth)
    except Exception as error:  # a row whose checksum is right but whose code is none is hostile, and may make a decoder raise anything
        return f"its code cannot be drawn ({(str(error).splitlines() or [''])[0][:100]})"
    try:
        with beside(output / place) as file:
            file.write(data)
    except DiskError as error:
        return unnamed(error)
    return None


def _drawn(archive: Archive, row: Row) -> Pixels:
    codec, stored = archive.codec, row.packed.stored
    assert codec.codebook is not None
    index = torch.from_numpy(row.packed.code.astype("int64"))
    z = codec.codebook.whole(index.view(1, *codec.code_shape(stored.size))).to(codec.twin.dtype)
    uniforms = uniform((codec.twin.head.uniforms, *stored.size), 0, int.from_bytes(row.about.sha256[:4]))
    pixels = codec.twin.sample(z, uniforms.unsqueeze(0).to(codec.twin.dtype))[0].permute(1, 2, 0)
    model = codec.form
    drawn = pixels.numpy().astype("uint16" if model.depth == 16 else "uint8")
    return drawn if model == stored.form else convert(drawn, model, stored.form)[0]
