"""TensorBoard and MLflow, for those who ask for them; the run's own metrics.jsonl is always written."""

from collections.abc import Callable, Mapping

from vlae.engine.run import Run
from vlae.errors import DeviceError

Tracker = Callable[[int, Mapping[str, float]], None]


def trackers(run: Run) -> tuple[Tracker, ...]:
    """What ``train.track`` names, each told the step and its figures.

    Raises:
        DeviceError: the package is not installed; the extra that brings it is named.
    """
    kinds = {"tensorboard": _tensorboard, "mlflow": _mlflow}
    try:
        return tuple(kinds[name](run) for name in run.settings.train.track)
    except ImportError as error:
        raise DeviceError(
            f"{error.name} is not installed", rule="train.track needs an extra", do="pip install 'vlae[track]', or leave it out"
        ) from None


def _tensorboard(run: Run) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"))

    def track(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return track


def _mlflow(run: Run) -> Tracker:
    import mlflow

    mlflow.set_tracking_uri((run.folder / "mlflow").resolve().as_uri())
    mlflow.start_run(run_name=run.folder.name)
    return lambda step, figures: mlflow.log_metrics(dict(figures), step=step)
