"""Draw the picture of audit.md: what a code keeps against how wide the decoder's window is, from the rows of benchmarks/guide.py."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, COLOURS = "#333333", ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
BORDER, OTHER = "border of the structures kept", "another image's code"
TICKS = (0, 1, 3, 5, 7, 9, 11, 13)
SHOWN = {
    "shift_2px": "shifted by 2 px",
    "patches_shuffled": "patches shuffled nearby",
    "grain_swapped": "grain of another image",
    "noise": "noise x1.5",
    "brightness": "brightness",
}
ACROSS = 3


def curve(rows: Sequence[dict[str, Any]], source: str, metric: str) -> tuple[list[int], list[float]]:
    """Columns of the windows and a metric of a source, the narrowest first; where it was not found, it is left out."""
    points = sorted((row["columns"], row["value"]) for row in rows if (row["source"], row["metric"]) == (source, metric) and row["value"] is not None)
    return [x for x, _ in points], [y for _, y in points]


def draw(axes: Axes, rows: Sequence[dict[str, Any]], lines: dict[str, tuple[str, str]], what: str) -> None:
    """Several curves with their names."""
    for (name, (source, metric)), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(*curve(rows, source, metric), "o-", color=colour, label=name, linewidth=1.6, markersize=4)
    axes.set_title(what, loc="left", fontsize=11)
    axes.set_xlabel("columns that the decoder sees")
    axes.set_xticks(TICKS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """What the code tells, and the border of the structures kept, of every source; then for each source its changes."""
    sources = list(dict.fromkeys(row["source"] for row in rows))
    down = -(-(2 + len(sources)) // ACROSS)
    figure = Figure(figsize=(4.2 * ACROSS, 3.9 * down), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    bits, border, *others = figure.subplots(down, ACROSS, squeeze=False).flat
    for spare in others[len(sources) :]:
        spare.axis("off")
    draw(bits, rows, {source: (source, OTHER) for source in sources}, "another image's code costs (bits)")
    bits.set_yscale("symlog", linthresh=100)
    draw(border, rows, {source: (source, BORDER) for source in sources}, "structures kept from (px)")
    for axes, source in zip(others, sources, strict=False):
        lines = {words: (source, f"swap cost of {change}") for change, words in SHOWN.items()}
        draw(axes, rows, lines, f"{source}: shares of that cost")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the rows of these files into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path, help="what benchmarks/guide.py printed with --json")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    rows = [row for path in options.rows for row in json.loads(path.read_text(encoding="utf-8"))]
    # Without the version of the program in it, the same picture is the same file.
    picture(rows).savefig(options.folder / "what-is-kept.png", dpi=160, metadata={"Software": None}, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
