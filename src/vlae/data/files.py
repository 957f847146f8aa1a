"""Files that are written completely or not at all, and known by their content."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vlae.errors import DiskError

# What the two marks of UTF-16 begin with in cp932, in which nothing else begins so.
UTF_16 = tuple(b"\xff\xfe".decode("cp932"))


@contextmanager
def beside(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears at ``path`` complete or not at all: written beside it, synced, renamed.

    Missing folders are made. Nothing is left behind when the body raises, and an older file at ``path`` stays as it was.
    Errors: ``DiskError`` where the disk is full, read-only or forbidden.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "a.bin"
    >>> with beside(target) as file:
    ...     _ = file.write(b"all of it")
    >>> target.read_bytes()
    b'all of it'
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def synced(folder: Path) -> None:
    """See to it that the names of a folder's files are on the disk, too, where the system can be asked to: a power cut might undo them else."""
    with suppress(OSError):  # Windows opens no folders
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def sha256(path: Path) -> str:
    """The SHA-256 of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the body, which writes to ``path`` and reads nothing of the user's, into a ``DiskError``."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written",
            rule="The folder must be writable and have room",
            found=error.strerror or error,
            do="Free some room or choose another folder",
        ) from error


def read_text(path: Path) -> str:
    """The text of a table as spreadsheets save it: in UTF-8, or in cp932, as a Japanese Excel does.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is neither.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        content = path.read_text(encoding="cp932")
        if content.startswith(UTF_16):
            raise error
        return content
