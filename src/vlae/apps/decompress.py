"""Give the images of an archive back, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vlae.archive.archive import Archive, Image
from vlae.archive.parts import Damaged, Row
from vlae.data.exact import Exact, write_exact
from vlae.engine.folders import output_folder
from vlae.engine.places import OUTSIDE, places, unnamed
from vlae.engine.pool import Progress, spread
from vlae.engine.verify import Key, lost
from vlae.errors import ArchiveError, DiskError


@dataclass(frozen=True)
class Decompressed:
    """How many images came out, and which are damaged."""

    images: int
    damaged: tuple[Damaged, ...]


def decompress(archive: Archive, output: Path, processes: int | None = None, progress: Progress | None = None) -> Decompressed:
    """Write every image of an archive as a PNG with its orientation, profile and EXIF; only what is right by its SHA-256 is written.

    ``parts/a.png`` becomes ``OUTPUT/parts/a.png``, and ``parts/b.jpg`` becomes ``OUTPUT/parts/b.jpg.png``: it is no JPEG any more;
    ``parts/b.jpg.1.png`` where the archive has a ``parts/b.jpg.png`` too.

    Raises:
        ArchiveError: no image came out.
        DiskError: the folder is not new, or cannot be written.
    """
    jobs = _jobs(archive)
    total = sum(len(job.places) for job in jobs)
    with output_folder(output):
        found = list(spread(_Decompress(archive.folder, output), jobs, total, processes, progress))
    written = {key for one in found for key in one.written}
    damaged = lost([d for one in found for d in one.damaged], written)
    if damaged and not written:
        raise ArchiveError(f"No image of {archive.folder} can be given back", found=f"{damaged[0].name}: {damaged[0].reason}", do="Restore it")
    return Decompressed(len(written), damaged)


class _Job(NamedTuple):
    """A part, and where its images are written."""

    part: Path
    places: dict[Key, str | None]


class _Done(NamedTuple):
    """What became of the images of a part."""

    written: list[Key]
    damaged: list[Damaged]


def _jobs(archive: Archive) -> list[_Job]:
    keys = [[_key(row) for row in archive.rows([part]) if isinstance(row, Row)] for part in archive.parts]
    images = list(dict.fromkeys(key for some in keys for key in some))
    found = dict(zip(images, places([name for name, _ in images]), strict=True))
    return [_Job(part, {key: found[key] for key in some}) for part, some in zip(archive.parts, keys, strict=True)]


def _key(row: Row) -> Key:
    return row.about.name, row.about.sha256


@dataclass(frozen=True)
class _Decompress:
    folder: Path
    output: Path

    @cached_property
    def archive(self) -> Archive:
        return Archive.open(self.folder)

    def __call__(self, job: _Job, step: Callable[[int], None]) -> _Done:
        done = _Done([], [])
        for image in self.archive.images([job.part]):
            if isinstance(image, Damaged):
                done.damaged.append(image)
            elif (reason := self._write(image, job.places.get(_key(image.row)))) is not None:
                done.damaged.append(Damaged(image.row.about.name, reason, image.row.about.sha256))
            else:
                done.written.append(_key(image.row))
            step(1)
        return done

    def _write(self, image: Image, place: str | None) -> str | None:
        """Write an image; why not, where that lies in its name."""
        if place is None:
            return OUTSIDE
        try:
            write_exact(self.output / place, _exact(image))
        except DiskError as error:
            return unnamed(error)
        return None


def _exact(image: Image) -> Exact:
    about = image.row.about
    return Exact(image.pixels, image.row.packed.stored.form.depth, about.orientation, about.icc, about.exif)
