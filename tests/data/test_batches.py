import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlae.data.batches import binarise_dynamic, crops, moved, stack
from vlae.data.imageset import ImageSet


def image_set(pictures: list[np.ndarray]) -> ImageSet:
    """A set in memory, put together without the cache."""
    n = len(pictures)
    ends = np.cumsum([picture.nbytes for picture in pictures])
    return ImageSet(
        depth=8 * pictures[0].dtype.itemsize,
        channels=pictures[0].shape[2],
        dynamic=False,
        names=tuple(map(str, range(n))),
        sha256=("",) * n,
        split=np.array(["train"] * n),
        split_rule="",
        labels=(None,) * n,
        lots=(None,) * n,
        factors={},
        left_out=(),
        notes={},
        duplicates=0,
        sizes=np.array([picture.shape[:2] for picture in pictures]),
        offsets=ends - [picture.nbytes for picture in pictures],
        mask_offsets=np.full(n, -1),
        data=np.frombuffer(b"".join(picture.tobytes() for picture in pictures), np.uint8),
    )


def ramp(height: int, width: int, channels: int, number: int) -> np.ndarray:
    """A 16-bit image in which each value tells its image, its place and its channel."""
    i, j, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return (((number * 3 + c) * 64 + i) * 64 + j).astype(np.uint16)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(5, 30), st.integers(5, 30)), min_size=1, max_size=5), st.sampled_from([1, 3]), st.integers(0, 2**32))
def test_crops_are_squares_of_their_images(sizes, channels, seed):
    images = image_set([ramp(height, width, channels, number) for number, (height, width) in enumerate(sizes)])
    chosen = np.random.default_rng(seed).integers(0, len(sizes), 7)
    batch = crops(images, chosen, 5, np.random.default_rng(seed))
    assert batch.shape == (7, channels, 5, 5) and batch.dtype == np.uint16
    for number, crop in zip(chosen, batch, strict=True):
        assert (crop >> 12 == number * 3 + np.arange(channels)[:, None, None]).all()
        rows, columns = crop[0] >> 6 & 63, crop[0] & 63
        assert (np.diff(rows, axis=0) == 1).all() and (np.diff(columns, axis=1) == 1).all()
        assert rows.max() < sizes[number][0] and columns.max() < sizes[number][1]


def test_crops_reach_every_place_evenly():
    images = image_set([ramp(7, 6, 1, 0)])
    corners = crops(images, np.zeros(6000, int), 5, np.random.default_rng(0))[:, 0, 0, 0]
    places, counts = np.unique(corners, return_counts=True)
    assert places.tolist() == [64 * i + j for i in range(3) for j in range(2)]
    assert np.abs(counts - 1000).max() < 6 * np.sqrt(1000)


def test_crops_begin_at_multiples_and_reach_all_of_them_evenly():
    images = image_set([ramp(16, 14, 1, 0)])
    corners = crops(images, np.zeros(6000, int), 5, np.random.default_rng(0), step=4)[:, 0, 0, 0]
    places, counts = np.unique(corners, return_counts=True)
    assert places.tolist() == [64 * i + j for i in (0, 4, 8) for j in (0, 4, 8)]
    assert np.abs(counts - 6000 / 9).max() < 6 * np.sqrt(6000 / 9)


def test_the_same_generator_cuts_the_same_crops():
    images = image_set([ramp(20, 20, 1, number) for number in range(3)])
    first, second = (crops(images, np.arange(3), 4, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)


def test_stacked_images_keep_their_order():
    images = image_set([ramp(4, 6, 3, number) for number in range(5)])
    batch = stack(images, np.array([3, 0, 3]))
    assert np.array_equal(batch, [ramp(4, 6, 3, number).transpose(2, 0, 1) for number in (3, 0, 3)])


def test_batches_are_copies():
    images = image_set([ramp(4, 4, 1, 0)])
    for batch in (stack(images, np.array([0])), crops(images, np.array([0]), 4, np.random.default_rng(0))):
        assert batch.flags.writeable and not np.shares_memory(batch, images.data)


def test_our_own_mistakes_are_assertions():
    images = image_set([ramp(4, 4, 1, 0), ramp(5, 4, 1, 1)])
    with pytest.raises(AssertionError, match="smaller"):
        crops(images, np.array([0]), 5, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="different sizes"):
        stack(images, np.array([0, 1]))


def test_dynamic_bits_have_the_exact_probabilities():
    values = np.array([0, 1, 64, 127, 128, 254, 255], np.uint8)
    n = 100_000
    ones = binarise_dynamic(np.broadcast_to(values, (n, 7)), np.random.default_rng(0)).sum(axis=0)
    p = values / 255
    assert (np.abs(ones - n * p) <= 5 * np.sqrt(n * p * (1 - p))).all()
    assert ones[0] == 0 and ones[-1] == n


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.booleans(), st.integers(0, 2**32))
def test_moved_images_show_the_same_a_little_aside(shift, mirror, seed):
    pixels = np.stack([ramp(9, 8, 2, number).transpose(2, 0, 1) for number in range(5)])
    out = moved(pixels, shift, mirror, np.random.default_rng(seed))
    assert out.shape == pixels.shape and out.dtype == pixels.dtype
    around = np.pad(pixels, ((0, 0), (0, 0), (shift, shift), (shift, shift)), mode="edge")
    places = [(i, j) for i in range(2 * shift + 1) for j in range(2 * shift + 1)]
    for image, whole in zip(out, around, strict=True):
        seen = [whole[:, i : i + 9, j : j + 8] for i, j in places]
        assert any(np.array_equal(image, one) or (mirror and np.array_equal(image, one[:, :, ::-1])) for one in seen)


def test_every_move_is_as_likely():
    pixels = np.broadcast_to(ramp(7, 7, 1, 0).transpose(2, 0, 1), (9000, 1, 7, 7))
    out = moved(pixels, 1, True, np.random.default_rng(0))[:, 0, 3, [2, 3, 4]]
    moves, counts = np.unique(out, axis=0, return_counts=True)
    assert len(moves) == 18 and np.abs(counts - 500).max() < 6 * np.sqrt(500)
