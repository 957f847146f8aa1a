"""Rows of the tables: trained from a recipe, measured, kept for the table, and handed on so that anyone with the images can measure again."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vlae as package
from vlae.apps import reproduce
from vlae.engine.run import Run
from vlae.engine.settings import load_settings

from ..test_cli import vlae

RECIPE = """
keep: {window: stack1, code: vector, dims: 2}
model: {width: 4, pointwise: 0, map_channels: 2, hidden: 8, prior_hidden: 8, widths: [4, 4], blocks: [0, 0]}
train: {steps: 4, batch: 4, validate_every: 2, seed: 0}
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one recipe, and the images of its row."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "static-mnist.yaml").write_text(RECIPE)
    draw = np.random.default_rng(0)
    arrays = {split: draw.integers(0, 2, (n, 8, 8)).astype(bool) for split, n in (("train", 12), ("valid", 6), ("test", 5))}
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "mnist_static_binary.npz", **arrays)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(reproduce.ROWS, "static-mnist", reproduce.ROWS["static-mnist"]._replace(samples=8))
    monkeypatch.setenv("VLAE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(said: str) -> dict[str, Any]:
    """What a command printed for a program, among what it said beside it."""
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


def test_a_row_is_trained_measured_and_told_beside_the_papers(clone: Path) -> None:
    code, said = vlae("reproduce", "static-mnist", "--seed", 3, "--zoo", clone / "zoo", "--json")
    assert code == 0, said
    found = answer(said)
    assert (found["importance_samples"], found["n_images"], found["seed"], found["steps"]) == (8, 5, 3, 4)
    code, told = vlae("reproduce", "--table", "--json")
    rows = {row["row"]: row for row in answer(told)["rows"]}
    assert rows["static-mnist"]["nll_nats"] == found["nll_nats"] and rows["static-mnist"]["paper"] == 79.03
    assert "nll_nats" not in rows["omniglot"]
    text = vlae("reproduce", "--table")[1]
    assert f"{found['nll_nats']:.2f} +- " in text and "79.03" in text and "validation bound" in text and "not yet" in text
    (line,) = csv.DictReader((clone / "results" / "runs.csv").read_text().splitlines())
    assert (line["row"], line["seed"], line["steps"], line["ended"], line["config"]) == ("static-mnist", "3", "4", "done", found["config"])


def test_what_is_handed_on_gives_its_figure_again_from_the_images(clone: Path) -> None:
    assert vlae("reproduce", "static-mnist", "--zoo", clone / "zoo")[0] == 0
    first = json.loads((clone / "zoo" / "metrics.json").read_text())
    assert {path.name for path in (clone / "zoo").glob("*.*")} == {
        "config.yaml",
        "images.json",
        "environment.json",
        "weights.safetensors",
        "metrics.json",
        "metrics.jsonl",
    }
    moved = (clone / "zoo").rename(clone / "model")
    for path in ("cache", "results"):
        [file.unlink() for file in (moved / path).iterdir()]
        (moved / path).rmdir()
    code, said = vlae("evaluate", moved, "--json")
    assert code == 0, said
    again = answer(said)
    assert (again["nll_nats"], again["importance_samples"]) == (first["nll_nats"], 8)
    weights = dict(Run.open(moved).model(torch.device("cpu")).state_dict())
    assert all(torch.equal(value, value.half().to(value.dtype)) for value in weights.values())


def test_other_images_are_not_taken_for_those_of_a_model(clone: Path) -> None:
    assert vlae("reproduce", "static-mnist", "--zoo", clone / "zoo")[0] == 0
    [file.unlink() for file in (clone / "zoo" / "cache").iterdir()]
    (clone / "zoo" / "cache").rmdir()
    with np.load("data/mnist_static_binary.npz") as file:
        arrays = dict(file)
    np.savez("data/mnist_static_binary.npz", **arrays | {"test": ~arrays["test"]})
    code, said = vlae("evaluate", clone / "zoo")
    assert code == 4 and "holds other images" in said and "Traceback" not in said
    np.savez("data/mnist_static_binary.npz", **arrays)
    assert vlae("evaluate", clone / "zoo")[0] == 0, "with its own images it heals"


def test_what_is_handed_on_is_not_trained_over(clone: Path) -> None:
    assert vlae("reproduce", "static-mnist", "--zoo", clone / "zoo")[0] == 0
    before = (clone / "zoo" / "weights.safetensors").read_bytes()
    code, said = vlae("train", "--resume", clone / "zoo")
    assert code == 4 and "handed on" in said and (clone / "zoo" / "weights.safetensors").read_bytes() == before


def test_a_row_is_gone_on_with_and_a_stop_is_no_result(clone: Path) -> None:
    code, said = vlae("reproduce", "static-mnist", "--max-minutes", 1e-9, "-o", clone / "run")
    assert code == 0 and "goes on" in said and not list((clone / "results" / "reproduction").iterdir())
    assert vlae("reproduce", "static-mnist", "-o", clone / "run")[0] == 0
    ended = [line["ended"] for line in csv.DictReader((clone / "results" / "runs.csv").read_text().splitlines())]
    assert ended == ["minutes", "done"] and (clone / "results" / "reproduction" / "static-mnist-0.json").is_file()


def test_results_that_are_damaged_or_lack_numbers(clone: Path) -> None:
    kept = clone / "results" / "reproduction"
    assert vlae("reproduce", "static-mnist")[0] == 0
    found = json.loads((kept / "static-mnist-0.json").read_text())
    (kept / "static-mnist-1.json").write_text(json.dumps(found | {"nll_nats_se": None, "hours": None, "seed": 1}))
    code, said = vlae("reproduce", "--table")
    assert code == 0 and " +- - " in said
    for text in ("[]", "{", '{"format": 99}'):
        (kept / "static-mnist-2.json").write_text(text)
        code, said = vlae("reproduce", "--table")
        assert code in (0, 4) and "Traceback" not in said


def test_results_that_cannot_be_written_are_told_before_the_training(clone: Path) -> None:
    (clone / "results").write_text("a file")
    code, said = vlae("reproduce", "static-mnist")
    assert code == 6 and "results cannot be written" in said and not (clone / "runs").exists()


def test_a_measurement_is_gone_on_with_and_nothing_is_noted_twice(clone: Path) -> None:
    for _ in range(2):
        code, said = vlae("reproduce", "static-mnist", "--zoo", clone / "zoo")
        assert code == 0, said
    assert len((clone / "results" / "runs.csv").read_text().splitlines()) == 2
    code, said = vlae("reproduce", "static-mnist", "--seed", 1, "--zoo", clone / "zoo")
    assert code == 6 and "is not empty" in said and (clone / "runs" / "reproduce" / "static-mnist-1" / "weights.safetensors").is_file()
    code, said = vlae("reproduce", "static-mnist", "--seed", 2, "-o", clone / "runs" / "reproduce" / "static-mnist-0")
    assert code == 4 and "begun with other settings" in said


def test_a_run_of_another_row_or_recipe_is_not_taken_for_this_one(clone: Path) -> None:
    assert vlae("reproduce", "static-mnist", "-o", clone / "run")[0] == 0
    recipe = clone / "recipes" / "static-mnist.yaml"
    (clone / "recipes" / "dynamic-mnist.yaml").write_text(RECIPE)
    recipe.write_text(RECIPE.replace("steps: 4", "steps: 6"))
    for row in ("static-mnist", "dynamic-mnist"):
        code, said = vlae("reproduce", row, "-o", clone / "run")
        assert code == 4 and "begun with other settings" in said
    assert [path.name for path in (clone / "results" / "reproduction").iterdir()] == ["static-mnist-0.json"]


def test_a_full_zoo_folder_is_refused_before_the_training(clone: Path) -> None:
    (clone / "zoo").mkdir()
    (clone / "zoo" / "letter.txt").write_text("mine")
    code, said = vlae("reproduce", "static-mnist", "--zoo", clone / "zoo")
    assert code == 6 and "is not empty" in said and not (clone / "runs").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "importance_samples": "many"}', '{"format": 99}'])
def test_a_figure_that_is_damaged_is_told(clone: Path, text: str) -> None:
    assert vlae("reproduce", "static-mnist", "--zoo", clone / "zoo")[0] == 0
    (clone / "zoo" / "metrics.json").write_text(text)
    code, said = vlae("evaluate", clone / "zoo")
    assert code == 4 and "metrics.json" in said and "Traceback" not in said


def test_what_cannot_be_reproduced_is_told(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, rule in ((["mnist"], "Rows are static-mnist"), ([], "Rows are static-mnist"), (["omniglot"], "in a clone")):
        code, said = vlae("reproduce", *words)
        assert code == 2 and rule in said and "Traceback" not in said
    monkeypatch.delenv("VLAE_DATA")
    code, said = vlae("reproduce", "static-mnist")
    assert code == 3 and "mnist_static_binary.npz does not exist" in said and "VLAE_DATA" in said


@pytest.mark.parametrize("name", reproduce.ROWS)
def test_every_row_has_a_recipe_whose_settings_are_valid(name: str) -> None:
    settings = reproduce.settings_of(name, {"train.seed": 1})
    assert settings.train.seed == 1 and str(settings.data.folder) == reproduce.ROWS[name].images
    assert reproduce.config_hash(settings) == reproduce.config_hash(reproduce.settings_of(name, {"train.seed": 2}))
    assert reproduce.config_hash(settings) != reproduce.config_hash(load_settings(None, [], {"data.folder": "x"}))


def test_a_model_is_loaded_by_its_folder(clone: Path) -> None:
    assert vlae("reproduce", "static-mnist", "-o", clone / "run")[0] == 0
    model, same = package.load(clone / "run"), Run.open(clone / "run").model(torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), same.state_dict().values(), strict=True))


def test_a_row_starts_from_a_model_that_was_handed_on(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlae.engine.run.ZOO", clone / "zoo")
    assert vlae("reproduce", "static-mnist", "--zoo", clone / "zoo" / "static-mnist")[0] == 0
    (clone / "recipes" / "dynamic-mnist.yaml").write_text("train: {start: static-mnist, steps: 2, batch: 4}")
    monkeypatch.setitem(reproduce.ROWS, "dynamic-mnist", reproduce.ROWS["static-mnist"])
    for _ in range(2):  # begun, and taken up again
        code, said = vlae("reproduce", "dynamic-mnist", "--json")
        assert code == 0, said
    found, first = answer(said), json.loads((clone / "zoo" / "static-mnist" / "metrics.json").read_text())
    assert found["steps"] == 2 and found["hours"] > first["hours"]
    assert all(hours > first["hours"] for hours, _ in found["validation"])
