"""The images that an audit is made on: a run's own held-out ones, or a folder's, all of one size."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.core.vlae import VLAE
from vlae.data.foreign import files_of
from vlae.data.source import LeftOut
from vlae.engine.guests import guests
from vlae.engine.measure import Group, chosen, decode, load
from vlae.engine.run import Run
from vlae.errors import DataError, SettingError

Progress = Callable[[int, int], None]

# Larger images are audited by their middle, where the code is a grid.
SIDE = 256
# Pixels that are drawn at once: drawing waits for pixel after pixel, so that many images together cost little more than one.
PIXELS_DECODED = 2**20
# Intervals over fewer images than this say nothing.
LEAST_IMAGES = 8


@dataclass(frozen=True)
class Subjects:
    """Images of one size as levels, each with its number and its name."""

    names: tuple[str, ...]
    group: Group
    source: str
    """test, validation, or the folder that they were given in, with a slash"""
    cut: bool
    """whether they are the middles of larger images"""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def others(self) -> Tensor:
        """For each image another one, half the set away: neighbours are often alike."""
        return half_away(self.group.x)


def half_away(x: Tensor) -> Tensor:
    """The images in the order in which each has its other one's place.

    >>> half_away(torch.arange(5)).tolist()
    [3, 4, 0, 1, 2]
    """
    return torch.roll(x, len(x) // 2, 0)


def subjects(run: Run, model: VLAE, images: Path | None, limit: int) -> Subjects:
    """Test images of a run, or validation images where it has none, or images of a folder; evenly spaced, or the first of the folder.

    Args:
        run: the run.
        model: its model.
        images: an image or a folder of images; None for the run's own.
        limit: how many, at most.

    Raises:
        SettingError: the model has no code.
        DataError: fewer than ``LEAST_IMAGES`` can be used.
    """
    if model.encoder is None:
        raise SettingError("This model has no code to audit", rule="An audit needs keep.code vector or grid", do="Train with a code")
    found = _own(run, limit) if images is None else _given(run, images, limit)
    if len(found.names) < LEAST_IMAGES:
        do = "Give more with --images FOLDER" if images is None else "Give more images"
        raise DataError(
            "There are too few images to audit", rule=f"An audit needs at least {LEAST_IMAGES}", found=f"{len(found.names)} ({found.source})", do=do
        )
    return found


def decode_all(model: VLAE, group: Group, seed: int, sample: int = 0) -> Tensor:
    """One decoding of each image's code, as many at once as the memory should hold."""
    each = max(1, PIXELS_DECODED // (group.x.shape[2] * group.x.shape[3]))
    parts = (Group(group.numbers[n : n + each], group.x[n : n + each]) for n in range(0, len(group.x), each))
    return torch.cat([decode(model, part, seed, sample).cpu() for part in parts])


def _own(run: Run, limit: int) -> Subjects:
    images, seed = run.images(), run.settings.train.seed
    split = "test" if len(images.indices("test")) else "validation"
    numbers = chosen(images, split, limit)
    x, cut = _of_one_size(run, [load(images, np.array([n]), seed) for n in numbers])
    return Subjects(tuple(images.names[n] for n in numbers), Group(numbers, x), split, cut)


def _given(run: Run, images: Path, limit: int) -> Subjects:
    least = run.settings.train.crop or 1
    files, passed = files_of(images)
    names, numbers, parts, left_out = list[str](), list[int](), list[Tensor](), list(passed)
    for guest in guests(run, files):
        if isinstance(guest, LeftOut):
            left_out.append(guest)
        elif min(guest.group.x.shape[2:]) < least:
            left_out.append(LeftOut(guest.name, f"smaller than the {least} pixels that the model was trained on"))
        else:
            names.append(guest.name)
            numbers.append(int(guest.group.numbers[0]))
            parts.append(guest.group.x)
        if len(parts) == limit:
            break
    x, cut = _of_one_size(run, parts) if parts else (torch.empty(0), False)
    return Subjects(tuple(names), Group(np.array(numbers), x), f"{images.name}/", cut, tuple(left_out))


def _of_one_size(run: Run, parts: list[Tensor]) -> tuple[Tensor, bool]:
    """Images (1, c, h, w) as one batch, and whether they were cut: to their middle, as large as all have it and at most ``SIDE``."""
    sizes = np.array([part.shape[2:] for part in parts])
    # Images of a vector code all have its size.
    height, width = sizes.min(0) if run.settings.keep.code == "vector" else np.minimum(sizes.min(0), SIDE)
    corners = ((sizes - (height, width)) // 2).tolist()
    cut = [part[:, :, top : top + height, left : left + width] for part, (top, left) in zip(parts, corners, strict=True)]
    return torch.cat(cut).contiguous(memory_format=torch.channels_last), bool((sizes != (height, width)).any())
