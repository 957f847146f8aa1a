"""In-painting through the command line: what is known stays, the rest is drawn, and what cannot be used is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..test_cli import TINY, good, picture, vlae


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("module")
    code, said = vlae("train", good(folder / "images"), "-o", folder / "run", *TINY)
    assert code == 0, said
    return folder / "run"


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
    alone = vlae("inpaint", run, images / "00.png", "--mask", tmp_path / "mask.png", "-o", tmp_path / "alone", "--drawings", 1)
    assert alone[0] == 0 and np.array_equal(pixels(tmp_path / "alone" / "00.png.1.png"), pixels(tmp_path / "out" / "00.png.1.png"))


def test_images_of_another_size_than_the_mask_are_left_out_and_told(run: Path, tmp_path: Path) -> None:
    folder = good(tmp_path / "images", 2)
    picture(folder / "large.png", size=(20, 16))
    code, said = vlae("inpaint", run, folder, "--mask", mask(tmp_path / "mask.png"), "-o", tmp_path / "out", "--drawings", 1)
    assert code == 8 and "large.png: 16x20 pixels, the mask has 12x12" in said and len(list((tmp_path / "out").iterdir())) == 4


def test_masks_that_cannot_be_used(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    for name, part in (("black.png", "marks nothing"), ("text.png", "cannot be used"), ("gone.png", "gone.png")):
        code, said = vlae("inpaint", run, run.parent / "images", "--mask", tmp_path / name, "-o", tmp_path / "out")
        assert code == 3 and part in said and "Traceback" not in said and not (tmp_path / "out").exists()
    code, said = vlae("inpaint", run, run.parent / "images", "--mask", mask(tmp_path / "other.png", (5, 5)), "-o", tmp_path / "out")
    assert code == 3 and "the mask has 5x5" in said
