"""The detector of the house, as the benchmark compares it: a run that is calibrated on what it was trained on, and looks at images."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch

from defects.baselines import Scored
from vlae.data.convert import resize
from vlae.engine.inspection.inspect import reference_of
from vlae.engine.inspection.look import Look, look
from vlae.engine.measure import PIXELS_AT_ONCE
from vlae.engine.run import Run


@dataclass
class Ours:
    """A run. Its reference is made from the images that it was trained on and chosen by."""

    run: Run = field(repr=False)

    def fit(self, good: np.ndarray) -> Self:
        """Learn what good parts look like; ``good`` are images of the run, which has them itself."""
        self.model = self.run.model(torch.device("cpu"))
        self.reference, _ = reference_of(self.run, self.model, self.run.images())
        return self

    def scores(self, images: np.ndarray) -> Scored:
        """The strongest evidence in each image, and at each pixel."""
        found = list(self.looks(images))
        maps = np.stack([one.map for one in found])
        rows, columns = (np.arange(wanted) * had // wanted for wanted, had in zip(images.shape[1:], maps.shape[1:], strict=True))
        return Scored(np.array([one.score for one in found]), maps[:, rows][:, :, columns])

    def looks(self, images: np.ndarray) -> Iterator[Look]:
        """What the run makes of each image, at the size that it was trained on."""
        size = self.run.settings.data.size or images.shape[1:]
        seen = images if size == images.shape[1:] else np.stack([resize(i[..., None], size, 8)[..., 0] for i in images])
        each = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
        for first in range(0, len(seen), each):
            yield from look(self.model, self.reference, torch.from_numpy(seen[first : first + each].astype(np.float32))[:, None])
