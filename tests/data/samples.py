"""Images for the tests of the data floor, made and written without the code under test."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("VLAE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def shared(name: str) -> Path:
    """A file of the shared data; skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent: set VLAE_DATA to the folder of the shared data")
    return path


def noise(*shape: int, seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def fill(folder: Path, count: int, size: tuple[int, int] = (8, 9), start: int = 0) -> Path:
    """``count`` different grey PNGs ``img0.png``, ``img1.png``, ... in a folder."""
    for i in range(start, start + count):
        save(folder / f"img{i}.png", noise(*size, seed=1000 + i))
    return folder
