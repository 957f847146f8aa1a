"""SIGKILL at random moments, in the middle of saving too: the training goes on as if nothing had been."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlae.apps.train import prepare
from vlae.data.read import write_png
from vlae.engine.run import Run
from vlae.engine.settings import load_settings

TINY = [
    *("keep.window=stack1", "keep.dims=2", "model.width=4", "model.pointwise=0", "model.hidden=8", "model.prior=gaussian"),
    *("model.widths=[4,4]", "model.blocks=[0,0]", "train.batch=4", "train.validate_every=7", "objective.kind=soft_free_bits"),
]
# Trains run 1 at one go, then run 2, saving after every step, in children that are killed after a while.
SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from vlae.engine import fit
from vlae.engine.formats import read_json
from vlae.engine.run import Run

def train(folder):
    child = os.fork()
    if child:
        return child
    try:
        run = Run.open(folder)
        trainer = fit.Trainer(run, run.images())
        trainer.start()
        trainer.train()
        os._exit(0)
    finally:
        os._exit(1)

assert os.waitpid(train(Path(sys.argv[1])), 0)[1] == 0
fit.SAVE_EVERY_S, cut, draw = 0.0, Path(sys.argv[2]), random.Random(5)
for kill in range(int(sys.argv[3])):
    child = train(cut)
    began, latest = time.monotonic(), cut / "state" / "latest.json"
    before = latest.stat().st_mtime_ns if latest.exists() else 0
    while time.monotonic() - began < 60 and (latest.stat().st_mtime_ns if latest.exists() else 0) == before:
        time.sleep(0.001)  # every life saves once at least
    time.sleep(draw.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break
    print(read_json(latest)["step"])
assert os.waitpid(train(cut), 0)[1] == 0
"""


def killed(folder: Path, steps: int, kills: int) -> tuple[Run, Run, list[int]]:
    for n in range(20):
        write_png(folder / "images" / f"{n}.png", np.random.default_rng(n).integers(0, 256, (12, 12, 1), dtype=np.uint8), 8)
    settings = load_settings(None, [*TINY, f"train.steps={steps}"], {"data.folder": folder / "images"})
    whole, cut = prepare(settings, folder / "whole"), prepare(settings, folder / "cut")
    words = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(whole.folder), str(cut.folder), str(kills)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return whole, cut, [int(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("steps, kills", [(60, 3), pytest.param(1000, 25, marks=pytest.mark.slow)])
def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path, steps: int, kills: int) -> None:
    whole, cut, stops = killed(tmp_path, steps, kills)
    assert stops and 0 < min(stops) and stops == sorted(stops), "it was killed, and lost nothing that was saved"
    for name in ("weights.safetensors", f"state/step-{steps}.safetensors"):
        ours, theirs = load_file(cut.folder / name), load_file(whole.folder / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    figures = [[(line["step"], line["validation_nats"]) for line in run.metrics() if "validation_nats" in line] for run in (whole, cut)]
    assert figures[0] == figures[1]
