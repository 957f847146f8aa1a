"""The changes against NumPy's padding, torch's grid sampling and written-out kernels; and what each must leave alone."""

import colorsys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlae.engine.kept.changes import CHANGES, GRAIN, LEAST_NOISE, NOISE, PATCH, Images, changed, noise

DEPTHS = {1: 1, 8: 255, 16: 65535}


def images(depth: int = 8, colours: int = 1, size: tuple[int, int] = (24, 30), count: int = 6, seed: int = 0) -> Images:
    x = np.random.default_rng(seed).integers(0, DEPTHS[depth], (count, colours, *size), endpoint=True).astype(np.float64)
    return Images(x, np.roll(x, 1, axis=0), DEPTHS[depth])


def smooth(size: tuple[int, int] = (48, 40), count: int = 4) -> Images:
    """Images without anything finer than three dozen pixels."""
    i, j = np.mgrid[: size[0], : size[1]]
    waves = [128 + 60 * np.sin(i / (6 + n) + n) + 50 * np.cos(j / (8 + n)) for n in range(count)]
    x = np.stack(waves)[:, None]
    return Images(x, np.roll(x, 1, axis=0), 255)


def made(name: str, of: Images, seed: int = 1) -> np.ndarray:
    return changed(name, of, np.random.default_rng(seed))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("depth, colours", [(1, 1), (8, 1), (8, 3), (16, 1)])
@pytest.mark.parametrize("size", [(24, 30), (3, 5), (1, 1)])
def test_what_every_change_is(name: str, depth: int, colours: int, size: tuple[int, int]) -> None:
    """Whole levels in range, of the same shape, from the images and the generator alone, which stay as they are."""
    of = images(depth, colours, size)
    before = of.x.copy()
    y = made(name, of)
    assert y.shape == of.x.shape and (y == np.rint(y)).all() and y.min() >= 0 and y.max() <= of.top
    assert (made(name, of) == y).all() and (of.x == before).all()


@pytest.mark.parametrize("depth, colours, idle", [(1, 1, {"hue", "brightness"}), (8, 1, {"hue"}), (8, 3, set()), (16, 1, {"hue"})])
def test_which_changes_change_nothing(depth: int, colours: int, idle: set[str]) -> None:
    of = images(depth, colours)
    assert {name for name in CHANGES if (made(name, of) == of.x).all()} - {"contrast"} == idle


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_a_shift_is_one_of_four_continued_by_reflection(pixels: int) -> None:
    of = images(count=40)
    ways = set()
    for x, y in zip(of.x, made(f"shift_{pixels}px", of), strict=True):
        padded = np.pad(x[0], pixels, mode="symmetric")
        height, width = x.shape[1:]
        corners = {"up": (2 * pixels, pixels), "down": (0, pixels), "left": (pixels, 2 * pixels), "right": (pixels, 0)}
        [way] = [way for way, (top, left) in corners.items() if (padded[top : top + height, left : left + width] == y[0]).all()]
        ways.add(way)
    assert ways == {"up", "down", "left", "right"}


def sampled(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """An image (h, w) at ``matrix v`` from its middle, by torch's bicubic sampling."""
    height, width = x.shape
    i, j = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    v = torch.stack(torch.meshgrid(i, j, indexing="ij"), -1) @ torch.from_numpy(matrix).T
    grid = torch.stack([v[..., 1] * 2 / width, v[..., 0] * 2 / height], -1)[None]
    return F.grid_sample(torch.from_numpy(x)[None, None], grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("name", ["turn_2deg", "scale_3pct"])
def test_turning_and_scaling_are_those_of_torch(name: str) -> None:
    of = smooth()
    c, s = np.cos(np.radians(2)), np.sin(np.radians(2))
    ways = {"turn_2deg": [np.array([[c, -s], [s, c]]), np.array([[c, s], [-s, c]])], "scale_3pct": [np.eye(2) * 1.03, np.eye(2) / 1.03]}[name]
    for x, y in zip(of.x[:, 0], made(name, of)[:, 0], strict=True):
        away = min(np.abs(sampled(x, matrix) - y)[4:-4, 4:-4].max() for matrix in ways)
        assert away < 1.5  # levels: half of one is rounding
        assert np.abs(x - y).max() > 4


def test_blur_is_the_gaussian_written_out() -> None:
    of = images()
    at = np.arange(-4, 5)
    kernel = np.exp(-(at**2) / 2)
    kernel /= kernel.sum()
    for x, y in zip(of.x[:, 0], made("blur", of)[:, 0], strict=True):
        padded = np.pad(x, 4, mode="symmetric")
        rows = np.apply_along_axis(np.convolve, 1, padded, kernel, "valid")
        assert np.abs(np.apply_along_axis(np.convolve, 0, rows, kernel, "valid") - y).max() <= 0.5 + 1e-9


def test_light_and_contrast() -> None:
    of = smooth()
    light, contrast = made("brightness", of) / of.x, made("contrast", of)
    assert all(min(np.abs(r - 0.9).max(), np.abs(r - 1.1).max()) < 0.03 for r in light)
    ratio = (contrast.std((1, 2, 3)) / of.x.std((1, 2, 3))).round(2)
    assert set(ratio.tolist()) <= {0.8, 1.2} and np.abs(contrast.mean((1, 2, 3)) - of.x.mean((1, 2, 3))).max() < 0.5


def test_hue_turns_by_thirty_degrees_around_grey() -> None:
    """Against the standard library's hue; brightness (the mean of the colours) and how far from grey they are stay."""
    x = np.array([[200.0, 100, 100], [100, 180, 100], [110, 110, 190]]).T.reshape(1, 3, 1, 3)
    y = made("hue", Images(x, x, 255))
    assert np.abs(y.mean(1) - x.mean(1)).max() < 0.6
    before, after = (np.array([colorsys.rgb_to_hsv(*c)[0] for c in v[0, :, 0].T / 255]) * 360 for v in (x, y))
    turned = (after - before + 180) % 360 - 180
    assert np.abs(np.abs(turned) - 30).max() < 3 and len(set(np.sign(turned))) == 1
    away = [np.linalg.norm(v - v.mean(1, keepdims=True), axis=1) for v in (x, y)]
    assert np.abs(away[0] - away[1]).max() < 1.5


@pytest.mark.parametrize("own", [2.0, 6.0])
def test_there_is_half_as_much_noise_again_and_few_of_black_and_white_flip(own: float) -> None:
    clean = smooth((60, 50), 8).x
    noisy = clean + np.random.default_rng(0).normal(0, own, clean.shape)
    assert noise(noisy) == pytest.approx(own, rel=0.12)
    away = made("noise", Images(noisy, noisy, 255)) - clean
    assert away.std() == pytest.approx(NOISE * own, rel=0.07) and abs(away.mean()) < 0.2
    assert noise(np.zeros((2, 1, 9, 9))).tolist() == [LEAST_NOISE] * 2
    binary = images(depth=1, size=(60, 60))
    assert 0.01 < (made("noise", binary) != binary.x).mean() < 0.03


def median(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, GRAIN // 2, mode="symmetric")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, (GRAIN, GRAIN)), axis=(2, 3))


def test_grain_is_that_of_the_other_image_and_outlines_are_not() -> None:
    of = images(size=(20, 22))
    y = made("grain_swapped", of)
    for x, other, found in zip(of.x[:, 0], of.others[:, 0], y[:, 0], strict=True):
        assert (found == (median(x) + other - median(other)).clip(0, 255)).all()
    disc = (np.hypot(*(np.mgrid[:40, :40] - 19.5)) < 12) * 100.0 + 50
    flat, own = np.full((1, 1, 40, 40), 80.0), disc[None, None]
    assert np.abs(made("grain_swapped", Images(own, flat, 255)) - own).mean() < 1


def test_shuffled_patches_stay_in_their_squares() -> None:
    of = images(size=(35, 50), count=20)
    y = made("patches_shuffled", of)
    moved = 0
    for x, found in zip(of.x[:, 0], y[:, 0], strict=True):
        for top in range(0, 2 * PATCH * (35 // (2 * PATCH)), 2 * PATCH):
            for left in range(0, 2 * PATCH * (50 // (2 * PATCH)), 2 * PATCH):
                corners = [(top + i, left + j) for i in (0, PATCH) for j in (0, PATCH)]
                before, after = ([tuple(v[i : i + PATCH, j : j + PATCH].ravel()) for i, j in corners] for v in (x, found))
                assert sorted(before) == sorted(after)
                moved += before != after
        assert (x[32:] == found[32:]).all() and (x[:, 48:] == found[:, 48:]).all()
    assert moved > 20 * 6 * 0.85  # one order of 24 changes nothing


def test_a_replaced_part_is_a_square_of_the_other_image() -> None:
    of = images(size=(24, 30))
    for x, other, y in zip(of.x[:, 0], of.others[:, 0], made("part_replaced", of)[:, 0], strict=True):
        rows, columns = np.nonzero(x != y)
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (y[box] == other[box]).all() and 11 <= y[box].shape[0] <= 12 and 11 <= y[box].shape[1] <= 12
