"""A contact sheet: images in rows with a few words below each, as one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vlae.data.files import beside
from vlae.data.read import Pixels
from vlae.errors import DiskError, VlaeError

SIDE, GAP, TEXT = 144, 8, 12


class Tile(NamedTuple):
    """An image, (h, w, c) of so many bits a value, and the lines below it."""

    pixels: Pixels
    depth: int
    words: tuple[str, ...]


def tile(show: Callable[[], tuple[Pixels, int]], *words: str) -> Tile:
    """An image to be shown; where that fails (its stream in an archive is damaged, its file is gone), a blank one that says so."""
    try:
        return Tile(*show(), words)
    except VlaeError:
        return Tile(np.full((1, 1, 1), 255, np.uint8), 8, (*words, "cannot be shown"))


def check_new(path: Path) -> None:
    """Refuse a picture that would replace a file, before anything is computed.

    Raises:
        DiskError: there is one.
    """
    if path.exists():
        raise DiskError(f"{path} exists", rule="Nothing is overwritten", do="Choose another --output")
    if path.suffix.lower() != ".png":
        raise DiskError(f"{path} cannot be written", rule="Pictures are PNG files", do="Choose an --output that ends in .png")


def write_contact_sheet(path: Path, rows: Sequence[Sequence[Tile]]) -> None:
    """Write rows of images as a PNG.

    Raises:
        DiskError: it cannot be written.
    """
    # 16-bit images seldom use all their range: they are shown on one scale from the darkest to the lightest value of the sheet.
    deep = [t.pixels for row in rows for t in row if t.depth == 16]
    darkest, lightest = (min(int(p.min()) for p in deep), max(int(p.max()) for p in deep)) if deep else (0, 1)
    lines = max(len(t.words) for row in rows for t in row)
    width, height = SIDE + GAP, SIDE + GAP + lines * (TEXT + 3)
    sheet = Image.new("RGB", (max(map(len, rows)) * width + GAP, len(rows) * height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for r, row in enumerate(rows):
        for c, one in enumerate(row):
            left, top = GAP + c * width, GAP + r * height
            sheet.paste(_shown(one, darkest, max(lightest, darkest + 1)), (left, top))
            for n, line in enumerate(one.words):
                draw.text((left, top + SIDE + 2 + n * (TEXT + 3)), _fitting(line, font), "black", font)
    write_picture(path, sheet)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises:
        DiskError: it cannot be written.
    """
    with beside(path) as file:
        picture.save(file, "PNG")


def as_bytes(pixels: Pixels, depth: int, darkest: int = 0, lightest: int = 2**16 - 1) -> npt.NDArray[np.uint8]:
    """Pixels (h, w, c) with 8 bits a value; those of 16 from the darkest to the lightest."""
    if depth == 16:
        return np.rint(255 * ((pixels.astype(np.float64) - darkest) / (lightest - darkest)).clip(0, 1)).astype(np.uint8)
    return pixels.astype(np.uint8) * np.uint8(255 if depth == 1 else 1)


def as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """8-bit pixels (h, w, c) of one to four channels as a picture in colour."""
    return Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]).convert("RGB")


def _shown(one: Tile, darkest: int, lightest: int) -> Image.Image:
    """An image in a square: a small one enlarged so that its pixels are seen, a large one averaged."""
    image = as_image(as_bytes(one.pixels, one.depth, darkest, lightest))
    longest = max(image.size)
    scale = SIDE // longest if longest <= SIDE else SIDE / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (SIDE, SIDE), "#eeeeee")
    small = image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
    square.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return square


def _fitting(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A line that is no wider than an image; of a longer one its end, which tells one name of a folder from another."""
    if font.getlength(line) <= SIDE:
        return line
    while line and font.getlength("..." + line) > SIDE:
        line = line[1:]
    return "..." + line
