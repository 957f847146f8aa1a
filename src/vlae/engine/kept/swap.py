"""The swap cost: what it costs to explain an image with the code of a changed one. What is dear was kept, what is free was ignored.

n images.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlae.core.vlae import VLAE
from vlae.engine.measure import PIXELS_AT_ONCE, placed
from vlae.units import bits

Numbers = npt.NDArray[np.float64]
Verdict = Literal["kept", "partly", "ignored", "unclear"]

# Shares of what another image's code costs: kept above the one, ignored below the other.
KEPT, IGNORED = 0.1, 0.02
# What is no dearer than a bit does not tell even two images apart.
LEAST_BITS = 1.0
RESAMPLES = 1000


@dataclass(frozen=True)
class Swap:
    """What a change costs: -log2 p(x|z~q(z|Tx)) + log2 p(x|z~q(z|x)), the mean over images, with the same noise for both codes."""

    change: str
    bits: float
    """an image"""
    share: float
    """of what the code of another image costs: the ratio of the means"""
    low: float
    high: float
    """bounds of its 95% bootstrap interval, over the images"""
    verdict: Verdict
    """kept: ``low`` is above ``KEPT``. ignored: ``high`` is below ``IGNORED``. partly: of the rest, ``low`` is above 0. unclear: it is not;
    or another image's code costs next to nothing either, or it is not known whether it does; or a cost is not finite"""


@torch.no_grad()
def explained(model: VLAE, x: Tensor, source: Tensor, noise: Tensor) -> Numbers:
    """``-log2 p(x|z)`` of images with z drawn from q(z|source), in bits an image, (n,).

    Args:
        model: one with a code.
        x: the images to explain, as levels, (n, c, h, w).
        source: those whose codes explain them, of the same shape.
        noise: standard normal, of the codes' shape.
    """
    each = max(1, PIXELS_AT_ONCE // (x.shape[2] * x.shape[3]))
    found = []
    for image, seen, drawn in zip(x.split(each), source.split(each), noise.split(each), strict=True):
        z = model.posterior(placed(seen, model)).sample(placed(drawn, model)).z
        found.append(-model.decoder(z, placed(image, model)).log_prob(placed(image, model)).flatten(1).sum(1).double().cpu())
    return torch.cat(found).numpy() * bits(1)


def swap(change: str, cost: Numbers, other: Numbers, rng: np.random.Generator) -> Swap:
    """A change's share of what another image's code costs, and what follows from it.

    Args:
        change: its name.
        cost: bits that the code of the changed image costs more than the image's own, (n,).
        other: bits that another image's code costs more, (n,).
        rng: for the bootstrap (Efron 1979).
    """
    drawn = rng.integers(0, len(cost), (RESAMPLES, len(cost)))
    below = other[drawn].mean(1)
    if not np.isfinite([cost, other]).all() or min(np.percentile(below, 2.5), other.mean()) < LEAST_BITS:
        return Swap(change, float(cost.mean()), 0.0, 0.0, 0.0, "unclear")
    # A resample without a cost to take shares of is as far out as there is.
    shares = np.where(below > 0, cost[drawn].mean(1) / np.where(below > 0, below, 1), np.inf)
    low, high = np.percentile(shares, [2.5, 97.5], method="nearest").tolist()
    return Swap(change, float(cost.mean()), float(cost.mean() / other.mean()), low, high, verdict(low, high))


def verdict(low: float, high: float) -> Verdict:
    """What the interval of a share says.

    >>> verdict(0.11, 0.2), verdict(-0.01, 0.01), verdict(0.05, 0.2), verdict(-0.1, 0.1)
    ('kept', 'ignored', 'partly', 'unclear')
    """
    if low > KEPT:
        return "kept"
    if high < IGNORED:
        return "ignored"
    return "partly" if low > 0 else "unclear"


def mean_interval(values: Numbers, rng: np.random.Generator) -> tuple[float, float]:
    """The 95% bootstrap interval of a mean over images."""
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5]).tolist()
    return low, high
