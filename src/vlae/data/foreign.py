"""Images that a finished model is shown: read one by one, in the form that it was trained on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vlae.data.convert import resize
from vlae.data.form import Form, convert
from vlae.data.listing import list_files
from vlae.data.read import Pixels, Refused, claims_nothing, decode
from vlae.data.settings import DataSettings
from vlae.data.source import LeftOut
from vlae.errors import DataError


class Foreign(NamedTuple):
    """An image in the model's form, (h, w, c), by its name relative to the folder; ``size`` is height and width of the file."""

    name: str
    pixels: Pixels
    size: tuple[int, int]


class Files(NamedTuple):
    """Files by their names, and what was passed over: links to nothing, names that are no text, folders that cannot be opened."""

    paths: dict[str, Path]
    left_out: tuple[LeftOut, ...] = ()


def files_of(images: Path) -> Files:
    """A file, or all files below a folder; none is opened.

    Errors: ``DataError`` where there is no file at all.
    """
    if not images.exists():
        raise DataError(f"{images} does not exist", rule="Give an image or a folder of images", do="Check the path")
    if not images.is_dir():
        return Files({images.name: images})
    listing = list_files(images, skip=images / ".cache")
    if not listing.files:
        found = "; ".join(f"{left.name}: {left.reason}" for left in listing.left_out[:3])
        raise DataError(f"{images} holds no file", rule="Give an image or a folder of images", found=found or None, do="Check the path")
    return Files({name: file.path for name, file in listing.files.items()}, listing.left_out)


def foreign(
    files: Mapping[str, Path], form: Form, settings: DataSettings, size: tuple[int, int] | None, mask: Path | None = None
) -> Iterator[Foreign | LeftOut]:
    """Read the image of each file; of one that cannot be used the reason is told instead.

    ``size`` (height, width) is that of a model with a vector code: all images are resized to it. A ``mask`` that lies among them is no image.
    """
    for name, path in files.items():
        if mask is not None and path.resolve() == mask.resolve():
            yield LeftOut(name, "the mask", harmless=True)
            continue
        try:
            picture = decode(path, settings.max_pixels)
        except Refused as refused:
            yield LeftOut(name, str(refused), harmless=claims_nothing(path, refused))
            continue
        pixels = picture.pixels if size is None else resize(picture.pixels, size, picture.depth)
        yield Foreign(name, convert(pixels, Form(picture.depth, pixels.shape[2]), form)[0], picture.pixels.shape[:2])
