"""The figures of a training for those who watch many trainings: TensorBoard and MLflow, each loaded only where it is asked for."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from vlae.engine.formats import read_json, write_json
from vlae.engine.run import Run
from vlae.errors import DeviceError


class Tracker(Protocol):
    """What takes the figures of a line of ``metrics.jsonl``, and keeps them when the training ends or breaks off."""

    def log(self, figures: Mapping[str, float]) -> None:
        """Take the figures of ``figures["step"]``."""


def trackers(run: Run, step: int) -> list[Tracker]:
    """The trackers that ``train.track`` names, going on after a step.

    Raises:
        DeviceError: one is not installed, or cannot be reached.
    """
    kinds: dict[str, Callable[[Run, int], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
    check_trackers(run.settings.train.track)
    return [kinds[name](run, step) for name in run.settings.train.track]


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        DeviceError: one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise DeviceError(
                f"{name} is not installed",
                rule="train.track needs the extra vlae[track]",
                do="pip install 'vlae[track]', or leave train.track out",
            )


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
        # A folder as the store is refused unless it is allowed: a database would need more than mlflow-skinny.
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
        from mlflow import MlflowClient

        self.server = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder / "mlflow").resolve().as_uri()
        kept = run.folder / "state" / "mlflow.json"
        with self._told():
            self.client = MlflowClient(self.server)
            if step == 0 or not kept.is_file():
                write_json(kept, {"format": 1, "run": self._new(run)})
        self.run: str = read_json(kept)["run"]

    @contextmanager
    def _told(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            found = str(error).partition("\n")[0]
            rule = "MLFLOW_TRACKING_URI names a server that answers, or is unset"
            raise DeviceError(f"MLflow cannot write to {self.server}", rule=rule, found=found, do="Mend it, and go on with --resume") from None

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
        with self._told():
            self.client.log_batch(self.run, metrics)
