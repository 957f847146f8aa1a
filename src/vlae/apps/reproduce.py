"""Reproduce: rows of the paper's tables from recipes, what was found beside what the paper found, and models that are handed on."""

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from vlae.data.files import disk_errors
from vlae.engine.folders import new_folder
from vlae.engine.formats import check_format, read_json, save_tensors, write_json, write_text
from vlae.engine.results import Evaluation
from vlae.engine.run import OWN_FIGURE, Run
from vlae.engine.settings import FORMAT, Settings, load_settings, resolve
from vlae.engine.start import started
from vlae.errors import RunError, SettingError
from vlae.units import nats

ROOT = Path(__file__).parents[3]
"""The clone: recipes and results lie there, beside the package."""
RESULTS = ROOT / "results"


class Row(NamedTuple):
    """A row: what it is, its images (a file below ``VLAE_DATA``), importance samples, and the paper's figure (of 4,096 samples where sampled)."""

    title: str
    images: str
    samples: int
    paper: float | None
    unit: Literal["nats", "bits/dim"] = "nats"


ROWS = {
    "static-mnist": Row("Static MNIST", "mnist_static_binary.npz", 1024, 79.03),
    "dynamic-mnist": Row("Dynamic MNIST", "mnist_gray.npz", 1024, 78.53),
    "omniglot": Row("OMNIGLOT (other pixels than Burda's)", "omniglot_28_gray.npz", 1024, 89.83),
    "omniglot-unconditional": Row("OMNIGLOT, the same pixels, decoder with the paper's window and no code", "omniglot_28_gray.npz", 1, 95.02),
    "omniglot-unconditional-all": Row("OMNIGLOT, the same pixels, decoder that sees every pixel before and no code", "omniglot_28_gray.npz", 1, None),
    "caltech-101-silhouettes": Row("Caltech-101 Silhouettes", "caltech101_silhouettes_28_split1.npz", 1024, 77.36),
    "cifar-10-4x2": Row("CIFAR-10, window 4x2", "cifar10.npz", 1, 3.12, "bits/dim"),
    "cifar-10-5x3": Row("CIFAR-10, window 5x3", "cifar10.npz", 1, None, "bits/dim"),
    "cifar-10-7x4": Row("CIFAR-10, window 7x4 (the paper's DenseNet: 2.95)", "cifar10.npz", 1, 3.04, "bits/dim"),
    "cifar-10-grey-7x4": Row("CIFAR-10, window 7x4 in grey", "cifar10.npz", 1, None, "bits/dim"),
}


def row(name: str) -> Row:
    """The row of a name.

    Raises:
        SettingError: there is none.
    """
    if name not in ROWS:
        raise SettingError(f"{name} is not a row of the tables", rule=f"Rows are {', '.join(ROWS)}", do="Name one of them, or give --table")
    return ROWS[name]


def settings_of(name: str, flags: Mapping[str, Any]) -> Settings:
    """What a row is trained with: its recipe, and the flags over it.

    Raises:
        SettingError: its recipe is not there, since this is not a clone.
    """
    recipe = ROOT / "recipes" / f"{name}.yaml"
    if not recipe.is_file():
        raise SettingError(f"The recipe {recipe} is missing", rule="Rows are reproduced in a clone of the repository", do="Clone it and run there")
    return started(load_settings(recipe, [], {"data.folder": row(name).images, **flags}))[0]


def hand_on(run: Run, folder: Path) -> Run:
    """A copy of a run without its images and what is needed to go on with it, the weights in half precision.

    Whoever has the images can measure it again: they are decoded from ``data.folder`` when they are asked for. What was handed on before
    is taken as it is.

    Raises:
        DiskError: the folder holds something else, or cannot be written.
        RunError: the run has no weights.
    """
    weights = dict(run.model(torch.device("cpu")).state_dict())
    if (folder / run.weights.name).is_file() and _same(Run.open(folder), weights):
        return Run.open(folder)
    new_folder(folder)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    try:
        for name in ("images.json", "environment.json", "metrics.jsonl", "config.yaml"):
            write_text(folder / name, (run.folder / name).read_text(encoding="utf-8"))
        save_tensors(folder / run.weights.name, halves, handed_on="half")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Run.open(folder)


def _same(handed_on: Run, weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether a model has these weights, in half precision."""
    found = handed_on.model(torch.device("cpu")).state_dict()
    return set(found) == set(weights) and all(torch.equal(value, weights[name].half().to(value.dtype)) for name, value in found.items())


def check_folders(folder: Path | None) -> None:
    """Refuse, before anything is trained, results that cannot be written, and a folder for the model that holds something else.

    Raises:
        DiskError: it is so.
    """
    with disk_errors(RESULTS):
        (RESULTS / "reproduction").mkdir(parents=True, exist_ok=True)
    if folder is not None and not (folder / "config.yaml").is_file():
        new_folder(folder)


def check_same(run: Run, settings: Settings) -> None:
    """Refuse to go on with a run as if it had these settings.

    Raises:
        RunError: it was begun with others.
    """
    asked = resolve(settings, run.facts)
    if (_told(run.settings), run.settings.data.folder) != (_told(asked), asked.data.folder):
        rule, do = "A run is gone on with as it was begun: with the same row, recipe and seed", "Name another folder with --output"
        raise RunError(f"{run.folder} was begun with other settings", rule=rule, do=do)


def _told(settings: Settings) -> dict[str, Any]:
    """What tells one training from another."""
    return {"config": config_hash(settings), "seed": settings.train.seed}


def _spent(run: Run) -> dict[str, Any]:
    """What was trained, on what, and for how long."""
    environment = read_json(run.folder / "environment.json")
    last: dict[str, Any] = next(reversed(run.metrics()), {"step": 0, "seconds": 0.0, "best": None})
    device = f"{environment['device']}, {environment['threads']} threads"
    hours = last["seconds"] / 3600 + _hours_before(run)
    return {**_told(run.settings), "device": device, "hours": hours, "steps": last["step"], "best_validation_nats": last["best"]}


def _hours_before(run: Run) -> float:
    """Hours of training of the weights that a run started from."""
    if run.settings.train.start is None:
        return 0.0
    hours: float = _spent(Run.find(run.settings.train.start))["hours"]
    return hours


def record(name: str, trained: Run, measured: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Keep what a row came to, for the table, and with the run that was measured if that was handed on.

    Args:
        name: the row's.
        trained: the run as it was trained.
        measured: the run as it was measured: the same, or what was handed on of it.
        evaluation: what was measured.

    Raises:
        DiskError: it cannot be written.
    """
    seed = trained.settings.train.seed
    figure = {
        "nll_nats": evaluation.nll_nats,
        "nll_nats_se": evaluation.nll_nats_se,
        "bits_per_dim": evaluation.bits_per_dim,
        "bits_per_dim_se": evaluation.bits_per_dim_se,
        "kl_nats": nats(evaluation.rate_bits),
        "n_images": evaluation.n_images,
        "importance_samples": evaluation.importance_samples,
        "effective_samples": evaluation.effective_samples,
        "protocol": evaluation.protocol,
        "parameters": sum(p.numel() for p in measured.model(torch.device("cpu")).parameters()),
        "command": f"vlae reproduce {name} --seed {seed}",
    }
    found = {"format": FORMAT, "row": name, **figure, **_spent(trained), "validation": curve(trained.metrics(), _hours_before(trained))}
    write_json(RESULTS / "reproduction" / f"{name}-{seed}.json", found)
    if measured.folder != trained.folder:
        write_json(measured.folder / OWN_FIGURE, found)
    return found


def curve(lines: Sequence[Mapping[str, Any]], before: float = 0.0, points: int = 12) -> list[tuple[float, float]]:
    """Hours of training, those ``before`` included, and the best validation bound by then, in nats, at a few steps about evenly apart.

    >>> curve([{"seconds": 3600.0 * n, "best": 90.0 - n} for n in range(3)], points=2)
    [(0.0, 90.0), (2.0, 88.0)]
    """
    known = [(before + line["seconds"] / 3600, line["best"]) for line in lines if line.get("best") is not None and math.isfinite(line["best"])]
    return [known[n] for n in sorted({k * (len(known) - 1) // max(1, points - 1) for k in range(points)})] if known else []


def config_hash(settings: Settings) -> str:
    """What tells one configuration from another, wherever its images lie and whatever its seed."""
    # What is not set does not count, so that a setting that is new changes no configuration that was there before.
    tree = settings.model_dump(mode="json", exclude_none=True, exclude={"data": {"folder"}, "train": {"seed", "device", "max_minutes"}})
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def note_run(name: str, run: Run, ended: str) -> None:
    """Add a line to ``results/runs.csv``: every run that was trained, also those that came to nothing.

    Raises:
        DiskError: it cannot be written.
    """
    path = RESULTS / "runs.csv"
    values = {"date": datetime.now(UTC).date().isoformat(), "row": name, **_spent(run), "ended": ended}
    before = path.read_text(encoding="utf-8") if path.is_file() else ",".join(values) + "\n"
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values.values())
    write_text(path, before + line.getvalue())


def table() -> list[dict[str, Any]]:
    """What was found for every row, a line for each seed, beside what the paper found; rows without a result have none."""
    lines: list[dict[str, Any]] = []
    for name, known in ROWS.items():
        said = {"row": name, "title": known.title, "unit": known.unit, "paper": known.paper}
        files = sorted((RESULTS / "reproduction").glob(f"{name}-*.json"))
        found = [tree for tree in map(_read, files) if tree.get("row") == name]
        lines += [said | tree for tree in found] or [said]
    return lines


def _read(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = read_json(path)
    check_format(path, tree)
    return tree


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def figure(line: Mapping[str, Any]) -> str:
    """What a row came to, in its unit, with its standard error."""
    name, digits = ("nll_nats", 2) if line["unit"] == "nats" else ("bits_per_dim", 3)
    return f"{_number(line[name], digits)} +- {_number(line[f'{name}_se'], digits)}"


def as_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for a person, and below it how the validation bound fell with the hours."""
    text = [f"{'row':<26} {'found':>15} {'paper':>6} {'unit':<8} {'KL':>5} {'K':>5} {'images':>6} {'hours':>5} {'seed':>4}  device"]
    for line in lines:
        paper = f"{line['paper'] or '-':>6} {line['unit']:<8}"
        if "nll_nats" not in line:
            text.append(f"{line['row']:<26} {'not yet':>15} {paper}".rstrip())
            continue
        measured = f"{_number(line['kl_nats'], 1):>5} {line['importance_samples']:5} {line['n_images']:6} "
        measured += f"{_number(line['hours'], 2):>5} {line['seed']:4}"
        text.append(f"{line['row']:<26} {figure(line):>15} {paper} {measured}  {line['device']}")
    for line in lines:
        if line.get("validation"):
            fell = ", ".join(f"{bound:.1f} at {hours:.2f} h" for hours, bound in line["validation"])
            text.append(f"{line['row']}, seed {line['seed']}, validation bound: {fell}")
    return "\n".join(text)
