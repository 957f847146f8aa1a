"""Looking at many images with a run: what good parts look like, and how each image compares."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vlae.core.encoder import VectorEncoder
from vlae.core.vlae import VLAE
from vlae.data.imageset import ImageSet
from vlae.data.source import LeftOut
from vlae.engine.inspection.evidence import Evidence, evidence
from vlae.engine.inspection.look import Look, look
from vlae.engine.inspection.places import LEAST_IMAGES
from vlae.engine.inspection.reference import MOST_PIXELS, Reference, fitted
from vlae.engine.inspection.visitors import good
from vlae.engine.measure import groups, placed
from vlae.engine.run import Run
from vlae.errors import RunError

Numbers = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

# The evidence of so many pixels is held at once to learn what is usual.
PIXELS = 2**24
# Images of more pixels are learned from by a square of this side out of their middle, but those that a vector code needs whole.
SQUARE = 512


class Looked(NamedTuple):
    """An image by its number in its set, and what the run makes of it."""

    number: int
    look: Look


def reference_of(run: Run, model: VLAE, images: ImageSet, progress: Progress | None = None) -> tuple[Reference, tuple[int, int] | None]:
    """What the good images look like that a run was trained on and chosen by, and their size where their places are told apart.

    Where labels tell good images from others, the others are passed over.

    Raises:
        RunError: the model finds no finite evidence in them.
    """
    own = np.sort(np.concatenate([images.indices("train"), images.indices("validation")]))
    fine = np.array([good(run, images.labels[n]) for n in own])
    own = own[fine] if fine.any() else own
    sizes = {tuple(size) for size in images.sizes[own].tolist()}
    size = sizes.pop() if len(sizes) == 1 and len(own) >= LEAST_IMAGES else None
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        size = None
    found, unseen, done = [], list[bool](), 0
    numbers = _few(images, own)
    for group in groups(images, numbers, run.settings.train.seed):
        x = placed(group.x, model)
        whole = x.shape[2] * x.shape[3] <= MOST_PIXELS or isinstance(model.encoder, VectorEncoder)
        found.append(evidence(model, x if whole else _middle(x)))
        _check_finite(run, found[-1])
        unseen += np.isin(group.numbers, images.indices("validation")).tolist()
        done += len(x)
        if progress:
            progress(done, len(numbers))
    return fitted(found, size is not None, unseen), size


def _check_finite(run: Run, e: Evidence) -> None:
    if not all(bool(t.isfinite().all()) for t in (e.pixels.surprise, e.pixels.entropy, e.pixels.variance, e.code.by_place, e.code.bits)):
        what, rule = f"To the model of {run.folder} its own images have no likelihood", "Its weights are damaged, or its training went astray"
        raise RunError(what, rule=rule, do="Restore the folder or train again")


def _few(images: ImageSet, numbers: Numbers) -> Numbers:
    """So many of the images, evenly spaced, that their evidence can be held at once."""
    pixels = np.minimum(images.sizes[numbers].prod(1), SQUARE**2).mean()
    most = max(LEAST_IMAGES, int(PIXELS / pixels))
    return numbers if len(numbers) <= most else numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]


def _middle(x: Tensor) -> Tensor:
    top, left = ((side - min(side, SQUARE)) // 2 for side in x.shape[2:])
    return x[:, :, top : top + SQUARE, left : left + SQUARE]


def unusable(run: Run, size: tuple[int, int] | None, images: ImageSet) -> dict[int, LeftOut]:
    """Which images cannot be compared with good parts, by their numbers, and why."""
    wanted = size or (run.facts.size if run.settings.keep.code == "vector" else None)
    least = 2 if run.settings.keep.code == "none" else run.settings.keep.stride or 1
    found = {}
    for n, (height, width) in enumerate(images.sizes.tolist()):
        if wanted is not None and (height, width) != wanted:
            found[n] = LeftOut(images.names[n], f"it has {width}x{height} pixels, and good parts {wanted[1]}x{wanted[0]}")
        elif min(height, width) < least:
            found[n] = LeftOut(images.names[n], f"it has {width}x{height} pixels, and a place of the code has {least}x{least}")
    return found


def inspect(run: Run, model: VLAE, reference: Reference, images: ImageSet, numbers: Numbers, progress: Progress | None = None) -> Iterator[Looked]:
    """Look at images of a set, in groups of one size."""
    done = 0
    for group in groups(images, numbers, run.settings.train.seed):
        for number, found in zip(group.numbers.tolist(), look(model, reference, placed(group.x, model)), strict=True):
            yield Looked(number, found)
            done += 1
            if progress:
                progress(done, len(numbers))
