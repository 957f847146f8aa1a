"""Output folders: nothing is overwritten, and nothing lies among the images that it is made of."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlae.errors import DiskError


def new_folder(folder: Path) -> Path:
    """Make an output folder that does not exist, or is empty.

    Raises:
        DiskError: it exists and holds something, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        busy = any(folder.iterdir())
    except OSError as error:
        raise DiskError(f"{folder} cannot be written", found=error.strerror, do="Choose another folder") from None
    if busy:
        raise DiskError(f"{folder} exists and is not empty", rule="Nothing is overwritten", do="Choose another folder, or --resume the run in it")
    return folder


def check_outside(folder: Path, images: Path) -> None:
    """Refuse an output among the images that it is made of: next time it would be taken for images.

    Raises:
        DiskError: the folder lies inside that of the images.
    """
    if images.resolve() in folder.resolve().parents:
        what, rule = f"{folder} lies inside the folder of images", "What is made of images is kept apart from them"
        raise DiskError(what, rule=rule, do="Choose another --output")


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """A new folder for what the body writes; where it writes nothing the folder is gone again.

    Raises:
        DiskError: as ``new_folder``.
    """
    new_folder(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):  # what holds a file cannot be removed so
            folder.rmdir()
