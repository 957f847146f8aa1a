"""Draw the picture of what a run draws: samples, decodings of test images, and a region of each drawn anew.

    python docs/drawings.py demo/run

These are the images of vlae sample, vlae reconstruct and vlae inpaint, laid side by side.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vlae.apps.inpaint import inpaint
from vlae.apps.reconstruct import reconstruct
from vlae.apps.sample import sample, sample_size
from vlae.data.read import write_png
from vlae.engine.run import Run

COUNT, DRAWINGS = 8, 2

Row = list[NDArray[np.uint8]]


def read(paths: Sequence[Path]) -> Row:
    """The images of some files."""
    return [np.asarray(Image.open(path)) for path in paths]


def drawn(run: Run, folder: Path) -> dict[str, Row]:
    """The rows of the picture by what they show."""
    images = run.images()
    numbers = [int(number) for number in images.indices("test")[:COUNT]]
    names = [f"{n}.png" for n in range(len(numbers))]
    (folder / "images").mkdir()
    for name, number in zip(names, numbers, strict=True):
        write_png(folder / "images" / name, images.pixels(number), images.depth)
    height, width = images.shape(numbers[0])[:2]
    mask = np.zeros((height, width, 1), np.uint8)
    mask[5 * height // 16 : 11 * height // 16, 6 * width // 16 : 12 * width // 16] = 255
    write_png(folder / "mask.png", mask, 8)
    sample(run, folder / "samples", COUNT, sample_size(run, None))
    reconstruct(run, folder / "images", folder / "decodings", DRAWINGS)
    inpaint(run, folder / "images", folder / "mask.png", folder / "drawings", DRAWINGS)

    def made(kind: str, word: str) -> Row:
        return read([folder / kind / f"{name}.{word}.png" for name in names])

    rows = {"new": read([folder / "samples" / f"sample-{n:04d}.png" for n in range(COUNT)]), "an image": made("decodings", "original")}
    rows |= {f"its code,\ndecoded ({n})": made("decodings", str(n)) for n in range(1, DRAWINGS + 1)}
    rows |= {"a region\ntaken out": made("drawings", "masked")}
    return rows | {f"drawn\nanew ({n})": made("drawings", str(n)) for n in range(1, DRAWINGS + 1)}


def picture(rows: dict[str, Row]) -> Figure:
    """The rows below one another, each with what it shows."""
    figure = Figure(figsize=(9, len(rows) * 0.98 + 0.1), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), COUNT, squeeze=False)
    figure.subplots_adjust(left=0.115, right=0.995, top=0.995, bottom=0.005, wspace=0.04, hspace=0.04)
    for axes, (words, images) in zip(grid, rows.items(), strict=True):
        axes[0].text(-0.08, 0.5, words, transform=axes[0].transAxes, ha="right", va="center", fontsize=9.5)
        for each in axes:
            each.axis("off")
        for each, image in zip(axes, images, strict=False):  # where there are fewer test images, the rest of the row stays blank
            each.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw into a folder: that of this file where none is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        rows = drawn(Run.open(options.run), Path(scratch))
    picture(rows).savefig(options.folder / "drawings.png", dpi=130, metadata={"Software": None}, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
