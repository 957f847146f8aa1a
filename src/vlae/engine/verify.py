"""Decode every image of an archive, and compare it with what was stored."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vlae.archive.archive import MODELS, Archive, Image
from vlae.archive.parts import Damaged, read_names
from vlae.engine.pool import Progress, spread

Key = tuple[str, bytes]
"""An image by its name and the SHA-256 of its pixels: one that was damaged may have been added again, and is one image."""


@dataclass(frozen=True)
class Verified:
    """The names of the images whose pixels came out as they were stored; which did not, and which copy of the model is not as it was."""

    whole: tuple[str, ...]
    damaged: tuple[Damaged, ...]


def verify(archive: Archive, processes: int | None = None, progress: Progress | None = None) -> Verified:
    """Decode every image of an archive and compare its pixels with their SHA-256."""
    parts = archive.parts
    total = sum(len(read_names(part)) for part in parts)
    found = list(spread(_Verify(archive.folder), parts, total, processes, progress))
    whole = [key for one in found for key in one.whole]
    damaged = lost([d for one in found for d in one.damaged], whole)
    return Verified(tuple(name for name, _ in whole), (*damaged, *_copies(archive)))


def lost(damaged: Iterable[Damaged], whole: Iterable[Key]) -> tuple[Damaged, ...]:
    """Those that are damaged and not whole elsewhere in the archive; where of one only the name is known, by that."""
    keys = set(whole)
    names = {name for name, _ in keys}
    return tuple(d for d in damaged if (d.name not in names if d.sha256 is None else (d.name, d.sha256) not in keys))


def _copies(archive: Archive) -> Iterator[Damaged]:
    """The copies of the model that are not what the images are decoded with."""
    for name in MODELS:
        path = archive.folder / name
        if not path.is_file() or path.read_bytes() != archive.codec.data:
            yield Damaged(name, f"this copy of the model is {'damaged' if path.exists() else 'gone'}; the command that wrote the archive mends it")


class _Found(NamedTuple):
    """What came out of a part."""

    whole: list[Key]
    damaged: list[Damaged]


@dataclass(frozen=True)
class _Verify:
    folder: Path

    @cached_property
    def archive(self) -> Archive:
        return Archive.open(self.folder)

    def __call__(self, part: Path, step: Callable[[int], None]) -> _Found:
        found = _Found([], [])
        for image in self.archive.images([part]):
            if isinstance(image, Image):
                found.whole.append((image.row.about.name, image.row.about.sha256))
            else:
                found.damaged.append(image)
            step(1)
        return found
