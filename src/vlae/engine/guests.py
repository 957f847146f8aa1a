"""Images from outside a run's own set, as its model sees them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlae.data import batches as data
from vlae.data.foreign import foreign
from vlae.data.form import Form
from vlae.data.read import Pixels
from vlae.data.source import LeftOut
from vlae.engine.batches import DYNAMIC, as_levels, random
from vlae.engine.measure import Group
from vlae.engine.run import Run
from vlae.errors import DataError, PartialResult


class Guest(NamedTuple):
    """One image: by its name, its pixels (h, w, c), the same as a group of one, and height and width of its file."""

    name: str
    pixels: Pixels
    group: Group
    size: tuple[int, int]


def guests(run: Run, images: Path) -> Iterator[Guest | LeftOut]:
    """Read a file, or all images below a folder, each in the form that the run was trained on; what cannot be used is told."""
    size = run.facts.size if run.settings.keep.code == "vector" else None
    form = Form(8 if run.facts.dynamic else run.facts.depth, run.facts.colours)
    number = 0
    for image in foreign(images, form, run.settings.data, size):
        if isinstance(image, LeftOut):
            yield image
            continue
        pixels = image.pixels
        if run.facts.dynamic:
            pixels = data.binarise_dynamic(pixels, random(run.settings.train.seed, DYNAMIC, 2**33 + number))
        yield Guest(image.name, pixels, Group(np.array([number]), as_levels(pixels.transpose(2, 0, 1)[None])), image.size)
        number += 1


def check_used(images: Path, used: int, left_out: Sequence[LeftOut], done: str) -> None:
    """Tell of images that were left out, after the others are ``done``.

    Raises:
        DataError: no image could be used.
        PartialResult: some could not.
    """
    if not used:
        found = _listed(left_out[:3]) or "nothing"
        raise DataError(f"No image of {images} can be used", rule="Give PNG, JPEG, BMP, TIFF or WebP images", found=found)
    lost = [left for left in left_out if not left.harmless]
    if lost:
        raise PartialResult(f"{used} images are {done} and {len(lost)} were left out", found=_listed(lost[:5]), do="Mend or remove those")


def _listed(left_out: Iterable[LeftOut]) -> str:
    return "; ".join(f"{left.name}: {left.reason}" for left in left_out)
