"""The run folder: what a training leaves behind, and all that the other commands need.

    config.yaml          every setting, resolved          environment.json   versions, threads, device
    images.json          what was found, left out, split  weights.safetensors the averaged weights, best on validation
    metrics.jsonl        one line a report of training    state/             to resume
    results/*.json       what was measured                report.html        the page
    cache/               the decoded images: those of the run, whatever becomes of their folder

Every file carries a format version, is written complete or not at all, and nothing is pickled.
"""

import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vlae.core.vlae import VLAE
from vlae.data import cache
from vlae.data.files import beside, disk_errors, sha256
from vlae.data.imageset import ImageSet
from vlae.engine.build import build
from vlae.engine.settings import FORMAT, ImageFacts, Settings, validated
from vlae.errors import DiskError, RunError, SettingError
from vlae.version import __version__

T = TypeVar("T")

ZOO = Path(__file__).parents[3] / "zoo"
"""Trained models of the clone, in half precision."""
OWN_FIGURE = "metrics.json"
"""What a model that was handed on was measured at, and how."""


@dataclass(frozen=True)
class Run:
    """A run folder that exists, with its resolved settings and the facts of its images."""

    folder: Path
    settings: Settings
    facts: ImageFacts

    @classmethod
    def create(cls, folder: Path, settings: Settings, facts: ImageFacts, images: ImageSet) -> "Run":
        """Write a new run folder's description; the folder exists already, holding nothing but the cache."""
        run = cls(folder, settings, facts)
        write_json(folder / "environment.json", environment())
        told = {"facts": facts.model_dump(mode="json"), "cache": cache.fingerprint(folder / "cache", images), "summary": images.summary()}
        write_json(folder / "images.json", {"format": FORMAT, **told})
        write_text(folder / "config.yaml", yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run folder.

        Raises:
            RunError: it is missing, not a run, damaged, or of a newer format.
        """
        if not (folder / "config.yaml").is_file():
            raise RunError(f"{folder} is not a run", rule="A run is a folder with config.yaml, made by vlae train", do="Give the folder of a run")
        try:
            tree = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            images = json.loads((folder / "images.json").read_text(encoding="utf-8"))
            check_format(folder / "config.yaml", tree)
            check_format(folder / "images.json", images)
            return cls(folder, validated(tree), ImageFacts.model_validate(images["facts"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError, SettingError) as error:
            raise RunError(f"The run {folder} is damaged", found=str(error).splitlines()[0], do="Restore the folder or train again") from None

    @classmethod
    def find(cls, model: str | Path) -> "Run":
        """A run by its folder, or a model of the zoo by its name.

        Raises:
            RunError: as ``open``.
        """
        zoo = ZOO / model
        return cls.open(zoo if not Path(model).is_dir() and zoo.is_dir() else Path(model))

    def images(self) -> ImageSet:
        """The images that the run was made of, from its own cache: their folder may have changed since, or be gone.

        A run that was handed on, without its images, decodes them again, where ``data.folder`` holds the same.

        Raises:
            RunError: the cache is damaged, or it is missing and the images are gone or others, or they are now split otherwise.
            DataError, DiskError: there is no cache, and none can be made.
        """
        return self._images

    @cached_property  # every pixel is read to check it: once is enough
    def _images(self) -> ImageSet:
        told = read_json(self.folder / "images.json").get("cache")
        if told is None:
            raise RunError(
                f"{self.folder} does not tell which images are its own",
                rule="It was made before runs kept their images, or is damaged",
                do="Train again",
            )
        images = cache.reopen(self.settings.data, self.folder / "cache", told)
        if images is None and self.handed_on:  # there is nothing yet, or what was decoded were others
            cache.load(self.settings.data, self.folder / "cache")
            images = cache.reopen(self.settings.data, self.folder / "cache", told)
        if images is None:
            raise RunError(
                f"{self.folder / 'cache'} is damaged or holds other images, or config.yaml splits them otherwise than they were",
                rule="A run keeps the images that it was made of, and their split, unchanged",
                do="Restore the folder or train again",
            )
        return images

    @property
    def weights(self) -> Path:
        """The averaged weights."""
        return self.folder / "weights.safetensors"

    @property
    def handed_on(self) -> bool:
        """Whether this is a model that was handed on, without its images and what is needed to go on with it."""
        if not self.weights.is_file():
            return False
        try:
            with safe_open(self.weights, framework="pt") as file:
                return "handed_on" in (file.metadata() or {})
        except (SafetensorError, OSError):  # told where they are used
            return False

    def fingerprint(self) -> str:
        """The SHA-256 of the file of weights: what is measured holds for these and no others.

        Raises:
            RunError: there are no weights yet.
        """
        _check_weights(self.weights)
        return sha256(self.weights)

    def model(self, device: torch.device) -> VLAE:
        """The trained model, ready to be used.

        Raises:
            RunError: there are no weights yet, they are cut short, or they are of another model.
        """
        model = build(self.settings, self.facts)
        load_tensors(self.weights, dict(model.state_dict()))
        return model.to(device).eval()

    def check_results(self) -> None:
        """Refuse, before anything is computed, a folder into which no result could be written.

        Raises:
            DiskError: it is one.
        """
        folder = self.folder / "results"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # what the rights say is not all: the disk may be read-only
                pass

    def write_result(self, name: str, result: Mapping[str, Any]) -> Path:
        """Write ``results/name.json``."""
        path = self.folder / "results" / f"{name}.json"
        write_json(path, {"format": FORMAT, **result})
        return path

    def result(self, name: str) -> dict[str, Any] | None:
        """Read ``results/name.json``; None where it was not written yet."""
        path = self.folder / "results" / f"{name}.json"
        if not path.is_file():
            return None
        tree = read_json(path)
        check_format(path, tree)
        return tree

    def own_samples(self) -> int:
        """How many importance samples the figure of a model that was handed on was measured with; 1 for another run.

        Raises:
            RunError: the file that tells is damaged.
        """
        path = self.folder / OWN_FIGURE
        if not path.is_file():
            return 1
        found = read_json(path)
        check_format(path, found)
        if type(found.get("importance_samples")) is not int:
            raise RunError(f"{path} is damaged", rule="It tells importance_samples, a whole number", do="Restore it, or give --samples")
        samples: int = found["importance_samples"]
        return samples

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, which hold nothing but numbers; others are damaged, and passed over."""
        rows = read_lines(self.folder / "metrics.jsonl", {"step": int, "skipped": int, "seconds": float})
        return [row for row in rows if all(type(value) in (int, float) for value in row.values())]


def new_folder(folder: Path) -> Path:
    """Make an output folder that does not exist, or is empty.

    Raises:
        DiskError: it exists and holds something, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        busy = any(folder.iterdir())
    except OSError as error:
        raise DiskError(f"{folder} cannot be written", found=error.strerror, do="Choose another folder") from None
    if busy:
        raise DiskError(f"{folder} exists and is not empty", rule="Nothing is overwritten", do="Choose another folder, or --resume the run in it")
    return folder


def check_outside(folder: Path, images: Path) -> None:
    """Refuse an output among the images that it is made of: next time it would be taken for images.

    Raises:
        DiskError: the folder lies inside that of the images.
    """
    if images.resolve() in folder.resolve().parents:
        what, rule = f"{folder} lies inside the folder of images", "What is made of images is kept apart from them"
        raise DiskError(what, rule=rule, do="Choose another --output")


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """A new folder for what the body writes; where it writes nothing the folder is gone again.

    Raises:
        DiskError: as ``new_folder``.
    """
    new_folder(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):  # what holds a file cannot be removed so
            folder.rmdir()


def check_format(path: Path, tree: Any) -> None:
    """Refuse a file that a newer version wrote, or that is not ours.

    Raises:
        RunError: the format is missing or newer than this version reads.
    """
    found = tree.get("format") if isinstance(tree, dict) else None
    if not isinstance(found, int):
        raise RunError(f"{path} has no format version", rule="Every file of a run carries one", do="Restore the folder or train again")
    if found > FORMAT:
        raise RunError(
            f"{path} was written by a newer version",
            rule=f"vlae {__version__} reads format {FORMAT}",
            found=f"format {found}",
            do="Update vlae",
        )


def check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """The same for a file of tensors, whose metadata are words.

    Raises:
        RunError: as ``check_format``.
    """
    told = metadata.get("format", "")
    check_format(path, {"format": int(told)} if re.fullmatch("[0-9]{1,9}", told) else None)


def load_tensors(path: Path, into: dict[str, torch.Tensor]) -> dict[str, str]:
    """Copy the tensors of a safetensors file into tensors of the same names and shapes; its metadata is returned.

    Raises:
        RunError: the file is missing, cut short, of another model or of a newer format.
    """
    _check_weights(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            check_metadata(path, metadata)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            if shapes != {name: tuple(t.shape) for name, t in into.items()}:
                raise RunError(f"{path} holds another model", rule="Weights fit the run's config.yaml", do="Restore the folder or train again")
            with torch.no_grad():
                for name, tensor in into.items():
                    tensor.copy_(file.get_tensor(name))
            return metadata
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged", found=str(error).splitlines()[0], do="Restore the folder or train again") from None


def _check_weights(path: Path) -> None:
    if not path.is_file():
        raise RunError(f"{path} is missing", rule="A trained run has weights", do="Finish the training: vlae train --resume RUN")


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> None:
    """Write tensors and metadata as one safetensors file."""
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with beside(path) as file:
        file.write(save(contiguous, {"format": str(FORMAT), **metadata}))


def write_json(path: Path, tree: Any) -> None:
    """Write a tree as JSON."""
    write_text(path, json.dumps(finite(tree), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a tree of JSON.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged", found=str(error), do="Run the command that wrote it again") from None


def finite(tree: Any) -> Any:
    """A tree with null for numbers that JSON does not have: the error of a single value, say.

    >>> finite({"se": float("nan"), "bits": (1.5, float("inf"))})
    {'se': None, 'bits': [1.5, None]}
    """
    if isinstance(tree, dict):
        return {name: finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def restored(kind: type[T], tree: dict[str, Any]) -> T:
    """The dataclass whose fields were written as JSON; a number that JSON does not have is the field's default, or else NaN.

    Raises:
        ValueError: a field is missing, unknown or of another type.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if set(tree) != set(known):
        raise ValueError(f"its fields are {', '.join(tree)}")
    lost = [field for name, field in known.items() if field.type is float and tree[name] is None]
    numbers = {field.name: math.nan if field.default is MISSING else field.default for field in lost}
    return TypeAdapter(kind).validate_json(json.dumps({**tree, **numbers}), strict=True)


def read_lines(path: Path, wanted: Mapping[str, type]) -> list[dict[str, Any]]:
    """The lines of a file that are JSON objects with these fields of these types.

    A kill cuts a line off and a bad disk makes garbage of it: the others still hold.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [row for row in map(_parsed, lines) if isinstance(row, dict) and all(type(row.get(name)) is kind for name, kind in wanted.items())]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with beside(path) as file:
        file.write(text.encode())


def environment() -> dict[str, Any]:
    """What a result depends on besides the settings."""
    return {
        "format": FORMAT,
        "vlae": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
    }
