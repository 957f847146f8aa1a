"""Images that a finished model is shown look as its own did."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlae.data import cache
from vlae.data.foreign import Foreign, files_of, foreign
from vlae.data.form import Form
from vlae.data.settings import DataSettings
from vlae.data.source import LeftOut
from vlae.errors import DataError


def drawings(folder: Path) -> Path:
    folder.mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 2, (24, 24)).astype(bool)).save(folder / f"{i}.png")
    return folder


def test_a_drawing_that_is_resized_is_that_of_the_cache(tmp_path: Path) -> None:
    settings = DataSettings(folder=drawings(tmp_path / "images"), size=(12, 12))
    images = cache.load(settings, tmp_path / "cache")
    for i, guest in enumerate(foreign(files_of(settings.folder).paths, Form(1, 1), settings, (12, 12))):
        assert isinstance(guest, Foreign) and np.array_equal(guest.pixels, images.pixels(i))


def test_a_mask_among_the_images_is_no_image(tmp_path: Path) -> None:
    folder = drawings(tmp_path / "images")
    (tmp_path / "link.png").symlink_to(folder / "2.png")
    found = list(foreign(files_of(folder).paths, Form(1, 1), DataSettings(folder=folder), None, mask=tmp_path / "link.png"))
    assert found[2] == LeftOut("2.png", "the mask", harmless=True) and [f.name for f in found] == [f"{i}.png" for i in range(4)]


def test_paths_that_hold_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, part in (("gone.png", "does not exist"), ("empty", "holds no file")):
        with pytest.raises(DataError, match=part) as told:
            files_of(tmp_path / name)
        assert "Found" not in str(told.value)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"holds no file.* Found: a\.png: "):
        files_of(tmp_path / "links")
    files = files_of(tmp_path / "pipe.png").paths
    assert list(foreign(files, Form(8, 1), DataSettings(folder=tmp_path), None)) == [LeftOut("pipe.png", "not a regular file")]
