"""PSNR and SSIM against the same figures made with SciPy's filters."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vlae.engine.similarity import psnr, ssim


def reference(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    """Wang et al. 2004 by SciPy: a Gaussian of 1.5 pixels cut at 5 pixels, over the places where it lies inside the image."""

    def mean(v: np.ndarray) -> np.ndarray:
        return gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy, c = mean((x - 0.0) ** 2) - mx**2, mean(y**2) - my**2, mean(x * y) - mx * my
    luminance = (2 * mx * my + (0.01 * peak) ** 2) / (mx**2 + my**2 + (0.01 * peak) ** 2)
    contrast = (2 * c + (0.03 * peak) ** 2) / (vx + vy + (0.03 * peak) ** 2)
    return float((luminance * contrast).mean())


@pytest.mark.parametrize("peak", [255.0, 65535.0])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_ssim_is_that_of_scipy_colour_by_colour(peak: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    x = peak * rng.random((3, 24, 31))
    y = np.clip(x + noise * peak * rng.standard_normal(x.shape), 0, peak)
    assert ssim(x, y, peak) == pytest.approx(np.mean([reference(a, b, peak) for a, b in zip(x, y, strict=True)]), abs=1e-9)


def test_equal_images_are_wholly_alike_however_small() -> None:
    for shape in ((1, 1, 1), (1, 2, 9), (3, 12, 12)):
        x = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        assert ssim(x, x, 255.0) == pytest.approx(1.0) and psnr(x, x, 255.0) == float("inf")


def test_psnr_falls_by_6_db_where_the_error_doubles_and_does_not_wrap_around() -> None:
    x = np.full((1, 8, 8), 250, np.uint8)
    assert psnr(x, x - 10, 255.0) - psnr(x, x - 20, 255.0) == pytest.approx(20 * np.log10(2))
    assert psnr(np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 255, np.uint8), 255.0) == pytest.approx(0.0)
