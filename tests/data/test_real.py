"""The shared real data: each file loads, with the counts that its description gives."""

import csv
import zipfile

import numpy as np
import pytest

from vlae.data.cache import load
from vlae.data.settings import DataSettings

from .samples import shared

FILES = {
    "caltech101_silhouettes_28_split1.npz": ((4100, 2264, 2307), 1, (28, 28)),
    "omniglot_28_gray.npz": ((24345, 8070), 8, (28, 28)),
    "magnetic_tile_128.npz": ((1344,), 8, (128, 128)),
}
LARGE = {
    "mnist_static_binary.npz": ((50_000, 10_000, 10_000), 1, (28, 28)),
    "mnist_gray.npz": ((60_000, 10_000), 8, (28, 28)),
}


def check(tmp_path, name, counts, depth, size):
    images = load(DataSettings(folder=shared(name)), tmp_path / "cache")
    splits = [len(images.indices(split)) for split in ("train", "validation", "test")]
    if len(counts) == 2:
        splits = [splits[0] + splits[1], splits[2]]  # validation is taken out of train
    assert splits == list(counts) if len(counts) > 1 else sum(splits) == counts[0]
    assert images.depth == depth and images.channels == 1 and (images.sizes == size).all()
    return images


@pytest.mark.parametrize("name", FILES)
def test_arrays_of_the_shared_data(tmp_path, name):
    check(tmp_path, name, *FILES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_of_the_shared_data(tmp_path, name):
    images = check(tmp_path, name, *LARGE[name])
    test = images.indices("test")
    with np.load(shared(name)) as file:
        assert [images.labels[i] for i in test] == [str(label) for label in file["test_y"]]


def test_magnetic_tiles_are_split_by_tile_and_have_masks(tmp_path):
    images = check(tmp_path, "magnetic_tile_128.npz", *FILES["magnetic_tile_128.npz"])
    parts = [{images.lots[i] for i in images.indices(split)} for split in ("train", "validation", "test")]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts))
    free = [i for i, label in enumerate(images.labels) if label == "MT_Free"]
    assert not any(images.mask(i).any() for i in free)
    assert np.mean([images.mask(i).any() for i in range(len(images)) if images.labels[i] == "MT_Blowhole"]) > 0.9


@pytest.mark.slow
def test_elpv_as_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(shared("elpv_300_mono.zip")) as archive:
        archive.extractall(tmp_path / "elpv")
    images = load(DataSettings(folder=tmp_path / "elpv", lot_block=20), tmp_path / "cache")
    assert len(images) == 1074 and images.channels == 1 and (images.sizes == 300).all() and len(set(images.lots)) == 54
    with open(tmp_path / "elpv" / "labels.csv") as file:
        thirds = {row["name"].removesuffix(".png"): int(row["defect_probability"][0]) for row in csv.DictReader(file)}
    expected = [thirds[name.removesuffix(".webp")] / 3 for name in images.names]
    assert images.factors["defect_probability"].tolist() == pytest.approx(expected)
    blocks = [{images.split[i] for i in range(start, min(start + 20, 1074))} for start in range(0, 1074, 20)]
    assert all(len(block) == 1 for block in blocks) and len(set.union(*blocks)) == 3
