"""Draw the pictures of reproduction.md: bound against hours, originals beside decodings of their codes, and the window dial.

    python docs/reproduced.py zoo/static-mnist zoo/omniglot zoo/caltech-101-silhouettes --dial benchmarks/results/window-dial.json

The images are found below VLAE_DATA; what has no figure yet is left out.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from vlae.apps.reproduce import table
from vlae.engine.measure import Group, decode, load
from vlae.engine.run import Run
from vlae.units import bits

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
COUNT, DECODINGS, FRAME = 10, 2, 190


def figure(width: float, height: float) -> Figure:
    """An empty picture of so many inches."""
    drawn = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def plain(axes: Axes, title: str, x: str) -> None:
    """Axes without what nobody reads."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def hours(lines: Sequence[dict[str, Any]]) -> Figure:
    """The best validation bound of each row against the hours of training; dashed, the paper's figure for the test images."""
    drawn = figure(6.4, 3.8)
    axes = drawn.subplots()
    for line, colour in zip((line for line in lines if line.get("validation") and line["unit"] == "nats"), COLOURS, strict=False):
        spent, bound = zip(*line["validation"], strict=True)
        axes.plot(spent, bound, "o-", color=colour, markersize=3, linewidth=1.6, label=f"{line['row']}, seed {line['seed']}")
        if line["paper"]:
            axes.axhline(line["paper"], color=colour, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_ylabel("nats an image, validation bound")
    plain(axes, "Validation bound (dashed: the paper, importance-sampled, test images)", "hours")
    return drawn


def strip(run: Run) -> NDArray[np.uint8]:
    """Test images, and below each several decodings of its code, as one picture."""
    images, seed = run.images(), run.settings.train.seed
    test = images.indices("test")
    numbers = test[np.linspace(0, len(test) - 1, COUNT).round().astype(int)]
    group = Group(numbers, load(images, numbers, seed))
    model = run.model(torch.device("cpu"))
    rows = [group.x, *(decode(model, group, seed, sample) for sample in range(DECODINGS))]
    framed = [np.pad(np.where(row[:, 0].numpy() > 0, np.uint8(0), np.uint8(255)), ((0, 0), (1, 1), (1, 1)), constant_values=FRAME) for row in rows]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in framed], axis=0)


def lossy(runs: Sequence[Run]) -> Figure:
    """Originals beside decodings of their codes, set by set."""
    drawn = figure(7.2, 2.5 * len(runs))
    for axes, run in zip(drawn.subplots(len(runs), 1, squeeze=False)[:, 0], runs, strict=True):
        axes.imshow(strip(run), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(f"{run.folder.name}: test images above, two decodings of the code of each below", loc="left", fontsize=10)
        axes.axis("off")
    return drawn


def dial(rows: Sequence[dict[str, Any]]) -> Figure:
    """Bits and accuracy against the pixels that the decoder sees."""
    seen = sorted({row["pixels_seen"] for row in rows})
    names = {row["pixels_seen"]: row["window"] for row in rows}
    values = {(row["metric"], row["pixels_seen"]): row["value"] for row in rows}
    drawn = figure(9.6, 3.8)
    left, right = drawn.subplots(1, 2)

    def line(axes: Axes, metric: str, name: str, colour: str, factor: float = 1.0) -> None:
        axes.plot(range(len(seen)), [factor * values[metric, n] for n in seen], "o-", color=colour, label=name, linewidth=1.6, markersize=4)

    line(left, "rate_bits", "code", COLOURS[0])
    line(left, "distortion_bits", "pixels, given the code", COLOURS[1])
    line(left, "nll_nats", "image, importance-sampled", COLOURS[2], bits(1))
    line(right, "accuracy, linear", "logistic regression", COLOURS[0], 100)
    line(right, "accuracy, nearest", "5 nearest neighbours", COLOURS[1], 100)
    left.set_ylim(bottom=0)
    for axes, title in ((left, "bits an image"), (right, "class read off the code, % right")):
        axes.set_xticks(range(len(seen)), [f"{names[n]}\n{n}" for n in seen], fontsize=9)
        plain(axes, title, "window, and the pixels that the decoder sees")
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="models whose decodings are shown")
    parser.add_argument("--dial", type=Path, help="what benchmarks/window_dial.py printed with --json")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    pictures = {}
    if any(line.get("validation") for line in table()):
        pictures["hours"] = hours(table())
    if options.runs:
        pictures["reproduced"] = lossy([Run.open(folder) for folder in options.runs])
    if options.dial:
        pictures["window-dial"] = dial(json.loads(options.dial.read_text(encoding="utf-8")))
    for name, drawn in pictures.items():
        # Without the version of the program in it, the same picture is the same file.
        drawn.savefig(options.folder / f"{name}.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
