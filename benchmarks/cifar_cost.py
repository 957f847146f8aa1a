"""What a CIFAR-10 recipe would cost on this machine, from the first minutes of it on a subset of the images.

The recipe is trained for a while with a rate that does not fall, and its validation bound measured every so many steps. Through the first half of
these a power law of the steps is laid, ``limit + b steps^-c``, whose limit is the paper's figure: the model is taken to come to it in the end. The
second half shows how well that predicts; how many steps, and so how many hours, it is to within a twentieth of a bit of the paper's figure
follows from the same law. That is far beyond what was measured: an order of magnitude, not a promise.

    python benchmarks/cifar.py FOLDER_OF_ZIPS FOLDER --subset 2000
    python benchmarks/cifar_cost.py FOLDER/cifar10.npz --output FOLDER --json [--row cifar-10-4x2] [--steps 600] [--quick] [group.name=value ...]
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runs import trained
from vlae.apps.reproduce import ROOT, ROWS
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.units import bits

NEAR = 0.05
"""bits/dim above the paper's figure that count as having come to it"""
LEAST = 0.02
"""the exponent of a curve that falls at all"""
POINTS = 12
NO_AIM = {"aim": None, "met": None}


def curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the best validation bound by then in bits/dim."""
    colours, (height, width) = run.facts.colours, run.facts.size or (32, 32)
    best = {line["step"]: bits(line["best"]) / (colours * height * width) for line in run.metrics() if line.get("best") is not None}
    every = run.settings.train.validate_every
    steps = sorted(step for step in best if step and step % every == 0)
    return np.array(steps), np.array([best[step] for step in steps])


def law(steps: np.ndarray, found: np.ndarray, limit: float) -> tuple[float, float]:
    """``b`` and ``c`` of ``limit + b steps^-c``, by least squares of the logarithms."""
    slope, height = np.polyfit(np.log(steps), np.log(found - limit), 1)
    return math.exp(height), -float(slope)


def measure(run: Run, name: str) -> list[dict[str, Any]]:
    """Predicted and found over the second half, and what the paper's figure would take."""
    limit, (steps, found) = ROWS[name].paper, curve(run)
    assert limit is not None, "a row without a figure in the paper has no cost of reaching it"
    half, images = len(steps) // 2, len(run.images().indices("train"))
    lines = [line for line in run.metrics() if line["step"] >= steps[half]]
    b, c = law(steps[:half], found[:half], limit)
    predicted = limit + b * steps**-c
    each = (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])
    enough = (b / NEAR) ** (1 / c) if c > LEAST else None
    case = f"{name}, {images} images, batch {run.settings.train.batch}, {torch.get_num_threads()} threads"
    apart = float(np.abs(predicted - found)[half:].max())
    said = f"measured from {found[0]:.2f} at step {steps[0]} to {found[-1]:.2f} at step {steps[-1]}; law {limit} + {b:.3g} steps^-{c:.3g}"
    return [
        row(case, "bound after the last step", float(found[-1]), "bits/dim", said, float(found[-1] / predicted[-1])),
        row(case, "largest distance from the prediction, second half", apart, "bits/dim"),
        row(case, "a step, second half", each, "s"),
        row(case, f"until {NEAR} above the paper's {limit}", enough and enough * each / 3600, "hours", f"{enough:.2g} steps" if enough else "never"),
        row(case, "the recipe's steps at its batch", recipe_hours(name, each / run.settings.train.batch), "hours"),
    ]


def recipe_hours(name: str, per_image: float) -> float:
    """Hours of a recipe at so many seconds an image."""
    recipe = load_settings(ROOT / "recipes" / f"{name}.yaml", [], {"data.folder": "."}).train
    return recipe.steps * recipe.batch * per_image / 3600


def row(case: str, metric: str, value: float | None, unit: str, spread: str = "", ratio: float | None = None) -> dict[str, Any]:
    """A line of the result."""
    against = "" if ratio is None else "predicted"
    return {"case": case, "metric": metric, "value": value, "unit": unit, "spread": spread, "against": against, "ratio": ratio} | NO_AIM


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="cifar10.npz, as benchmarks/cifar.py makes it")
    parser.add_argument("overrides", nargs="*", help="settings of the training")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--row", choices=[name for name, known in ROWS.items() if known.unit == "bits/dim" and known.paper], default="cifar-10-4x2")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few small steps: shows that it works")
    options = parser.parse_intermixed_args()
    steps = POINTS if options.quick else options.steps
    small = ["train.batch=2", "train.validate_images=2"] if options.quick else ["train.batch=16", "train.validate_images=200"]
    pace = [f"train.steps={steps}", f"train.validate_every={max(1, steps // POINTS)}", "train.decay=0", "train.ema=0.9"]
    recipe = ROOT / "recipes" / f"{options.row}.yaml"
    rows = measure(trained(options.source, options.output / options.row, [*pace, *small, *options.overrides], recipe), options.row)
    print(json.dumps(rows, indent=1) if options.json else "\n".join(str(r) for r in rows))


if __name__ == "__main__":
    main()
