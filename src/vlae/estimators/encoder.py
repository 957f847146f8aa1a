"""Codes of images as features."""

import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from vlae.engine.batches import CODE, normal, uniform
from vlae.engine.embed import Numbers
from vlae.errors import SettingError
from vlae.estimators.form import Array
from vlae.estimators.modelled import Modelled

# One image trains, and one tells which weights are the best.
LEAST = 2


class VLAEEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Modelled):  # type: ignore[misc]
    """The codes of images as features (Chen et al. 2017, arXiv:1611.02731).

    X is an array of images, (n, h, w) or (n, h, w, c), or has a row for each image. Values of bool, uint8 and uint16 are the levels of 1, 8 and 16
    bits. Of any other type (real numbers, or whole ones as tables hold them) the smallest and the largest that ``fit`` sees become black and white,
    with 256 levels between; what lies beyond them later is cut off.

    A fitted estimator can be pickled: it keeps the run's files, and no folder.

    Args:
        run: the folder of a run or the name of a model of the zoo: nothing is trained, X is as that model's images are, and ``fit`` only checks it.
        shape: height and width, and colours if there are several, of an image that is given as a row; by default a row is an image one pixel high.
        depth: bits of a value as the model sees it: 1, 8 or 16; auto, those of the type.
        steps: updates of the weights.
        keep: what the code keeps: layout, shape, detail or everything.
        settings: any other settings, as ``group.name=value``.
        random_state: for the division, the training, ``score`` and the decodings.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    >>> model = make_pipeline(VLAEEncoder(steps=2), LogisticRegression()).fit(images, images[:, 0, 0] > 127)
    >>> model[0].transform(images).shape, model[0].inverse_transform(np.zeros((3, 32))).shape
    ((40, 32), (3, 8, 8))
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on images, nine of ten of them; the others tell which weights are the best.

        Raises:
            ValueError: X holds no images, or not those of the run.
            VlaeError: a setting cannot be honoured, or the model has no code.
        """
        with self._fitting(), tempfile.TemporaryDirectory() as folder:
            self._use(self._form(*self._rows(X, LEAST)), Path(folder))
            if self._model.encoder is None:
                raise SettingError(
                    "This model has no code", rule="Features are codes: keep.code is vector or grid", do="Give other settings or another run"
                )
            self._n_features_out = int(np.prod(self._model.code_shape(*self.form_.size[:2])))
        return self

    @torch.no_grad()
    def transform(self, X: Any) -> Numbers:
        """The middles of the posteriors q(z|x), (n, D): of a grid code all its places."""
        parts = [self._model.posterior(x).centre.flatten(1) for _, x in self._batches(X)]
        return torch.cat(parts).double().numpy()

    @torch.no_grad()
    def inverse_transform(self, X: Any) -> Array:
        """One decoding of each code, (n, D), as images of the form that ``fit`` was given; the code's share is right, the rest is made up."""
        check_is_fitted(self)
        height, width, _ = self.form_.size
        rows = check_array(X, dtype=np.float32)
        if rows.shape[1] != self._n_features_out:
            raise ValueError(f"A code has {self._n_features_out} numbers; got {rows.shape[1]}.")
        codes = torch.from_numpy(rows).unflatten(1, self._model.code_shape(height, width))
        shape, each = (self._model.decoder.head.uniforms, height, width), self._at_once
        parts = [
            self._model.decoder.sample(some, torch.stack([uniform(shape, self.seed_, first + n) for n in range(len(some))]))
            for first, some in zip(range(0, len(codes), each), codes.split(each), strict=True)
        ]
        return self.form_.values(torch.cat(parts).double().numpy())

    @torch.no_grad()
    def score(self, X: Any, y: Any = None) -> float:
        """The mean bound on log p(x), in nats an image: the higher the better, for models of levels of the same depth."""
        check_is_fitted(self)
        shape = self._model.code_shape(*self.form_.size[:2])
        parts = [
            self._model(x, torch.stack([normal(shape, self.seed_, CODE, first + n) for n in range(len(x))])).elbo for first, x in self._batches(X)
        ]
        return float(torch.cat(parts).double().mean())
