"""The benchmarks behind docs/reproduction.md run the whole way, and its pictures and table are of what they found."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlae.apps import reproduce

ROOT = Path(__file__).parents[1]
KEYS = {"case", "metric", "value", "unit", "spread", "against", "ratio", "aim", "met"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Images of 1 bit in two classes, a bar upright and a bar lying, with specks."""
    draw = np.random.default_rng(0)

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        classes = draw.integers(0, 2, count)
        x = draw.random((count, 16, 16)) < 0.05
        for image, lies in zip(x, classes, strict=True):
            place = draw.integers(2, 12)
            image[(slice(place, place + 3), slice(None)) if lies else (slice(None), slice(place, place + 3))] = True
        return x, classes

    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 80), ("valid", 12), ("test", 40)):
        arrays[split], arrays[f"{split}_y"] = images(count)
    np.savez(tmp_path / "bars.npz", **arrays)
    return tmp_path / "bars.npz"


def rows(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    """What a benchmark printed."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words), "--json", "--quick"])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_the_dial_is_turned_and_drawn(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows("window_dial", monkeypatch, capsys, source, "--output", tmp_path / "runs", "train.batch=16", "objective.warmup=2")
    assert all(row.keys() >= KEYS for row in found)
    seen = {row["window"]: row["pixels_seen"] for row in found}
    assert seen == {"none": 0, "stack1": 4, "stack2": 11, "stack6": 69, "all": 255}
    assert all(0 <= row["value"] <= 1 for row in found if row["metric"].startswith("accuracy"))
    drawn = runpy.run_path(str(ROOT / "docs" / "reproduced.py"))["dial"](found)
    lines = {line.get_label(): line.get_ydata() for axes in drawn.axes for line in axes.lines}
    assert list(lines["code"]) == [row["value"] for row in found if row["metric"] == "rate_bits"]
    again = rows("window_dial", monkeypatch, capsys, source, "--output", tmp_path / "runs", "train.batch=16", "objective.warmup=2")
    assert again == found, "what was measured is kept"


@pytest.mark.slow
def test_the_comparisons_are_of_the_same_images(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows("ablation", monkeypatch, capsys, source, "--output", tmp_path / "runs", "train.batch=16", "train.validate_images=8")
    assert len(found) == 7 and all(row.keys() >= KEYS for row in found)
    values = {row["case"].rpartition(": ")[2]: row["value"] for row in found}
    ours = values.pop("PixelCNN decoder, AF prior")
    for row in found[:-1]:
        told = float(row["against"].rpartition(": ")[2].partition(",")[0])
        assert told == pytest.approx(row["value"] - ours, abs=0.006)


@pytest.mark.slow
def test_what_cifar_would_cost_is_told_after_a_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    images = {split: draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for split, count in (("train", 8), ("valid", 3), ("test", 2))}
    np.savez(tmp_path / "cifar10.npz", **images)
    found = rows("cifar_cost", monkeypatch, capsys, tmp_path / "cifar10.npz", "--output", tmp_path / "runs")
    assert len(found) == 5 and all(row.keys() >= KEYS for row in found)
    assert 8 <= found[0]["value"] < 20, "nothing is to be learnt from noise of 8 bits"
    assert (found[3]["value"], found[3]["spread"]) == (None, "never") and all(row["value"] > 0 for row in found if row is not found[3])


def test_the_law_of_a_curve_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    law, steps = runpy.run_path(str(ROOT / "benchmarks" / "cifar_cost.py"))["law"], np.arange(50, 601, 50)
    assert law(steps, 3.12 + 7 * steps**-0.3, 3.12) == pytest.approx((7, 0.3))


def test_the_page_shows_the_table_as_it_is() -> None:
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert reproduce.as_text(reproduce.table()) in page
