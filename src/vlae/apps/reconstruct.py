"""Reconstruct: several decodings of each image's code. What they share was kept; where they differ was left to the decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vlae.core.vlae import VLAE
from vlae.data.read import write_png
from vlae.data.source import LeftOut
from vlae.engine.device import find_device
from vlae.engine.guests import Guest, check_used, guests
from vlae.engine.measure import decode
from vlae.engine.run import Run, output_folder
from vlae.engine.sheet import as_pixels
from vlae.errors import SettingError


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
    model = run.model(find_device(device))
    written, left_out = 0, []
    with output_folder(output):
        for guest in guests(run, images):
            if isinstance(guest, LeftOut):
                left_out.append(guest)
                continue
            _write(model, run, guest, output, decodings)
            written += 1
            if done:
                done(guest.name)
    check_used(images, written, left_out, "decoded")
    return Reconstructed(written, decodings, tuple(left_out))


def _write(model: VLAE, run: Run, guest: Guest, output: Path, decodings: int) -> None:
    depth, stem = run.facts.depth, output / guest.name
    write_png(stem.with_name(f"{stem.name}.original.png"), guest.pixels, depth)
    for sample in range(decodings):
        decoded = decode(model, guest.group, run.settings.train.seed, sample)[0]
        write_png(stem.with_name(f"{stem.name}.{sample + 1}.png"), as_pixels(decoded, depth), depth)
