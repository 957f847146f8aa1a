"""The codec of a run: the integer twin of its decoder and the codebook of its codes, calibrated on its training images."""

from collections.abc import Callable

import torch
from torch import Tensor

from vlae.archive.codebook import Codebook
from vlae.archive.codec import Codec
from vlae.archive.coder import encode
from vlae.archive.twin import twin
from vlae.core.vlae import VLAE
from vlae.engine.batches import as_levels, crops
from vlae.engine.build import decoder_plan
from vlae.engine.measure import load
from vlae.engine.run import Run
from vlae.errors import RunError

PIXELS = 2**18
"""to calibrate with, at most"""
COARSENESS = (0.5, 1.0, 2.0, 8.0, 64.0)
"""Steps of the code that are tried: in the posterior's standard deviations, but for a factor. The last leave nothing of a code that does not pay."""


def codec_of(run: Run) -> Codec:
    """The codec of a run: of several codebooks the one that makes a few images smallest.

    Raises:
        RunError: its decoder has no integer twin.
    """
    model = run.model(torch.device("cpu"))
    plan, x = decoder_plan(run.settings, run.facts), _examples(run)
    try:
        if model.encoder is None:
            return Codec(plan, twin(model.decoder, None, x), None, run.fingerprint())
        few = x[::4]
        smallest = min(COARSENESS, key=lambda coarseness: _bits(_with_code(model, few, coarseness, run), model, few))
        return _with_code(model, x, smallest, run)
    except (NotImplementedError, ValueError) as error:
        what, why = f"{run.folder} cannot write archives", str(error)[0].upper() + str(error)[1:]
        raise RunError(what, rule=why, do="Train a run of these images with keep.context=pixels, as vlae train does by default") from None


def encoder_of(model: VLAE) -> Callable[[Tensor], Tensor] | None:
    """What makes codes of images, as levels; None without a code."""
    return None if model.encoder is None else lambda x: model.posterior(x).centre


@torch.no_grad()
def _with_code(model: VLAE, x: Tensor, coarseness: float, run: Run) -> Codec:
    posterior = model.posterior(x)
    codebook = Codebook.of(posterior.centre, posterior.log_std.exp(), coarseness)
    z = codebook.code(codebook.index(posterior.centre)).to(x.dtype)
    return Codec(decoder_plan(run.settings, run.facts), twin(model.decoder, z, x), codebook, run.fingerprint())


@torch.no_grad()
def _bits(codec: Codec, model: VLAE, x: Tensor) -> float:
    assert codec.codebook is not None
    return sum(e.code_bits + e.pixel_bits for e in encode(codec, codec.codebook.index(model.posterior(x).centre), x.to(codec.twin.dtype)))


def _examples(run: Run) -> Tensor:
    """Training images, evenly spaced, or a crop of each."""
    images, train = run.images(), run.settings.train
    numbers = images.indices("train")
    side = train.crop**2 if train.crop else max(images.shape(int(n))[0] * images.shape(int(n))[1] for n in numbers)
    numbers = numbers[:: max(1, len(numbers) * side // PIXELS)]
    if train.crop:
        return as_levels(crops(images, numbers, train, 2**34))
    return load(images, numbers, train.seed)
