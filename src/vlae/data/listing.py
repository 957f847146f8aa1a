"""The files below a folder."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vlae.data.source import LeftOut, natural


class File(NamedTuple):
    """A regular file, with what shows that it has not changed since."""

    path: Path
    size: int
    mtime_ns: int


class Listing(NamedTuple):
    """The files below a folder by their relative POSIX names, in natural order, and what was passed over."""

    files: dict[str, File]
    left_out: tuple[LeftOut, ...]


def list_files(folder: Path, skip: Path) -> Listing:
    """List the files below ``folder`` but for hidden ones and the folder ``skip``; links are followed, and each folder is entered once."""
    files: dict[str, File] = {}
    left_out: list[LeftOut] = []
    for path in _walk(folder, skip.resolve(), left_out):
        name = path.relative_to(folder).as_posix()
        found = _regular(path, name)
        if isinstance(found, File):
            files[name] = found
        else:
            left_out.append(found)
    return Listing(dict(sorted(files.items(), key=lambda entry: natural(entry[0]))), tuple(left_out))


def _walk(folder: Path, skip: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        left_out.append(LeftOut(os.path.relpath(error.filename, folder), f"folder cannot be opened ({error.strerror})"))

    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            left_out.append(LeftOut(os.path.relpath(root, folder), "link to a folder that was read already", harmless=True))
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(root, name).resolve() != skip)
        yield from (Path(root, name) for name in names)


def _regular(path: Path, name: str) -> File | LeftOut:
    try:
        name.encode()
    except UnicodeEncodeError:
        return LeftOut(name.encode("utf-8", "backslashreplace").decode(), "its name is not valid UTF-8")
    if path.name.startswith("."):
        return LeftOut(name, "hidden", harmless=True)
    try:
        status = path.stat()
    except OSError as error:
        return LeftOut(name, f"cannot be opened ({error.strerror})")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        return LeftOut(name, "not a regular file", harmless=True)
    return File(path, status.st_size, status.st_mtime_ns)
