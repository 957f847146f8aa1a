"""Tables beside the images: a CSV or JSONL manifest, or a ``labels.csv``."""

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vlae.errors import DataError

NAME_COLUMNS = ("name", "file", "image")
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


class Row(NamedTuple):
    """What a manifest says about one image; ``image`` and ``mask`` are paths as they were written."""

    image: str
    label: str | None
    mask: str | None
    lot: str | None
    split: str | None
    factors: dict[str, float]


def read_manifest(path: Path) -> list[Row] | None:
    """Read a CSV or (by its suffix) JSONL manifest; None where no column names images.

    A column is a factor where each of its values is a number, a fraction such as 1/3, or empty.
    Errors: ``DataError`` where it is not text in UTF-8, a line cannot be parsed, or a split is none of train, validation and test.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "manifest.csv"
    >>> _ = path.write_text("name,lot,angle\\na.png,monday,0.5\\n")
    >>> read_manifest(path)
    [Row(image='a.png', label=None, mask=None, lot='monday', split=None, factors={'angle': 0.5})]
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read", rule="A manifest is text in UTF-8", found=error, do="Save it as UTF-8") from error
    table = _jsonl(path, text) if path.suffix.lower() == ".jsonl" else _csv(path, text)
    name = next((column for column in NAME_COLUMNS if table and column in table[0]), None)
    if name is None:
        return None
    factors = _factors(table, ignore={*NAME_COLUMNS, "label", "mask", "lot", "day", "split"})
    return [
        Row(image, row.get("label"), row.get("mask"), row.get("lot", row.get("day")), _split(path, row.get("split")), factor)
        for row, factor in zip(table, factors, strict=True)
        if (image := row.get(name)) is not None
    ]


def locate(written: str, manifest: Path, folder: Path) -> list[str]:
    """Say which names inside ``folder`` a path in a manifest can mean: relative to the folder, or to the manifest. [] where it leads out.

    The answer is lexical: only files that were found by walking the folder are ever opened.

    >>> locate("../b/x.png", Path("/data/a/manifest.csv"), Path("/data/b"))
    ['x.png']
    >>> locate("/etc/passwd", Path("/data/a/manifest.csv"), Path("/data/b"))
    []
    """
    written = written.replace("\\", "/")  # as written on Windows
    base = os.path.abspath(folder)
    candidates = (os.path.relpath(os.path.join(start, written), base) for start in (base, os.path.dirname(os.path.abspath(manifest))))
    names = (PurePosixPath(candidate) for candidate in candidates)
    return list(dict.fromkeys(str(name) for name in names if name.parts and name.parts[0] != ".."))


def _csv(path: Path, text: str) -> list[dict[str, str | None]]:
    try:
        rows = list(csv.reader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read", rule="A manifest is a table with commas", found=error, do="Mend that line") from error
    header = [column.strip().lower() for column in rows[0]] if rows else []
    return [dict(zip(header, (cell.strip() or None for cell in row), strict=False)) for row in rows[1:] if any(row)]


def _jsonl(path: Path, text: str) -> list[dict[str, str | None]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return [_json_row(path, number, line) for number, line in lines]


def _json_row(path: Path, number: int, line: str) -> dict[str, str | None]:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        row = error
    if not isinstance(row, dict):
        raise DataError(
            f"{path}, line {number}, cannot be read", rule="Each line of a JSONL manifest is one object", found=line[:60], do="Mend that line"
        )
    return {key.strip().lower(): None if value in (None, "") else str(value) for key, value in row.items()}


def _split(path: Path, value: str | None) -> str | None:
    if value is None:
        return None
    if value.lower() not in SPLITS:
        raise DataError(
            f"{path} has an unknown split", rule="A split is train, validation or test", found=value, do="Correct it or leave the cell empty"
        )
    return SPLITS[value.lower()]


def _factors(table: list[dict[str, str | None]], ignore: set[str]) -> list[dict[str, float]]:
    columns = dict.fromkeys(column for row in table for column in row if column and column not in ignore)
    values = {column: [_number(row.get(column)) for row in table] for column in columns}
    numeric = {column: numbers for column, numbers in values.items() if _is_factor(numbers)}
    return [{column: number for column, numbers in numeric.items() if (number := numbers[i]) is not None} for i in range(len(table))]


def _is_factor(numbers: Iterable[float | None]) -> bool:
    """Whether a column holds numbers: texts were parsed as nan, empty cells as None."""
    given = [number for number in numbers if number is not None]
    return bool(given) and all(math.isfinite(number) for number in given)


def _number(cell: str | None) -> float | None:
    if cell is None:
        return None
    try:
        return float(Fraction(cell)) if "/" in cell else float(cell)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan


def find_manifest(folder: Path, names: Mapping[str, object]) -> tuple[Path, list[Row], bool] | None:
    """Take a table that lies in the folder by itself: its path, its rows, and whether it lists the images (a manifest) or only annotates."""
    for name, lists in (("manifest.csv", True), ("manifest.jsonl", True), ("labels.csv", False)):
        if name in names and (rows := read_manifest(folder / name)) is not None:
            return folder / name, rows, lists
    return None
