"""The figures of a training for those who watch many trainings: TensorBoard and MLflow, each loaded only where it is asked for."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vlae.engine.run import Run, read_json, write_json
from vlae.errors import SettingError


class Tracker(Protocol):
    """What takes the figures of a line of ``metrics.jsonl``, and keeps them when the training ends or breaks off."""

    def log(self, figures: Mapping[str, float]) -> None:
        """Take the figures of ``figures["step"]``."""


def trackers(run: Run, step: int) -> list[Tracker]:
    """The trackers that ``train.track`` names, going on after a step.

    Raises:
        SettingError: one is not installed.
    """
    kinds: dict[str, Callable[[Run, int], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
    found: list[Tracker] = []
    for name in run.settings.train.track:
        try:
            found.append(kinds[name](run, step))
        except ImportError:
            raise SettingError(
                f"train.track names {name}, which is not installed",
                rule="Tracking needs the extra track",
                do="pip install 'vlae[track]', or leave train.track out",
            ) from None
    return found


class TensorBoard:
    """Writes to ``tensorboard`` in the run: ``tensorboard --logdir RUNS`` shows it."""

    def __init__(self, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What was logged after the saved state is logged again.
        self.writer = SummaryWriter(run.folder / "tensorboard", purge_step=step + 1 if step else None)

    def log(self, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""
        for name, value in figures.items():
            if name not in ("format", "step"):
                self.writer.add_scalar(name, value, int(figures["step"]))
        self.writer.flush()


class MLflow:
    """Writes to the server that MLFLOW_TRACKING_URI names, or to ``mlflow`` in the run; every setting is a parameter.

    Asked of MLflow: that it tells nobody else (it sends statistics of its use by default).
    """

    def __init__(self, run: Run, step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or (run.folder / "mlflow").resolve().as_uri())
        kept = run.folder / "state" / "mlflow.json"
        if step == 0 or not kept.is_file():
            write_json(kept, {"format": 1, "run": self._new(run)})
        self.run: str = read_json(kept)["run"]

    def _new(self, run: Run) -> str:
        experiment = self.client.get_experiment_by_name("vlae")
        number = experiment.experiment_id if experiment else self.client.create_experiment("vlae")
        name: str = self.client.create_run(number, run_name=run.folder.resolve().name).info.run_id
        for group, settings in run.settings.model_dump(mode="json", exclude={"format"}, exclude_none=True).items():
            for key, value in settings.items():
                self.client.log_param(name, f"{group}.{key}", value)
        return name

    def log(self, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics: list[Any] = [
            Metric(name, float(value), now, int(figures["step"])) for name, value in figures.items() if name not in ("format", "step")
        ]
        self.client.log_batch(self.run, metrics)
