"""Images from outside a run's own set, as its model sees them, and what is made of each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlae.data import batches as data
from vlae.data.foreign import files_of, foreign
from vlae.data.form import Form
from vlae.data.read import Pixels, Refused, write_png
from vlae.data.source import LeftOut
from vlae.data.spool import identity
from vlae.engine.batches import DYNAMIC, as_levels, random
from vlae.engine.folders import check_outside, output_folder
from vlae.engine.measure import Group
from vlae.engine.places import unnamed
from vlae.engine.run import Run
from vlae.errors import DataError, DiskError, PartialResult


class Guest(NamedTuple):
    """One image: by its name, its pixels (h, w, c), the same as a group of one, and height and width of its file."""

    name: str
    pixels: Pixels
    group: Group
    size: tuple[int, int]


def guests(run: Run, files: Mapping[str, Path], mask: Path | None = None) -> Iterator[Guest | LeftOut]:
    """Read the image of each file in the form that the run was trained on; of one that cannot be used the reason is told instead.

    An image's number is taken from its pixels, so that its random numbers do not depend on what lies beside it.
    """
    size = run.facts.size if run.settings.keep.code == "vector" else None
    form = Form(8 if run.facts.dynamic else run.facts.depth, run.facts.colours)
    for image in foreign(files, form, run.settings.data, size, mask):
        if isinstance(image, LeftOut):
            yield image
            continue
        pixels = image.pixels
        number = int(identity(pixels, form.depth)[:8], 16) % 2**31
        if run.facts.dynamic:
            pixels = data.binarise_dynamic(pixels, random(run.settings.train.seed, DYNAMIC, 2**33 + number))
        yield Guest(image.name, pixels, Group(np.array([number]), as_levels(pixels.transpose(2, 0, 1)[None])), image.size)


def make_each(
    run: Run,
    images: Path,
    output: Path,
    make: Callable[[Guest], Iterator[tuple[str, Pixels]]],
    progress: Callable[[int, int], None] | None = None,
    mask: Path | None = None,
) -> tuple[int, tuple[LeftOut, ...]]:
    """Write ``NAME.WORD.png`` for each word and pixels that ``make`` makes of each image; of how many images, and what was left out.

    Left out is also an image that ``make`` refuses (``Refused``), and one whose files cannot have their names. ``progress`` is told, after each
    file, how many are done or left out, and how many there are.

    Raises:
        DataError: no image could be used.
        DiskError: the folder is not new, lies among the images, or cannot be written.
    """
    check_outside(output, images)
    files, passed = files_of(images)
    left_out = list(passed)
    with output_folder(output):
        for number, guest in enumerate(guests(run, files, mask), start=1):
            lost = guest if isinstance(guest, LeftOut) else _write(guest, make(guest), output, run.facts.depth)
            if lost:
                left_out.append(lost)
            if progress:
                progress(number, len(files))
    used = len(files) + len(passed) - len(left_out)
    if not used:
        raise DataError(f"No image of {images} can be used", rule="At least one must be", found=_listed(left_out[:3]), do="Mend these or give others")
    return used, tuple(left_out)


def check_whole(used: int, left_out: Sequence[LeftOut]) -> None:
    """Tell of images that were left out, after the others are done.

    Raises:
        PartialResult: there are some.
    """
    lost = [left for left in left_out if not left.harmless]
    if lost:
        raise PartialResult(f"{used} images are done and {len(lost)} were left out", found=_listed(lost[:5]), do="Mend or remove those")


def _write(guest: Guest, made: Iterator[tuple[str, Pixels]], output: Path, depth: int) -> LeftOut | None:
    """Write all that is made of an image, or nothing of it: then why."""
    written: list[Path] = []
    try:
        for word, pixels in made:
            path = output / f"{guest.name}.{word}.png"
            write_png(path, pixels, depth)
            written.append(path)
        return None
    except Refused as refused:
        reason = str(refused)
    except DiskError as error:
        reason = unnamed(error)
    for path in written:
        path.unlink()
    return LeftOut(guest.name, reason)


def _listed(left_out: Iterable[LeftOut]) -> str:
    return "; ".join(f"{left.name}: {left.reason}" for left in left_out)
