"""Reconstruct: several decodings of each image's code. What they share was kept; where they differ was left to the decoder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vlae.core.vlae import VLAE
from vlae.data.read import Pixels
from vlae.data.source import LeftOut
from vlae.engine.device import find_device
from vlae.engine.guests import Guest, make_each
from vlae.engine.measure import decode
from vlae.engine.run import Run
from vlae.engine.sheet import as_pixels
from vlae.errors import SettingError


class Reconstructed(NamedTuple):
    """How many images were decoded, and what was left out."""

    images: int
    decodings: int
    left_out: tuple[LeftOut, ...]


def reconstruct(
    run: Run, images: Path, output: Path, decodings: int = 3, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> Reconstructed:
    """Write, for each image, ``NAME.original.png`` as the model sees it and ``NAME.1.png`` and so on, one for each decoding.

    Args:
        run: the run; its averaged weights are used.
        images: an image or a folder of images.
        output: a new folder, not among the images.
        decodings: how many for each image.
        device: where to compute.
        progress: told the files done or left out, and all.

    Raises:
        SettingError: the model has no code.
        DataError: no image could be used.
        DiskError: the folder cannot be used, or is full.
    """
    if run.settings.keep.code == "none":
        raise SettingError("This model has no code to decode", rule="Reconstruction needs keep.code vector or grid", do="Use vlae sample")
    model = run.model(find_device(device))
    used, left_out = make_each(run, images, output, lambda guest: _decoded(model, run, guest, decodings), progress)
    return Reconstructed(used, decodings, left_out)


def _decoded(model: VLAE, run: Run, guest: Guest, decodings: int) -> Iterator[tuple[str, Pixels]]:
    yield "original", guest.pixels
    for sample in range(decodings):
        yield str(sample + 1), as_pixels(decode(model, guest.group, run.settings.train.seed, sample)[0], run.facts.depth)
