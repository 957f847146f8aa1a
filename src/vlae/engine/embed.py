"""The codes of images as rows of numbers, each with how certain it is: what search, classifiers and probes read.

n images, D numbers of a code.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vlae.core.codes import Posterior
from vlae.core.vlae import VLAE
from vlae.data.imageset import ImageSet
from vlae.engine.batches import normal
from vlae.engine.measure import groups, placed

Numbers = npt.NDArray[np.float64]

# A grid code is averaged down to at most so many places a side: fine enough for positions, and the same for images of any size.
PLACES = 8
# Draws that tell how wide a posterior is that a flow has bent, and their stream of random numbers.
DRAWS, WIDTH = 16, 200


class Codes(NamedTuple):
    """The middle of each image's posterior q(z|x) and its standard deviation, number by number: each (n, D)."""

    mean: Numbers
    std: Numbers


@torch.no_grad()
def embed(
    model: VLAE,
    images: ImageSet,
    numbers: npt.NDArray[np.int64],
    places: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Codes:
    """The codes of images in the order of ``numbers``; grids are averaged down to ``places`` a side, channel by channel.

    Args:
        model: one with a code.
        images: where they are.
        numbers: which of them.
        places: as ``common_places`` gives it.
        seed: for images that are binarised at random.
        progress: told the images done and all.
    """
    rows: dict[int, tuple[Numbers, Numbers]] = {}
    for group in groups(images, numbers, seed):
        mean, std = summary(model.posterior(placed(group.x, model)), places)
        rows |= dict(zip(group.numbers.tolist(), zip(mean, std, strict=True), strict=True))
        if progress:
            progress(len(rows), len(numbers))
    return Codes(np.stack([rows[n][0] for n in numbers.tolist()]), np.stack([rows[n][1] for n in numbers.tolist()]))


def summary(posterior: Posterior, places: int) -> Codes:
    """The middle and the width of the posteriors of a batch."""
    mean, variance = posterior.centre, _variance(posterior)
    if mean.dim() == 4:
        # The mean of m independent numbers has a variance m times smaller than the mean of theirs.
        rows, columns = (_averaged(side, places).to(mean) for side in mean.shape[2:])
        mean, variance = F.adaptive_avg_pool2d(mean, places), F.adaptive_avg_pool2d(variance, places) / (rows[:, None] * columns)
    return Codes(*(t.flatten(1).double().cpu().numpy() for t in (mean, variance.sqrt())))


def _averaged(side: int, places: int) -> Tensor:
    """How many places of a side each of fewer places is the average of, (places,): neighbours share some where they do not divide the side.

    >>> _averaged(9, 4).tolist()
    [3, 3, 3, 3]
    """
    return torch.tensor([-(-(n + 1) * side // places) - n * side // places for n in range(places)])


def _variance(posterior: Posterior) -> Tensor:
    if posterior.flow is None:
        return torch.exp(2 * posterior.log_std)
    like = posterior.mean
    noises = [normal(tuple(like.shape[1:]), 0, WIDTH, n).to(like.device, like.dtype).expand_as(like) for n in range(DRAWS)]
    return torch.stack([posterior.sample(noise).z for noise in noises]).var(0)


def common_places(model: VLAE, images: ImageSet) -> int:
    """How many places a side all grids of these images can be averaged down to."""
    sides = (side for height, width in {tuple(s) for s in images.sizes.tolist()} for side in model.code_shape(height, width)[1:])
    return min([PLACES, *sides])
