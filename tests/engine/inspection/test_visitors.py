"""Images that a run is shown: which labels say that one is good, and which it has seen before."""

import re
from pathlib import Path

import pytest
import torch

from vlae.engine.inspection import inspect
from vlae.engine.inspection.visitors import good, used_in_training, visitors
from vlae.engine.run import Run
from vlae.errors import DataError

from ...test_cli import TINY, picture, vlae


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of images of noise, beside them."""
    folder = tmp_path_factory.mktemp("visited")
    for n in range(24):
        picture(folder / "images" / f"{n:02d}.png", (12, 12), seed=n)
    code, said = vlae("train", folder / "images", "-o", folder / "run", *TINY)
    assert code == 0, said
    return Run.open(folder / "run")


@pytest.mark.parametrize("label", [None, "good", "OK", " Normal ", "ＯＫ", "良品", "合格"])
def test_words_for_good(run: Run, label: str | None) -> None:
    assert good(run, label)


@pytest.mark.parametrize("label", ["scratch", "not good", "不良品", "不合格", "NG", ""])
def test_words_for_other_than_good(run: Run, label: str) -> None:
    assert not good(run, label)


def test_the_label_that_was_trained_on_is_good(run: Run) -> None:
    own = run.settings.data.model_copy(update={"only_label": "A級"})
    assert good(Run(run.folder, run.settings.model_copy(update={"data": own}), run.facts), "A級") and not good(run, "A級")


def test_images_that_were_trained_on_are_known_by_their_pixels(run: Run, tmp_path: Path) -> None:
    images = run.images()
    seen = {images.names[n] for split in ("train", "validation") for n in images.indices(split)}
    for n in range(20, 28):  # the last four are new
        picture(tmp_path / f"renamed{n}.png", (12, 12), seed=n)
    known = used_in_training(images)
    with visitors(run, tmp_path) as shown:
        again = [name for name, sha256 in zip(shown.names, shown.sha256, strict=True) if sha256 in known]
        assert sorted(again) == [f"renamed{n}.png" for n in range(20, 28) if f"{n:02d}.png" in seen]
        assert seen & {f"{n:02d}.png" for n in range(20, 24)}


def test_an_image_that_cannot_be_read_is_told_by_its_own_path(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'notes.png'} cannot be used")), visitors(run, tmp_path / "notes.png"):
        pass


def test_smaller_images_than_those_of_the_training_are_shown(run: Run, tmp_path: Path) -> None:
    picture(tmp_path / "small.png", (3, 2), seed=1)
    larger = run.settings.model_copy(update={"data": run.settings.data.model_copy(update={"minimum": 8})})
    with visitors(Run(run.folder, larger, run.facts), tmp_path / "small.png") as shown:
        assert shown.pixels(0).shape[:2] in ((3, 2), (2, 3))


def test_a_vector_code_sees_large_images_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "MOST_PIXELS", 100)
    monkeypatch.setattr(inspect, "SQUARE", 8)
    reference, size = inspect.reference_of(run, run.model(torch.device("cpu")), run.images())
    assert size is None and reference.fits(None, (2,))
