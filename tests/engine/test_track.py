"""Tracking: the same figures as metrics.jsonl, each step once after a resumption, and a sentence where the extra is missing."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from vlae.apps.train import prepare
from vlae.data.read import write_png
from vlae.engine.fit import Trainer
from vlae.engine.run import Run
from vlae.engine.settings import Settings, load_settings
from vlae.errors import DeviceError

TINY = [
    *("keep.window=stack1", "keep.dims=2", "model.width=4", "model.pointwise=0", "model.hidden=8", "model.prior=gaussian"),
    *("model.widths=[4,4]", "model.blocks=[0,0]", "train.batch=4", "train.steps=8", "train.validate_every=2"),
]


def settings(folder: Path, *overrides: str) -> Settings:
    for n in range(16):
        write_png(folder / f"{n}.png", np.random.default_rng(n).integers(0, 256, (12, 12, 1), dtype=np.uint8), 8)
    return load_settings(None, [*TINY, *overrides], {"data.folder": folder})


def trained(run: Run, stop_at: int) -> None:
    trainer = Trainer(run, run.images())
    trainer.start()
    trainer.train(lambda: trainer.progress.step >= stop_at)


def test_tensorboard_shows_what_the_metrics_hold_each_step_once(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = prepare(settings(tmp_path / "images", "train.track=[tensorboard]"), tmp_path / "run")
    trained(run, 5)
    trained(Run.open(run.folder), 99)
    events = event_accumulator.EventAccumulator(str(run.folder / "tensorboard")).Reload()
    shown = {event.step: event.value for event in events.Scalars("validation_nats")}
    lines = {line["step"]: line["validation_nats"] for line in run.metrics() if "validation_nats" in line}
    assert sorted(lines) == [2, 4, 6, 8] and shown == pytest.approx(lines, rel=1e-6)
    assert len(events.Scalars("validation_nats")) == 4


def test_mlflow_keeps_one_run_with_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run = prepare(settings(tmp_path / "images", "train.track=[mlflow]"), tmp_path / "run")
    trained(run, 5)
    trained(Run.open(run.folder), 99)
    client = mlflow.MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("vlae").experiment_id])
    assert found.info.run_name == "run" and found.data.params["keep.window"] == "stack1"
    assert sorted(m.step for m in client.get_metric_history(found.info.run_id, "validation_nats")) == [2, 4, 6, 8]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_extra_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted, *more: None if wanted == name else find(wanted, *more))
    with pytest.raises(DeviceError, match=r"vlae\[track\]"):
        prepare(settings(tmp_path / "images", f"train.track=[{name}]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nobody_pays_for_a_tracker_that_is_not_asked_for(tmp_path: Path) -> None:
    before = set(sys.modules)
    trained(prepare(settings(tmp_path / "images"), tmp_path / "run"), 1)
    assert not any(name.split(".")[0] in ("tensorboard", "mlflow") for name in set(sys.modules) - before)
