"""The window dial, which the paper never measured: what the code keeps, and what it is worth, against what the decoder sees.

The same model with the same seed and steps, from a decoder that sees nothing (a plain VAE) to one that sees every pixel before. For each window:
bits of code and of pixels, the likelihood (importance-sampled, test images), and how well the label is read off the mean of the code by
logistic regression and by the 5 nearest neighbours (trained on the training images, tested on test images).

Runs that are there already are gone on with, and results are kept beside them.

    python benchmarks/window_dial.py SOURCE --output FOLDER --json [--quick] [group.name=value ...]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ablation import CODE, IMAGES, SAMPLES, TRAINING
from runs import trained
from vlae.apps.evaluate import evaluate
from vlae.core.window import Window
from vlae.engine.embed import embed
from vlae.engine.formats import read_json, write_json
from vlae.engine.run import Run
from vlae.units import nats

WINDOWS = ("none", "stack1", "stack2", "stack6", "all")
STEPS = 3000
MOST_TRAINED = 20_000
"""Training images whose codes the classifiers see."""
ACCURACIES = {"accuracy, linear": LogisticRegression(max_iter=2000), "accuracy, nearest": KNeighborsClassifier(5)}
FIGURES = {"rate_bits": "bits", "distortion_bits": "bits", "nll_nats": "nats"}


def accuracies(run: Run) -> dict[str, float]:
    """The share of test images whose label is read off their code, by classifier."""
    images, model = run.images(), run.model(torch.device("cpu"))
    train, test = images.indices("train")[:MOST_TRAINED], images.indices("test")
    codes = [embed(model, images, numbers, 1, run.settings.train.seed).mean for numbers in (train, test)]
    labels = [np.array([str(images.labels[n]) for n in numbers]) for numbers in (train, test)]
    kinds = {name: make_pipeline(StandardScaler(), kind) for name, kind in ACCURACIES.items()}
    return {name: float(kind.fit(codes[0], labels[0]).score(codes[1], labels[1])) for name, kind in kinds.items()}


def measured(window: str, source: Path, output: Path, more: Sequence[str], limit: int) -> dict[str, Any]:
    """What a window comes to; kept beside its run once it is known."""
    decoder = [] if window == "none" else ["model.width=16", "model.pointwise=0"]
    run = trained(source, output / window, [f"keep.window={window}", *decoder, *CODE, *TRAINING, *more])
    kept = output / f"{window}-{limit}.json"
    if kept.is_file():  # of this run: another one would have been refused
        found: dict[str, Any] = read_json(kept)
        return found
    e = evaluate(run, "test", SAMPLES, limit)
    assert run.facts.size is not None
    seen = min(len(Window.of(window, image=run.facts.size).offsets), run.facts.size[0] * run.facts.size[1] - 1)
    found = {"window": window, "pixels_seen": seen, "protocol": e.protocol, "kl_nats": nats(e.rate_bits)} | accuracies(run)
    found |= {name: getattr(e, name) for k in FIGURES for name in (k, f"{k}_se")}
    found |= {"steps": run.metrics()[-1]["step"], "minutes": run.metrics()[-1]["seconds"] / 60}
    write_json(kept, found)
    return found


def rows(found: dict[str, Any], source: Path) -> list[dict[str, Any]]:
    """The lines of a window."""
    case = f"{source.stem}, window {found['window']} ({found['pixels_seen']} pixels seen), {found['steps']} steps"
    values = [(name, unit, f"se {found[f'{name}_se']:.2f}; {found['protocol']}") for name, unit in FIGURES.items()]
    values += [(name, "of 1", f"{found['minutes']:.0f} min of training") for name in ACCURACIES]
    blank = {"against": None, "ratio": None, "aim": None, "met": None}
    told = {"case": case, "window": found["window"], "pixels_seen": found["pixels_seen"]}
    return [{**told, "metric": m, "value": found[m], "unit": unit, "spread": spread, **blank} for m, unit, spread in values]


def main() -> None:
    """Train, measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="labelled images of one size: an .npz file, or a folder")
    parser.add_argument("overrides", nargs="*", help="settings of all models")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--windows", nargs="+", default=WINDOWS)
    parser.add_argument("--limit", type=int, default=IMAGES, help="test images of the likelihood, evenly spaced")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="10 steps: shows that it works")
    options = parser.parse_intermixed_args()
    steps, limit = (10, 8) if options.quick else (STEPS, options.limit)
    pace = [f"train.steps={steps}", f"train.validate_every={max(1, steps // 5)}"]
    table = [measured(w, options.source, options.output, [*pace, *options.overrides], limit) for w in options.windows]
    lines = [line for found in table for line in rows(found, options.source)]
    if options.json:
        print(json.dumps(lines, indent=1))
    else:
        print(*(f"{r['value']:10.3f} {r['unit']:6} {r['metric']:20} {r['case']}" for r in lines), sep="\n")


if __name__ == "__main__":
    main()
