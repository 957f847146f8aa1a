"""Sample: new images from the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vlae.data.read import write_png
from vlae.engine.batches import CODE, normal, uniform
from vlae.engine.device import find_device
from vlae.engine.folders import output_folder
from vlae.engine.measure import PIXELS_AT_ONCE
from vlae.engine.run import Run
from vlae.engine.sheet import as_pixels, sheet
from vlae.errors import SettingError


def sample(
    run: Run,
    output: Path,
    count: int,
    size: tuple[int, int],
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw codes from the prior and decode them; write ``sample-N.png`` for each and ``sheet.png`` for all.

    An image depends on the seed and its number alone, not on how many are drawn with it.

    Args:
        run: the run; its averaged weights are used.
        output: a new folder.
        count: how many images.
        size: height and width.
        seed: another seed gives other images.
        device: where to compute.
        progress: told the images done and all.
    """
    model = run.model(find_device(device))
    like = next(model.parameters())
    each, drawn = max(1, PIXELS_AT_ONCE // (size[0] * size[1])), []
    with output_folder(output):
        for first in range(0, count, each):
            numbers = range(first, min(count, first + each))
            noise = torch.stack([normal(model.code_shape(*size), seed, CODE, n) for n in numbers]).to(like.device, like.dtype)
            uniforms = torch.stack([uniform((model.decoder.head.uniforms, *size), seed, n) for n in numbers]).to(like.device, like.dtype)
            drawn += [as_pixels(x, run.facts.depth) for x in model.sample(noise, uniforms)]
            if progress:
                progress(len(drawn), count)
        for number, pixels in enumerate(drawn):
            write_png(output / f"sample-{number:04d}.png", pixels, run.facts.depth)
        write_png(output / "sheet.png", sheet(np.stack(drawn), run.facts.depth), run.facts.depth)
    return output / "sheet.png"


def sample_size(run: Run, asked: tuple[int, int] | None) -> tuple[int, int]:
    """The size of the samples: that of the model's images, or what is asked for where the code is a grid.

    Raises:
        SettingError: the model knows one size only, or the size is none.
    """
    if asked is not None and min(asked) < 1:
        raise SettingError("This is no size", rule="Height and width are at least 1", found=f"{asked[0]} {asked[1]}", do="Change --size")
    fixed = run.facts.size if run.settings.train.crop is None else None
    if asked is None:
        crop = run.settings.train.crop
        return fixed or (crop or 64, crop or 64)
    if fixed is not None and asked != fixed:
        raise SettingError("This model draws images of one size", rule="Its code is a vector", found=f"{asked[0]}x{asked[1]}", do="Leave --size out")
    return asked
