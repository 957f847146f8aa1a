"""Bits of code with a small window against a large one, with the same settings otherwise: the decoder that sees less must be told more.

Two models with the same seed, steps and widths (a larger window takes more layers, so its decoder has more weights, which are told); in the
second half of the training nothing but the bound is minimised, so that no objective props up the code. The difference is taken image by
image, its standard error over test images. Runs that are there already are gone on with, and each leaves its report.

    python benchmarks/windows.py SOURCE [group.name=value ...] --output FOLDER --json [--quick] [--small r1] [--large stack6]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from runs import trained
from vlae.apps.evaluate import evaluate
from vlae.apps.report import report
from vlae.core.estimate import Estimate
from vlae.engine.run import Run

ERRORS = 5


def rates(run: Run, limit: int) -> dict[str, float]:
    """Bits of code of each test image by name; the run's report is written along with it."""
    evaluate(run, "test", limit=limit)
    report(run)
    lines = (run.folder / "results" / "per_image-test.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["image"]: row["rate_bits"] for row in map(json.loads, lines)}


def measure(source: Path, output: Path, windows: list[str], limit: int, overrides: list[str]) -> dict[str, object]:
    """The row of a source."""
    runs = [trained(source, output / w, [f"keep.window={w}", "objective.plain_after=0.5", *overrides]) for w in windows]
    weights = [sum(p.numel() for p in run.model(torch.device("cpu")).decoder.net.parameters()) for run in runs]
    found = [rates(run, limit) for run in runs]
    small, large = (np.array([rate[name] for name in found[0]]) for rate in found)
    apart = Estimate.of(torch.from_numpy(small - large))
    return {
        "case": f"{source.name}, window {windows[0]} against {windows[1]}, {apart.n} test images",
        "metric": "bits of code an image",
        "value": float(small.mean()),
        "unit": "bits",
        "spread": f"difference {apart.value:.2f}, se {apart.se:.2f}, {apart.value / apart.se:.1f} standard errors",
        "against": f"window {windows[1]}, {large.mean():.2f} bits; {weights[0]:,} against {weights[1]:,} weights that see the window",
        "ratio": float(small.mean() / large.mean()),
        "aim": f"larger by {ERRORS} standard errors",
        "met": bool(apart.value >= ERRORS * apart.se),
    }


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of images, or an .npz file")
    parser.add_argument("overrides", nargs="*", help="settings of both models")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the two runs")
    parser.add_argument("--small", default="r1")
    parser.add_argument("--large", default="stack6")
    parser.add_argument("--limit", type=int, default=1000, help="test images, at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20 steps: shows that it works")
    options = parser.parse_intermixed_args()
    more = ["train.steps=20", "train.validate_every=20"] if options.quick else []
    rows = [measure(options.source, options.output, [options.small, options.large], options.limit, [*options.overrides, *more])]
    print(json.dumps(rows, indent=1) if options.json else rows[0])


if __name__ == "__main__":
    main()
