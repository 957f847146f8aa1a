"""The measurement behind the guide: its windows are as wide as it says, and its picture is drawn."""

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image

from vlae.core.window import Window
from vlae.engine.kept.guide import GUIDE

ROOT = Path(__file__).parents[1]


def test_windows_are_as_wide_as_they_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    guide = runpy.run_path(str(ROOT / "benchmarks" / "guide.py"))
    assert [guide["columns"](window) for window in guide["WINDOWS"]] == [0, 1, 3, 4, 5, 7, 9, 11, 13]
    assert {row.window for row in GUIDE} <= set(guide["WINDOWS"])
    for window in guide["WINDOWS"][1:]:  # as it is drawn
        assert guide["columns"](window) == max(map(len, (line.split() for line in str(Window.of(window)).splitlines())))


def test_the_picture_of_what_is_kept_is_drawn(tmp_path: Path) -> None:
    kept = runpy.run_path(str(ROOT / "docs" / "kept.py"))
    metrics = [kept["OTHER"], kept["BORDER"], *(f"swap cost of {change}" for change in kept["SHOWN"])]
    rows = [
        {"source": source, "columns": columns, "metric": metric, "value": None if columns == 13 else columns / 20 + n}
        for source in ("parts", "cells")
        for columns in (13, 0, 3)
        for n, metric in enumerate(metrics)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    kept["main"]([str(tmp_path / "rows.json"), "--folder", str(tmp_path)])
    with Image.open(tmp_path / "what-is-kept.png") as image:
        assert image.width >= 900 and len(image.convert("RGB").getcolors(maxcolors=2**20)) > 10
    assert kept["curve"](rows, "cells", kept["BORDER"]) == ([0, 3], [1.0, 1.15])
