"""The plots of the page as SVG that takes its fonts from the page.

Matplotlib sees no text of the page: each label is drawn as a short mark and put in afterwards, escaped. So no name of a column is read as
mathematics, no glyph is missing for want of a font, and the browser's fonts draw every language.
"""

import html
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vlae.apps.report.words import number
from vlae.engine.probe import Readout
from vlae.engine.results import Evaluation
from vlae.units import bits

# Okabe and Ito's colours, told apart by every eye: blue is always the code, orange the pixels.
CODE, LIGHT, PIXELS, RAW, INK = "#0072b2", "#9ecae1", "#e69f00", "#b9bdc1", "#333333"
CURVES = {"total": PIXELS, "rate_bits": CODE, "learning_rate": "#6a6a6a", "minutes": "#6a6a6a"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vlae",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 10.5,
    "text.color": INK,
    "xtick.color": "#5a5a5a",
    "ytick.color": "#5a5a5a",
    "lines.linewidth": 1.6,
}
MOST_POINTS = 400
MOST_READOUTS = 40


# Within it matplotlib has the page's style, and afterwards its own again.
styled = matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


class Plot:
    """One figure whose labels are put in after it was drawn; of no rows where it is laid out otherwise."""

    def __init__(self, name: str, width: float, height: float, rows: int = 1, columns: int = 1) -> None:
        self.name, self.labels = name, list[str]()
        self.figure = Figure((width, height), layout="constrained")
        FigureCanvasSVG(self.figure)
        self.axes: list[Axes] = np.ravel(self.figure.subplots(rows, columns)).tolist() if rows else []

    def label(self, text: object) -> str:
        """The mark that stands for a text, about as wide as the text will be."""
        self.labels.append(str(text))
        wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in str(text))
        return f"@{len(self.labels) - 1}@".ljust(wide, "c")

    def svg(self, alt: str) -> str:
        """The finished figure, described by ``alt``."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        text = file.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'font-family: [^;"]*;? ?', "", text)
        # Several figures share one page: their names inside must not meet.
        text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{self.name}-", text)
        size = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
        assert size is not None
        head = f'<svg class="plot" style="max-width:{float(size[1]) * 4 / 3:.0f}px" {size[0]} role="img" aria-label="{html.escape(alt)}">'
        text = head + text[text.index(">") + 1 :]
        return re.sub(r"@(\d+)@c*", lambda mark: html.escape(self.labels[int(mark[1])]), text)


@styled
def bars_of_bits(evaluation: Evaluation, raw_bits: float, say: Mapping[str, str], *, has_code: bool) -> str:
    """What an image takes as it is stored, and what it takes as code and pixels, with standard errors."""
    plot = Plot("bits", 8.4, 2.2)
    [axes] = plot.axes
    rate, distortion = evaluation.rate_bits, evaluation.distortion_bits
    se = float(np.nan_to_num(evaluation.distortion_bits_se))
    axes.barh(1, raw_bits, color=RAW, height=0.5)
    axes.barh(0, rate, color=CODE, height=0.5)
    axes.barh(0, distortion, left=rate, color=PIXELS, height=0.5)
    axes.errorbar(rate + distortion, 0, xerr=se, color=INK, capsize=4, linewidth=1.2)
    if has_code:
        axes.errorbar(rate, 0, xerr=np.nan_to_num(evaluation.rate_bits_se), color=INK, capsize=4, linewidth=1.2)
        axes.text(0, 0.31, plot.label(f"{say['code']} {number(rate)}"), color=CODE, va="bottom")
    axes.text(rate + distortion / 2, 0, plot.label(f"{say['pixels']} {number(distortion)}"), ha="center", va="center")
    axes.text(raw_bits / 2, 1, plot.label(number(raw_bits)), ha="center", va="center")
    axes.set_yticks([0, 1], [plot.label(say["model"]), plot.label(say["stored"])])
    _without_left_side(axes)
    axes.set_xlim(0, 1.02 * max(raw_bits, rate + distortion + 3 * se))
    axes.set_xlabel(plot.label(say["axis"]))
    _thousands(axes, "x")
    return plot.svg(say["alt"])


@styled
def bars_of_code(by_group: Sequence[float], strongest: Sequence[int], say: Mapping[str, str]) -> str:
    """The bits of each number of the code, the most first; the strongest, which the page goes on to move, are dark."""
    plot = Plot("code", 8.4, 2.4)
    [axes] = plot.axes
    order = np.argsort(by_group)[::-1]
    dark = set(strongest)
    colours = [CODE if n in dark else LIGHT for n in order.tolist()]
    axes.bar(range(len(order)), np.asarray(by_group)[order], color=colours, width=0.86)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.set_xticks([])
    axes.set_xlabel(plot.label(say["x"]))
    axes.set_ylabel(plot.label(say["y"]))
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    return plot.svg(say["alt"])


@styled
def readouts(found: Sequence[Readout], colours: Mapping[str, str], say: Mapping[str, str]) -> str:
    """How well each factor can be read off the code, the best first, with intervals."""
    rows = found[:MOST_READOUTS]
    plot = Plot("probe", 8.4, 0.75 + 0.27 * len(rows))
    [axes] = plot.axes
    y = np.arange(len(rows))[::-1]
    for place, row in zip(y.tolist(), rows, strict=True):
        axes.barh(place, max(row.r2, 0), color=colours[row.factor], height=0.66)
        axes.plot([max(row.low, -0.2), row.high], [place, place], color=INK, linewidth=1.2)
    axes.set_yticks(y, [plot.label(_short(row.factor)) for row in rows])
    _without_left_side(axes)
    axes.set_xlim(-0.2, 1)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.axvline(0, color="#8a8a8a", linewidth=0.8)
    axes.set_xlabel(plot.label(say["axis"]))
    return plot.svg(say["alt"])


@styled
def curves(metrics: Sequence[Mapping[str, Any]], say: Mapping[str, str], *, has_code: bool) -> str:
    """Bits, learning rate and time over the steps of a training."""
    names = ["total", *(["rate_bits"] if has_code else []), "learning_rate", "minutes"]
    plot = Plot("curves", 8.4, 4.3, 2, 2)
    lines = [{**line, "total": line["rate_bits"] + line["distortion_bits"], "minutes": line["seconds"] / 60} for line in _thinned(metrics)]
    for axes, name in zip(plot.axes, names, strict=False):
        axes.plot([line["step"] for line in lines], [line[name] for line in lines], color=CURVES[name])
        axes.set_title(plot.label(say[name]))
        axes.set_xlabel(plot.label(say["step"]))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _thousands(axes, "x")
        _thousands(axes, "y")
    checks = _validations(plot.axes[0], metrics)
    _without_the_start(plot.axes[0], [line["total"] for line in lines], checks)
    _skips(plot.axes[names.index("learning_rate")], metrics)
    for axes in plot.axes[len(names) :]:
        axes.set_visible(False)
    return plot.svg(say["alt"])


def _thinned(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most so many lines that a plot can show, the first and the last among them."""
    kept = np.unique(np.linspace(0, len(metrics) - 1, min(len(metrics), MOST_POINTS)).round().astype(int))
    return [metrics[n] for n in kept.tolist()]


def _validations(axes: Axes, metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    """A dot for each validation; their values in bits are returned."""
    points = [(line["step"], bits(line["validation_nats"])) for line in metrics if "validation_nats" in line]
    kept = points[:: -(-len(points) // MOST_POINTS) or 1]
    values = [value for _, value in kept]
    axes.plot([step for step, _ in kept], values, "o", color=INK, markersize=3.5)
    return values


def _skips(axes: Axes, metrics: Sequence[Mapping[str, Any]]) -> None:
    """A line wherever updates were skipped."""
    pairs = pairwise(metrics)
    steps = [after["step"] for before, after in pairs if after["skipped"] > before["skipped"]]
    for step in steps[:: -(-len(steps) // MOST_POINTS) or 1]:
        axes.axvline(step, color="#cc79a7", linewidth=1)


def _without_the_start(axes: Axes, *curves: Sequence[float]) -> None:
    """Scale an axis by what comes after the first tenth: the first steps of a training lie far above all others."""
    later = [value for curve in curves for value in curve[len(curve) // 10 :]]
    low, high = min(later), max(later)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)


def _without_left_side(axes: Axes) -> None:
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _thousands(axes: Axes, which: str) -> None:
    getattr(axes, f"{which}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
