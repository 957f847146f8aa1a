"""What is told while images are made: each counts once, also those that are left out, and the last is told as the last."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vlae.apps import sample as sampling
from vlae.apps.inpaint import inpaint
from vlae.apps.reconstruct import reconstruct
from vlae.apps.sample import sample
from vlae.engine.run import Run

from ..test_cli import TINY, good, picture, vlae
from .test_inpaint import mask


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("module")
    code, said = vlae("train", good(folder / "images"), "-o", folder / "run", *TINY)
    assert code == 0, said
    return Run.open(folder / "run")


@pytest.fixture(autouse=True)
def _few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty turns are for pictures that people look at."""
    monkeypatch.setattr("vlae.apps.inpaint.TURNS", 2)


def mixed(folder: Path) -> Path:
    """Two images, one that is torn, one of another size, a text and a mask."""
    good(folder, 2)
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:60])
    picture(folder / "large.png", size=(20, 16))
    (folder / "text.txt").write_text("no image")
    mask(folder / "mask.png")
    return folder


def test_each_batch_of_samples_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(sampling, "PIXELS_AT_ONCE", 2 * 12 * 12)
    sample(run, tmp_path / "out", 5, (12, 12), progress=lambda *now: told.append(now))
    assert told == [(2, 5), (4, 5), (5, 5)]


def decode(run: Run, images: Path, output: Path, progress: Callable[[int, int], None]) -> int:
    return reconstruct(run, images, output, 1, progress=progress).images


def draw(run: Run, images: Path, output: Path, progress: Callable[[int, int], None]) -> int:
    return inpaint(run, images, images / "mask.png", output, 1, progress=progress).images


@pytest.mark.parametrize("make, used", [(decode, 4), (draw, 2)])
def test_each_file_is_told_also_what_is_left_out(run: Run, tmp_path: Path, make: Callable[..., int], used: int) -> None:
    told: list[tuple[int, int]] = []
    assert make(run, mixed(tmp_path / "images"), tmp_path / "out", lambda *now: told.append(now)) == used
    assert told == [(n, 6) for n in range(1, 7)]
