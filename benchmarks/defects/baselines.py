"""What a defect detector is compared with: detectors that learn from good images alone.

A detector is fitted to good images (n, h, w) and gives a score to each image, and a map of suspicion where it has one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from pyod.models.copod import COPOD
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lof import LOF
from pyod.models.ocsvm import OCSVM
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from torch import Tensor

from vlae.engine.batches import CODE, normal
from vlae.engine.measure import PIXELS_AT_ONCE
from vlae.engine.run import Run
from vlae.units import bits


class Scored(NamedTuple):
    """Of n images: scores (n,), and maps (n, h, w) or None."""

    scores: np.ndarray
    maps: np.ndarray | None


@runtime_checkable
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
        self.pca = PCA(min(self.components, len(good) - 1), random_state=0).fit(_flat(good))
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
        mean = sum(self._patches(batch).sum(0) for batch in _batches(good)) / len(good)
        self.mean = mean.mean(1, keepdim=True) if self.places == "one" else mean
        second = sum(g @ g.mT for g in map(self._grouped, _batches(good)))
        covariance = second / (len(good) if self.places == "each" else len(good) * mean.shape[1])
        variance = covariance.diagonal(dim1=1, dim2=2).mean(1)
        ridge = 0.01 * variance[:, None, None] * torch.eye(self.size**2)
        self.root = torch.linalg.cholesky(covariance + ridge)
        return self

    def maps(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([self._map(batch) for batch in _batches(images)])

    def _map(self, images: Tensor) -> np.ndarray:
        count, _, height, width = images.shape
        distance = torch.linalg.solve_triangular(self.root, self._grouped(images), upper=False).square().mean(1)
        pattern = "l b -> b l" if self.places == "each" else "1 (b l) -> b l"
        inside = rearrange(distance, pattern, b=count).reshape(count, 1, height // self.scale - self.size + 1, width // self.scale - self.size + 1)
        whole = F.pad(inside, (self.size // 2,) * 4, mode="replicate")
        return F.interpolate(whole, (height, width), mode="bilinear").squeeze(1).numpy()

    def _patches(self, images: Tensor) -> Tensor:
        """(b, d, l): the d pixels of the patches at l places."""
        return F.unfold(F.avg_pool2d(images, self.scale), self.size)

    def _grouped(self, images: Tensor) -> Tensor:
        """Patches less their mean, (g, d, m): m of them for each of the g Gaussians."""
        return rearrange(self._patches(images) - self.mean, "b d l -> l d b" if self.places == "each" else "b d l -> 1 d (b l)")


PYOD = {"IForest": IForest, "KNN": KNN, "OCSVM": OCSVM, "ECOD": ECOD, "COPOD": COPOD, "LOF": LOF}
"""Zhao et al. 2019, arXiv:1901.01588"""


@dataclass
class OnComponents:
    """A detector of PyOD on the principal components of good images, scaled to variance one where ``whiten`` is set."""

    name: str
    components: int
    whiten: bool = False

    def fit(self, good: np.ndarray) -> Self:
        self.pca = PCA(min(self.components, len(good) - 1), whiten=self.whiten, random_state=0)
        found = self.pca.fit_transform(_flat(good))
        self.detector = IForest(random_state=0) if self.name == "IForest" else PYOD[self.name]()
        self.detector.fit(found)
        return self

    def scores(self, images: np.ndarray) -> Scored:
        return Scored(self.detector.decision_function(self.pca.transform(_flat(images))), None)


@dataclass
class Trained:
    """A run of ``vlae train``, which has learned already: the bits of each pixel given the code, or the squared error of its expectation.

    Of a run without a window that is the reconstruction error of a plain VAE; the bits of one without a code are the raw likelihood of a
    PixelCNN. The code is the mean of the posterior.
    """

    run: Run = field(repr=False)
    error: str = "bits"

    def fit(self, good: np.ndarray) -> Self:
        self.model = self.run.model(torch.device("cpu"))
        return self

    @torch.no_grad()
    def maps(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([self._map(x) for x in _batches(images)])

    def _map(self, x: Tensor) -> np.ndarray:
        z = None if self.model.encoder is None else self.model.posterior(x).mean
        pixels = self.model.decoder(z, x)
        if self.error == "bits":
            return bits(-pixels.log_prob(x).numpy())
        expected = (pixels.logits.softmax(1).unsqueeze(2) * pixels.means).sum(1).clamp(-1, 1)
        return (self.model.decoder.scaled(x) - expected).square().sum(1).numpy()


@dataclass
class Bound:
    """A trained run: the bits that the bound gives to the whole image, code included, for each pixel; the map is that of its pixels."""

    run: Run = field(repr=False)

    def fit(self, good: np.ndarray) -> Self:
        self.model = self.run.model(torch.device("cpu"))
        return self

    @torch.no_grad()
    def scores(self, images: np.ndarray) -> Scored:
        noise = normal(self.model.code_shape(*images.shape[1:]), 0, CODE, 0)  # the same for each image: no score depends on another image
        terms = [self.model(x, noise.expand(len(x), *noise.shape)) for x in _batches(images)]
        bound = np.concatenate([t.elbo.double().numpy() for t in terms]) / images[0].size
        return Scored(bits(-bound), bits(-np.concatenate([t.log_px_z_map.numpy() for t in terms])))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def _batches(images: np.ndarray) -> Iterator[Tensor]:
    """Images (b, 1, h, w) as levels, as many at once as the networks take."""
    each = max(1, PIXELS_AT_ONCE // images[0].size)
    for first in range(0, len(images), each):
        yield torch.from_numpy(images[first : first + each].astype(np.float32)).unsqueeze(1)
