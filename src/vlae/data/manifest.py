"""Tables beside the images: a CSV or JSONL manifest, or a ``labels.csv``."""

import csv
import difflib
import json
import math
import os
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vlae.data.files import read_text
from vlae.data.source import text
from vlae.errors import DataError

NAME_COLUMNS = ("name", "file", "image")
NO_FACTORS = {*NAME_COLUMNS, "label", "mask", "lot", "day", "split"}
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}

Cells = dict[str, str | None]


class Row(NamedTuple):
    """What a table says about one image; ``image`` and ``mask`` are paths as they were written."""

    image: str
    label: str | None
    mask: str | None
    lot: str | None
    split: str | None
    factors: dict[str, float]


def read_manifest(path: Path) -> list[Row]:
    r"""Read a CSV table or, by its suffix, a JSONL one; [] where no column names images.

    A column is a factor where each of its values is a finite number, a fraction such as 1/3, or empty; others that are not known are passed over.
    Errors: ``DataError`` where it is not text in UTF-8 or cp932, a line cannot be parsed, a split is none of train, validation and test, or a
    column is all but called as a known one: what it says must not be lost by a slip.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "manifest.csv"
    >>> _ = path.write_text("name,lot,angle\na.png,monday,0.5\n")
    >>> read_manifest(path)
    [Row(image='a.png', label=None, mask=None, lot='monday', split=None, factors={'angle': 0.5})]
    """
    try:
        content = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        rule = "A manifest is a file of text in UTF-8, or in cp932"
        raise DataError(f"{path} cannot be read", rule=rule, found=error, do="Correct its path or save it so") from error
    table = _jsonl(path, content) if path.suffix.lower() == ".jsonl" else _csv(path, content)
    columns = {column for cells in table for column in cells}
    name = next((column for column in NAME_COLUMNS if column in columns), None)
    _check_spelling(path, columns)
    named = [cells for cells in table if name is not None and cells.get(name) is not None]
    return [_row(path, str(cells[name or ""]), cells, factors) for cells, factors in zip(named, _factors(named), strict=True)]


def locate(written: str, table: Path, folder: Path) -> list[str]:
    """Say which names below ``folder`` a path in a table can mean: relative to the folder, or to the table. [] where it leads out.

    The answer is lexical, nothing is opened.

    >>> locate("../b/x.png", Path("/data/a/manifest.csv"), Path("/data/b"))
    ['x.png']
    >>> locate("/etc/passwd", Path("/data/a/manifest.csv"), Path("/data/b"))
    []
    """
    written = written.replace("\\", "/")  # as written on Windows
    base = os.path.abspath(folder)
    names = (os.path.relpath(os.path.join(start, written), base) for start in (base, os.path.dirname(os.path.abspath(table))))
    return list(dict.fromkeys(name for name in names if PurePosixPath(name).parts[:1] != ("..",)))


def _check_spelling(path: Path, columns: set[str]) -> None:
    for column in sorted(columns - NO_FACTORS):
        near = difflib.get_close_matches(column, sorted(NO_FACTORS - columns), n=1, cutoff=0.8)
        if near:
            rule = f"Its columns are {', '.join(sorted(NO_FACTORS))}, and any others that are called otherwise"
            raise DataError(f"{path} has a column {column}", rule=rule, do=f"If it is meant to be {near[0]}, call it so; if not, call it otherwise")


def _row(path: Path, image: str, cells: Cells, factors: dict[str, float]) -> Row:
    split = cells.get("split")
    if split is not None and split.lower() not in SPLITS:
        rule = "A split is train, validation or test"
        raise DataError(f"{path} has an unknown split", rule=rule, found=split, do="Correct it or leave the cell empty")
    lot = cells.get("lot") or cells.get("day")
    return Row(image, cells.get("label"), cells.get("mask"), lot, SPLITS[split.lower()] if split else None, factors)


def _csv(path: Path, content: str) -> list[Cells]:
    try:
        rows = list(csv.reader(content.splitlines(), strict=True))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read", rule="A CSV manifest is a table with commas", found=error, do="Mend that line") from error
    header = [column.strip().lower() for column in rows[0]] if rows else []
    return [dict(zip(header, (cell.strip() or None for cell in row), strict=False)) for row in rows[1:] if any(row)]


def _jsonl(path: Path, content: str) -> list[Cells]:
    # split at "\n" alone: a JSON string may hold other characters that Python takes for ends of lines
    return [_json_cells(path, number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]


def _json_cells(path: Path, number: int, line: str) -> Cells:
    try:
        cells: Any = json.loads(line)
    except (ValueError, RecursionError):
        cells = None
    if not isinstance(cells, dict):
        rule = "Each line of a JSONL manifest is one JSON object"
        raise DataError(f"{path}, line {number}, cannot be read", rule=rule, found=line[:60], do="Mend that line")
    return {text(key).strip().lower(): None if value in (None, "") else text(value) for key, value in cells.items()}


def _factors(table: list[Cells]) -> list[dict[str, float]]:
    """The numbers of each row, of the columns that hold nothing else."""
    columns = dict.fromkeys(column for cells in table for column in cells if column not in NO_FACTORS)
    numbers = {column: [_number(cells.get(column)) for cells in table] for column in columns}
    numeric = {column: values for column, values in numbers.items() if all(value is None or math.isfinite(value) for value in values)}
    return [{column: value for column, values in numeric.items() if (value := values[i]) is not None} for i in range(len(table))]


def _number(cell: str | None) -> float | None:
    """The number in a cell; None where it is empty, NaN where it holds something else."""
    if cell is None:
        return None
    try:
        return float(Fraction(cell)) if "/" in cell else float(cell)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan
