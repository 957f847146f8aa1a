"""How well scores and maps tell the spoiled from the good. Higher is more suspicious throughout."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

FALSE_POSITIVES = 0.3
RESAMPLES = 300


def auroc(good: np.ndarray, spoiled: np.ndarray) -> float:
    """Probability that a spoiled image scores higher than a good one.

    >>> auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    1.0
    """
    return float(roc_auc_score(*_labelled(good, spoiled)))


def average_precision(good: np.ndarray, spoiled: np.ndarray) -> float:
    """The precision averaged over the spoiled images, from the most suspicious down."""
    return float(average_precision_score(*_labelled(good, spoiled)))


def _labelled(good: np.ndarray, spoiled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0, 1], [len(good), len(spoiled)]), np.concatenate([good, spoiled])


def pixel_auroc(maps: np.ndarray, masks: np.ndarray) -> float:
    """Probability that a spoiled pixel is brighter in the maps than a good one, over all images together."""
    return float(roc_auc_score(masks.ravel(), maps.ravel()))


def aupro(maps: np.ndarray, masks: np.ndarray, most: float = FALSE_POSITIVES) -> float:
    """The area under the per-region overlap against false positives, up to a share of them, divided by that share.

    At a threshold, the overlap is the marked share of each connected region of the masks (corners connect), averaged over regions; the
    false positives are the marked share of all good pixels (Bergmann et al. 2021, doi:10.1007/s11263-020-01400-4). Exact: every value of
    the maps is a threshold, and the curve is straight in between.

    Args:
        maps: (n, h, w), of good and spoiled images.
        masks: (n, h, w), booleans.
        most: the share of false positives to stop at.
    """
    weights, regions = np.zeros(masks.shape), 0
    for weight, mask in zip(weights, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        weight[mask] = (1 / np.bincount(labels.ravel()))[labels[mask]]
        regions += count
    order = np.argsort(-maps, axis=None, kind="stable")
    last_of_value = np.append(np.diff(maps.ravel()[order]) != 0, True)
    overlap = np.cumsum(weights.ravel()[order])[last_of_value] / regions
    false = np.cumsum(~masks.ravel()[order])[last_of_value] / (~masks).sum()
    overlap, false = np.append(0.0, overlap), np.append(0.0, false)
    # Up to the limit, and on it by interpolation: of a vertical step np.interp would take either end.
    end = int(np.searchsorted(false, most, side="right"))
    if end < len(false):
        at = overlap[end - 1] + (overlap[end] - overlap[end - 1]) * (most - false[end - 1]) / (false[end] - false[end - 1])
        overlap, false = np.append(overlap[:end], at), np.append(false[:end], most)
    return float(np.trapezoid(overlap, false) / most)


def resampled(measure: Callable[[np.ndarray], float], lots: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """The 95% interval of a measure, by drawing lots with replacement (Efron 1979); it is handed the numbers of the images that were drawn.

    A draw without one of the two classes says nothing and is left out.
    """
    rng, members = np.random.default_rng(seed), [np.flatnonzero(np.array(lots) == lot) for lot in sorted(set(lots))]
    draws = (np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))]) for _ in range(RESAMPLES))
    found = [value for value in map(measure, draws) if np.isfinite(value)]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
