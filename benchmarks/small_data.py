"""How little data will do: held-out bits, what a linear probe reads off the code, and decodings, for growing numbers of training images.

The validation and test images are the same throughout; each smaller training set is a part of the larger ones. Every model takes the same
number of steps and is used at its best validation. Runs that are there already are gone on with.

    python benchmarks/small_data.py SOURCE [group.name=value ...] --output FOLDER --json [--half] [--quick] [--counts 50 200 800]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from runs import trained
from vlae.apps import train as trainer
from vlae.apps.evaluate import evaluate
from vlae.data.imageset import ImageSet
from vlae.data.read import write_png
from vlae.engine.measure import chosen, decode, groups
from vlae.engine.probe import read_off
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.engine.sheet import as_pixels

HELD_OUT = 200
SHOWN = 5


def listing(images: ImageSet, count: int, seed: int) -> str:
    """A manifest of the first ``count`` training images of a shuffle, and of at most ``HELD_OUT`` validation and test images each."""
    training = np.random.default_rng(seed).permutation(images.indices("train"))[:count]
    numbers = np.concatenate([training, chosen(images, "validation", HELD_OUT), chosen(images, "test", HELD_OUT)])
    known = [{name: v[n] for name, v in images.factors.items() if np.isfinite(v[n])} for n in numbers]
    rows = [{"name": images.names[n], "split": str(images.split[n]), **k} for n, k in zip(numbers, known, strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows_of(run: Run, case: str) -> list[dict[str, object]]:
    """What a run reached on test images."""
    images, model = run.images(), run.model(torch.device("cpu"))
    result = evaluate(run)
    bits = {"metric": "bits/dim", "value": result.bits_per_dim, "unit": "bits", "spread": f"se {result.bits_per_dim_se:.4f}"}
    code = {"metric": "bits of code an image", "value": result.rate_bits, "unit": "bits", "spread": f"se {result.rate_bits_se:.1f}"}
    probes = [
        {"metric": f"R2 of {r.factor}", "value": r.r2, "unit": "of 1", "spread": f"95% {r.low:.2f} to {r.high:.2f}"}
        for r in read_off(run, images, model)
    ]
    return [{"case": case, **row, "against": "", "ratio": None, "aim": None, "met": None} for row in (bits, code, *probes)]


def pictures(run: Run, path: Path) -> None:
    """A few test images and, below each, two decodings of its code."""
    images, model = run.images(), run.model(torch.device("cpu"))
    shown = []
    for group in groups(images, chosen(images, "test", SHOWN), seed=0):
        decoded = [decode(model, group, seed=0, sample=sample) for sample in range(2)]
        shown += [as_pixels(torch.cat(list(column), dim=1), run.facts.depth) for column in zip(group.x, *decoded, strict=True)]
    side_by_side = np.concatenate([np.pad(s, ((0, 0), (0, 2), (0, 0)), constant_values=255) for s in shown], axis=1)
    write_png(path, side_by_side, run.facts.depth)


def measure(source: Path, output: Path, counts: Sequence[int], half: bool, overrides: Sequence[str]) -> list[dict[str, object]]:
    """The rows of a source at one resolution."""
    whole = output / "all"
    if not (whole / "config.yaml").is_file():
        trainer.prepare(load_settings(None, ["keep.code=grid", *overrides], {"data.folder": source}), whole)
    images = Run.open(whole).images()
    height, width = images.sizes[0].tolist()
    size = [f"data.size=[{height // 2},{width // 2}]"] if half else []
    rows = []
    for count in counts:
        manifest = output / f"{count}.jsonl"
        manifest.write_text(listing(images, count, seed=0), encoding="utf-8")
        settings = [f"data.manifest={manifest.resolve()}", "keep.code=grid", *size, *_no_lots(overrides)]
        run = trained(source, output / f"{count}{'-half' if half else ''}", settings)
        pictures(run, output / f"{run.folder.name}.png")
        rows += rows_of(run, f"{source.name}, {count} training images{', half the resolution' if half else ''}")
    return rows


def _no_lots(overrides: Sequence[str]) -> list[str]:
    # The manifest gives the split, which the lots decided.
    return [o for o in overrides if not o.startswith("data.lot_block")]


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of images of one size")
    parser.add_argument("overrides", nargs="*", help="settings of all models")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--half", action="store_true", help="at half the resolution")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20 steps: shows that it works")
    options = parser.parse_intermixed_args()
    more = ["train.steps=20", "train.validate_every=20"] if options.quick else []
    rows = measure(options.source, options.output, options.counts, options.half, [*options.overrides, *more])
    print(json.dumps(rows, indent=1) if options.json else "\n".join(str(row) for row in rows))


if __name__ == "__main__":
    main()
