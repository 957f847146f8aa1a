"""What an audit found, as a section of the page and as one picture that says it by itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from vlae.apps.report import plots
from vlae.apps.report.pictures import Range, levels_shown
from vlae.apps.report.sections import Section, Told
from vlae.apps.report.words import Words, fixed, number, short
from vlae.engine.formats import write_text
from vlae.engine.kept.audit import Audit, Rate, Site, Term
from vlae.engine.kept.spectrum import BORDER, Spectrum
from vlae.engine.kept.swap import IGNORED, KEPT, Swap
from vlae.engine.run import Run

COLOURS = {"kept": plots.CODE, "partly": plots.LIGHT, "ignored": plots.PIXELS, "unclear": plots.RAW}
TICKS = (128, 64, 32, 16, 8, 4, 2)


def section(told: Told) -> Section | None:
    """What the code keeps; None where the run was not audited."""
    found, t = Audit.read(told.run), told.t
    if found is None:
        return None
    asked = Site.read(told.run)
    source = t(f"split.{found.source}") if found.source in ("test", "validation") else short(found.source, 40)
    measured = t("audit.measured", n=found.images, source=source, height=found.height, width=found.width)
    idle = [t("audit.idle", names=t.listed(change(t, name) for name in found.idle))] if found.idle else []
    return {
        "answer": answer(t, found.spectrum),
        "lead": t.join([t("audit.lead"), whole(t, found)]),
        "plot": Markup(picture(t, found)),
        "rows": [_row(t, swap, found.apart) for swap in ordered(found.swaps)],
        "rule": t.join([t("audit.rule", kept=f"{KEPT:.0%}", ignored=f"{IGNORED:.0%}"), *idle, measured, t("audit.period")]),
        "terms": [_term(t, term) for term in found.terms],
        "site": t.join(_asked(t, asked)) if asked else None,
    }


def answer(t: Words, found: Spectrum) -> Markup:
    """Which structures are kept, in a sentence."""
    if found.shape == "border":
        assert found.above and found.below and found.border and found.border_low and found.border_high
        near = {"border": _size(found.border), "low": _size(found.border_low), "high": _size(found.border_high)}
        return t("audit.border", above=_size(found.above), below=_size(found.below), **near)
    if found.shape == "several":
        ranges = t.listed(str(t("audit.range", coarse=_size(coarse), fine=_size(fine))) for coarse, fine in found.ranges)
        return t("audit.several", ranges=ranges)
    if found.shape == "unclear" and found.above:
        return t("audit.down_to", above=_size(found.above))
    if found.shape == "unclear" and found.below:
        return t("audit.up_to", below=_size(found.below))
    return t(f"audit.{found.shape}", finest=_size(found.pixels[-1]))


def _size(pixels: float) -> str:
    return number(pixels, 2)


def whole(t: Words, found: Audit) -> Markup:
    """What 100% is."""
    if not found.apart:
        return t("audit.nothing")
    return t("audit.whole", bits=number(found.other_bits), low=number(found.other_low), high=number(found.other_high))


def change(t: Words, name: str) -> str:
    """The name of a change."""
    return str(t(f"audit.change.{name}"))


def verdict(t: Words, found: str) -> Markup:
    """A verdict in words."""
    return t("audit.unclear_short" if found == "unclear" else f"audit.{found.replace(' ', '_')}")


def ordered(swaps: Sequence[Swap]) -> list[Swap]:
    """The dearest first."""
    return sorted(swaps, key=lambda swap: -swap.share)


def _row(t: Words, swap: Swap, told: bool) -> Section:
    """A change's line; its share only where there is something to take shares of."""
    return {
        "name": change(t, swap.change),
        "code": swap.change,
        "bits": Markup('<data value="{}">{}</data>').format(repr(swap.bits), number(swap.bits)),
        "share": t("percent", share=_percent(swap.share)) if told else "–",
        "range": t("audit.interval_of", low=_percent(swap.low), high=_percent(swap.high)) if told else "–",
        "verdict": swap.verdict,
        "said": verdict(t, swap.verdict),
    }


def _percent(share: float) -> str:
    return f"{100 * share + 0.0:.1f}".replace("-", "−")


def _term(t: Words, term: Term) -> Section:
    name = t("audit.above", pixels=term.wanted.removesuffix(" px")) if term.name == "above" else change(t, term.name)
    wanted = "kept" if term.name == "above" else term.wanted
    return {
        "name": name,
        "source": t(f"audit.source_{term.source}"),
        "wanted": verdict(t, wanted),
        "found": verdict(t, term.found),
        "held": term.held,
    }


def _asked(t: Words, asked: Site) -> list[Markup]:
    """What people said to pairs of images and decodings."""

    def told(rate: Rate) -> dict[str, object]:
        return {"yes": rate.yes, "n": rate.answers, "low": _percent(rate.low), "high": _percent(rate.high)}

    words = [t("audit.site_part", **told(asked.same_part)), t("audit.site_defect", **told(asked.same_defect))]
    words.append(t("audit.site_catch", **told(asked.catch_part)))
    return [*words, t("audit.site_unanswered", n=asked.unanswered)] if asked.unanswered else words


def write_picture(run: Run, found: Audit, originals: Tensor, decodings: Tensor, lang: str = "en") -> Path:
    """Write ``results/audit.svg``: one picture that says it by itself, with images beside decodings of their codes, (n, c, h, w).

    Raises:
        SettingError: the language is another.
        DiskError: it cannot be written.
    """
    levels, path = levels_shown(run.images()), run.folder / "results" / "audit.svg"
    shown = [_seen(x, levels) for pair in zip(originals.numpy(), decodings.numpy(), strict=True) for x in pair]
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" font-family="sans-serif" '
    svg = picture(Words(lang), found, shown).replace("<svg ", head, 1)
    write_text(path, svg.replace('style="', 'style="background:#fff;image-rendering:pixelated;', 1) + "\n")
    return path


def _seen(x: np.ndarray, levels: Range) -> np.ndarray:
    """Levels (c, h, w) as brightness from 0 to 1, (h, w) or (h, w, 3)."""
    scaled = ((x.astype(np.float64) - levels.black) / (levels.white - levels.black)).clip(0, 1).transpose(1, 2, 0)
    return scaled if scaled.shape[2] == 3 else scaled[..., 0]


@plots.styled
def picture(t: Words, found: Audit, shown: Sequence[np.ndarray] = ()) -> str:
    """Changes from kept to ignored, what survives by size, and below them images, each with a decoding after it, where they are given."""
    say, rows = t.of("audit.plot."), 2 if shown else 1
    plot = plots.Plot("audit", 10.4, 2.3 + 2.3 * rows, 0)
    above, *below = plot.figure.subfigures(rows, 1, height_ratios=[2, 1][:rows], squeeze=False)[:, 0]
    left, right = above.subplots(1, 2)
    _bars(plot, left, found, t)
    _curve(plot, right, found.spectrum, say)
    for n, (axes, pixels) in enumerate(zip(below[0].subplots(1, len(shown)), shown, strict=True) if shown else ()):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="none")
        axes.set_title(plot.label(say["decoding" if n % 2 else "original"]), fontsize=9.5)
        axes.axis("off")
    if shown:  # on a page the sentence stands above
        plot.figure.suptitle(plot.label(answer(t, found.spectrum).striptags()), x=0.01, ha="left", fontsize=12)
    return plot.svg(say["alt"])


def _bars(plot: plots.Plot, axes: Axes, found: Audit, t: Words) -> None:
    rows = ordered(found.swaps)
    y = np.arange(len(rows))[::-1]
    for place, swap in zip(y.tolist(), rows, strict=True):
        axes.barh(place, max(swap.share, 0), color=COLOURS[swap.verdict], height=0.66)
        axes.plot([max(swap.low, -0.02), swap.high], [place, place], color=plots.INK, linewidth=1.2)
        percent = f"{t('percent', share=_percent(swap.share))} " if found.apart else ""
        said = f"{percent}{verdict(t, swap.verdict)}"
        axes.text(max(swap.share, swap.high, 0) + 0.02, place, plot.label(said), va="center", fontsize=9.5)
    for share in (KEPT, IGNORED):
        axes.axvline(share, color="#8a8a8a", linewidth=0.8, linestyle=":")
    axes.set_yticks(y, [plot.label(change(t, swap.change)) for swap in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.02, 1.35 * max([0.5, *(swap.high for swap in rows)]))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_xlabel(plot.label(t.texts["audit.plot.share"]))


def _curve(plot: plots.Plot, axes: Axes, found: Spectrum, say: dict[str, str]) -> None:
    """What survives, from coarse structures on the left to fine ones on the right."""
    at = -np.log2(found.pixels)
    low, high, survives = (np.clip(values, -0.1, 1) for values in (found.low, found.high, found.survives))
    axes.fill_between(at, low, high, color=plots.LIGHT, linewidth=0)
    axes.plot(at, survives, color=plots.CODE)
    axes.axhline(BORDER, color="#8a8a8a", linewidth=0.8, linestyle=":")
    if found.border:
        axes.axvline(-np.log2(found.border), color=plots.PIXELS)
        axes.text(-np.log2(found.border), 1.02, plot.label(f"{_size(found.border)} px"), color="#955800", ha="center")
    ticks = [tick for tick in TICKS if found.pixels[-1] <= tick <= found.pixels[0]]
    axes.set_xticks([-np.log2(tick) for tick in ticks], [plot.label(tick) for tick in ticks])
    axes.set_ylim(-0.1, 1)
    axes.set_yticks([0, 0.5, 1], [plot.label(fixed(v)) for v in (0, 0.5, 1)])
    axes.set_xlabel(plot.label(say["pixels"]))
    axes.set_ylabel(plot.label(say["survives"]))
