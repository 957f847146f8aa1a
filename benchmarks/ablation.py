"""The paper's comparisons at one budget: which decoder, which prior and which posterior, on the same images for the same time.

Seven models that share encoder, code and decoder widths: a decoder that is factorised over pixels or autoregressive (PixelCNN), and a code
whose prior is Gaussian, whose posterior is an inverse autoregressive flow (IAF) with a Gaussian prior, or whose prior is an autoregressive
flow (AF; with the PixelCNN decoder that is VLAE); and the PixelCNN without a code. Each is trained for the same time on the same number of
threads: its steps follow from the time of a few steps measured beforehand, so that its learning rate falls to zero within the budget.
The likelihood is importance-sampled on the same test images, and differences to VLAE are taken image by image.

Runs that are there already are gone on with. Run nothing beside it, but that two sets can be compared at once, each on one core for twice as long.

    python benchmarks/ablation.py SOURCE --output FOLDER --json [--minutes 60] [--seeds 1] [--quick] [group.name=value ...]
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runs import trained
from vlae.apps import train as trainer
from vlae.apps.evaluate import evaluate
from vlae.core.estimate import Estimate
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.units import nats

PIXELS = ["keep.window=stack6", "model.width=16", "model.pointwise=0"]
FACTORISED = ["keep.window=none"]
CODE = [
    *("keep.code=vector", "keep.dims=64", "model.map_channels=16", "model.hidden=450", "model.widths=[16,16,32,32]", "model.blocks=[0,1,1,0]"),
    *("objective.floor=0.12", "objective.plain_after=0.3", "objective.warmup=3000"),
]
GAUSSIAN = ["model.prior=gaussian"]
IAF = ["model.prior=gaussian", "model.posterior=iaf", "model.posterior_steps=4"]
AF = ["model.prior=af", "model.prior_steps=4", "model.prior_hidden=640"]
VARIANTS = {
    "factorised decoder, Gaussian prior": [*FACTORISED, *CODE, *GAUSSIAN],
    "factorised decoder, IAF posterior": [*FACTORISED, *CODE, *IAF],
    "factorised decoder, AF prior": [*FACTORISED, *CODE, *AF],
    "PixelCNN without a code": [*PIXELS, "keep.code=none"],
    "PixelCNN decoder, Gaussian prior": [*PIXELS, *CODE, *GAUSSIAN],
    "PixelCNN decoder, IAF posterior": [*PIXELS, *CODE, *IAF],
    "VLAE: PixelCNN decoder, AF prior": [*PIXELS, *CODE, *AF],
}
OURS = "VLAE: PixelCNN decoder, AF prior"
TRAINING = [
    *("train.batch=64", "train.optimizer=muon", "train.learning_rate=0.004", "train.decay=0.6", "train.ema=0.9995"),
    "train.validate_images=1000",
]
SAMPLES, IMAGES = 128, 1000
# The steps after whose time the others are counted; a training tells its time at the first and at each fiftieth.
PILOT = 200
# How often the weights are chosen by the validation images: where images are few, they are best long before the end.
VALIDATIONS = 25


def steps_within(minutes: float, source: Path, settings: Sequence[str]) -> int:
    """How many steps of a model fit into so many minutes, from the time of a few."""
    with tempfile.TemporaryDirectory() as folder:
        pilot = {"data.folder": source, "train.steps": PILOT, "train.validate_every": PILOT}
        run = trainer.prepare(load_settings(None, settings, pilot), Path(folder) / "run")
        trainer.train(run, lambda told: None)
        lines = run.metrics()
    each = (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])
    return max(1, int(60 * minutes / each))


def made(name: str, source: Path, folder: Path, minutes: float, more: Sequence[str]) -> Run:
    """The trained run of a variant; how many steps fit into the minutes is found once and kept beside it."""
    settings, kept = [*VARIANTS[name], *TRAINING, *more], folder.with_name(f"{folder.name}.{minutes:g}-minutes.json")
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(steps_within(minutes, source, settings)), encoding="utf-8")
    steps = json.loads(kept.read_text(encoding="utf-8"))
    return trained(source, folder, [*settings, f"train.steps={steps}", f"train.validate_every={max(1, steps // VALIDATIONS)}"])


def likelihoods(run: Run, limit: int) -> tuple[Evaluation, np.ndarray]:
    """The importance-sampled likelihood of the test images, and that of each in order, in nats."""
    found = evaluate(run, "test", SAMPLES if run.settings.keep.code != "none" else 1, limit)
    lines = (run.folder / "results" / "per_image-test.jsonl").read_text(encoding="utf-8").splitlines()
    return found, np.array([row["nll_nats"] for row in map(json.loads, lines)])


def row(name: str, case: str, run: Run, found: Evaluation, apart: Estimate | None) -> dict[str, Any]:
    """A line of the table: the likelihood, and the difference to VLAE of the same seed."""
    last = run.metrics()[-1]
    spent = f"{last['step']} steps in {last['seconds'] / 60:.0f} min, {run.settings.train.precision}, {found.protocol}"
    return {
        "case": f"{case}, seed {run.settings.train.seed}: {name}",
        "metric": "negative log likelihood",
        "value": found.nll_nats,
        "unit": "nats an image",
        "spread": f"se {found.nll_nats_se:.2f}; KL {nats(found.rate_bits):.2f} nats; {spent}",
        "against": OURS if apart is None else f"{OURS}: {apart.value:+.2f}, se {apart.se:.2f}",
        "ratio": None,
        "aim": None if apart is None else "VLAE is not worse by more than 2 standard errors",
        "met": None if apart is None else bool(apart.value >= -2 * apart.se),
    }


def measure(source: Path, output: Path, minutes: float, seed: int, limit: int, more: Sequence[str]) -> list[dict[str, Any]]:
    """All variants on one set with one seed."""
    runs = {name: made(name, source, output / f"{n}-{seed}", minutes, [f"train.seed={seed}", *more]) for n, name in enumerate(VARIANTS)}
    measured = {name: likelihoods(run, limit) for name, run in runs.items()}
    case, best = f"{source.stem}, {minutes:g} min on {torch.get_num_threads()} threads", measured[OURS][1]
    apart = {name: None if name == OURS else Estimate.of(torch.from_numpy(nll - best)) for name, (_, nll) in measured.items()}
    return [row(name, case, runs[name], found, apart[name]) for name, (found, _) in measured.items()]


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="images of 1 bit and one size: an .npz file, or a folder")
    parser.add_argument("overrides", nargs="*", help="settings of all models")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training for each model")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=IMAGES, help="test images, evenly spaced")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a second for each model: shows that it works")
    options = parser.parse_intermixed_args()
    minutes, limit = (1 / 60, 8) if options.quick else (options.minutes, options.limit)
    rows = [r for seed in range(options.seeds) for r in measure(options.source, options.output, minutes, seed, limit, options.overrides)]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        print(*(f"{r['value']:8.2f} ({r['spread']})  {r['case']}" for r in rows), sep="\n")


if __name__ == "__main__":
    main()
