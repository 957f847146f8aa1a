"""Give the images of an archive back, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vlae.archive.archive import Archive, Image
from vlae.archive.parts import Damaged, Row
from vlae.data.exact import Exact, write_exact
from vlae.engine.pool import Progress, spread
from vlae.engine.run import output_folder
from vlae.engine.verify import OUTSIDE, places, unnamed
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
        ArchiveError: no image came out, or a part is of another model or of a newer format.
        DiskError: the folder is not new, or cannot be written.
    """
    jobs = _jobs(archive)
    total = sum(len(some) for job in jobs for some in job.places.values())
    with output_folder(output):
        found = list(spread(_Decompress(archive.folder, output), jobs, total, processes, progress))
    images, damaged = sum(one.images for one in found), tuple(d for one in found for d in one.damaged)
    if damaged and not images:
        raise ArchiveError(f"No image of {archive.folder} can be given back", found=f"{damaged[0].name}: {damaged[0].reason}", do="Restore it")
    return Decompressed(images, damaged)


class _Job(NamedTuple):
    """A part, and where its images are written, by their names."""

    part: Path
    places: dict[str, list[str | None]]


def _jobs(archive: Archive) -> list[_Job]:
    names = [[row.about.name if isinstance(row, Row) else row.name for row in archive.rows([part])] for part in archive.parts]
    found = iter(places([name for some in names for name in some]))
    jobs = [_Job(part, {name: [] for name in some}) for part, some in zip(archive.parts, names, strict=True)]
    for job, some in zip(jobs, names, strict=True):
        for name in some:
            job.places[name].append(next(found))
    return jobs


@dataclass(frozen=True)
class _Decompress:
    folder: Path
    output: Path

    @cached_property
    def archive(self) -> Archive:
        return Archive.open(self.folder)

    def __call__(self, job: _Job, step: Callable[[int], None]) -> Decompressed:
        images, damaged = 0, []
        for image in self.archive.images([job.part]):
            if isinstance(image, Damaged):
                damaged.append(image)
            elif (reason := self._write(image, (job.places.get(image.row.about.name) or [None]).pop())) is not None:
                damaged.append(Damaged(image.row.about.name, reason))
            else:
                images += 1
            step(1)
        return Decompressed(images, tuple(damaged))

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
