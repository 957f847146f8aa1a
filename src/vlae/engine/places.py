"""Files named after images: where each comes to lie, and names after which there is none."""

import errno
import sys
import unicodedata
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath

from vlae.errors import DiskError

FOLDS = sys.platform in ("win32", "darwin")
"""Whether ``a.png`` and ``A.png`` are one file here."""
_LONGEST = 255  # bytes of a file's name
OUTSIDE = "its name leads out of the folder"
# Failures that lie in the name of one file; any other (a full disk, say) would meet the next file as well.
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)


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


def nameable(name: str) -> bool:
    """Whether disks have room for the name of an image's PNG.

    >>> nameable(f"{'x' * 251}.png"), nameable(f"{'x' * 251}.bmp")
    (True, False)
    """
    place = places([name])[0]
    return place is not None and all(len(part.encode()) <= _LONGEST for part in PurePosixPath(place).parts)


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
