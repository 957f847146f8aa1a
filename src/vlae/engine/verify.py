"""What of an archive can be trusted: pixels, decoded and compared with what was stored, and names, before files are named after them."""

import errno
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path, PurePosixPath

from vlae.archive.archive import Archive, Image
from vlae.archive.parts import Damaged, read_names
from vlae.engine.pool import Progress, spread
from vlae.errors import DiskError

FOLDS = sys.platform in ("win32", "darwin")
"""Whether ``a.png`` and ``A.png`` are one file here."""
OUTSIDE = "its name leads out of the folder"
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


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


def places(names: Sequence[str], always: bool = False) -> list[str | None]:
    """For each name the path of a PNG in a folder, no two of them the same; None for a name that a hostile archive made to lie elsewhere.

    >>> places(["b.jpg", "b.jpg.png", "a.png", "a.png", "../a.png"])
    ['b.jpg.1.png', 'b.jpg.png', 'a.png.1.png', 'a.png', None]

    Args:
        names: of images; of those that are the same, the last is the newest, and keeps its name.
        always: whether a name gets the ending that has it already.
    """
    found: list[str | None] = [None] * len(names)
    inside = [n for n, name in enumerate(names) if _inside(name)]
    taken = {_folded(str(folder)) for n in inside for folder in PurePosixPath(names[n]).parents}
    kept = {n for n in inside if not always and names[n].lower().endswith(".png")}
    for n in sorted(reversed(inside), key=lambda n: n not in kept):
        name = names[n]
        wanted = chain([name if n in kept else f"{name}.png"], (f"{name}.{k}.png" for k in count(1)))
        found[n] = place = next(place for place in wanted if _folded(place) not in taken)
        taken.add(_folded(place))
    return found


def unnamed(error: DiskError) -> str:
    """Why no file can be named after an image. Any other failure (a full disk, say) would meet the next image as well, and is raised."""
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in _OF_THE_NAME:
        raise error
    return f"no file can be named after it ({cause.strerror})"


def _inside(name: str) -> bool:
    """Whether a name is one of ours: of a file below a folder."""
    return Path(name).parts == tuple(name.split("/")) and ".." not in name.split("/") and "\0" not in name and not Path(name).anchor


def _folded(place: str) -> str:
    return unicodedata.normalize("NFC", place).casefold() if FOLDS else place


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
