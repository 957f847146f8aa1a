import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlae.data.convert import equal_channels, resize, resize_mask, to_depth, to_grey

from .samples import noise


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resizing_by_whole_factors_is_the_mean_of_blocks(dtype):
    pixels = noise(12, 20, 3, dtype=dtype)
    means = pixels.reshape(4, 3, 5, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, (4, 5)) - means).max() <= 0.51


def test_resizing_keeps_the_mean_and_constants():
    pixels = noise(37, 23, 1)
    assert abs(resize(pixels, (10, 9)).mean() - pixels.mean()) < 0.5
    halves = np.array([[[0], [1]], [[1], [0]]], np.uint8)
    assert resize(halves, (1, 1), depth=1).item() == 1  # half of white is white, as everywhere
    assert (resize(np.full((37, 23, 1), 201, np.uint16), (50, 7)) == 201).all()


def test_a_thin_scratch_survives_in_the_mask():
    mask = np.zeros((64, 64), bool)
    mask[:, 40] = True
    expected = np.zeros((8, 8), bool)
    expected[:, 5] = True
    assert np.array_equal(resize_mask(mask, (8, 8)), expected)


def test_grey_is_the_luma_that_pillow_computes():
    pixels = noise(40, 40, 3)
    assert np.abs(to_grey(pixels)[..., 0].astype(int) - np.asarray(Image.fromarray(pixels).convert("L"))).max() <= 1


def test_equal_channels():
    grey = noise(4, 4, 1)
    assert equal_channels(grey.repeat(3, axis=2)) and not equal_channels(noise(4, 4, 3)) and not equal_channels(grey)


@given(st.integers(0, 255))
def test_more_bits_and_back_is_exact(value):
    deep = to_depth(np.array([value], np.uint8), 8, 16)
    assert deep.dtype == np.uint16 and to_depth(deep, 16, 8).item() == value
    assert deep.item() / 65535 == pytest.approx(value / 255)


@given(st.sampled_from([8, 16]), st.integers(0, 65535))
def test_one_bit_is_set_from_half_of_white_on(depth, value):
    value %= 2**depth
    pixels = np.array([value], np.uint16 if depth == 16 else np.uint8)
    assert to_depth(pixels, depth, 1).item() == (value / (2**depth - 1) >= 0.5)


def test_bits_become_black_and_white():
    assert to_depth(np.array([0, 1], np.uint8), 1, 8).tolist() == [0, 255]
    assert to_depth(np.array([0, 1], np.uint8), 1, 16).tolist() == [0, 65535]
