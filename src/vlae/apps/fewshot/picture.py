"""The curve of accuracy against labels as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlae.data.files import beside
from vlae.engine.labels.curve import Point

# Okabe and Ito's colours, told apart by every eye: the first, blue, is always the code.
COLOURS = ("#0072b2", "#e69f00", "#6a6a6a", "#009e73", "#cc79a7", "#56b4e9")
APART = 1.04
"""the lines stand so far beside one another, as a factor, that their intervals can be told apart"""
STYLE = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8a8a8a", "axes.titlelocation": "left", "font.size": 10.5}
TITLES = {"linear": "Linear classifier", "neighbours": "Nearest neighbours"}


@matplotlib.rc_context(STYLE)  # type: ignore[arg-type]
def draw(points: Sequence[Point], path: Path) -> None:
    """Write a PNG: one panel for each classifier, one line with its interval for each of what is compared; empty panels where there are none."""
    figure = Figure((8.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = figure.subplots(1, len(TITLES), sharey=True).tolist()
    for axes, (kind, title) in zip(panels, TITLES.items(), strict=True):
        for place, of in enumerate(dict.fromkeys(point.of for point in points)):
            _line(axes, [point for point in points if (point.of, point.classifier) == (of, kind)], place)
        axes.set_title(title)
        axes.set_xscale("log")
        counts = sorted({point.labels for point in points})
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("labels a class")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    panels[0].set_ylabel("right, mean over classes")
    if points:
        panels[-1].legend(frameon=False, loc="lower right")
    with beside(path) as file:
        figure.savefig(file, format="png")


def _line(axes: Axes, points: Sequence[Point], place: int) -> None:
    counts, middle = [point.labels * APART**place for point in points], [point.accuracy for point in points]
    error = [[p.accuracy - max(p.low, 0) for p in points], [min(p.high, 1) - p.accuracy for p in points]]
    axes.errorbar(counts, middle, error, fmt="o-", color=COLOURS[place], markersize=3.5, linewidth=1.6, elinewidth=0.9, label=points[0].of)
