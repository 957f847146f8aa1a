"""Inpaint: draw a marked region of each image anew, given the rest of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlae.core.vlae import VLAE
from vlae.data.convert import resize_mask, to_depth
from vlae.data.read import OVER_WHITE, Pixels, Refused, read_image
from vlae.data.source import LeftOut
from vlae.engine.batches import uniform
from vlae.engine.device import find_device
from vlae.engine.guests import Guest, make_each
from vlae.engine.measure import noise_for, placed
from vlae.engine.run import Run
from vlae.engine.sheet import as_pixels
from vlae.errors import DataError

# Turns of drawing the code and the region: each lets the code see the region that the last one drew. The first knows nothing of the image,
# and on parts of 64x64 pixels about twenty bring outlines and the region together.
TURNS = 20


class Inpainted(NamedTuple):
    """How many images were drawn, the share of their pixels that the mask marks, and what was left out."""

    images: int
    drawings: int
    marked: float
    left_out: tuple[LeftOut, ...]


def inpaint(
    run: Run, images: Path, mask: Path, output: Path, drawings: int = 3, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> Inpainted:
    """Write, for each image, ``NAME.masked.png`` with the region in black and ``NAME.1.png`` and so on, one for each drawing.

    All are images as the model sees them: resized, grey or binarised where the run's own were. A model without a code sees, of the pixels
    that are kept, only those before the one that it draws.

    Args:
        run: the run; its averaged weights are used.
        images: an image or a folder of images of the mask's size.
        mask: an image; what is white is drawn anew, the other pixels are kept as the model sees them. It may lie among the images.
        output: a new folder, not among the images.
        drawings: how many for each image.
        device: where to compute.
        progress: told the files done or left out, and all.

    Raises:
        DataError: the mask or none of the images can be used.
        DiskError: the folder cannot be used, or is full.
    """
    model, region = run.model(find_device(device)), read_region(mask)
    used, left_out = make_each(run, images, output, lambda guest: _drawn(model, run, guest, region, drawings), progress, mask)
    return Inpainted(used, drawings, float(region.mean()), left_out)


def read_region(mask: Path) -> npt.NDArray[np.bool_]:
    """Where a mask is at least half of white, (h, w): the faint ringing that JPEG leaves around marks is none.

    Raises:
        DataError: it cannot be read, is transparent somewhere, or marks nothing.
    """
    picture = read_image(mask)
    rule = "What is white is drawn anew, what is black is kept"
    if OVER_WHITE in picture.notes:  # white marks on nothing would mark everything
        raise DataError(f"The mask {mask} is transparent somewhere", rule=rule, do="Lay it over black and save it without transparency")
    region = to_depth(picture.pixels, picture.depth, 1).max(axis=2) > 0
    if not region.any():
        raise DataError(f"The mask {mask} marks nothing", rule=rule, found="nothing of at least half of white", do="Mark a region in white")
    return region


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"


def _drawn(model: VLAE, run: Run, guest: Guest, marked: npt.NDArray[np.bool_], drawings: int) -> Iterator[tuple[str, Pixels]]:
    if guest.size != marked.shape:
        raise Refused(f"{_size(guest.size)} pixels, the mask has {_size(marked.shape)}")
    region, group, seed = resize_mask(marked, guest.pixels.shape[:2]), guest.group, run.settings.train.seed
    yield "masked", np.where(region[:, :, None], 0, guest.pixels).astype(guest.pixels.dtype)
    known = torch.from_numpy(~region)[None, None].to(next(model.parameters()).device)
    number, shape = int(group.numbers[0]), (model.decoder.head.uniforms, *region.shape)
    for drawing in range(drawings):
        turns = range(drawing * TURNS, (drawing + 1) * TURNS)
        noises = [placed(noise_for(model, group, seed, turn), model) for turn in turns]
        uniforms = [placed(uniform(shape, seed + turn, number)[None], model) for turn in turns]
        drawn = model.inpaint(placed(group.x, model), known, noises, uniforms)[0]
        yield str(drawing + 1), as_pixels(drawn, run.facts.depth)
