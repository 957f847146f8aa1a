"""Reconstruct: several decodings of each image's code. What they share was kept; where they differ was left to the decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlae.core.vlae import VLAE
from vlae.data import batches as data
from vlae.data.foreign import Foreign, foreign
from vlae.data.form import Form
from vlae.data.read import write_png
from vlae.data.source import LeftOut
from vlae.engine.batches import DYNAMIC, as_levels, random
from vlae.engine.device import find_device
from vlae.engine.measure import Group, decode
from vlae.engine.run import Run, output_folder
from vlae.engine.sheet import as_pixels
from vlae.errors import DataError, PartialResult, SettingError


class Reconstructed(NamedTuple):
    """How many images were decoded, and what was left out."""

    images: int
    decodings: int
    left_out: tuple[LeftOut, ...]


def reconstruct(
    run: Run, images: Path, output: Path, decodings: int = 3, device: str = "cpu", done: Callable[[str], None] | None = None
) -> Reconstructed:
    """Write, for each image, ``NAME.original.png`` as the model sees it and ``NAME.1.png`` and so on, one for each decoding.

    Args:
        run: the run; its averaged weights are used.
        images: an image or a folder of images.
        output: a new folder.
        decodings: how many for each image.
        device: where to compute.
        done: told the name of each image when it is done.

    Raises:
        SettingError: the model has no code.
        DataError: no image could be used.
        PartialResult: some images could not be used; the others are written.
    """
    if run.settings.keep.code == "none":
        raise SettingError("This model has no code to decode", rule="Reconstruction needs keep.code vector or grid", do="Use vlae sample")
    model, size = run.model(find_device(device)), run.facts.size if run.settings.keep.code == "vector" else None
    form = Form(8 if run.facts.dynamic else run.facts.depth, run.facts.colours)
    written, left_out = 0, []
    with output_folder(output):
        for number, image in enumerate(foreign(images, form, run.settings.data, size)):
            if isinstance(image, LeftOut):
                left_out.append(image)
                continue
            _write(model, run, image, number, output, decodings)
            written += 1
            if done:
                done(image.name)
    return _told(images, Reconstructed(written, decodings, tuple(left_out)))


def _write(model: VLAE, run: Run, image: Foreign, number: int, output: Path, decodings: int) -> None:
    seed, pixels = run.settings.train.seed, image.pixels.transpose(2, 0, 1)
    if run.facts.dynamic:
        pixels = data.binarise_dynamic(pixels, random(seed, DYNAMIC, 2**33 + number))
    group = Group(np.array([number]), as_levels(pixels[None]))
    stem = output / image.name
    write_png(stem.with_name(f"{stem.name}.original.png"), pixels.transpose(1, 2, 0), run.facts.depth)
    for sample in range(decodings):
        write_png(
            stem.with_name(f"{stem.name}.{sample + 1}.png"),
            as_pixels(decode(model, group, seed, sample)[0], run.facts.depth),
            run.facts.depth,
        )


def _told(images: Path, result: Reconstructed) -> Reconstructed:
    lost = [f"{left.name}: {left.reason}" for left in result.left_out if not left.harmless]
    if not result.images:
        found = "; ".join(f"{left.name}: {left.reason}" for left in result.left_out[:3]) or "nothing"
        raise DataError(f"No image of {images} can be used", rule="Give PNG, JPEG, BMP, TIFF or WebP images", found=found)
    if lost:
        raise PartialResult(f"{result.images} images are decoded and {len(lost)} were left out", found="; ".join(lost[:5]), do="Mend or remove those")
    return result
