"""An archive: a folder that holds images, bit for bit, and the model that they are decoded with.

model.safetensors        the codec: a decoder's integer twin and its codebook
model.copy.safetensors   the same again
parts/part-00000.parquet the images, a row each
parts/part-00000.names.json their names, for when the part cannot be read any more
"""

import hashlib
import io
import re
import secrets
import tempfile
import weakref
import zipfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow.dataset as ds

from vlae.archive.codec import Codec
from vlae.archive.pack import AT_ONCE as PIXELS_AT_ONCE
from vlae.archive.pack import Stored, unpack
from vlae.archive.parts import FORMAT, SCHEMA, Damaged, Row, format_and_codec, read_names, read_part
from vlae.data.files import beside, disk_errors
from vlae.data.read import Pixels
from vlae.data.spool import identity
from vlae.errors import ArchiveError

MODELS = ("model.safetensors", "model.copy.safetensors")
MOST_PIXELS = 2**30
"""of an image, at most: a damaged or hostile row must not fill the memory"""
_PART = r"part-\d{5,9}-[0-9a-f]{8}"
_MEMBER = re.compile(rf"model(\.copy)?\.safetensors|parts/{_PART}\.(parquet|names\.json)")
AT_ONCE = 256
"""images that are decoded together, at most"""


class Image(NamedTuple):
    """An image as it came out of an archive."""

    row: Row
    pixels: Pixels


class Archive:
    """An archive that exists. ``archive[name]`` is an image's pixels, (height, width, channels)."""

    def __init__(self, folder: Path, codec: Codec) -> None:
        self.folder, self.codec = folder, codec

    @classmethod
    def open(cls, folder: Path) -> "Archive":
        """Open an archive.

        Raises:
            ArchiveError: it is missing, none of ours, of a newer format, or both copies of its model are damaged.
        """
        copies = [folder / name for name in MODELS if (folder / name).is_file()]
        if not copies:
            raise ArchiveError(f"{folder} is not an archive", rule="An archive is a folder made by vlae compress", do="Give the folder of an archive")
        if not (folder / "parts").is_dir():
            raise ArchiveError(f"{folder} has no parts", rule="The images of an archive are in the folder parts", do="Restore it from elsewhere")
        told = [one for part in _parts(folder) if (one := format_and_codec(part))]
        if told and all(form > FORMAT for form, _ in told):
            raise ArchiveError(f"{folder} was written by a newer version", found=f"format {told[0][0]}", do="Update vlae")
        found = {hashlib.sha256(data).hexdigest(): data for data in (path.read_bytes() for path in copies)}
        keys = {key for _, key in told}
        agreed = len(found) == 1 and (len(copies) > 1 or not keys)  # what two copies agree on is whole, whatever a damaged part calls it
        whole = [data for key, data in found.items() if key in keys] or (list(found.values()) if agreed else [])
        if len(whole) != 1:
            rule = "The copies are the same, or known to the parts"
            raise ArchiveError(f"Both copies of the model of {folder} are damaged", rule=rule, do="Restore one")
        return cls(folder, Codec.read(whole[0]))

    @classmethod
    def of(cls, data: bytes) -> "Archive":
        """Open an archive in memory: what ``data`` gives.

        Raises:
            ArchiveError: these bytes are none.
        """
        held = tempfile.TemporaryDirectory(prefix="vlae-")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                for member in file.infolist():
                    if not _MEMBER.fullmatch(member.filename) or member.compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"it holds {member.filename!r}")
                    file.extract(member, held.name)
            (Path(held.name) / "parts").mkdir(exist_ok=True)
            archive = cls.open(Path(held.name))
        except ArchiveError:
            held.cleanup()
            raise
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
            held.cleanup()
            raise ArchiveError("These bytes are no archive", found=str(error), do="Give what vlae.compress returned") from None
        weakref.finalize(archive, held.cleanup)
        return archive

    @property
    def data(self) -> bytes:
        """The whole archive in one piece: a zip file of its folder, without compression."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
            for path in [*(self.folder / name for name in MODELS), *sorted((self.folder / "parts").glob("part-*"))]:
                if path.is_file():  # without its time: the same images are the same bytes
                    file.writestr(zipfile.ZipInfo(path.relative_to(self.folder).as_posix()), path.read_bytes())
        return buffer.getvalue()

    @classmethod
    def create(cls, folder: Path, codec: Codec) -> "Archive":
        """Make an archive without images in a new or empty folder.

        Raises:
            DiskError: it cannot be written.
        """
        for name in MODELS:
            with beside(folder / name) as file:
                file.write(codec.data)
        with disk_errors(folder):
            (folder / "parts").mkdir(exist_ok=True)
        return cls(folder, codec)

    @cached_property
    def key(self) -> str:
        """By which the parts know the model."""
        return self.codec.key

    @property
    def parts(self) -> list[Path]:
        """The files of the parts, in order; one that is gone is among them while its list of names is there."""
        return _parts(self.folder)

    def new_part(self, number: int) -> Path:
        """The file of a part that is still to be written, the ``number``-th from now; no other writer has the same."""
        last = max((int(path.name.split("-")[1]) for path in self.parts), default=-1)
        return self.folder / "parts" / f"part-{last + 1 + number:05d}-{secrets.token_hex(4)}.parquet"

    def rows(self, parts: Iterable[Path] | None = None, streams: bool = False) -> Iterator[Row | Damaged]:
        """What is known of each image; of one that is damaged, that it is."""
        for part in self.parts if parts is None else parts:
            yield from read_part(part, self.key, streams)

    def images(self, parts: Iterable[Path] | None = None, names: frozenset[str] | None = None) -> Iterator[Image | Damaged]:
        """Every image, or those of these names, decoded and checked against its SHA-256; of one that does not come out right, why."""
        waiting: list[Row] = []
        for row in self.rows(parts, streams=True):
            if isinstance(row, Damaged):
                yield row
            elif names is None or row.about.name in names:
                waiting.append(row)
            if len(waiting) >= AT_ONCE or _pixels(waiting) >= 2 * PIXELS_AT_ONCE:
                yield from self._decoded(waiting)
                waiting = []
        yield from self._decoded(waiting)

    def _decoded(self, rows: list[Row]) -> Iterator[Image | Damaged]:
        try:
            found = unpack(self.codec, [_possible(row.packed.stored) for row in rows])
        except Exception as error:  # a damaged stream whose checksum is right is hostile, and may make a decoder raise anything
            if len(rows) > 1:  # find out which
                for row in rows:
                    yield from self._decoded([row])
                return
            why = (str(error).splitlines() or [""])[0][:100]
            yield Damaged(rows[0].about.name, f"its stream cannot be decoded ({why})", rows[0].about.sha256)
            return
        for row, pixels in zip(rows, found, strict=True):
            name, sha256 = row.about.name, row.about.sha256
            right = bytes.fromhex(identity(pixels, row.packed.stored.form.depth)) == sha256
            yield Image(row, pixels) if right else Damaged(name, "its pixels are not those that were stored (SHA-256)", sha256)

    @cached_property
    def _part_of(self) -> dict[str, Path]:
        return {name: part for part in self.parts for name in self._names(part)}

    def _names(self, part: Path) -> list[str]:
        return read_names(part) or [r.about.name if isinstance(r, Row) else r.name for r in self.rows([part])]

    @property
    def names(self) -> list[str]:
        """The names of all images."""
        return list(self._part_of)

    def __len__(self) -> int:
        return len(self._part_of)

    def __getitem__(self, name: str) -> Pixels:
        """The pixels of an image.

        Raises:
            KeyError: the archive holds none of this name.
            ArchiveError: it is damaged.
        """
        parts = [self._part_of[name]] if name in self._part_of else self.parts  # a list of names may be damaged
        for image in self.images(parts, frozenset({name})):
            if isinstance(image, Image):
                return image.pixels
            if image.name == name:
                raise ArchiveError(f"{name} of {self.folder} is damaged", found=image.reason)
        raise KeyError(name)

    def dataset(self) -> ds.Dataset:
        """All columns as a pyarrow dataset: codes and bits can be read without touching a pixel."""
        return ds.dataset([str(part) for part in self.parts if part.is_file()], schema=SCHEMA, format="parquet")


def _parts(folder: Path) -> list[Path]:
    names = {path.name.split(".")[0] for path in (folder / "parts").glob("part-*")}
    return [folder / "parts" / f"{name}.parquet" for name in sorted(names) if re.fullmatch(_PART, name)]


def _pixels(rows: list[Row]) -> int:
    return sum(row.packed.stored.size[0] * row.packed.stored.size[1] for row in rows)


def _possible(stored: Stored) -> Stored:
    height, width = stored.size
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS and stored.form.channels in (1, 2, 3, 4) and stored.form.depth in (1, 8, 16)):
        raise ValueError("no image has this size and form")
    return stored
