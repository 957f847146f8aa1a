"""Give the images of an archive back, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlae.archive.archive import Archive, Image
from vlae.archive.parts import Damaged, read_names
from vlae.data.exact import Exact, write_exact
from vlae.engine.pool import Progress, spread
from vlae.engine.run import output_folder
from vlae.errors import ArchiveError


@dataclass(frozen=True)
class Decompressed:
    """How many images came out, and which are damaged."""

    images: int
    damaged: tuple[Damaged, ...]


def decompress(archive: Archive, output: Path, processes: int | None = None, progress: Progress | None = None) -> Decompressed:
    """Write every image of an archive as a PNG with its orientation, profile and EXIF; only what is right by its SHA-256 is written.

    ``parts/a.png`` becomes ``OUTPUT/parts/a.png``, and ``parts/b.jpg`` becomes ``OUTPUT/parts/b.jpg.png``: it is no JPEG any more.

    Raises:
        ArchiveError: no image came out, or a part is of another model or of a newer format.
        DiskError: the folder is not new, or cannot be written.
    """
    parts = archive.parts
    total = sum(len(read_names(part)) for part in parts)
    with output_folder(output):
        found = list(spread(_Decompress(archive.folder, output), parts, total, processes, progress))
    images, damaged = sum(one.images for one in found), tuple(d for one in found for d in one.damaged)
    if damaged and not images:
        raise ArchiveError(f"No image of {archive.folder} can be given back", found=f"{damaged[0].name}: {damaged[0].reason}", do="Restore it")
    return Decompressed(images, damaged)


@dataclass(frozen=True)
class _Decompress:
    folder: Path
    output: Path

    @cached_property
    def archive(self) -> Archive:
        return Archive.open(self.folder)

    def __call__(self, part: Path, step: Callable[[int], None]) -> Decompressed:
        images, damaged = 0, []
        for image in self.archive.images([part]):
            if isinstance(image, Damaged):
                damaged.append(image)
            elif (path := _inside(self.output, image.row.about.name)) is None:
                damaged.append(Damaged(image.row.about.name, "its name leads out of the folder"))
            else:
                write_exact(path, _exact(image))
                images += 1
            step(1)
        return Decompressed(images, tuple(damaged))


def _exact(image: Image) -> Exact:
    about = image.row.about
    return Exact(image.pixels, image.row.packed.stored.form.depth, about.orientation, about.icc, about.exif)


def _inside(folder: Path, name: str) -> Path | None:
    """Where an image is written; None for a name that a hostile archive made to lie elsewhere."""
    path = folder / (name if name.lower().endswith(".png") else f"{name}.png")
    return path if name and folder.resolve() in path.resolve().parents else None
