"""Batches of a training: which images, which crops and which noise, all from the seed and the number of the step alone.

So a resumed training sees what an uninterrupted one would have, and several processes share one global batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlae.core.vlae import VLAE
from vlae.data import batches as data
from vlae.data.imageset import ImageSet
from vlae.engine.settings import Settings, Train
from vlae.errors import DataError, SettingError

# Streams of random numbers that must not meet.
ORDER, CROPS, DYNAMIC, CODE, PIXELS, MOVES, SHOWN = range(7)


class Batch(NamedTuple):
    """Images as levels, (b, c, h, w), standard normal noise for their codes, and what the decoder is shown of the images, where it is not they."""

    x: Tensor
    noise: Tensor
    shown: Tensor | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with each of its tensors changed."""
        return Batch(change(self.x), change(self.noise), None if self.shown is None else change(self.shown))


def random(seed: int, stream: int, number: int) -> np.random.Generator:
    """NumPy's generator for one use."""
    return np.random.default_rng([seed, stream, number])


def normal(shape: tuple[int, ...], seed: int, stream: int, number: int) -> Tensor:
    """Standard normal noise, the same on every device, in float32."""
    return torch.from_numpy(random(seed, stream, number).standard_normal(shape, dtype=np.float32))


def uniform(shape: tuple[int, ...], seed: int, number: int) -> Tensor:
    """Uniforms in the open interval (0, 1) for the pixels of image ``number``, in float32."""
    drawn = random(seed, PIXELS, number).integers(0, 2**24, shape)
    return torch.from_numpy((drawn + 0.5) / 2**24).clamp(max=1 - 2**-24).float()


@dataclass
class Batches:
    """The share of one process in the global batches of a training."""

    images: ImageSet
    settings: Settings
    model: VLAE
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        self.training = self.images.indices("train")
        self._order: tuple[int, np.ndarray] = (-1, self.training)
        batch = self.settings.train.batch
        check_batch(self.settings, len(self.training))
        if batch % self.processes:
            raise SettingError(
                "train.batch cannot be shared out",
                rule="It must be a multiple of the number of processes",
                found=f"train.batch={batch} and {self.processes} processes",
                do=f"Set train.batch={batch - batch % self.processes or self.processes}",
            )

    def __call__(self, step: int) -> Batch:
        """The part of this process in the batch of a step."""
        each = self.settings.train.batch // self.processes
        whole = self.whole(step)
        mine = slice(self.rank * each, (self.rank + 1) * each)
        return whole.mapped(lambda t: t[mine])

    def whole(self, step: int) -> Batch:
        """The global batch of a step, counted from 0."""
        train = self.settings.train
        seed, size = train.seed, train.batch
        chosen = np.array([self._image(step * size + k) for k in range(size)])
        if train.crop:
            pixels = crops(self.images, chosen, train, step)
        else:
            pixels = data.stack(self.images, chosen)
        shift = train.shift if step < train.steps * (train.shift_until or 1) else 0
        if shift or train.mirror:
            pixels = data.moved(pixels, shift, train.mirror, random(seed, MOVES, step))
        if self.images.dynamic:
            pixels = data.binarise_dynamic(pixels, random(seed, DYNAMIC, step))
        x = as_levels(pixels)
        return Batch(x, normal((size, *self.model.code_shape(*x.shape[2:])), seed, CODE, step), self._shown(x, step))

    def _shown(self, x: Tensor, step: int) -> Tensor | None:
        """Images with noise on them, as the decoder is to see the pixels before each; None where it sees them as they are."""
        if not self.settings.keep.noise:
            return None
        deviation = self.settings.keep.noise / 255 * (self.model.decoder.head.levels - 1)
        return x + deviation * normal(tuple(x.shape), self.settings.train.seed, SHOWN, step)

    def _image(self, position: int) -> int:
        """The image at a position in the endless sequence of epochs, each a new permutation."""
        epoch, place = divmod(position, len(self.training))
        if self._order[0] != epoch:
            self._order = (epoch, random(self.settings.train.seed, ORDER, epoch).permutation(self.training))
        return int(self._order[1][place])


def crops(images: ImageSet, numbers: np.ndarray, train: Train, number: int) -> np.ndarray:
    """A crop of each of some images, as the settings want them, at the places of use ``number``."""
    assert train.crop
    return data.crops(images, numbers, train.crop, random(train.seed, CROPS, number), train.crop_step or 1)


def check_batch(settings: Settings, training: int) -> None:
    """Refuse a batch that is larger than all the training images.

    Raises:
        DataError: it is.
    """
    batch = settings.train.batch
    if batch > training:
        raise DataError(
            "There are fewer training images than a batch holds",
            rule="train.batch must be at most the number of training images",
            found=f"{training} images and train.batch={batch}",
            do=f"Set train.batch={max(1, training // 2)}",
        )


def as_levels(pixels: np.ndarray) -> Tensor:
    """Pixels of a cache as floats, channels last in memory."""
    return torch.from_numpy(pixels.astype(np.float32)).contiguous(memory_format=torch.channels_last)
