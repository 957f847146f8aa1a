"""Files with a format: written and read back, and refused where they are torn, foreign or newer."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from vlae.engine.formats import check_format, load_tensors, read_json, restored, save_tensors, write_json
from vlae.errors import RunError


def tensors(*shape: int) -> dict[str, torch.Tensor]:
    return {"a": torch.randn(shape, generator=torch.Generator().manual_seed(0)), "b": torch.arange(3.0)}


def test_tensors_go_to_a_file_and_back_with_their_metadata(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", tensors(4, 5), step="9")
    found = {name: torch.zeros_like(t) for name, t in tensors(4, 5).items()}
    assert load_tensors(tmp_path / "w.safetensors", found)["step"] == "9"
    assert all(torch.equal(found[name], t) for name, t in tensors(4, 5).items())


@pytest.mark.parametrize(
    "harm, told",
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:5]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b"\xff" * 64), "is damaged"),
        (lambda path: save_tensors(path, tensors(5, 4)), "another model"),
        (lambda path: save_tensors(path, {"a": torch.zeros(4, 5)}), "another model"),
        (lambda path: save_tensors(path, {**tensors(4, 5), "c": torch.zeros(1)}), "another model"),
        (lambda path: save_tensors(path, tensors(4, 5), format="12"), "newer version"),
        (lambda path: save_tensors(path, tensors(4, 5), format="one"), "no format version"),
    ],
)
def test_weights_that_are_torn_foreign_or_newer_change_nothing(tmp_path: Path, harm: object, told: str) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, tensors(4, 5))
    harm(path)  # type: ignore[operator]
    into = {name: torch.full_like(t, 7.0) for name, t in tensors(4, 5).items()}
    with pytest.raises(RunError, match=told):
        load_tensors(path, into)
    assert all((t == 7).all() for t in into.values())


def test_formats_that_are_none() -> None:
    for tree in (None, [], {}, {"format": "1"}, {"format": None}):
        with pytest.raises(RunError, match="no format version"):
            check_format(Path("x"), tree)


class Pair(NamedTuple):
    name: str
    value: float


@dataclass(frozen=True)
class Inner:
    value: float
    known: float | None
    count: int = 0


@dataclass(frozen=True)
class Outer:
    inner: Inner
    several: tuple[Inner, ...]
    numbers: tuple[float, ...]
    pairs: tuple[Pair, ...]
    by_name: Mapping[str, float]
    best: float = math.inf


def test_numbers_that_json_does_not_have_come_back_from_any_depth(tmp_path: Path) -> None:
    one = Inner(math.nan, None)
    outer = Outer(one, (Inner(1.0, 2.0), one), (1.5, math.nan), (Pair("a", math.nan),), {"b": math.nan})
    write_json(tmp_path / "x.json", asdict(outer))
    found = restored(Outer, read_json(tmp_path / "x.json"))
    assert repr(found) == repr(outer)  # NaN is not itself


@pytest.mark.parametrize("harm", [{"count": None}, {"value": "x"}])
def test_what_else_is_null_deep_within_is_refused(harm: dict[str, object]) -> None:
    inner = {"value": None, "known": None, "count": 0} | harm
    with pytest.raises(ValueError, match="inner"):
        restored(Outer, {"inner": inner, "several": [], "numbers": [], "pairs": [], "by_name": {}, "best": None})
