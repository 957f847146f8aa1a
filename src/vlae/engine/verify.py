"""Decode every image of an archive, and compare it with what was stored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlae.archive.archive import Archive, Image
from vlae.archive.parts import Damaged, read_names
from vlae.engine.pool import Progress, spread


@dataclass(frozen=True)
class Verified:
    """Whose pixels came out as they were stored, and whose did not."""

    whole: tuple[str, ...]
    damaged: tuple[Damaged, ...]


def verify(archive: Archive, processes: int | None = None, progress: Progress | None = None) -> Verified:
    """Decode every image of an archive and compare its pixels with their SHA-256.

    Raises:
        ArchiveError: a part is of another model, or of a newer format.
    """
    parts = archive.parts
    total = sum(len(read_names(part)) for part in parts)
    found = list(spread(_Verify(archive.folder), parts, total, processes, progress))
    whole = [name for one in found for name in one.whole]
    return Verified(tuple(whole), lost([d for one in found for d in one.damaged], whole))


def lost(damaged: Iterable[Damaged], whole: Iterable[str]) -> tuple[Damaged, ...]:
    """Those that are damaged and not whole elsewhere in the archive: an image that was damaged may have been added again."""
    names = set(whole)
    return tuple(one for one in damaged if one.name not in names)


@dataclass(frozen=True)
class _Verify:
    folder: Path

    @cached_property
    def archive(self) -> Archive:
        return Archive.open(self.folder)

    def __call__(self, part: Path, step: Callable[[int], None]) -> Verified:
        whole: list[str] = []
        damaged: list[Damaged] = []
        for image in self.archive.images([part]):
            if isinstance(image, Image):
                whole.append(image.row.about.name)
            else:
                damaged.append(image)
            step(1)
        return Verified(tuple(whole), tuple(damaged))
