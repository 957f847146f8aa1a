"""How alike two images are, in the two usual figures."""

import numpy as np
import torch
import torch.nn.functional as F


def psnr(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    """Peak signal to noise ratio in dB, ``10 log10(peak^2 / mean (x - y)^2)``; infinite for equal images.

    >>> round(psnr(np.zeros((1, 4, 4)), np.full((1, 4, 4), 25.5), 255.0), 6)
    20.0
    """
    error = float(np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(peak**2 / error))


def ssim(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    """Structural similarity with the usual Gaussian window of 11 pixels (Wang et al. 2004), the mean over pixels and colours.

    The window shrinks for images smaller than it.

    Args:
        x: an image, (c, h, w).
        y: another of the same shape.
        peak: the highest level.
    """
    side = min(11, *(s - 1 + s % 2 for s in x.shape[1:]))
    at = np.arange(side) - side // 2
    weights = np.exp(-(at**2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(weights, weights) / weights.sum() ** 2)[None, None]

    def smooth(values: np.ndarray) -> torch.Tensor:
        return F.conv2d(torch.from_numpy(values.astype(np.float64)).unsqueeze(1), window)

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x.astype(np.float64) ** 2) - mean_x**2, smooth(y.astype(np.float64) ** 2) - mean_y**2
    both = smooth(x.astype(np.float64) * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return float((((2 * mean_x * mean_y + c1) * (2 * both + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())
