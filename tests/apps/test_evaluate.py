"""Evaluate: a run measures the images and the weights that are its own, and many samples of a code at once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.test_cli import TINY, copied, good, picture, vlae
from vlae.apps import evaluate as app
from vlae.apps import report
from vlae.apps.evaluate import evaluate
from vlae.apps.train import prepare
from vlae.core.decoder import Decoder
from vlae.engine.fit import Trainer
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.errors import RunError

MORE = ["train.validate_every=1", "train.learning_rate=0.01", "data.validation=0.2", "data.test=0.4"]
COMMANDS = {"evaluate": ["evaluate"], "report": ["report"], "resume": ["train", "--resume"]}


def trained(images: Path, folder: Path, stop_at: int) -> Run:
    """A run that was trained to a step, or so far gone on with."""
    if not folder.exists():
        prepare(load_settings(None, [*TINY, *MORE], {"data.folder": images}), folder)
    run = Run.open(folder)
    trainer = Trainer(run, run.images())
    trainer.start()
    trainer.train(lambda: trainer.progress.step >= stop_at)
    return Run.open(folder)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted; every test may read it, none change it."""
    folder = tmp_path_factory.mktemp("module")
    return trained(good(folder / "images"), folder / "run", 2).folder


@pytest.fixture
def run(unfinished: Path, tmp_path: Path) -> Run:
    """The same for one test."""
    shutil.copytree(unfinished.parent / "images", tmp_path / "images")
    return with_folder(copied(unfinished, tmp_path / "run"), tmp_path / "images")


def with_folder(run: Path, images: Path) -> Run:
    """A copied run that names another folder of images."""
    text = (run / "config.yaml").read_text()
    (old,) = (line for line in text.splitlines() if line.strip().startswith("folder:"))
    (run / "config.yaml").write_text(text.replace(old, f"  folder: {images}"))
    return Run.open(run)


# Whose images


def gone(images: Path) -> None:
    shutil.rmtree(images)


def emptied(images: Path) -> None:
    gone(images)
    images.mkdir()


def replaced(images: Path) -> None:
    for n, path in enumerate(sorted(images.iterdir())):
        picture(path, seed=100 + n)


def listed(images: Path) -> None:
    (images / "manifest.csv").write_text("name,lot\n00.png,monday\n01.png,tuesday\n")


@pytest.mark.parametrize("change", [gone, emptied, replaced, listed])
def test_a_run_means_the_images_that_it_was_made_of(run: Run, change: Callable[[Path], None]) -> None:
    before, summary = evaluate(run), run.images().summary()
    change(run.settings.data.folder)
    again = Run.open(run.folder)
    assert evaluate(again) == before and again.images().summary() == summary
    for words in COMMANDS.values():
        code, said = vlae(*words, run.folder)
        assert code == 0, said


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def changed(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("harm", [Path.unlink, cut_short, changed])
@pytest.mark.parametrize("name", ["index.json", "pixels-*.bin"])
def test_a_damaged_cache_is_told_and_not_replaced(run: Run, command: str, harm: Callable[[Path], None], name: str) -> None:
    (path,) = (run.folder / "cache").glob(name)
    harm(path)
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    code, said = vlae(*COMMANDS[command], run.folder)
    assert code == 4 and said.count("Error: ") == 1 and "Traceback" not in said and f"{run.folder / 'cache'} is damaged or holds other images" in said
    assert before == {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("change", [("test: 0.4", "test: 0.7"), ("only_label: null", "only_label: good")])
def test_a_run_whose_images_are_now_split_otherwise_is_damaged(run: Run, change: tuple[str, str]) -> None:
    config = run.folder / "config.yaml"
    assert config.read_text().count(change[0]) == 1
    config.write_text(config.read_text().replace(*change))
    for words in COMMANDS.values():
        code, said = vlae(*words, run.folder)
        assert code == 4 and "config.yaml splits them otherwise" in said and "Traceback" not in said


# How many images


def test_a_page_is_not_made_from_fewer_images_than_it_would_measure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    every = evaluate(run)
    assert (every.limit, evaluate(run, limit=1).limit) == (None, 1)
    with pytest.raises(RunError, match="Run vlae evaluate"):
        report.report(run)
    assert vlae("report", run.folder)[0] == 0
    again = Evaluation.read(run, "test")
    assert again is not None and again.n_images == every.n_images > 2
    monkeypatch.setattr(report, "ENOUGH", 2)
    few = evaluate(run, limit=2)
    assert vlae("report", run.folder)[0] == 0 and Evaluation.read(run, "test") == few


def test_the_figures_of_a_single_image_are_json(run: Run) -> None:
    evaluate(run, limit=1)
    for path in (run.folder / "results").iterdir():
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_nothing_is_computed_where_nothing_can_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "costs", lambda *_: pytest.fail("computed"))
    (run.folder / "results").write_text("in the way")  # rights would not stop root
    code, said = vlae("evaluate", run.folder)
    assert code == 6 and f"{run.folder / 'results'} cannot be written" in said


# Whose weights


def test_a_result_of_earlier_weights_is_none_of_the_present_ones(run: Run) -> None:
    early = evaluate(run)
    assert Evaluation.read(run, "test") == early
    later = trained(run.settings.data.folder, run.folder, 4)
    assert later.fingerprint() != early.weights and Evaluation.read(later, "test") is None
    assert vlae("report", run.folder)[0] == 0
    again = Evaluation.read(later, "test")
    assert again is not None and again.weights == later.fingerprint() and again.nll_nats != early.nll_nats


def test_results_belong_to_what_the_weights_are_not_to_when_they_were_written(run: Run, tmp_path: Path) -> None:
    result = evaluate(run)
    os.utime(run.weights, (1, 1))
    assert Evaluation.read(run, "test") == Evaluation.read(Run.open(copied(run.folder, tmp_path / "moved")), "test") == result
    stat, content = run.weights.stat(), run.weights.read_bytes()
    run.weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(run.weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Evaluation.read(run, "test") is None


def test_weights_that_are_replaced_during_a_measurement_do_not_get_its_result(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = app.joined

    def meanwhile(parts: list[Any]) -> Any:
        trained(run.settings.data.folder, run.folder, 4)
        return measure(parts)

    monkeypatch.setattr(app, "joined", meanwhile)
    evaluate(run)
    assert Evaluation.read(run, "test") is None


# Many samples


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many codes are decoded at once, each time from here on."""
    seen: list[int] = []
    forward = Decoder.forward

    def watched(self: nn.Module, z: torch.Tensor, x: torch.Tensor) -> Any:
        seen.append(len(x))
        return forward(self, z, x)

    monkeypatch.setattr(Decoder, "forward", watched)
    return seen


@pytest.mark.parametrize("samples, most", [(2, 300), (7, 4 * 7), (40, 16), (5, 1)])
def test_as_many_samples_as_fit_are_decoded_at_once(run: Run, monkeypatch: pytest.MonkeyPatch, samples: int, most: int) -> None:
    whole = evaluate(run, "train", samples)
    (run.folder / "results" / f"likelihood-train-{samples}.jsonl").unlink()
    monkeypatch.setattr(app, "PIXELS_AT_ONCE", most * 144)
    monkeypatch.setattr(app, "_similarities", lambda *_: None)
    seen = decodings(monkeypatch)
    again = evaluate(run, "train", samples)
    assert (again.nll_nats, again.effective_samples) == pytest.approx((whole.nll_nats, whole.effective_samples), rel=1e-4)
    _bound, *pairs = seen
    batches = np.ceil(whole.n_images / (most // samples)) if samples <= most else whole.n_images * np.ceil(samples / most)
    assert max(pairs) <= most and sum(pairs) == whole.n_images * samples and len(pairs) == batches


def test_what_is_done_is_kept_image_by_image_and_not_done_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PIXELS_AT_ONCE", 10 * 144)
    monkeypatch.setattr(app, "_similarities", lambda *_: None)
    log = run.folder / "results" / "likelihood-train-20.jsonl"

    def interrupt(done: int, total: int) -> None:
        if log.is_file() and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, "train", 20, progress=interrupt)
    assert len(log.read_text().split("\n{")) - 1 == 5
    seen, told = decodings(monkeypatch), []
    resumed = evaluate(run, "train", 20, progress=lambda *done: told.append(done))
    assert seen[1:] == [10, 10] * (resumed.n_images - 5) and told[1:] == [(n, resumed.n_images) for n in range(6, resumed.n_images + 1)]
    log.unlink()
    assert evaluate(run, "train", 20) == resumed


@pytest.mark.parametrize("harmed", [b"{garbage}", b"\xff\x00\xfe", b"{}", b'{"weights": "W", "image": 0, "nll_nats": "x", "effective_samples": 1.0}'])
def test_damaged_likelihoods_are_passed_over(run: Run, harmed: bytes) -> None:
    whole = evaluate(run, "train", 8)
    log = run.folder / "results" / "likelihood-train-8.jsonl"
    log.write_bytes(log.read_bytes() + b"\n" + harmed.replace(b"W", run.fingerprint().encode()) + b"\n")
    code, said = vlae("evaluate", run.folder, "--split", "train", "--samples", 8)
    assert code == 0 and Evaluation.read(run, "train") == whole, said


def test_likelihoods_of_other_weights_are_not_taken_up(run: Run) -> None:
    early = evaluate(run, "train", 8)
    trained(run.settings.data.folder, run.folder, 4)
    later = Run.open(run.folder)
    resumed = evaluate(later, "train", 8)
    (run.folder / "results" / "likelihood-train-8.jsonl").unlink()
    assert evaluate(later, "train", 8) == resumed and resumed.nll_nats != early.nll_nats
    rows = (run.folder / "results" / "likelihood-train-8.jsonl").read_text().strip().splitlines()
    assert {json.loads(row)["weights"] for row in rows} == {later.fingerprint()}
