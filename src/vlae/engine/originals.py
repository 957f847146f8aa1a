"""The files that images came from, beside what an archive has of them."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from vlae.archive.archive import Archive
from vlae.archive.parts import About, Row, read_names
from vlae.data.exact import HOLDS_MORE, Exact, read_exact
from vlae.data.files import synced
from vlae.data.read import Refused
from vlae.data.spool import identity
from vlae.engine.places import nameable


def about_of(name: str, image: Exact, size: int) -> About:
    """What an archive keeps of an image beside its pixels; its file has so many bytes."""
    return About(name, bytes.fromhex(identity(image.pixels, image.depth)), image.orientation, image.icc, image.exif, size)


def stamp(about: About) -> bytes:
    """What two files have in common of which an archive keeps the same: pixels, orientation, profile and EXIF."""
    return hashlib.sha256(repr((about.sha256, about.orientation, about.icc, about.exif)).encode()).digest()


def stamps(archive: Archive, names: Collection[str]) -> dict[str, bytes]:
    """The stamps of the images of these names whose streams are whole in the archive."""
    parts = [part for part in archive.parts if not (listed := read_names(part)) or not set(names).isdisjoint(listed)]
    return {row.about.name: stamp(row.about) for row in archive.rows(parts, streams=True) if isinstance(row, Row) and row.about.name in names}


def delete_originals_of(archive: Archive, files: Mapping[str, Path], whole: Collection[str]) -> int:
    """Delete the files that an archive can stand for; how many.

    These are files of images that came out ``whole``, of which the archive keeps what is on the disk at this moment, that held no more than
    that as far as we know (a JPEG does: its pixels are one decoder's), that take more room than their streams, and after
    which a PNG can be named.
    """
    kept: dict[str, list[tuple[bytes, int]]] = {}
    for row in archive.rows(streams=True):
        if isinstance(row, Row):
            kept.setdefault(row.about.name, []).append((stamp(row.about), len(row.packed.stored.stream)))
    for folder in (archive.folder / "parts", archive.folder, archive.folder.absolute().parent):
        synced(folder)
    deleted = 0
    for name in sorted(name for name in set(whole) & files.keys() & kept.keys() if nameable(name)):
        if _replaced(files[name], kept[name]):
            files[name].unlink()
            deleted += 1
    return deleted


def _replaced(path: Path, kept: list[tuple[bytes, int]]) -> bool:
    """Whether all that an archive keeps under one name, by stamp and length of the stream, stands for a file."""
    try:
        image, size = read_exact(path), path.stat().st_size
    except (Refused, OSError):
        return False
    same = {mark for mark, _ in kept} == {stamp(about_of("", image, size))}
    return same and HOLDS_MORE.isdisjoint(image.notes) and size > max(length for _, length in kept)
