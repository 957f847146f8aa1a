"""Train, where things go wrong: disks, processes, tools and runs that cannot go on. What was there stays, what is half done goes."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_cli import TINY, good, picture, vlae
from vlae.apps.train import default_folder, prepare
from vlae.data.read import write_png
from vlae.engine.fit import Trainer
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.errors import VlaeError

# A disk on which no file grows beyond so many bytes.
SMALL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from vlae.cli import main
main()
"""


@pytest.mark.parametrize("room, left", [(2000, False), (6000, True)])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path, room: int, left: bool) -> None:
    images = good(tmp_path / "images")  # their cache takes 2,880 bytes, the weights more than 6,000
    words = [sys.executable, "-W", "ignore", "-c", SMALL_DISK, str(room), "train", str(images), "-o", str(tmp_path / "run"), *TINY]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 6 and "Traceback" not in done.stderr and done.stderr.count("Error: ") == 1, done.stderr
    assert (tmp_path / "run").exists() == left
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part" or path.name == "weights.safetensors"]
    if left:
        assert vlae("train", "--resume", tmp_path / "run")[0] == 0 and (tmp_path / "run" / "weights.safetensors").is_file()


def test_a_failure_leaves_an_empty_folder_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert vlae("train", good(tmp_path / "images"), "-o", tmp_path / "run", *TINY, "train.batch=99")[0] == 3
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("data", ["data.minimum=1", "data.size=[10,9]"])
@pytest.mark.parametrize("sizes", [[(12, 12)], [(12, 12), (9, 30)]])
def test_crops_that_fit_into_no_image_are_refused(tmp_path: Path, sizes: list[tuple[int, int]], data: str) -> None:
    for n in range(20):
        picture(tmp_path / "images" / f"{n}.png", sizes[n % len(sizes)], seed=n)
    code, said = vlae("train", tmp_path / "images", "-o", tmp_path / "run", *GRID, *MORE, data, "train.crop=14")
    assert code == 2 and "train.crop is 14" in said and "Traceback" not in said and not (tmp_path / "run").exists()


def test_small_images_make_small_crops(tmp_path: Path) -> None:
    code, said = vlae("train", good(tmp_path / "images"), "-o", tmp_path / "run", *GRID, *(word for word in MORE if "crop" not in word))
    assert code == 0, said
    assert Run.open(tmp_path / "run").settings.train.crop == 12


def test_small_images_of_different_sizes_make_small_crops(tmp_path: Path) -> None:
    for n in range(20):
        picture(tmp_path / "images" / f"{n}.png", [(12, 12), (16, 14)][n % 2], seed=n)
    code, said = vlae("train", tmp_path / "images", "-o", tmp_path / "run", *GRID, *(word for word in MORE if "crop" not in word))
    assert code == 0, said
    assert Run.open(tmp_path / "run").settings.train.crop == 14


def test_a_run_is_named_after_the_whole_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lot.2024").mkdir()
    (tmp_path / "images.npz").touch()
    assert [default_folder(tmp_path / name).name for name in ("lot.2024", "images.npz")] == ["lot.2024-1", "images-1"]


def test_what_was_tested_on_is_not_trained_on_later(tmp_path: Path) -> None:
    """Lots that are counted move when images are added before them."""
    images = good(tmp_path / "images", 60)
    assert vlae("train", images, "-o", tmp_path / "first", *TINY, "data.lot_block=5")[0] == 0
    next_one = ("train", images, "-o", tmp_path / "next", f"train.start={tmp_path / 'first'}", "train.batch=4", "train.steps=1", "data.lot_block=5")
    assert vlae(*next_one)[0] == 0
    shutil.rmtree(tmp_path / "next")
    for n in range(3):
        picture(images / f"0-{n}.png", seed=100 + n)
    code, said = vlae(*next_one)
    assert code == 2 and "would be trained on" in said and not (tmp_path / "next").exists(), said


def test_only_the_time_and_the_device_of_a_run_can_be_changed(tmp_path: Path) -> None:
    assert vlae("train", good(tmp_path / "images"), "-o", tmp_path / "run", *TINY)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for words, code in (
        (["train.steps=9"], 4),
        (["--steps", 9], 2),
        (["--steps", 0], 2),
        (["--keep", ""], 2),
        (["train.device=abacus"], 2),
        (["-o", tmp_path / "b"], 2),
    ):
        got, said = vlae("train", "--resume", tmp_path / "run", *words)
        assert got == code and "Traceback" not in said and "Error: " in said
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert vlae("train", "--resume", tmp_path / "images")[0] == 4


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    assert vlae("train", good(tmp_path / "images"), "-o", tmp_path / "run", *TINY)[0] == 0
    latest = tmp_path / "run" / "state" / "latest.json"
    (state,) = latest.parent.glob("*.safetensors")
    whole, weights = latest.read_text(), state.read_bytes()
    changes = ({"tensors": "../../weights.safetensors"}, {"step": "x"}, {"step": None}, {"best": []}, {"more": 1})
    for text in ("{", "[]", '{"format": 1}', *(json.dumps(json.loads(whole) | change) for change in changes)):
        latest.write_text(text)
        code, said = vlae("train", "--resume", tmp_path / "run")
        assert code == 4 and "Error: " in said and "Traceback" not in said, text
    latest.write_text(whole)
    state.write_bytes(weights[:-9])
    assert vlae("train", "--resume", tmp_path / "run")[0] == 4


def test_a_run_goes_on_where_it_was_called_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    assert vlae("train", "images", "-o", "run", *TINY)[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, said = vlae("evaluate", "../run")
    assert code == 0, said


def made(folder: Path, *overrides: str) -> Trainer:
    for n in range(20):
        write_png(folder / "images" / f"{n}.png", np.random.default_rng(n).integers(0, 256, (16, 16, 1), dtype=np.uint8), 8)
    run = prepare(load_settings(None, overrides, {"data.folder": folder / "images"}), folder / "run")
    trainer = Trainer(run, run.images())
    trainer.start()
    return trainer


GRID = ["keep.window=stack1", "keep.code=grid", "keep.stride=4", "keep.channels=3", "model.width=4", "model.pointwise=0", "model.prior=gaussian"]
MORE = ["model.widths=[4,4,4]", "model.blocks=[0,0,0]", "train.batch=4", "train.crop=12", "train.steps=9"]


@pytest.mark.parametrize("kind, numbers", [(TINY, 2), ([*GRID, *MORE], 3 * 3 * 3)])
def test_free_bits_are_paid_for_each_number_of_the_code(tmp_path: Path, kind: list[str], numbers: int) -> None:
    trainer = made(tmp_path, *kind, "objective.floor=1000")
    terms = trainer.network(*trainer._on_device(trainer.batches(0)))
    assert trainer._loss(terms).item() == pytest.approx(-terms.log_px_z.mean().item() + 1000 * numbers, rel=1e-6)


def test_a_value_that_is_no_number_does_not_outlive_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made(tmp_path, *TINY, "train.steps=6", "keep.bits=3")
    batches = trainer.batches
    monkeypatch.setattr(trainer, "batches", lambda step: batches(step)._replace(noise=batches(step).noise * (math.nan if step == 2 else 1)))
    assert trainer.train() == "done" and trainer.progress.skipped == 1
    figures = [trainer.progress.rate_bits, trainer.progress.distortion_bits, trainer.progress.code_weight, trainer.progress.best]
    assert all(math.isfinite(figure) for figure in figures)
    assert all(torch.isfinite(t).all() for model in (trainer.model, trainer.average) for t in model.parameters())


def test_a_state_is_json_and_what_json_does_not_have_comes_back_as_at_the_start(tmp_path: Path) -> None:
    trainer = made(tmp_path, *TINY)
    trainer.save()  # before the first step nothing is known of the gradient, and no loss is the best
    saved = (trainer.run.folder / "state" / "latest.json").read_text()
    assert json.loads(saved, parse_constant=pytest.fail)["best"] is None
    again = Trainer(trainer.run, trainer.run.images())
    again.start()
    assert again.progress.best == math.inf and math.isnan(again.progress.usual_norm)
    assert again.train() == "done" and again.run.weights.is_file()


@pytest.mark.parametrize("harmed", [b"{}", b"{garbage}", b"\xff\x00}", b'{"step": "x"}'])
def test_a_damaged_log_does_not_stop_a_training_or_its_page(tmp_path: Path, harmed: bytes) -> None:
    assert vlae("train", good(tmp_path / "images"), "-o", tmp_path / "run", *TINY)[0] == 0
    log = tmp_path / "run" / "metrics.jsonl"
    whole = log.read_bytes()
    for words in (["report"], ["train", "--resume"]):
        log.write_bytes(harmed + b"\n" + whole)
        code, said = vlae(*words, tmp_path / "run")
        assert code == 0, said
    assert log.read_bytes() == whole


def test_what_is_logged_is_json(tmp_path: Path) -> None:
    trainer = made(tmp_path, *TINY)
    trainer.train()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = (trainer.run.folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) >= 2 and all(json.loads(line, parse_constant=refuse)["format"] == 1 for line in lines)


def test_several_processes_need_a_name_for_their_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    code, said = vlae("train", good(tmp_path / "images"), *TINY)
    assert code == 6 and "--output" in said and not (tmp_path / "runs").exists()


def test_another_process_waits_for_the_run_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made(tmp_path, *TINY)
    monkeypatch.setenv("RANK", "1")
    before = sorted((tmp_path / "run").rglob("*"))
    assert prepare(trainer.settings, tmp_path / "run") == Run.open(tmp_path / "run")
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_exit_codes_are_as_promised() -> None:
    codes = {kind.__name__: kind.exit_code for kind in VlaeError.__subclasses__()}
    promised = {"SettingError": 2, "DataError": 3, "RunError": 4, "DeviceError": 5, "DiskError": 6, "TrainingError": 7, "PartialResult": 8}
    promised |= {"ArchiveError": 9, "ContractError": 10}
    assert codes == promised and VlaeError.exit_code == 1


def test_a_training_starts_from_the_weights_of_another_run(tmp_path: Path) -> None:
    images = good(tmp_path / "images")
    assert vlae("train", images, "-o", tmp_path / "first", *TINY)[0] == 0
    code, said = vlae(
        "train", images, "-o", tmp_path / "next", f"train.start={tmp_path / 'first'}", "train.steps=1", "train.batch=4", "train.learning_rate=1e-30"
    )
    assert code == 0, said
    first, following = (Run.open(tmp_path / name) for name in ("first", "next"))
    assert (following.settings.keep, following.settings.model) == (first.settings.keep, first.settings.model)
    weights = [dict(run.model(torch.device("cpu")).state_dict()) for run in (first, following)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert vlae("train", "--resume", tmp_path / "next")[0] == 0


@pytest.mark.parametrize(
    "word, told",
    [("keep.window=r1", "keep.window is r1"), ("data.size=[9,9]", "of the same kind"), ("train.start=nowhere", "is not a run")],
)
def test_a_training_starts_from_nothing_that_is_unlike_it(tmp_path: Path, word: str, told: str) -> None:
    images = good(tmp_path / "images")
    assert vlae("train", images, "-o", tmp_path / "first", *TINY)[0] == 0
    code, said = vlae("train", images, "-o", tmp_path / "next", f"train.start={tmp_path / 'first'}", word)
    assert code in (2, 4) and told in said and "Traceback" not in said and not (tmp_path / "next").exists()


def test_a_training_does_not_start_from_damaged_weights(tmp_path: Path) -> None:
    images = good(tmp_path / "images")
    assert vlae("train", images, "-o", tmp_path / "first", *TINY)[0] == 0
    weights = Run.open(tmp_path / "first").weights
    for content in (weights.read_bytes()[:-7], b""):
        weights.write_bytes(content)
        code, said = vlae("train", images, "-o", tmp_path / "next", f"train.start={tmp_path / 'first'}", "train.batch=4")
        assert code == 4 and "damaged" in said and "Traceback" not in said and not (tmp_path / "next").exists()


FLUSHED = """
import sys
from pathlib import Path
import torch
from vlae.apps.train import prepare, resume, train
from vlae.engine.settings import load_settings

images, folder, *words = sys.argv[1:]
if words:
    run = prepare(load_settings(None, words, {"data.folder": Path(images)}), Path(folder))
else:
    run = resume(Path(folder), [])
train(run, lambda told: print(torch.get_num_threads(), torch.count_nonzero(torch.full((2**20,), 1.5e-38) / 2).item()))
"""


def test_in_no_thread_of_a_training_are_numbers_too_small(tmp_path: Path) -> None:
    """In a new run, and in one that goes on."""
    images = good(tmp_path / "images")
    for words in ([*TINY, "train.steps=1"], []):
        command = [sys.executable, "-c", FLUSHED, str(images), str(tmp_path / "run"), *words]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and set(done.stdout.splitlines()) == {"2 0"}, done.stdout + done.stderr[-2000:]
