"""Defects: what a detector finds, and what its threshold promises, on magnetic tiles, solar cells and drawn parts, against detectors from scratch.

All learn from the same good images. Of each kind of baseline the variant is chosen that does best on the development half of the defective
lots; the other half is reported. Runs that are there already, in FOLDER/SET-plain and so on, are gone on with, and sets that were measured are told
again from FOLDER/SET.rows.json: so the sets can be measured side by side, or one after the other.

    python benchmarks/inspection.py [group.name=value ...] --output FOLDER --json [--quick] [--sets tiles elpv parts]
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import product
from pathlib import Path

import numpy as np
import torch

from defects import changes, metrics
from defects.baselines import PYOD, Bound, Detector, Mapper, OnComponents, PatchGaussian, Pooled, Reconstruction, Scored, Trained
from defects.ours import Ours
from defects.sets import DOUBTFUL, SETS, Collection, Example, write
from runs import trained
from vlae.engine.inspection.conformal import Promise, promise, share

RATES = (0.01, 0.05)
POOLS = tuple(product((0.0, 1.0, 2.0, 4.0), ("mean", "max", "highest 1%")))
"""how maps become scores: smoothing in pixels, and what is taken of them"""
RUNS = {
    "plain": ("keep.window=none",),
    "likelihood": ("keep.code=none", "keep.window=stack6"),
}
"""overrides of the runs to compare with: a VAE without a window, and a PixelCNN"""
ALIKE = [
    *("train.steps=1500", "train.batch=16", "train.optimizer=adam", "train.learning_rate=0.004", "train.decay=0.5"),
    *("train.validate_every=300", "train.precision=bf16-mixed"),
]
"""how those are trained: as ours is, by its recipe"""
RECIPE = Path(__file__).parents[1] / "recipes/inspection.yaml"
"""the settings of ours"""
LARGE = ("data.size=[150,150]", "train.crop=96", "train.batch=8")
"""what differs for images of 300 pixels a side: they are seen at half their size"""
OURS, MISSING = "vlae", "detector on pretrained features"
SHAKEN = (OURS, "PCA reconstruction", "patch Gaussian", "plain VAE")
"""the kinds that are shown changes that are no defects, too"""
FEW = 10
"""images of each role and label that --quick takes"""

Candidates = Sequence[Mapper | Detector]
Row = dict[str, object]


def baselines(side: int) -> dict[str, Candidates]:
    """The variants of each kind of baseline that learns by itself, for images of this width."""
    scales = [scale for scale in (1, 2, 4, 8) if 16 <= side / scale <= 160]
    patches = [PatchGaussian(size, scale, places) for size in (3, 5, 7) for scale in scales for places in ("one", "mean", "each")]
    pyod = {f"PyOD {name} on PCA": [OnComponents(name, k, whiten) for k in (8, 32, 128) for whiten in (False, True)] for name in PYOD}
    return {"PCA reconstruction": [Reconstruction(k) for k in (4, 8, 16, 32, 64, 128)], "patch Gaussian": patches, **pyod}


def runs(collection: Collection, output: Path, more: Sequence[str]) -> dict[str, Candidates]:
    """The baselines that are runs of ours, trained here where they are not there yet."""
    source = output / "sets" / collection.name
    if not (source / "manifest.csv").is_file():
        write(collection, source)
    plain, likelihood = (trained(source, output / f"{collection.name}-{kind}", [*settings, *ALIKE, *more]) for kind, settings in RUNS.items())
    large = LARGE if collection.examples[0].pixels.shape[0] > 200 else ()
    ours = trained(source, output / f"{collection.name}-{OURS}", [*large, *more], RECIPE)
    others = {"plain VAE": [Trained(plain), Trained(plain, "squared error"), Bound(plain)], "PixelCNN likelihood": [Bound(likelihood)]}
    return {OURS: [Ours(ours)]} | others


def chosen(candidates: Candidates, collection: Collection) -> Detector:
    """The candidate, fitted, with the highest AUROC on the development images."""
    train, good, spoiled = map(pixels, (collection.good("train"), collection.good("development"), collection.spoiled("development")))
    both = np.concatenate([good, spoiled])

    def options() -> Iterator[tuple[Detector, np.ndarray]]:
        for candidate in candidates:
            fitted = copy(candidate).fit(train)  # a copy, so that the losers are forgotten
            if isinstance(fitted, Detector):
                yield fitted, fitted.scores(both).scores
                continue
            maps = fitted.maps(both)
            for pooled in (Pooled(fitted, *pool) for pool in POOLS):
                yield pooled, pooled.pooled(maps).scores

    return max(options(), key=lambda option: metrics.auroc(option[1][: len(good)], option[1][len(good) :]))[0]


def measure(collection: Collection, name: str, detector: Detector) -> Iterator[Row]:
    """The rows of one detector on the test images."""
    good, spoiled, doubtful = collection.good("test"), collection.spoiled("test"), collection.spoiled("test", doubtful=True)
    start = time.perf_counter()
    found = detector.scores(pixels([*good, *spoiled]))
    seconds = time.perf_counter() - start
    n, case = len(good), f"{collection.name}, {name}"
    yield from image_rows(case, [*good, *spoiled], found.scores, n, detector)
    yield from map_rows(case, [*good, *spoiled], found)
    yield row(case, "time an image", 1000 * seconds / len(found.scores), "ms")
    calibration = collection.good("calibration")
    reference = detector.scores(pixels(calibration)).scores
    for rate in RATES:
        limit = promise(reference, rate)  # of the last one, 5%, more is told below
        yield share_row(case, f"detection rate at {rate:.0%}", found.scores[n:], limit)
        yield share_row(case, f"false alarms at {rate:.0%}", found.scores[:n], limit)
    yield lots_row(case, found.scores[:n], good, promise(reference, RATES[-1], [e.lot for e in calibration]))
    for label in DOUBTFUL if doubtful else ():
        yield share_row(case, f"alarms at 5%, {label}", detector.scores(pixels([e for e in doubtful if e.label == label])).scores, limit)
    for change, images in changes.variants(collection, good).items() if name in SHAKEN else ():
        yield share_row(case, f"false alarms at 5%, {change}", detector.scores(images).scores, limit)


def image_rows(case: str, examples: Sequence[Example], scores: np.ndarray, n: int, detector: Detector) -> Iterator[Row]:
    """How well images are told apart, the first n of which are good; which variant it is that does so."""
    labels = np.array([e.label for e in examples])

    def auroc(numbers: np.ndarray) -> float:
        good = numbers < n
        return metrics.auroc(scores[numbers[good]], scores[numbers[~good]]) if good.any() and not good.all() else np.nan

    low, high = metrics.resampled(auroc, [e.lot for e in examples])
    yield row(case, "image AUROC", metrics.auroc(scores[:n], scores[n:]), "of 1", spread=f"95% {low:.3f} to {high:.3f}; {detector}")
    precision = metrics.average_precision(scores[:n], scores[n:])
    yield row(case, "average precision", precision, "of 1", spread=f"{len(scores) - n} of {len(scores)} are spoiled")
    for kind in sorted(set(labels[n:])):
        count = int((labels == kind).sum())
        yield row(case, f"image AUROC of {kind}", metrics.auroc(scores[:n], scores[labels == kind]), "of 1", spread=f"{count} images")


def map_rows(case: str, examples: Sequence[Example], found: Scored) -> Iterator[Row]:
    """How well pixels are told apart, where it is known which are spoiled."""
    known = np.array([e.label == "good" or e.mask is not None for e in examples])
    if found.maps is None or not any(e.mask is not None for e in examples):
        return
    masks = np.stack([np.zeros(e.pixels.shape, bool) if e.mask is None else e.mask for e in examples])
    yield row(case, "pixel AUROC", metrics.pixel_auroc(found.maps[known], masks[known]), "of 1")
    yield row(case, "AUPRO", metrics.aupro(found.maps[known], masks[known]), "of 1", spread=f"up to {metrics.FALSE_POSITIVES:.0%} false positives")


def share_row(case: str, metric: str, scores: np.ndarray, limit: Promise) -> Row:
    """The share of images above a threshold."""
    value, low, high = share(int((scores > limit.threshold).sum()), len(scores))
    promised = "" if limit.kept else f"; only {limit.rate:.1%} could be promised"
    return row(case, metric, value, "of 1", spread=f"95% {low:.3f} to {high:.3f}{promised}")


def lots_row(case: str, scores: np.ndarray, good: Sequence[Example], limit: Promise) -> Row:
    """The share of false alarms in unseen lots, each with equal weight; its interval supposes that a lot alarms as a whole or not at all."""
    lots, above = np.array([e.lot for e in good]), scores > limit.threshold
    shares = np.array([above[lots == lot].mean() for lot in np.unique(lots)])
    value, low, high = share(shares.sum(), len(shares))
    spread = f"95% {low:.3f} to {high:.3f}, {len(shares)} lots, threshold from {limit.n_lots}; {limit.rate:.1%} promised"
    return row(case, "false alarms in new lots at 5%", value, "of 1", spread=spread)


def row(case: str, metric: str, value: float | None, unit: str, spread: str | None = None, **compared: object) -> Row:
    """One row of the list that is printed."""
    nothing = {"against": "", "ratio": None, "aim": None, "met": None}
    return {"case": case, "metric": metric, "value": value, "unit": unit, "spread": spread, **nothing, **compared}


def pixels(examples: Sequence[Example]) -> np.ndarray:
    """Images of one size as (n, h, w)."""
    return np.stack([e.pixels for e in examples])


def means(rows: Sequence[Row], names: Sequence[str]) -> Iterator[Row]:
    """The mean image AUROC of each kind of detector over the sets, and how far ours lies above the best of the others."""
    found = {str(r["case"]): float(str(r["value"])) for r in rows if r["metric"] == "image AUROC" and r["value"] is not None}
    kinds = sorted({case.split(", ", 1)[1] for case in found})
    values = {name: {kind: found[f"{name}, {kind}"] for kind in kinds} for name in names}
    every = f"mean of {', '.join(names)}"
    values[every] = {kind: float(np.mean([values[name][kind] for name in names])) for kind in kinds}
    for kind in kinds:
        yield row(f"{every}: {kind}", "image AUROC", values[every][kind], "of 1")
    for case, those in values.items() if OURS in kinds else ():
        best, least = max(set(kinds) - {OURS}, key=those.__getitem__), 0.03 if case == every else -0.01
        above = those[OURS] - those[best]
        compared = {"against": best, "ratio": those[OURS] / those[best], "aim": f">= {least}", "met": above >= least}
        yield row(f"{case}: {OURS}", "image AUROC above the best baseline's", above, "of 1", **compared)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of all runs")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the sets and of the runs")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few tiles, 5 steps, two variants: shows that it works")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    names = ["tiles"] if options.quick else options.sets
    rows: list[Row] = []
    output = options.output / "quick" if options.quick else options.output
    for one in everything(names, output, options.overrides, options.quick):
        rows.append(one)
        if not options.json:
            print(*(f"{value:.4g}" if isinstance(value, float) else value for value in one.values()), sep=" | ", flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))


def everything(names: Sequence[str], output: Path, overrides: Sequence[str], quick: bool) -> Iterator[Row]:
    """All rows."""
    rows = []
    for name in names:
        done = output / f"{name}.rows.json"
        if done.is_file():  # an earlier call, or one beside this one, has measured this set
            measured = json.loads(done.read_text(encoding="utf-8"))
            rows += measured
            yield from measured
            continue
        before, collection = len(rows), SETS[name]().few(FEW) if quick else SETS[name]()
        more = [*overrides, "train.steps=5", "train.validate_every=5", "train.batch=4"] if quick else overrides
        for kind, candidates in (baselines(collection.examples[0].pixels.shape[1]) | runs(collection, output, more)).items():
            for one in measure(collection, kind, chosen(candidates[: 2 if quick else None], collection)):
                rows.append(one)
                yield one
        rows.append(row(f"{name}, {MISSING}", "image AUROC", None, "of 1", spread="missing: no weights at hand, and none is downloaded"))
        yield rows[-1]
        if not quick:
            done.write_text(json.dumps(rows[before:]), encoding="utf-8")
    yield from means(rows, names)


if __name__ == "__main__":
    main()
