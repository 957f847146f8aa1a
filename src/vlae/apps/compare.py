"""Compare two images: where they differ in layout, which the code holds, and where in texture, which is left to the decoder.

H and W height and width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import find_objects, label, uniform_filter
from torch import Tensor

from vlae.core.vlae import VLAE
from vlae.data.source import LeftOut
from vlae.engine.embed import Numbers
from vlae.engine.guests import Guest, guests
from vlae.engine.inspection.evidence import evidence
from vlae.engine.measure import noise_for, placed
from vlae.engine.retrieval.contact import as_bytes, as_image, write_picture
from vlae.engine.retrieval.index import Encoder
from vlae.errors import DataError
from vlae.units import bits

SAMPLES = 8
"""codes drawn of each image"""
# A place belongs to a difference in layout from so many bits a pixel on, averaged over so many pixels a side; and a difference is told
# from so many bits together on: the other's code makes these pixels a thousand times less likely.
LAYOUT_SIDE, LAYOUT_FROM, LAYOUT_LEAST = 5, 0.2, 10.0
# Bits a pixel are averaged over so many pixels a side for the texture; so many standard errors count for nothing; the least pixels of a difference.
TEXTURE_SIDE, TEXTURE_ERRORS, TEXTURE_LEAST = 9, 5.0, 20
TOP = 1.0
"""bits a pixel at which both maps are lightest"""
MOST, SIDE = 20, 256
"""differences of a kind that are told, and the least side of a picture"""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """A part of the images where they differ: the box around it in pixels, and the pixels that belong to it."""

    top: int
    left: int
    height: int
    width: int
    pixels: int
    bits: float
    """of layout, by how much the other's code explains all these pixels worse; of texture, how many more the second needs for each pixel"""

    def __str__(self) -> str:
        return f"rows {self.top} to {self.top + self.height - 1}, columns {self.left} to {self.left + self.width - 1}"


@dataclass(frozen=True)
class Compared:
    """How two images differ."""

    one: str
    other: str
    layout_bits: float
    """by how much the code of one explains the other worse than its own, the mean of both ways"""
    texture_bits: float
    """how many more bits the second needs for each pixel, each image given its own code"""
    layout: tuple[Difference, ...]
    texture: tuple[Difference, ...]
    """only where the layout agrees"""

    def words(self) -> list[str]:
        """In words, a line each."""
        layout = [f"layout differs at {place}: {place.bits:.0f} bits" for place in self.layout]
        texture = [f"texture differs at {place}: {place.bits:+.2f} bits a pixel" for place in self.texture]
        return (layout or [f"no part differs in layout by {LAYOUT_LEAST:g} bits"]) + (texture or ["no part differs in texture alone"])

    def tree(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "words": self.words()}


def compare(encoder: Encoder, one: Path, other: Path, output: Path) -> Compared:
    """Compare two images of one size, and write a picture: both, where their layouts differ, and where their textures do.

    Layout, by pixel: ``log2 p(x|z~q(z|x)) - log2 p(x|z~q(z|x'))`` for both images x, x' being the other; their mean, over both and over several
    codes. The same noise draws both codes, so that it is zero on average where the codes agree, whatever the texture.

    Texture, by pixel: the difference of ``-log2 p(x|z)``, each image given its own code, averaged over the neighbourhood; less what chance
    does, and only where the layout agrees.

    Raises:
        DataError: an image cannot be used, or they have different sizes.
        DiskError: the picture cannot be written.
    """
    seen = [_guest(encoder, path) for path in (one, other)]
    if seen[0].pixels.shape != seen[1].pixels.shape:
        found = " and ".join("{} x {}".format(*guest.size) for guest in seen)
        raise DataError("The two images have different sizes", rule="They are compared pixel by pixel", found=found, do="Cut them to one size")
    x = placed(torch.cat([guest.group.x for guest in seen]), encoder.model)
    seed = encoder.run.settings.train.seed
    layout = _layout(encoder.model, x, [noise_for(encoder.model, seen[0].group, seed, sample) for sample in range(SAMPLES)])
    texture, chance = _texture(encoder.model, x)
    local = uniform_filter(layout, LAYOUT_SIDE)
    beyond = np.where(local < LAYOUT_FROM, (np.abs(texture) - TEXTURE_ERRORS * chance).clip(0), 0)
    _write(output, [as_bytes(guest.pixels, encoder.run.facts.depth) for guest in seen], [local, beyond])
    moved = [place for place in _differences(local >= LAYOUT_FROM, layout) if place.bits >= LAYOUT_LEAST]
    changed = [place for place in _differences(beyond > 0, texture, mean=True) if place.pixels >= TEXTURE_LEAST]
    return Compared(str(one), str(other), float(layout.sum()), float(texture.mean()), tuple(moved[:MOST]), tuple(changed[:MOST]))


def _guest(encoder: Encoder, path: Path) -> Guest:
    guest = next(iter(guests(encoder.run, {str(path): path}))) if path.is_file() else LeftOut(str(path), "there is no such file")
    unfit = guest if isinstance(guest, LeftOut) else encoder.code(guest, None)
    if isinstance(guest, LeftOut) or isinstance(unfit, LeftOut):
        reason = unfit.reason if isinstance(unfit, LeftOut) else ""
        raise DataError(f"{path} cannot be compared", rule="An image as those of the run is", found=reason, do="Give another image")
    return guest


@torch.no_grad()
def _layout(model: VLAE, x: Tensor, noises: Sequence[Tensor]) -> Numbers:
    """How many bits worse each pixel of two images is explained by the other's code: the mean of both, (H, W)."""
    posterior, worse = model.posterior(x), torch.zeros(x.shape[2:], dtype=torch.float64)
    for noise in noises:
        z = posterior.sample(placed(noise, model).expand(2, *noise.shape[1:])).z
        worse += (model.decoder(z, x).log_prob(x) - model.decoder(z.flip(0), x).log_prob(x)).double().mean(0).cpu()
    return bits(worse.numpy() / len(noises))


def _texture(model: VLAE, x: Tensor) -> tuple[Numbers, Numbers]:
    """How many bits more a pixel of the second image needs in the neighbourhood of each pixel, and the standard error of that: (H, W)."""
    told = evidence(model, x).pixels
    needed, variance = ((t[0], t[1]) for t in ((told.surprise + told.entropy).double().cpu().numpy(), told.variance.double().cpu().numpy()))
    side = min(TEXTURE_SIDE, *x.shape[2:])
    return uniform_filter(needed[1] - needed[0], side), np.sqrt(uniform_filter(variance[0] + variance[1], side)) / side


def _differences(where: Mask, values: Numbers, mean: bool = False) -> list[Difference]:
    """The connected parts of a mask with the sum, or the mean, of their values: the largest first."""
    parts, _ = label(where, np.ones((3, 3)))
    found = []
    for number, box in enumerate(find_objects(parts), start=1):
        inside = values[box][parts[box] == number]
        rows, columns = box
        size = (rows.stop - rows.start, columns.stop - columns.start)
        found.append(Difference(rows.start, columns.start, *size, len(inside), float(inside.mean() if mean else inside.sum())))
    return sorted(found, key=lambda place: -abs(place.bits))


def _write(path: Path, images: Sequence[npt.NDArray[np.uint8]], maps: Sequence[Numbers]) -> None:
    """Both images and both maps side by side with what they are, and the one scale of the maps."""
    heat = (matplotlib.colormaps["cividis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    shown = [as_image(image) for image in images]
    shown += [Image.fromarray(heat[np.rint(255 * (values / TOP).clip(0, 1)).astype(np.uint8)]) for values in maps]
    scale = max(1, SIDE // min(shown[0].size))
    width, height, gap, text = shown[0].width * scale, shown[0].height * scale, 8, 24
    sheet = Image.new("RGB", (4 * (width + gap) + gap, height + 2 * text + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for n, (image, words) in enumerate(zip(shown, ("first", "second", "layout differs", "texture differs"), strict=True)):
        left = gap + n * (width + gap)
        draw.text((left, 3), words, "black", font)
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (left, text))
    bar = Image.fromarray(heat[None]).resize((width, 10))
    left, top = gap + 2 * (width + gap), height + text + 8
    sheet.paste(bar, (left, top))
    draw.text((left + width + gap, top - 5), f"0 to {TOP:g} bits a pixel and more", "black", font)
    write_picture(path, sheet)
