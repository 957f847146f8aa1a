"""The training loop: what is resumed is what was interrupted, several processes are one, and nothing absurd passes unseen."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from vlae.apps.train import prepare
from vlae.core.layers import WeightNorm
from vlae.engine.build import build
from vlae.engine.fit import Trainer, learning_rate
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.errors import RunError, TrainingError
from vlae.units import nats

from ..test_cli import vlae

TINY = [
    *("keep.window=stack1", "keep.dims=3", "model.width=4", "model.pointwise=0", "model.hidden=8", "model.prior_hidden=8"),
    *("model.widths=[4,4]", "model.blocks=[0,0]", "train.batch=4", "train.validate_every=5", "train.validate_images=4"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for n in range(24):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (10, 12), dtype=np.uint8)).save(folder / f"{n}.png")
    return folder


def made(images: Path, folder: Path, *overrides: str) -> Run:
    return prepare(load_settings(None, [*TINY, *overrides], {"data.folder": images}), folder)


def trained(run: Run, stop_at: int = 10**9) -> Trainer:
    trainer = Trainer(run, run.images())
    trainer.start()
    trainer.train(lambda: trainer.progress.step >= stop_at)
    return trainer


def tensors(run: Run) -> dict[str, torch.Tensor]:
    (state,) = (run.folder / "state").glob("*.safetensors")
    return load_file(state)


def weights(run: Run) -> dict[str, torch.Tensor]:
    """What every layer computes with. (The length of a direction v changes nothing, and Adamax makes steps of rounding errors there.)"""
    model = build(run.settings, run.facts).double()
    model.load_state_dict({name[6:]: t for name, t in tensors(run).items() if name.startswith("model.")})
    layers = {name: m for name, m in model.named_modules() if isinstance(m, WeightNorm)}
    return {f"{name}.weight": m.weight().detach() for name, m in layers.items()} | {f"{name}.b": m.b.detach() for name, m in layers.items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train.optimizer=adam", "train.shift=1", "train.mirror=true"],
        ["train.optimizer=muon", "keep.noise=6", "keep.window=stack3", "model.tied=true"],
        ["train.optimizer=muon", "data.binarise=dynamic", "keep.window=stack3", "model.members=2"],
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(images: Path, tmp_path: Path, words: list[str]) -> None:
    whole, cut = (made(images, tmp_path / name, "train.steps=13", *words) for name in ("whole", "cut"))
    trained(whole)
    for stop in (3, 4, 11, 99):
        trained(Run.open(cut.folder), stop)
    assert equal(tensors(whole), tensors(cut))
    assert equal(load_file(whole.weights), load_file(cut.weights))  # the bytes differ in the order of the metadata alone
    steps = [line["step"] for line in Run.open(cut.folder).metrics() if "validation_nats" in line]
    assert steps[-3:] == [5, 10, 13] and len(steps) == len(set(steps))


# The command line, saving after every step.
KEEN = """
from vlae.cli import main
from vlae.engine import fit
fit.SAVE_EVERY_S = 0.0
main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(images: Path, tmp_path: Path) -> None:
    settings = ["train.steps=150", "train.validate_every=20"]
    trained(whole := made(images, tmp_path / "whole", *settings))
    words, environment = [sys.executable, "-c", KEEN, "train"], os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    stops = [0]
    for start in ([str(images), *TINY, *settings, "-o", str(tmp_path / "cut")], ["--resume", str(tmp_path / "cut")]):
        child = subprocess.Popen([*words, *start], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and saved(tmp_path / "cut") < stops[-1] + 30:
            time.sleep(0.001)
        child.kill()
        assert child.wait() == -signal.SIGKILL, "it was still training"
        stops.append(saved(tmp_path / "cut"))
    assert 0 < stops[1] < stops[2] < 150
    code, said = vlae("train", "--resume", tmp_path / "cut")
    assert code == 0 and equal(tensors(whole), tensors(cut := Run.open(tmp_path / "cut"))), said
    assert equal(load_file(whole.weights), load_file(cut.weights))


def saved(run: Path) -> int:
    """The step of the last state."""
    latest = run / "state" / "latest.json"
    return int(json.loads(latest.read_text())["step"]) if latest.is_file() else 0


@pytest.mark.slow
def test_an_interrupt_saves_and_says_how_to_go_on(images: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vlae.cli", "train", str(images), *TINY, "train.steps=100000", "-o", str(tmp_path / "run")]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "metrics.jsonl").is_file() and child.poll() is None:
        time.sleep(0.2)
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "--resume" in out and "Traceback" not in err
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] > 0


@pytest.mark.slow
def test_two_processes_are_one(images: Path, tmp_path: Path) -> None:
    settings = [*TINY, "train.steps=20", "train.precision=64-true", "objective.floor=0.3"]
    alone = made(images, tmp_path / "alone", *settings[len(TINY) :])
    trained(alone)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vlae.cli", "train"]
    words += [str(images), *settings, "-o", str(tmp_path / "both")]
    done = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = (weights(run) for run in (alone, Run.open(tmp_path / "both")))
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-9


LEAVING = """
import sys, weakref
from pathlib import Path
import torch.distributed
from vlae.apps.train import prepare
from vlae.engine.fit import Trainer
from vlae.engine.settings import load_settings
run = prepare(load_settings(None, sys.argv[3:], {"data.folder": Path(sys.argv[1])}), Path(sys.argv[2]))
trainer = Trainer(run, run.images())
trainer.start()
trainer.train()
wrapped = next(m for m in trainer.network.modules() if isinstance(m, torch.nn.parallel.DistributedDataParallel))
reducer, alive = weakref.ref(wrapped.reducer), []
destroy = torch.distributed.destroy_process_group
torch.distributed.destroy_process_group = lambda: (alive.append(reducer() is not None), destroy())
del wrapped
trainer.leave()
print(alive, torch.distributed.is_initialized())
"""


def test_nothing_holds_the_processes_together_when_they_part(images: Path, tmp_path: Path) -> None:
    """A wrapped model that is freed after its group can wait for ever for a thread of it: a training that was done did not end."""
    alone = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    alone |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    words = [sys.executable, "-c", LEAVING, str(images), str(tmp_path / "run"), *TINY, "train.steps=2"]
    done = subprocess.run(words, env=os.environ | alone, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["[False] False"], done.stdout + done.stderr[-2000:]


def free_port() -> int:
    with socket.socket() as open_one:
        open_one.bind(("127.0.0.1", 0))
        return int(open_one.getsockname()[1])


def test_absurd_gradients_are_skipped_and_counted(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(images, tmp_path / "run", "train.steps=6")
    trainer = Trainer(run, run.images())
    trainer.start()
    loss = trainer._loss
    monkeypatch.setattr(trainer, "_loss", lambda terms: loss(terms) * (math.nan if trainer.progress.step in (2, 3) else 1.0))
    before: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "_log", lambda **more: None)
    for _ in range(2):
        trainer._step()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer._step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    trainer._step()
    assert trainer.progress.skipped == 2 and trainer.progress.step == 4
    trainer._step()
    assert trainer.progress.skipped == 2 and trainer.progress.skipped_in_a_row == 0


def test_one_absurd_gradient_is_skipped_and_lasting_ones_become_usual(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that jumps for good makes every later gradient long: the training must not skip them all and end."""
    run = made(images, tmp_path / "run", "train.steps=300")
    trainer = Trainer(run, run.images())
    trainer.start()
    trainer.progress.step = 101
    loss, factors = trainer._loss, iter([1.0] * 20 + [1e3] + [1.0] * 9 + [1e3] * 100)
    monkeypatch.setattr(trainer, "_loss", lambda terms: loss(terms) * next(factors))
    for _ in range(30):
        trainer._step()
    assert trainer.progress.skipped == 1 and trainer.progress.skipped_in_a_row == 0
    for _ in range(100):
        trainer._step()
    assert 20 < trainer.progress.skipped < 101 and trainer.progress.skipped_in_a_row == 0


def test_lower_precision_rounds_no_pixel(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pixel of 8 bits and its noise, bfloat16 would leave the first eight digits."""
    run = made(images, tmp_path / "run", "train.steps=6", "train.precision=bf16-mixed")
    trainer = Trainer(run, run.images())
    trainer.start()
    seen: list[torch.Tensor] = []
    scaled = trainer.model.decoder.scaled
    monkeypatch.setattr(trainer.model.decoder, "scaled", lambda x: seen.append(scaled(x)) or seen[-1])
    trainer._step()
    exact = trainer.batches(0).x.double() * (2 / 255) - 1
    assert seen and all((v.double() - exact).abs().max() < 1e-6 for v in seen)
    assert any(a.dtype == torch.bfloat16 for a in lowered_layers(trainer))
    trainer.train()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.average.parameters())


def lowered_layers(trainer: Trainer) -> list[torch.Tensor]:
    """What the layers give in a step."""
    out: list[torch.Tensor] = []
    hooks = [m.register_forward_hook(lambda m, x, y: out.append(y)) for m in trainer.model.modules() if isinstance(m, WeightNorm)]
    trainer._step()
    for hook in hooks:
        hook.remove()
    return out


def test_endless_absurd_gradients_end_the_training(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(images, tmp_path / "run", "train.steps=200")
    trainer = Trainer(run, run.images())
    trainer.start()
    loss = trainer._loss
    monkeypatch.setattr(trainer, "_loss", lambda terms: loss(terms) * math.inf)
    with pytest.raises(TrainingError, match="were skipped"):
        trainer.train()


def test_a_validation_that_is_not_finite_ends_the_training(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlae.engine.fit.validation_elbo", lambda *a: math.nan)
    trainer = Trainer(run := made(images, tmp_path / "run", "train.steps=5"), run.images())
    trainer.start()
    with pytest.raises(TrainingError, match="not finite"):
        trainer.train()


def test_early_stopping_and_minutes(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(images, tmp_path / "run", "train.steps=500", "train.validate_every=1", "train.patience=2")
    monkeypatch.setattr("vlae.engine.fit.validation_elbo", lambda *a: -1.0)
    trainer = Trainer(run, run.images())
    trainer.start()
    assert trainer.train() == "patience" and trainer.progress.step == 3
    short = made(images, tmp_path / "short", "train.steps=100000", "train.max_minutes=0.02")
    trainer = Trainer(short, short.images())
    trainer.start()
    assert trainer.train() == "minutes" and 0 < trainer.progress.step < 100000 and short.weights.is_file()


@pytest.mark.parametrize("target", [1.5, 4.0])
def test_the_rate_is_held_at_its_target(tmp_path: Path, target: float) -> None:
    """Images that differ in brightness alone: more or fewer bits of it can be told."""
    (tmp_path / "images").mkdir()
    for n in range(24):
        grain = np.random.default_rng(n).integers(0, 9, (10, 12))
        Image.fromarray((grain + 10 * n).astype(np.uint8)).save(tmp_path / "images" / f"{n}.png")
    settings = [
        "train.steps=600",
        f"keep.bits={target}",
        "train.learning_rate=0.01",
        "train.validate_every=600",
        "model.prior=gaussian",
        "train.batch=16",
    ]
    settings = [s for s in TINY if "prior_hidden" not in s] + settings
    run = prepare(load_settings(None, settings, {"data.folder": tmp_path / "images"}), tmp_path / "run")
    assert trained(run).progress.rate_bits == pytest.approx(target, rel=0.25)


def test_the_averaged_weights_are_their_formula(images: Path, tmp_path: Path) -> None:
    run = made(images, tmp_path / "run", "train.steps=50", "train.ema=0.7")
    trainer = Trainer(run, run.images())
    trainer.start()
    expected = [p.detach().clone() for p in trainer.model.parameters()]
    for step in range(12):
        trainer._step()
        decay = min(0.7, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, trainer.model.parameters(), strict=True)]
    for e, p in zip(expected, trainer.average.parameters(), strict=True):
        torch.testing.assert_close(e, p.detach(), rtol=1e-5, atol=1e-6)


def test_the_learning_rate_rises_stays_and_falls_to_zero(images: Path) -> None:
    settings = load_settings(None, ["train.steps=100", "train.ramp=9", "train.decay=0.2", "train.learning_rate=1.0"], {"data.folder": images})
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == 0.1 and rates[9:81] == [1.0] * 72 and rates[100] == 0.0
    assert all(a > b for a, b in pairwise(rates[80:]))


@pytest.mark.parametrize(
    "words, target", [(["keep.bits=50"], 50 * 8 * 8 / 1000), (["objective.kind=soft_free_bits", "objective.floor=0.5"], 0.5 * 2 * 4 * 4)]
)
def test_the_target_of_a_grid_is_that_of_the_crops_that_it_learns_from(images: Path, tmp_path: Path, words: list[str], target: float) -> None:
    """Bits for 1,000 pixels, and nats for a channel and place: of 8 x 8 pixels, not of images of 10 x 12."""
    idle = ("keep.dims", "model.hidden")
    settings = [*(s for s in TINY if not s.startswith(idle)), "keep.code=grid", "keep.channels=2", "keep.stride=2", "train.crop=8", *words]
    run = prepare(load_settings(None, settings, {"data.folder": images}), tmp_path / "run")
    control = Trainer(run, run.images()).control
    assert control is not None and control.target == pytest.approx(nats(target) if "keep.bits=50" in words else target)


def test_a_run_that_its_time_cut_off_ends_with_the_same_weights(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation when time is up would be the best of all: the weights that it left would stay."""
    run = made(images, tmp_path / "run", "train.steps=13", "train.max_minutes=6.5")
    found = {5: -3.0, 7: -9.0, 10: -2.0, 13: -1.0}
    for minutes in (True, False):
        trainer = Trainer(run, run.images())
        trainer.start()
        clock = SimpleNamespace(monotonic=lambda t=trainer, m=minutes: 60.0 * t.progress.step * m, perf_counter=time.perf_counter)
        monkeypatch.setattr("vlae.engine.fit.time", clock)
        monkeypatch.setattr("vlae.engine.fit.validation_elbo", lambda *_, t=trainer: -found[t.progress.step])
        assert trainer.train() == ("minutes" if minutes else "done") and trainer.progress.step == (7 if minutes else 13)
        with safe_open(run.weights, "pt") as file:
            assert file.metadata()["step"] == "5"


@pytest.mark.parametrize("tree, told", [({"format": 7}, "newer version"), ({}, "no format version"), ([], "no format version")])
def test_a_state_of_another_format_is_refused(images: Path, tmp_path: Path, tree: object, told: str) -> None:
    trained(run := made(images, tmp_path / "run", "train.steps=2"), 1)
    latest = run.folder / "state" / "latest.json"
    kept = {name: value for name, value in json.loads(latest.read_text()).items() if name != "format"}
    latest.write_text(json.dumps(kept | tree if isinstance(tree, dict) else tree))
    with pytest.raises(RunError, match=told):
        Trainer(run, run.images()).start()
