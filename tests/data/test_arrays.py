from pathlib import Path

import numpy as np
import pytest

from vlae.data.arrays import read_arrays
from vlae.data.settings import DataSettings
from vlae.errors import DataError

from .samples import noise


def source(folder: Path, **arrays: np.ndarray):
    np.savez(folder / "a.npz", **arrays)
    return read_arrays(DataSettings(folder=folder / "a.npz"))


@pytest.mark.parametrize(
    "images, depth",
    [
        (noise(5, 4, 6), 8),
        (noise(5, 4, 6, 1), 8),
        (noise(5, 4, 6, 3), 8),
        (noise(5, 4, 6, dtype=np.uint16), 16),
        (noise(5, 4, 6, dtype=np.uint16).astype(">u2"), 16),
        (noise(5, 4, 6) > 99, 1),
    ],
    ids=["grey", "one channel", "rgb", "16 bits", "16 bits big-endian", "bool"],
)
def test_arrays_come_out_as_they_were(tmp_path, images, depth):
    items = source(tmp_path, images=images).items
    pictures = [item.picture() for item in items]
    assert [item.name for item in items] == ["0", "1", "2", "3", "4"] and {picture.depth for picture in pictures} == {depth}
    assert np.array_equal(np.stack([picture.pixels for picture in pictures]).squeeze(), images.squeeze())


@pytest.mark.parametrize("side", [5, 16, 28])
def test_packed_bits_of_squares(tmp_path, side):
    bits = noise(3, side, side) > 127
    items = source(tmp_path, images=np.packbits(bits.reshape(3, -1), axis=1)).items
    assert all(np.array_equal(item.picture().pixels[..., 0], plane) for item, plane in zip(items, bits, strict=True))
    assert items[0].picture().depth == 1


def test_zeros_and_ones_are_one_bit_and_it_is_said(tmp_path):
    picture = source(tmp_path, images=noise(3, 4, 4) % 2).items[0].picture()
    assert picture.depth == 1 and picture.notes == ("0 and 1 only, taken as 1 bit",)


@pytest.mark.parametrize("keys", [("train", "valid", "test"), ("train_x", "validation_x", "test_x"), ("train", "val", "test_x")])
def test_one_array_a_split(tmp_path, keys):
    arrays = {key: noise(count, 4, 4, seed=count) for key, count in zip(keys, (5, 3, 2), strict=True)}
    labels = {f"{key.removesuffix('_x')}_y": np.arange(len(array)) for key, array in arrays.items()}
    items = source(tmp_path, **arrays, **labels).items
    assert [item.split for item in items] == ["train"] * 5 + ["validation"] * 3 + ["test"] * 2
    assert [item.name for item in items][4:7] == ["train/4", "validation/0", "validation/1"]
    assert [item.label for item in items] == list("0123401201")
    assert np.array_equal(items[6].picture().pixels[..., 0], arrays[keys[1]][1])


def test_columns_beside_the_images(tmp_path):
    masks = noise(4, 6, 6) > 200
    items = source(
        tmp_path,
        images=noise(4, 6, 6),
        cls=np.array([1, 0, 1, 1]),
        classnames=np.array(["good", "bad"]),
        group=np.array([7, 7, 8, 9]),
        names=np.array(["a", "b", "c", "d"]),
        masks=masks,
        angle=np.array([0.5, np.nan, 2.0, np.inf]),
        shape=np.zeros((4, 2)),
        word=np.array(["x"] * 4),
    ).items
    assert [(item.name, item.label, item.lot) for item in items] == [
        ("a", "bad", "7"),
        ("b", "good", "7"),
        ("c", "bad", "8"),
        ("d", "bad", "9"),
    ]
    assert [dict(item.factors) for item in items] == [{"angle": 0.5}, {}, {"angle": 2.0}, {}]
    assert all(np.array_equal(item.mask(), mask) for item, mask in zip(items, masks, strict=True))


def test_classes_that_do_not_count_from_zero_stay_numbers(tmp_path):
    items = source(tmp_path, images=noise(2, 4, 4), labels=np.array([1, 2]), classnames=np.array(["a", "b"])).items
    assert [item.label for item in items] == ["1", "2"]


def test_index_arrays_split_and_the_rest_is_left_out(tmp_path):
    result = source(tmp_path, images=noise(5, 4, 4), train_idx=np.array([4, 0]), test_idx=np.array([2]))
    assert [(item.name, item.split) for item in result.items] == [("0", "train"), ("2", "test"), ("4", "train")]
    assert [(name, harmless) for name, _, harmless in result.left_out] == [("1", True), ("3", True)]


@pytest.mark.parametrize(
    "arrays, match",
    [
        ({"images": noise(3, 4, 4).astype(float)}, "float64"),
        ({"images": noise(3, 4, 4).astype(np.int32)}, "int32"),
        ({"images": noise(3, 3, 8, 8)}, r"\(3, 3, 8, 8\)"),
        ({"images": noise(3, 784)}, r"\(3, 784\)"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, r"\(0, 4, 4, 1\)"),
        ({"images": noise(3, 4, 4, 3, dtype=np.uint16)}, "RGB"),
        ({"images": noise(3, 4, 4), "labels": np.arange(4)}, "labels"),
        ({"images": noise(3, 4, 4), "lot": np.zeros((3, 2))}, "lot"),
        ({"images": noise(3, 4, 4), "masks": noise(2, 4, 4)}, "masks"),
        ({"images": noise(3, 4, 4), "train_idx": np.array([3])}, "index"),
        ({"images": noise(3, 4, 4), "train_idx": np.array([-1])}, "index"),
        ({"images": noise(3, 4, 4), "train_idx": np.array([0.5])}, "index"),
        ({"images": noise(3, 4, 4), "train_idx": np.array([0]), "test_idx": np.array([0])}, "two splits"),
        ({"train": noise(3, 4, 4), "train_y": np.arange(2)}, "train_y"),
        ({"photos": noise(3, 4, 4)}, "photos"),
        ({}, "nothing"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "cannot be read"),
    ],
)
def test_other_arrays_are_data_errors(tmp_path, arrays, match):
    with pytest.raises(DataError, match=match):
        source(tmp_path, **arrays)


def test_images_that_are_too_large(tmp_path):
    np.savez(tmp_path / "a.npz", images=noise(1, 50, 50))
    with pytest.raises(DataError, match="max_pixels 2000"):
        read_arrays(DataSettings(folder=tmp_path / "a.npz", max_pixels=2000))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_damaged_files_are_data_errors(tmp_path, share):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=noise(5, 40, 40))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(DataSettings(folder=path))


def test_a_changed_byte_is_a_data_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=noise(5, 40, 40))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(DataSettings(folder=path))


def test_a_single_array_is_a_data_error(tmp_path):
    np.save(tmp_path / "a.npy", noise(5, 4, 4))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"cannot be read.*without a name"):
        read_arrays(DataSettings(folder=tmp_path / "a.npz"))
