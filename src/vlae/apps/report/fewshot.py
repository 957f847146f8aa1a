"""What a few labels are worth with the code of a run, as a section of the page."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from vlae.apps.report import plots
from vlae.apps.report.pictures import levels_shown, thumbnail, within
from vlae.apps.report.sections import Section, Told
from vlae.apps.report.words import Words, number, short
from vlae.data.manifest import read_manifest
from vlae.engine.labels.ask import LEAST_KINSHIP
from vlae.engine.labels.classify import FITS
from vlae.engine.labels.curve import Point, interval
from vlae.engine.labels.fewshot import PREDICTIONS, Accuracy, Fewshot
from vlae.engine.measure import load
from vlae.engine.results import measured
from vlae.engine.run import Run
from vlae.errors import DataError

SHOWN = 6
BYTES = 150_000
# By how what is read begins.
COLOURS = {
    "code, anywhere": "#56b4e9",
    "code": plots.CODE,
    "plain code, anywhere": "#cc79a7",
    "plain code": "#009e73",
    "pixels": plots.PIXELS,
    "PCA": "#6a6a6a",
}
APART = 1.04
"""the lines stand so far beside one another, as a factor, that their intervals can be told apart"""


class Predicted(NamedTuple):
    """What the classifier says of an image without a label."""

    name: str
    label: str
    probability: float


def section(told: Told) -> Section | None:
    """How well a few labels sort the images; None where no labels were tried."""
    found, t = measured(Fewshot, told.run, "fewshot", "vlae fewshot"), told.t
    if found is None:
        return None
    predicted = _predicted(told.run)
    return {
        "answer": t.join(_answer(t, found)),
        "rows": [_row(t, a, used=a == found.chosen) for a in sorted(found.accuracies, key=lambda a: -a.accuracy)],
        "how": t.join([t("fewshot.how", n=len(found.accuracies)), *_anywhere(t, found)]),
        "more": t.join(_more(t, found.curve)) if found.curve else None,
        "plot": Markup(_curve(t, found.curve)) if found.curve else None,
        "draws": found.draws,
        "next": _next(told, found, predicted) if found.next else None,
        "predicted": _shown(told, found, _spaced(predicted)),
    }


def _answer(t: Words, found: Fewshot) -> list[Markup]:
    """What to expect of it, in words."""
    best, labels = found.chosen, sum(found.labels.values())
    sure = {"sure": f"{100 * found.sure:g}", "certain": f"{best.certain:,}", "right": f"{best.certain_right:,}"}
    said = [t("fewshot.answer", n=f"{labels:,}", classes=len(found.labels), share=_percent(best.accuracy))]
    guess = max(found.labels.values()) / labels
    said += [t("fewshot.interval", low=_percent(best.low), high=_percent(best.high), guess=_percent(guess))]
    said += [t("fewshot.useless")] if best.low <= guess else []
    said += [t("fewshot.source", source=short(found.source, 40))] if found.source else []
    said += [t("fewshot.certain", n=f"{found.certain:,}", all=f"{found.unlabelled:,}", **sure)] if found.unlabelled else []
    return [*said, t("fewshot.held", **sure)] if best.certain else said


def _row(t: Words, a: Accuracy, used: bool) -> Section:
    return {
        "name": t(f"fewshot.kind.{a.classifier}"),
        "used": used,
        "of": t.said("reads", a.of),
        "share": Markup('<data value="{}">{}</data>').format(repr(a.accuracy), t("percent", share=_percent(a.accuracy))),
        "range": t("fewshot.range", low=_percent(a.low), high=_percent(a.high)),
        "certain": t("fewshot.of", n=f"{a.certain:,}", all=f"{a.labels:,}"),
        "right": t("fewshot.of", n=f"{a.certain_right:,}", all=f"{a.certain:,}") if a.certain else "–",
    }


def _anywhere(t: Words, found: Fewshot) -> list[Markup]:
    return [t("fewshot.anywhere")] if any(a.of.endswith("anywhere") for a in found.accuracies) else []


def _more(t: Words, points: Sequence[Point]) -> list[Markup]:
    """Whether more labels would help, and what the same labels are worth without the code."""
    counts = sorted({p.labels for p in points})
    last = {of: max((p for p in points if (p.of, p.labels) == (of, counts[-1])), key=lambda p: p.accuracy) for of in _readings(points)}
    best = max((p for of, p in last.items() if of.startswith("code")), key=lambda p: p.accuracy)
    said = [t("fewshot.last", n=f"{best.labels:,}", share=_percent(best.accuracy))]
    others = [f"{t.said('reads', of)} {t('percent', share=_percent(p.accuracy))}" for of, p in last.items() if not of.startswith("code")]
    said += [t("fewshot.beside", listed=t.listed(others))] if others else []
    if len(counts) > 1:
        [before] = [p for p in points if (p.of, p.classifier, p.labels) == (best.of, best.classifier, counts[-2])]
        gain, low, _ = interval(np.array(best.by_draw) - np.array(before.by_draw))
        said.append(t("fewshot.rising" if low > 0 else "fewshot.flat", fewer=f"{before.labels:,}", gain=f"{100 * gain:+.1f}".replace("-", "−")))
    return said


def _readings(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(p.of for p in points))


def _predicted(run: Run) -> list[Predicted]:
    """The predictions, the surest first; none where their table is gone, or was changed into something else."""
    try:
        rows = read_manifest(run.folder / "results" / PREDICTIONS)
    except DataError:
        return []
    found = [Predicted(row.image, row.label, row.factors["probability"]) for row in rows if row.label and "probability" in row.factors]
    return sorted(found, key=lambda p: -p.probability)


def _spaced(predicted: Sequence[Predicted]) -> list[Predicted]:
    """A few of them from the surest to the least sure, evenly spaced."""
    few = np.linspace(0, len(predicted) - 1, min(SHOWN, len(predicted))).round().astype(int)
    return [predicted[n] for n in few.tolist()]


def _next(told: Told, found: Fewshot, predicted: Sequence[Predicted]) -> Section:
    """The first images to label next."""
    known = {p.name: p for p in predicted}
    few = [known.get(name, Predicted(name, "", 0.0)) for name in found.next[:SHOWN]]
    lead = "fewshot.random" if found.kinship < LEAST_KINSHIP else "fewshot.typical"
    return {"lead": told.t(lead, n=len(found.next)), "shown": _shown(told, found, few)}


def _shown(told: Told, found: Fewshot, few: Sequence[Predicted]) -> list[Section]:
    """Pictures of the run's own images with what is predicted of each; images of a folder are not at hand, and are only named."""
    t, images, levels = told.t, told.images, levels_shown(told.images)
    at = {name: n for n, name in enumerate(images.names)} if found.source is None else {}
    there = [at[p.name] for p in few if p.name in at]
    seen = {n: load(images, np.array([n]), told.run.settings.train.seed)[0].numpy() for n in there}
    rows = within(BYTES, lambda side: [[thumbnail(seen[n], levels, side)] for n in there]) if there else []
    drawn = {images.names[n]: picture for n, [picture] in zip(there, rows, strict=True)}
    return [
        {
            "picture": drawn.get(p.name),
            "name": short(p.name, 40),
            "words": t("fewshot.predicted", label=short(p.label, 40), share=_percent(p.probability)) if p.label else None,
        }
        for p in few
    ]


@plots.styled
def _curve(t: Words, points: Sequence[Point]) -> str:
    """Accuracy against labels a class: a panel for each classifier, a line for each of what is read."""
    say, plot = t.of("fewshot.plot."), plots.Plot("fewshot", 8.4, 3.7, 1, len(FITS))
    counts = sorted({p.labels for p in points})
    for axes, kind in zip(plot.axes, FITS, strict=True):
        for place, of in enumerate(_readings(points)):
            _line(axes, [p for p in points if (p.of, p.classifier) == (of, kind)], place, plot.label(t.said("reads", of)))
        axes.set_title(plot.label(t.texts[f"fewshot.kind.{kind}"]))
        axes.set_xscale("log")
        axes.set_xticks(counts, [plot.label(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel(plot.label(say["labels"]))
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    plot.axes[0].set_ylabel(plot.label(say["right"]))
    handles, labels = plot.axes[0].get_legend_handles_labels()
    plot.figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return plot.svg(say["alt"])


def _line(axes: Axes, points: Sequence[Point], place: int, name: str) -> None:
    colour = next((colour for start, colour in COLOURS.items() if points[0].of.startswith(start)), plots.INK)
    counts, middle = [p.labels * APART**place for p in points], [p.accuracy for p in points]
    error = [[p.accuracy - max(p.low, 0) for p in points], [min(p.high, 1) - p.accuracy for p in points]]
    axes.errorbar(counts, middle, error, fmt="o-", color=colour, markersize=3.5, linewidth=1.6, elinewidth=0.9, label=name)


def _percent(share: float) -> str:
    return number(100 * share, 3)
