"""Draw the picture of wavefront.md: one image in raster and in wavefront order, from the schedule that the sampler itself follows."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from vlae.core.schedule import Sweep, schedule
from vlae.core.taps import Offset, reach, stack

ROWS, COLUMNS = 8, 12
LAYERS = stack(3)
PLAN = schedule(LAYERS)
PIXEL: Offset = (4, 6)
"""The pixel whose window is outlined."""

# Orange is of Okabe and Ito's colours; all of them differ in lightness too, so that every eye tells them apart, in print as well.
KNOWN, NOW, TO_COME, WINDOW, GRID, INK = "#d3e5f1", "#e69f00", "#ffffff", "#003f66", "#a9b4bc", "#222222"


def raster() -> NDArray[np.int64]:
    """The step in which each pixel is drawn, counted from 1, when they are drawn one by one."""
    return np.arange(1, ROWS * COLUMNS + 1).reshape(ROWS, COLUMNS)


def wavefront() -> NDArray[np.int64]:
    """The same in wavefront order, from the pixels that the sampler works on at each of its times."""
    sweep = Sweep(PLAN, ROWS, COLUMNS, above=max(-di for di, _ in reach(LAYERS)), depth=1)
    steps = np.zeros((ROWS, COLUMNS), dtype=np.int64)
    for time in sweep.times:
        for row in sweep.rows(time):
            steps[row, time - PLAN.slope * row] = time + 1
    return steps


def window(pixel: Offset) -> set[Offset]:
    """What the network sees when it writes this pixel."""
    return {(pixel[0] + di, pixel[1] + dj) for di, dj in reach(LAYERS)}


def outline(cells: set[Offset]) -> list[list[Offset]]:
    """The edges around a set of cells, each from one corner to the next."""
    edges = []
    for i, j in cells:
        corners = [(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1), (j, i)]
        beyond = [(i - 1, j), (i, j + 1), (i + 1, j), (i, j - 1)]
        edges += [corners[n : n + 2] for n, cell in enumerate(beyond) if cell not in cells]
    return edges


def draw(axes: Axes, steps: NDArray[np.int64], order: str, slope: int) -> None:
    """An image at the step in which ``PIXEL`` is drawn: each cell with its own step, the window outlined."""
    now = steps[PIXEL]
    for (i, j), step in np.ndenumerate(steps):
        colour = KNOWN if step < now else NOW if step == now else TO_COME
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, edgecolor=GRID, linewidth=0.6))
        weight = "bold" if step == now else "normal"
        axes.text(j + 0.5, i + 0.52, str(step), ha="center", va="center", fontsize=9, weight=weight, color=INK)
    for cells in (window(PIXEL), {PIXEL}):
        axes.add_collection(LineCollection(outline(cells), colors=WINDOW, linewidths=2.2, capstyle="projecting", zorder=3))
    together = int((steps == now).sum())
    axes.text(0, -0.95, f"{order}: {steps.max()} steps", fontsize=12.5, weight="bold", color=INK)
    axes.text(0, -0.3, f"now step {now}: {together} pixel{'s together' if together > 1 else ''}", fontsize=9.5, color=INK)
    axes.text(COLUMNS, -0.3, f"row $i$, column $j$: step $1 + j + {slope}\\,i$", ha="right", fontsize=9.5, color=INK)
    axes.set(xlim=(-0.06, COLUMNS + 0.06), ylim=(ROWS + 0.06, -1.6), aspect="equal")
    axes.axis("off")


def picture() -> Figure:
    """Both orders side by side, and what the colours mean."""
    figure = Figure(figsize=(9, 3.9), facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.012, right=0.988, top=0.995, bottom=0.1, wspace=0.05)
    left, right = figure.subplots(1, 2)
    draw(left, raster(), "Raster order", slope=COLUMNS)
    draw(right, wavefront(), "Wavefront order", slope=PLAN.slope)
    swatches = [Patch(facecolor=colour, edgecolor=GRID, linewidth=0.8) for colour in (KNOWN, NOW, TO_COME)]
    swatches.append(Patch(facecolor="none", edgecolor=WINDOW, linewidth=2))
    words = ["known already", "drawn now", "to come", "one pixel and the window that it sees"]
    figure.legend(swatches, words, loc="lower center", ncols=4, frameon=False, fontsize=9.5, labelcolor=INK, handlelength=1.3, handleheight=1.1)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw into a folder: that of this file where none is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args(arguments).folder
    # Without the version of the program in it, the same picture is the same file.
    picture().savefig(folder / "wavefront.png", dpi=200, metadata={"Software": None}, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
