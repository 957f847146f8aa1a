"""The run folder: what a training leaves behind, and all that the other commands need.

    config.yaml          every setting, resolved          environment.json   versions, threads, device
    images.json          what was found, left out, split  weights.safetensors the averaged weights, best on validation
    metrics.jsonl        one line a report of training    state/             to resume
    results/*.json       what was measured                report.html        the page
    cache/               the decoded images: those of the run, whatever becomes of their folder

Every file carries a format version, is written complete or not at all, and nothing is pickled.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open

from vlae.core.vlae import VLAE
from vlae.data import cache
from vlae.data.files import disk_errors, sha256
from vlae.data.imageset import ImageSet
from vlae.engine.build import build
from vlae.engine.formats import check_format, check_weights, load_tensors, read_json, read_lines, write_json, write_text
from vlae.engine.settings import FORMAT, ImageFacts, Settings, validated
from vlae.errors import RunError, SettingError
from vlae.version import __version__

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
            settings = validated(tree)
            if settings.keep.window is None or settings.keep.code == "auto":
                raise ValueError("a run tells keep.window and which code it has")
            return cls(folder, settings, ImageFacts.model_validate(images["facts"]))
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
        check_weights(self.weights)
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
