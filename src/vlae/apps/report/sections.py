"""The sections of the page: from what was measured and found to what the template prints."""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from vlae.apps.report import drawings, plots
from vlae.apps.report.findings import MOVED_SIDE, MOVES, Findings, Moved, Shown, Site
from vlae.apps.report.pictures import Range, heat, middle, picture, thumbnail, top_of, within
from vlae.apps.report.words import Words, figure, fixed, number, short
from vlae.core.window import Window
from vlae.data.imageset import ImageSet
from vlae.engine.build import decoder_plan
from vlae.engine.probe import LEAST_IMAGES, Readout
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.units import bits

Section = dict[str, Any]

# A code of less than a bit in every image is none to speak of.
COLLAPSED_BITS = 1.0
SHOWN_DECODINGS = 4
# R2 from which a property counts as read off, and up to which as not found.
KEPT, LEFT = 0.5, 0.1
MOST_REASONS, MOST_FILES = 50, 5
MOST_LABELS = 20
# Bytes that the pictures of a section may take: together with the rest they stay below 5 MB.
GALLERY_BYTES, MAP_BYTES, MOVED_BYTES = 1_900_000, 900_000, 1_100_000


@dataclass(frozen=True)
class Told:
    """What every section needs: the words, the run, its evaluation and its images."""

    t: Words
    run: Run
    evaluation: Evaluation
    images: ImageSet

    @property
    def raw_bits_per_pixel(self) -> int:
        """What a pixel takes as it is stored."""
        return self.images.depth * self.images.channels

    @property
    def pixels_an_image(self) -> float:
        """Pixels of an image, the mean."""
        return self.evaluation.pixels / self.evaluation.n_images

    @property
    def total_bits(self) -> float:
        """Bits of an image, code and pixels together."""
        return bits(self.evaluation.nll_nats)

    @property
    def has_code(self) -> bool:
        """Whether the model has a code."""
        return self.run.settings.keep.code != "none"


def answer(told: Told, found: Findings) -> Section:
    """What was kept, what was left and how sure that is, before anything else."""
    t, e = told.t, told.evaluation
    kind = _kind(told)
    share = 100 * e.distortion_bits / (e.rate_bits + e.distortion_bits)
    kept = t("answer.kept" if kind == "blind" else f"answer.{kind}", rate=figure(e.rate_bits), share=number(100 - share, 2))
    left = t(f"answer.left_{kind}", distortion=figure(e.distortion_bits), share=number(share))
    readouts = _used(told, found)
    sure = [*_measured(told), *_doubts(told), _method(told), *_named(t, readouts, "unclear")]
    return {
        "kept": t.join([kept, *_named(t, readouts, "kept", "partly")]),
        "left": t.join([left, *_named(t, readouts, "left")]),
        "sure": t.join([*sure, *([t("answer.meaning")] if told.has_code else [])]),
        "advice": _advice(told, found, kind),
    }


def _kind(told: Told) -> str:
    """What kind of answer there is: none without a code, collapsed where it is empty, blind where the decoder sees nothing else."""
    if not told.has_code:
        return "none"
    if told.evaluation.rate_bits < COLLAPSED_BITS:
        return "collapsed"
    return "blind" if told.run.settings.keep.window == "none" else "kept"


def _used(told: Told, found: Findings) -> Sequence[Readout]:
    """What the probe found, unless the code tells nothing: that lies far within its own spread, and no decoder can use it."""
    return () if _kind(told) == "collapsed" else found.readouts


def _advice(told: Told, found: Findings, kind: str) -> Markup | None:
    if told.total_bits / told.pixels_an_image > told.raw_bits_per_pixel:
        return told.t("answer.more")
    if kind == "collapsed":
        return told.t("answer.advice")
    return told.t("answer.unlike") if found.unlike else None


def _named(t: Words, found: Sequence[Readout], *verdicts: str) -> list[Markup]:
    """A sentence for each verdict, with the properties of which it holds."""
    best = sorted(found, key=lambda r: -r.r2)
    names = {wanted: t.listed(short(r.factor, 30) for r in best if verdict(r) == wanted) for wanted in verdicts}
    return [t(f"answer.names_{wanted}", names=short(listed, 160)) for wanted, listed in names.items() if listed]


def _measured(told: Told) -> list[Markup]:
    """On what the figures rest, and how much they vary."""
    t, e = told.t, told.evaluation
    there = len(told.images.indices(e.split))
    split = t(f"split.{e.split}")
    images = t("count.held" if e.n_images >= there else "count.held_of", n=f"{e.n_images:,}", all=f"{there:,}", split=split)
    rate, distortion = figure(e.rate_bits, e.rate_bits_se), figure(e.distortion_bits, e.distortion_bits_se)
    measured = t("answer.measured" if told.has_code else "answer.measured_none", images=images, rate=rate, distortion=distortion)
    return [measured, t("answer.error" if e.n_images > 1 else "answer.single")]


def _method(told: Told) -> Markup:
    samples = told.evaluation.importance_samples
    return told.t("answer.exact" if not told.has_code else "answer.bound" if samples == 1 else "answer.importance", k=samples)


def _doubts(told: Told) -> list[Markup]:
    """What makes the figures less sure than their standard errors say."""
    t, images, split = told.t, told.images, told.evaluation.split
    doubts = []
    if split == "validation":
        doubts.append(t("answer.validation", command=f"vlae evaluate {shlex.quote(str(told.run.folder))}"))
    held = images.indices(split)
    lots = [images.lots[n] for n in held if images.lots[n] is not None]
    if len(set(lots)) < len(lots):
        doubts.append(t("answer.lots", n=f"{len(set(lots)):,}"))
    trained = {images.sha256[n] for n in images.indices("train")}
    if seen := sum(images.sha256[n] in trained for n in held):
        doubts.append(t("answer.seen", n=f"{seen:,}"))
    return doubts


def schema(told: Told, first: Shown, levels: Range) -> Section:
    """An image on its way through the model, with the bits of each part."""
    e, t = told.evaluation, told.t
    window = Window.of(str(told.run.settings.keep.window), image=decoder_plan(told.run.settings, told.run.facts).image)
    seen = t("count.every_pixel") if window.name == "all" else t("count.pixels", n=f"{len(window.offsets):,}")
    sees = "alone" if not told.has_code else "blind" if not window.offsets else "sees"
    return {
        "original": thumbnail(first.x, levels),
        "decoding": thumbnail(first.decodings[0], levels) if told.has_code else None,
        "raw": figure(told.raw_bits_per_pixel * told.pixels_an_image),
        "rate": figure(e.rate_bits),
        "distortion": figure(e.distortion_bits),
        "sees": t(f"schema.decoder_{sees}", pixels=seen),
    }


def decodings(told: Told, found: Findings, levels: Range) -> Section:
    """Images beside decodings of their code, and how much those differ."""
    shown = found.shown
    percent = 100 / (levels.white - levels.black)
    top = top_of([image.spread * percent for image in shown])

    def draw(side: int) -> list[list[Any]]:
        return [
            [
                *(picture(middle(x, side), levels) for x in (image.x, *image.decodings[:SHOWN_DECODINGS])),
                heat(middle(image.spread, side) * percent, top),
            ]
            for image in shown
        ]

    rows = within(GALLERY_BYTES, draw)
    lead = [told.t("decodings.made"), *_reading(told, found)]
    return {
        "rows": [(row, short(image.name)) for row, image in zip(rows, shown, strict=True)],
        "columns": SHOWN_DECODINGS,
        "drawn": len(shown[0].decodings),
        "top": number(top, 2),
        "lead": told.t.join([*lead, *_remarks(told, shown, rows[0][0].height, rows[0][0].width, levels)]),
    }


def _reading(told: Told, found: Findings) -> list[Markup]:
    """How to read the decodings."""
    if found.unlike:
        return [told.t("decodings.unlike")]
    missing = any(verdict(r) == "kept" for r in _used(told, found))
    return [told.t("decodings.read"), *([told.t("decodings.missing")] if missing else [])]


def _remarks(told: Told, shown: Sequence[Shown], height: int, width: int, levels: Range) -> list[Markup]:
    t, remarks = told.t, []
    large = next((image for image in shown if not image.whole), None)
    if large is not None:
        remarks.append(t("decodings.cut", height=large.x.shape[1], width=large.x.shape[2]))
    if (height, width) != shown[0].x.shape[1:]:
        remarks.append(t("decodings.shown", height=height, width=width))
    if told.images.depth == 16:
        remarks.append(t("decodings.range", black=number(levels.black, 1), white=number(levels.white, 1)))
    return remarks


def bits_table(told: Told) -> Section:
    """Bits of code, of pixels, together and as stored: for each image, pixel and value."""
    e, t = told.evaluation, told.t
    parts = [("code", e.rate_bits, e.rate_bits_se), ("pixels", e.distortion_bits, e.distortion_bits_se)]
    total = ("total" if e.importance_samples == 1 else "importance", told.total_bits, bits(e.nll_nats_se))
    stored = ("stored", told.raw_bits_per_pixel * told.pixels_an_image, float("nan"))
    rows = [*parts, total] if told.has_code else [("pixels_alone", told.total_bits, bits(e.nll_nats_se))]
    return {
        "lead": t.join([t("bits.lead"), *([t("bits.parts")] if told.has_code else [])]),
        "plot": Markup(plots.bars_of_bits(e, stored[1], t.of("bits.plot."), has_code=told.has_code)),
        "rows": [_row(told, *row) for row in [*rows, stored]],
        "colours": told.images.channels,
        "alike": t("bits.psnr", psnr=figure(e.psnr), ssim=figure(e.ssim)) if e.psnr is not None and e.ssim is not None else None,
        "protocol": t.said("protocol", e.protocol),
    }


def _row(told: Told, name: str, value: float, se: float) -> Section:
    e = told.evaluation
    pixel = value / told.pixels_an_image
    whole = name in ("total", "importance", "pixels_alone")
    colours = told.images.channels
    return {
        "name": name,
        "image": figure(value, se),
        "pixel": figure(pixel, colours * e.bits_per_dim_se if whole else float("nan")),
        "value": figure(pixel / colours, e.bits_per_dim_se if whole else float("nan")),
        "share": told.t("percent", share=number(100 * pixel / told.raw_bits_per_pixel)),
    }


def bits_map(told: Told, shown: Sequence[Shown], levels: Range) -> Section:
    """Images beside the bits of their pixels, all on one scale."""
    top = top_of([image.bits for image in shown])

    def draw(side: int) -> list[list[Any]]:
        return [[picture(middle(image.x, side), levels), heat(middle(image.bits, side), top)] for image in shown]

    rows = within(MAP_BYTES, draw)
    totals = [figure(float(image.bits.sum())) for image in shown]
    pairs = [(*row, short(image.name), total) for row, image, total in zip(rows, shown, totals, strict=True)]
    return {"lead": told.t("map.lead" if told.has_code else "map.lead_none"), "pairs": pairs, "top": number(top, 2)}


def code(told: Told, strongest: Sequence[Moved], levels: Range) -> Section:
    """The bits of the code's numbers, and what moving the busiest changes."""
    t, keep = told.t, told.run.settings.keep
    is_grid = keep.code == "grid"
    percent = 100 / (levels.white - levels.black)
    changes = [np.abs(m.images[-1] - m.images[0]).mean(axis=0) * percent for m in strongest]
    top = top_of(changes) if changes else 1.0

    def draw(side: int) -> list[list[Any]]:
        rows = zip(strongest, changes, strict=True)
        return [[*(picture(middle(x, side), levels) for x in m.images), heat(middle(change, side), top)] for m, change in rows]

    rows = within(MOVED_BYTES, draw)
    by_group = told.evaluation.rate_bits_by_group
    lead = [t("code.grid" if is_grid else "code.vector", n=len(by_group), stride=keep.stride), t("code.quiet")]
    lead += [t("code.prior")] if told.run.settings.model.prior == "af" else []
    return {
        "lead": t.join(lead),
        "moved": t.join(_moved(told, strongest)),
        "is_grid": is_grid,
        "plot": Markup(plots.bars_of_code(by_group, [m.group for m in strongest], t.of("code.plot."))),
        "rows": [(row, m.group + 1, figure(m.bits)) for row, m in zip(rows, strongest, strict=True)],
        "moves": MOVES,
        "top": number(top, 2),
    }


def _moved(told: Told, strongest: Sequence[Moved]) -> list[Markup]:
    """What was done to the code, and to how much of the image."""
    t, words = told.t, [told.t("code.moved")]
    if told.run.settings.keep.code == "grid" and strongest:
        height, width = strongest[0].images.shape[2:]
        words.append(t("code.moved_grid"))
        words += [t("code.moved_part", height=height, width=width)] if max(height, width) == MOVED_SIDE else []
    return words


def verdict(readout: Readout) -> str:
    """Whether a property is read off the code: kept, partly or left; unclear where its interval does not tell these apart."""
    if readout.low <= LEFT and readout.high >= KEPT:
        return "unclear"
    if LEFT < readout.r2 < KEPT:
        return "partly" if readout.low > 0 else "unclear"
    return "kept" if readout.r2 >= KEPT else "left"


def probe(told: Told, found: Sequence[Readout]) -> Section:
    """How well the known properties of the images can be read off the code."""
    best = sorted(found, key=lambda r: -r.r2)
    colours = {r.factor: {"kept": plots.CODE, "partly": plots.LIGHT, "left": plots.PIXELS, "unclear": plots.RAW}[verdict(r)] for r in best}
    rows = [
        {
            "name": short(r.factor, 40),
            "r2": Markup('<data value="{}">{}</data>').format(repr(r.r2), fixed(r.r2)),
            "range": told.t("probe.range", low=fixed(r.low), high=fixed(r.high)),
            "n_train": r.n_train,
            "n_test": r.n_test,
            "verdict": verdict(r),
        }
        for r in best[: plots.MOST_READOUTS]
    ]
    plot = Markup(plots.readouts(best, colours, told.t.of("probe.plot."))) if rows else None
    rule = [told.t("probe.rule", kept=KEPT, left=LEFT)]
    rule += [told.t("probe.collapsed")] if _kind(told) == "collapsed" else []
    rule += [told.t("probe.more", n=len(rows), all=len(best))] if len(best) > len(rows) else []
    return {"rows": rows, "plot": plot, "rule": told.t.join(rule), "least": LEAST_IMAGES}


def window(told: Told, site: Site, levels: Range) -> Section:
    """The window on an image, enlarged and at true scale."""
    t, keep = told.t, told.run.settings.keep
    seen = Window.of(str(keep.window), image=decoder_plan(told.run.settings, told.run.facts).image).offsets
    columns = [dj for _, dj in seen]
    sized = {"rows": -min(di for di, _ in seen), "left": max(0, -min(columns)), "right": max(0, *columns)}
    size = t("window.all" if keep.window == "all" else "window.size", name=keep.window, pixels=t("count.pixels", n=len(seen)), **sized)
    lead = [t("window.lead" if told.has_code else "window.lead_none"), size]
    if keep.context not in (None, "pixels"):
        lead.append(t("window.context", context=t(f"window.context.{keep.context}")))
    return {
        "lead": t.join(lead),
        "zoom": Markup(drawings.zoomed(site, levels, t("window.alt_zoom"))),
        "scale": Markup(drawings.at_scale(site, levels, t("window.alt_scale"))),
    }


def training(told: Told) -> Section | None:
    """How the training went; None where nothing of it was logged."""
    t, train = told.t, told.run.settings.train
    metrics = [line for line in told.run.metrics() if math.isfinite(line.get("rate_bits", math.nan) + line.get("distortion_bits", math.nan))]
    if not metrics:
        return None
    last = metrics[-1]
    crops = t("training.crops", crop=train.crop) if train.crop else ""
    time = t.duration(last["seconds"])
    words = [t("training.lead", steps=f"{last['step']:,}", all=f"{train.steps:,}", time=time, batch=train.batch, crops=crops)]
    checks = [(line["validation_nats"], line["step"]) for line in metrics if "validation_nats" in line]
    if checks:
        value, step = min(checks)
        words.append(t("training.best", step=f"{step:,}", bits=figure(bits(value))))
        words += [t("training.still")] if step == checks[-1][1] else []
    words.append(t("training.skipped", n=f"{last['skipped']:,}") if last["skipped"] else t("training.none_skipped"))
    return {"words": t.join(words), "plot": Markup(plots.curves(metrics, t.of("training.plot."), has_code=told.has_code))}


def data(told: Told) -> Section:
    """What the images are, and what was left out."""
    t, summary = told.t, told.images.summary()
    facts = [(name, value) for name, value in _facts(told, summary) if value]
    reasons = sorted(summary["left_out"], key=lambda entry: (entry["harmless"], -entry["count"]))
    return {
        "facts": facts,
        "left_out": [_reason(t, entry) for entry in reasons[:MOST_REASONS]],
        "left_out_words": _left_out(t, told.images, len(reasons)) if reasons else None,
    }


def _reason(t: Words, entry: dict[str, Any]) -> Section:
    """A reason for which files were left out, with the first of them."""
    names = [short(t.said("name", name)) for name in entry["names"][:MOST_FILES]]
    more = ["…"] if entry["count"] > len(names) else []
    reason = short(t.said("reason", entry["reason"]), 200)
    return {"reason": reason, "harmless": entry["harmless"], "count": f"{entry['count']:,}", "names": t.listed([*names, *more])}


def _left_out(t: Words, images: ImageSet, reasons: int) -> Markup:
    count, lost = len(images.left_out), sum(not entry.harmless for entry in images.left_out)
    words = [t("data.left_out_count" if lost else "data.left_out_harmless", n=f"{count:,}", lost=f"{lost:,}")]
    words += [t("data.first", n=MOST_REASONS, all=reasons)] if reasons > MOST_REASONS else []
    return t.join(words)


def _facts(told: Told, summary: dict[str, Any]) -> list[tuple[str, object]]:
    t, images = told.t, told.images
    form = [t("data.rgb" if images.channels == 3 else "data.grey"), t("data.depth", depth=images.depth)]
    form += [t("data.dynamic")] if images.dynamic else []
    labels = [f"{short(label, 40)}:\u00a0{count:,}" for label, count in sorted(summary["labels"].items(), key=lambda entry: -entry[1])]
    more = [t("data.more", n=f"{len(labels) - MOST_LABELS:,}")] if len(labels) > MOST_LABELS else []
    return [
        ("source", short(str(told.run.settings.data.folder), 160)),
        ("images", f"{len(images):,}"),
        ("splits", " / ".join(f"{count:,}" for count in summary["splits"].values())),
        ("rule", t.said("rule", summary["split_rule"])),
        ("size", _sizes(t, summary["sizes"])),
        ("form", t.listed(form)),
        ("labels", t.listed([*labels[:MOST_LABELS], *more])),
        ("lots", summary["lots"]),
        ("masks", summary["masks"]),
        ("duplicates", f"{images.duplicates:,}"),
        ("conversions", t.listed(f"{t.said('note', name)} ({count:,})" for name, count in images.notes.items())),
    ]


def _sizes(t: Words, sizes: dict[str, Any]) -> str:
    low, high, most = (" × ".join(map(str, sizes[name])) for name in ("smallest", "largest", "most_frequent"))
    return low if sizes["different"] == 1 else str(t("data.sizes", n=sizes["different"], low=low, high=high, most=most))


def settings(told: Told, weights: int) -> Section:
    """Every setting, and the commands that measure the run again, make this page again and train the like of it."""
    run, source = shlex.quote(str(told.run.folder)), shlex.quote(str(told.run.settings.data.folder))
    commands = [
        ("evaluate", f"vlae evaluate {run} --split {told.evaluation.split}"),
        ("report", f"vlae report {run} --lang {told.t.lang}"),
        ("train", f"vlae train {source} -c {shlex.quote(str(told.run.folder / 'config.yaml'))}"),
    ]
    groups = told.run.settings.model_dump(mode="json", exclude={"format"})
    written = {group: {name: _written(value) for name, value in values.items()} for group, values in groups.items()}
    return {"groups": written, "commands": commands, "weights": weights}


def _written(value: object) -> str | None:
    """A setting as it would be written in a file; None where it has no effect."""
    return None if value is None else short(value, 120) if isinstance(value, str) else json.dumps(value)
