"""Inpaint: draw a marked region of each image anew, given the rest of it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlae.core.vlae import VLAE
from vlae.data.convert import resize_mask
from vlae.data.read import read_image, write_png
from vlae.data.source import LeftOut
from vlae.engine.batches import uniform
from vlae.engine.device import find_device
from vlae.engine.guests import Guest, check_used, guests
from vlae.engine.measure import noise_for, placed
from vlae.engine.run import Run, output_folder
from vlae.engine.sheet import as_pixels
from vlae.errors import DataError

# Turns of drawing the code and the region: each lets the code see the region that the last one drew.
TURNS = 3


class Inpainted(NamedTuple):
    """How many images were drawn, and what was left out."""

    images: int
    drawings: int
    left_out: tuple[LeftOut, ...]


def inpaint(
    run: Run, images: Path, mask: Path, output: Path, drawings: int = 3, device: str = "cpu", done: Callable[[str], None] | None = None
) -> Inpainted:
    """Write, for each image, ``NAME.masked.png`` with the region in black and ``NAME.1.png`` and so on, one for each drawing.

    Args:
        run: the run; its averaged weights are used.
        images: an image or a folder of images of the mask's size.
        mask: an image; what is not black is drawn anew, the other pixels are kept.
        output: a new folder.
        drawings: how many for each image.
        device: where to compute.
        done: told the name of each image when it is done.

    Raises:
        DataError: the mask or none of the images can be used.
        PartialResult: some images could not be used; the others are written.
    """
    model, region = run.model(find_device(device)), read_region(mask)
    written, left_out = 0, []
    with output_folder(output):
        for guest in guests(run, images):
            if isinstance(guest, LeftOut):
                left_out.append(guest)
            elif guest.size != region.shape:
                left_out.append(LeftOut(guest.name, f"{_size(guest.size)} pixels, the mask has {_size(region.shape)}"))
            else:
                _write(model, run, guest, resize_mask(region, guest.pixels.shape[:2]), output, drawings)
                written += 1
                if done:
                    done(guest.name)
    check_used(images, written, left_out, "drawn")
    return Inpainted(written, drawings, tuple(left_out))


def read_region(mask: Path) -> npt.NDArray[np.bool_]:
    """Where a mask is not black, (h, w).

    Raises:
        DataError: it cannot be read, or marks nothing.
    """
    region = (read_image(mask).pixels > 0).max(axis=2)
    if not region.any():
        raise DataError(f"The mask {mask} marks nothing", rule="What is not black is drawn anew", found="black alone", do="Mark a region in white")
    return region


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"


def _write(model: VLAE, run: Run, guest: Guest, region: npt.NDArray[np.bool_], output: Path, drawings: int) -> None:
    depth, stem, group, seed = run.facts.depth, output / guest.name, guest.group, run.settings.train.seed
    write_png(stem.with_name(f"{stem.name}.masked.png"), np.where(region[:, :, None], 0, guest.pixels).astype(guest.pixels.dtype), depth)
    known = torch.from_numpy(~region)[None, None].to(next(model.parameters()).device)
    number, shape = int(group.numbers[0]), (model.decoder.head.uniforms, *region.shape)
    for drawing in range(drawings):
        turns = range(drawing * TURNS, (drawing + 1) * TURNS)
        noises = [placed(noise_for(model, group, seed, turn), model) for turn in turns]
        uniforms = [placed(uniform(shape, seed + turn, number)[None], model) for turn in turns]
        drawn = model.inpaint(placed(group.x, model), known, noises, uniforms)[0]
        write_png(stem.with_name(f"{stem.name}.{drawing + 1}.png"), as_pixels(drawn, depth), depth)
