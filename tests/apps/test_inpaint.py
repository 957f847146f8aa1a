"""In-painting through the command line: what is known stays, the rest is drawn, and what cannot be used is told."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlae.core.decoder import Decoder

from ..test_cli import TINY, good, picture, vlae


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("module")
    code, said = vlae("train", good(folder / "images"), "-o", folder / "run", *TINY)
    assert code == 0, said
    return folder / "run"


@pytest.fixture(autouse=True)
def _few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty turns are for pictures that people look at."""
    monkeypatch.setattr("vlae.apps.inpaint.TURNS", 2)


def mask(path: Path, size: tuple[int, int] = (12, 12)) -> Path:
    marked = np.zeros(size, np.uint8)
    marked[3:7, 4:9] = 255
    Image.fromarray(marked).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_what_is_not_marked_is_kept_and_the_rest_is_drawn(run: Path, tmp_path: Path) -> None:
    images = run.parent / "images"
    code, said = vlae("inpaint", run, images, "--mask", mask(tmp_path / "mask.png"), "-o", tmp_path / "out", "--drawings", 2)
    assert code == 0, said
    marked = pixels(tmp_path / "mask.png") > 0
    for name in ("00.png", "07.png"):
        original, masked = pixels(images / name), pixels(tmp_path / "out" / f"{name}.masked.png")
        assert np.array_equal(masked, np.where(marked, 0, original))
        one, two = (pixels(tmp_path / "out" / f"{name}.{n}.png") for n in (1, 2))
        assert np.array_equal(one[~marked], original[~marked]) and np.array_equal(two[~marked], original[~marked])
        assert not np.array_equal(one[marked], two[marked])


def test_images_of_another_size_than_the_mask_are_left_out_and_told(run: Path, tmp_path: Path) -> None:
    folder = good(tmp_path / "images", 2)
    picture(folder / "large.png", size=(20, 16))
    code, said = vlae("inpaint", run, folder, "--mask", mask(tmp_path / "mask.png"), "-o", tmp_path / "out", "--drawings", 1)
    assert code == 8 and "large.png: 16x20 pixels, the mask has 12x12" in said and len(list((tmp_path / "out").iterdir())) == 4


def test_masks_that_cannot_be_used(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    clear = np.full((12, 12, 2), 255, np.uint8)
    clear[:8, :, 1] = 0
    Image.fromarray(clear, "LA").save(tmp_path / "clear.png")
    os.mkfifo(tmp_path / "pipe.png")
    told = {
        "black.png": "marks nothing",
        "text.png": "cannot be used",
        "gone.png": "gone.png",
        "clear.png": "transparent",
        "pipe.png": "regular file",
    }
    for name, part in told.items():
        code, said = vlae("inpaint", run, run.parent / "images", "--mask", tmp_path / name, "-o", tmp_path / "out")
        assert code == 3 and part in said and "Traceback" not in said and not (tmp_path / "out").exists()
    code, said = vlae("inpaint", run, run.parent / "images", "--mask", mask(tmp_path / "other.png", (5, 5)), "-o", tmp_path / "out")
    assert code == 3 and "the mask has 5x5" in said and "PNG, JPEG" not in said


def test_the_ringing_of_a_jpeg_marks_nothing_and_the_share_is_told(run: Path, tmp_path: Path) -> None:
    mask(tmp_path / "mask.png")
    Image.open(tmp_path / "mask.png").save(tmp_path / "mask.jpg", quality=75)
    assert (pixels(tmp_path / "mask.jpg") > 0).sum() > 20
    code, said = vlae("inpaint", run, run.parent / "images" / "00.png", "--mask", tmp_path / "mask.jpg", "-o", tmp_path / "out", "--json")
    assert code == 0 and json.loads(said.splitlines()[0])["marked"] == 20 / 144
    assert "13.9%" in vlae("inpaint", run, run.parent / "images" / "00.png", "--mask", tmp_path / "mask.jpg", "-o", tmp_path / "text")[1]


@pytest.mark.parametrize("command", ["inpaint", "reconstruct"])
def test_what_is_drawn_does_not_depend_on_what_lies_beside_the_image(run: Path, tmp_path: Path, command: str) -> None:
    more = ["--mask", mask(tmp_path / "mask.png")] if command == "inpaint" else []
    images = run.parent / "images"
    assert (
        vlae(command, run, images, *more, "-o", tmp_path / "all")[0] == vlae(command, run, images / "07.png", *more, "-o", tmp_path / "one")[0] == 0
    )
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "all" / path.name).read_bytes()


def test_a_dynamic_binarisation_does_not_depend_on_what_lies_beside_the_image(run: Path, tmp_path: Path) -> None:
    images = run.parent / "images"
    assert vlae("train", images, "-o", tmp_path / "run", *TINY, "data.binarise=dynamic")[0] == 0
    for shown, output in ((images, "all"), (images / "07.png", "one")):
        assert vlae("reconstruct", tmp_path / "run", shown, "-o", tmp_path / output, "--decodings", 1)[0] == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "all" / path.name).read_bytes()


def test_a_model_without_a_code_draws_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, calls, draw = run.parent / "images", [], Decoder.sample
    plain = ["keep.window=stack1", "model.width=4", "train.steps=4", "train.batch=4"]
    code, said = vlae("train", images, "-o", tmp_path / "run", *plain, "keep.code=none")
    assert code == 0, said
    monkeypatch.setattr(Decoder, "sample", lambda *given: calls.append(1) or draw(*given))
    words = ["--mask", mask(tmp_path / "mask.png"), "-o", tmp_path / "out", "--drawings", 2]
    assert vlae("inpaint", tmp_path / "run", images / "00.png", *words)[0] == 0 and len(calls) == 2


def test_the_mask_may_lie_among_the_images_and_the_output_may_not(run: Path, tmp_path: Path) -> None:
    folder = good(tmp_path / "images", 2)
    words = ["--mask", mask(folder / "mask.png"), "--drawings", 1]
    code, said = vlae("inpaint", run, folder, *words, "-o", tmp_path / "out")
    assert code == 0 and len(list((tmp_path / "out").iterdir())) == 4, said
    for command in (["inpaint", run, folder, *words], ["reconstruct", run, folder]):
        code, said = vlae(*command, "-o", folder / "out")
        assert code == 6 and "lies inside" in said and not (folder / "out").exists()


@pytest.mark.parametrize("command", ["inpaint", "reconstruct"])
def test_an_image_whose_files_cannot_be_named_does_not_end_the_others(run: Path, tmp_path: Path, command: str) -> None:
    folder = good(tmp_path / "images", 3)
    long = picture(folder / ("a" * 245 + ".png"), seed=50).name
    picture(folder / "00.png.1.png" / "b.png", seed=51)
    more = ["--mask", mask(tmp_path / "mask.png")] if command == "inpaint" else []
    code, said = vlae(command, run, folder, *more, "-o", tmp_path / "out", "--json")
    found = json.loads(said.splitlines()[0])
    lost = {left["name"] for left in found["left_out"]}
    assert code == 8 and found["images"] == 3 and len(lost) == 2 and long in lost and "Warning" in said
    written = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(written) == 3 * 4 and not any(name.startswith(f"{gone}.") for gone in lost for name in written if gone != "00.png")


def test_a_full_disk_ends_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, said = vlae("reconstruct", run, run.parent / "images", "-o", tmp_path / "out")
    assert code == 6 and "No space left" in said and not (tmp_path / "out").exists()
