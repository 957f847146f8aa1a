"""The images of an archive by their codes, straight from its columns: no stream is read and no pixel decoded.

B images of one size, C channels of a code, D numbers of a code.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.archive.archive import Archive
from vlae.archive.codebook import Codebook
from vlae.archive.parts import Damaged, Row
from vlae.archive.twin import CODE_FRACTION
from vlae.core.codes import Posterior
from vlae.data.manifest import Row as Told
from vlae.data.manifest import read_manifest
from vlae.data.source import LeftOut
from vlae.engine.embed import PLACES, Codes, summary
from vlae.engine.retrieval.columns import Column, columns_of
from vlae.engine.retrieval.index import Encoder, Index, Picture, checked
from vlae.errors import ArchiveError, DataError, SettingError

# Codes that are worked on at once.
TOGETHER = 1024


def of_archive(archive: Archive, manifest: Path | None = None) -> Index:
    """The images of an archive that have a code, with what a manifest tells of their names.

    Raises:
        DataError: there is none, or the manifest cannot be used or names none.
        SettingError: the model has no code.
    """
    codebook = archive.codec.codebook
    if codebook is None:
        raise SettingError(f"The model of {archive.folder} has no code", rule="Images are compared by their codes", do="Use another archive")
    rows, left_out = list[Row](), list[LeftOut]()
    for row in archive.rows():
        unfit = LeftOut(row.name, row.reason) if isinstance(row, Damaged) else _unfit(archive, row)
        if unfit is None:
            assert isinstance(row, Row)
            rows.append(row)
        else:
            left_out.append(unfit)
    if not rows:
        found = "; ".join(f"{left.name}: {left.reason}" for left in left_out[:3]) or "no image"
        raise DataError(f"{archive.folder} holds no image with a code", rule="Images are compared by their codes", found=found, do="Use another")
    shapes = [archive.codec.code_shape(row.packed.stored.size) for row in rows]
    places = None if len(shapes[0]) == 1 else min(PLACES, *(side for shape in set(shapes) for side in shape[1:]))
    sizes = np.array([row.packed.stored.size for row in rows], np.int64)
    names = tuple(row.about.name for row in rows)
    sha256 = tuple(row.about.sha256.hex() for row in rows)
    about = (archive.folder, names, sha256, sizes, _codes(codebook, rows, shapes, places or 1), _columns(rows, manifest), places, tuple(left_out))
    return checked(Index(*about, picture=lambda n: Picture(archive[names[n]], rows[n].packed.stored.form.depth)))


def comparing(encoder: Encoder, archive: Archive) -> Encoder:
    """An encoder of images to be compared with those of an archive: it keeps of a code what the archive does.

    Raises:
        ArchiveError: the archive is of another model.
    """
    codec = archive.codec
    if codec.weights != encoder.run.fingerprint():
        what = f"{archive.folder} was made with another model than that of {encoder.run.folder}"
        raise ArchiveError(what, rule="Codes of one model are compared", do="Give its own run")
    codebook = codec.codebook
    assert codebook is not None
    return replace(encoder, kept=lambda posterior: _stored(codebook, codebook.index(posterior.centre.cpu())))


def _unfit(archive: Archive, row: Row) -> LeftOut | None:
    """Why a row has no code that can be compared; None where it has one."""
    if not row.packed.code.size:
        return LeftOut(row.about.name, "the model has no code for images of this size or form", harmless=True)
    height, width = row.packed.stored.size
    if min(height, width) < 1 or row.packed.code.size != math.prod(archive.codec.code_shape((height, width))):
        return LeftOut(row.about.name, "its code is not that of an image of its size")
    return None


def _stored(codebook: Codebook, index: Tensor) -> Posterior:
    """The codes that indices (B, C, ...) stand for. Each is known to its step and no better: like a uniform of that width, step / sqrt(12)."""
    width = (codebook.steps.double() / 2**CODE_FRACTION / math.sqrt(12)).log()
    return Posterior(codebook.code(index), width.view(-1, *[1] * (index.dim() - 2)).expand_as(index))


def _codes(codebook: Codebook, rows: list[Row], shapes: list[tuple[int, ...]], places: int) -> Codes:
    """The codes of rows, in their order, from indices of these shapes."""
    found = np.zeros((2, len(rows), shapes[0][0] * places**2))
    for shape in set(shapes):
        members = [n for n, other in enumerate(shapes) if other == shape]
        for first in range(0, len(members), TOGETHER):
            some = members[first : first + TOGETHER]
            index = torch.from_numpy(np.stack([rows[n].packed.code.reshape(shape) for n in some]).astype(np.int64))
            found[:, some] = summary(_stored(codebook, index), places)
    return Codes(*found)


def _columns(rows: list[Row], manifest: Path | None) -> dict[str, Column]:
    names = ("file_bytes", "code_bits", "pixel_bits")
    values = ((row.about.file_bytes, row.packed.code_bits, row.packed.pixel_bits) for row in rows)
    columns: dict[str, Column] = dict(zip(names, np.array(list(values), np.float64).T, strict=True))
    columns["encoding"] = np.array([row.packed.stored.encoding for row in rows], object)
    return columns if manifest is None else columns | _told(manifest, [row.about.name for row in rows])


def _told(manifest: Path, names: list[str]) -> dict[str, Column]:
    """What a manifest says of the images of these names."""
    told: Mapping[str, Told] = {row.image: row for row in read_manifest(manifest)}
    if not any(name in told for name in names):
        rule = "Its column name holds names as they are in the archive"
        raise DataError(f"{manifest} names no image of the archive", rule=rule, found=", ".join(names[:3]), do="Correct the names")
    return columns_of([told.get(name) for name in names])
