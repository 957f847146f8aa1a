"""What good parts look like to a run, what its threshold promises, and what it found last, as a section of the page."""

import math

import numpy as np
from markupsafe import Markup
from PIL import Image

from vlae.apps.report import plots
from vlae.apps.report.pictures import Picture, encoded
from vlae.apps.report.sections import Section, Told
from vlae.apps.report.words import Words, number, short
from vlae.engine.inspection.calibration import Calibration, calibrated
from vlae.engine.inspection.conformal import Promise
from vlae.engine.inspection.detection import Counted, Detection, Found, pictures

# From so many standard deviations on, the global evidence is told.
UNLIKE = 4.0
SUSPECTS, SHOWN = 5, 6
# Pictures are made smaller than the one, and by whole factors larger up to the other.
PICTURE_SIDE, LEAST_SIDE = 260, 200


def section(told: Told) -> Section | None:
    """What is unlike good parts; None where the run was not calibrated."""
    run, t = told.run, told.t
    if not calibrated(run):
        return None
    known, last = Calibration.read(run), Detection.read(run)
    shown = [score * last.promise.threshold for score in last.scores] if last else []
    suspects = t.listed(short(name, 40) for name in known.suspects[:SUSPECTS])
    return {
        "lead": t.join(_promise(t, known.promise)),
        "suspects": t("defects.suspects", names=suspects) if suspects else None,
        "plot": Markup(_scores(t, known, shown)),
        "rows": [_position(t, row) for row in known.rates()],
        "last": t.join(_last(t, last)) if last else None,
        "found": [{"picture": _picture(told, n), "name": short(f.name, 60), "words": _words(t, f)} for n, f in enumerate(last.highest[:SHOWN])]
        if last
        else [],
    }


def _promise(t: Words, p: Promise) -> list[Markup]:
    lots = "" if p.n_lots is None else "_lots"
    values = {"threshold": number(p.threshold), "rate": _percent(p.rate), "n": p.n_images, "lots": p.n_lots}
    said = [t(f"defects.promise{lots}", **values)]
    return said if p.kept else [*said, t(f"defects.short{lots}", asked=_percent(p.asked), needed=p.needed)]


def _position(t: Words, row: dict[str, float]) -> Section:
    return {
        "threshold": number(row["threshold"]),
        "rate": t("percent", share=_percent(row["rate"])),
        "range": t("defects.range", low=_percent(row["low"]), high=_percent(row["high"])),
    }


def _last(t: Words, d: Detection) -> list[Markup]:
    said = [t("defects.alarms", alarms=d.alarms, n=d.images, source=short(d.source, 40))]
    said += [t("defects.seen", n=d.seen)] if d.seen else []
    return [*said, _counted(t, d.counted) if d.counted else t("defects.uncounted")]


def _counted(t: Words, c: Counted) -> Markup:
    detected, low, high = map(_percent, c.detected)
    counts = {"defective": c.defective, "detected": detected, "low": low, "high": high}
    if c.false_alarms is None:
        return t("defects.counted_defects", **counts)
    false, false_low, false_high = map(_percent, c.false_alarms)
    return t("defects.counted", good=c.good, false=false, false_low=false_low, false_high=false_high, **counts)


def _words(t: Words, f: Found) -> Markup:
    """What speaks against an image, and where."""
    if not math.isfinite(f.score):
        said = t("defects.no_likelihood")
    elif f.regions:
        r = f.regions[0]
        place = {"width": r.width, "height": r.height, "left": r.left, "top": r.top}
        said = t("defects.region", score=number(f.score, 2), kind=t(f"defects.kind.{r.kind}"), bits=f"{r.bits:+,.0f}".replace("-", "−"), **place)
    else:
        said = t("defects.no_alarm", score=number(f.score, 2))
    return t("defects.unlike", words=said, n=number(f.unlike, 2)) if f.unlike is not None and f.unlike > UNLIKE else said


def _picture(told: Told, n: int) -> Picture | None:
    """The picture of an image that was found, or nothing where its file is gone."""
    path = pictures(told.run) / f"{n:02d}.png"
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    times = max(1, LEAST_SIDE // picture.height)
    picture = picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
    picture.thumbnail((2 * PICTURE_SIDE, PICTURE_SIDE))
    return encoded(picture)


@plots.styled
def _scores(t: Words, known: Calibration, shown: list[float]) -> str:
    """The scores of good images and of those that were found, and the threshold between them."""
    plot = plots.Plot("scores", 8.4, 2.2)
    [axes] = plot.axes
    spread = np.random.default_rng(0)
    for row, (scores, colour) in enumerate(((known.scores, plots.CODE), (shown, plots.PIXELS))):
        axes.scatter(scores, row + spread.uniform(-0.25, 0.25, len(scores)), s=14, color=colour, alpha=0.7, linewidths=0)
    axes.axvline(known.promise.threshold, color=plots.INK, linewidth=1.2)
    axes.text(known.promise.threshold, 1.45, plot.label(t("defects.threshold")), ha="center", va="bottom")
    axes.set_yticks([0, 1], [plot.label(t("defects.good")), plot.label(t("defects.shown"))])
    axes.set_ylim(-0.5, 1.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(plot.label(t("defects.axis")))
    return plot.svg(str(t("defects.scores")))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
