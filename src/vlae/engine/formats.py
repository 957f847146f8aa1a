"""Files of JSON and of tensors: each carries a format version, is written complete or not at all, and nothing is pickled."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vlae.data.files import beside
from vlae.engine.settings import FORMAT
from vlae.errors import RunError
from vlae.version import __version__

T = TypeVar("T")


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
    check_weights(path)
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


def check_weights(path: Path) -> None:
    """Refuse a run that has no weights yet.

    Raises:
        RunError: it has none.
    """
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
    """The dataclass whose fields were written as JSON; a number that JSON does not have is the field's default, or else NaN, however deep.

    Raises:
        ValueError: a field is missing, unknown or of another type.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if set(tree) != set(known):
        raise ValueError(f"its fields are {', '.join(tree)}")
    lost = [field for name, field in known.items() if field.type is float and tree[name] is None]
    numbers = {field.name: field.default for field in lost if field.default is not MISSING}
    whole, adapter = json.loads(json.dumps({**tree, **numbers})), TypeAdapter(kind)
    try:
        return adapter.validate_json(json.dumps(whole), strict=True)
    except ValidationError as error:
        places = [one["loc"] for one in error.errors() if one["type"] == "float_type" and one["input"] is None]
        if not places:
            raise
    for place in places:
        reduce(getitem, place[:-1], whole)[place[-1]] = math.nan
    return adapter.validate_json(json.dumps(whole), strict=True)


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
