"""What a defect detector is compared with: detectors that learn from good images alone.

A detector is fitted to good images (n, h, w) and gives a score to each image, and a map of suspicion where it has one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from pyod.models.copod import COPOD
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lof import LOF
from pyod.models.ocsvm import OCSVM
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from torch import Tensor

from vlae.engine.measure import Group, noise_for
from vlae.engine.run import Run
from vlae.units import bits

AT_ONCE = 16
"""images that are scored together"""


class Scored(NamedTuple):
    """Of n images: scores (n,), and maps (n, h, w) or None."""

    scores: np.ndarray
    maps: np.ndarray | None


class Detector(Protocol):
    """What the benchmark compares."""

    def fit(self, good: np.ndarray) -> Self:
        """Learn from good images, (n, h, w) uint8."""
        ...

    def scores(self, images: np.ndarray) -> Scored:
        """Score images."""
        ...


class Mapper(Protocol):
    """A detector that says of every pixel how suspicious it is."""

    def fit(self, good: np.ndarray) -> Self:
        """Learn from good images, (n, h, w) uint8."""
        ...

    def maps(self, images: np.ndarray) -> np.ndarray:
        """The suspicion at each pixel, (n, h, w) float32."""
        ...


@dataclass
class Pooled:
    """A map, smoothed by a Gaussian of ``smooth`` pixels, and its mean, maximum or the mean of its highest hundredth as the score."""

    of: Mapper
    smooth: float = 0.0
    pool: str = "mean"

    def fit(self, good: np.ndarray) -> Self:
        self.of.fit(good)
        return self

    def scores(self, images: np.ndarray) -> Scored:
        return self.pooled(self.of.maps(images))

    def pooled(self, maps: np.ndarray) -> Scored:
        """Scores of maps that are there already."""
        maps = gaussian_filter(maps, (0, self.smooth, self.smooth)) if self.smooth else maps
        flat = maps.reshape(len(maps), -1)
        if self.pool == "highest 1%":
            count = max(1, flat.shape[1] // 100)
            return Scored(np.partition(flat, -count, axis=1)[:, -count:].mean(1), maps)
        return Scored(flat.max(1) if self.pool == "max" else flat.mean(1, dtype=np.float64), maps)


@dataclass
class Reconstruction:
    """The squared error of each pixel after projection onto the principal components of good images."""

    components: int

    def fit(self, good: np.ndarray) -> Self:
        self.pca = PCA(min(self.components, len(good) - 1), svd_solver="full").fit(_flat(good))
        return self

    def maps(self, images: np.ndarray) -> np.ndarray:
        x = _flat(images)
        return np.square(x - self.pca.inverse_transform(self.pca.transform(x))).reshape(images.shape)


@dataclass
class PatchGaussian:
    """The squared Mahalanobis distance of the patch around each pixel, divided by the patch's number of pixels.

    Images are averaged over ``scale`` x ``scale`` pixels first. ``places``: the patches of all places share one Gaussian ("one"), share the
    covariance but have a mean for each place ("mean"), or each place has a Gaussian of its own ("each", as in Defard et al. 2021,
    arXiv:2011.08785, on pixels). A hundredth of the mean variance is added to the diagonals of covariances.
    """

    size: int = 5
    scale: int = 1
    places: str = "one"

    def fit(self, good: np.ndarray) -> Self:
        self.mean = self._mean(good)
        second, count = torch.zeros(()), 0
        for batch in _batches(good):
            centred = self._patches(batch) - self.mean
            if self.places != "each":
                centred = centred.flatten(1).unsqueeze(0).transpose(0, 1).reshape(1, -1, centred.shape[1], centred.shape[2])
            second, count = second + torch.einsum("bdp,bep->pde", centred, centred), count + len(batch)
        return self

    def maps(self, images: np.ndarray) -> np.ndarray:
        ...
