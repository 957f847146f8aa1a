"""Audit: what the code of a run keeps, measured on images: against changes, by spatial frequency, by factors, and by what people see."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlae.core.vlae import VLAE
from vlae.data.source import LeftOut
from vlae.engine.batches import random
from vlae.engine.device import find_device
from vlae.engine.kept.audit import Audit, Site, Term
from vlae.engine.kept.blind import site
from vlae.engine.kept.changes import CHANGES, Images, changed
from vlae.engine.kept.contract import Contract, above_term
from vlae.engine.kept.spectrum import Spectrum, bands, powers, spectrum, together
from vlae.engine.kept.subjects import Progress, Subjects, decode_all, half_away, subjects
from vlae.engine.kept.swap import Swap, explained, mean_interval, swap
from vlae.engine.measure import Group, noise_for
from vlae.engine.memory import keep_freed_memory
from vlae.engine.probe import Readout, read_off
from vlae.engine.run import Run

DECODINGS = 4
SHOWN = 3
# Streams of random numbers: of the changes, and of the bootstraps, which draw the same images for every change.
CHANGED, RESAMPLED = 300, 301


class Audited(NamedTuple):
    """What was found; a few images and a decoding of each, (n, c, h, w), for a picture of it; and which images were left out."""

    audit: Audit
    originals: Tensor
    decodings: Tensor
    left_out: tuple[LeftOut, ...]


def audit(
    run: Run,
    images: Path | None = None,
    limit: int = 64,
    contract: Contract | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Audited:
    """Measure what the code of a run keeps; the result is kept in the run as ``results/audit.json``.

    Args:
        run: the run; its averaged weights are used.
        images: an image or a folder of images; None for the run's own held-out ones.
        limit: how many images, at most.
        contract: what should be kept; the result tells of each term whether it is (``contract.check`` raises where it is not).
        device: where to compute.
        progress: told the steps done and all.

    Raises:
        SettingError: the model has no code, or the contract cannot be measured on these images.
        DataError: there are too few images.
        DiskError: nothing can be written into the run.
    """
    keep_freed_memory()
    weights, model = run.fingerprint(), run.model(find_device(device))
    seen = subjects(run, model, images, limit)
    run.check_results()
    tell, seed = _counter(len(CHANGES) + DECODINGS + 1, progress), run.settings.train.seed
    other, swaps = _swaps(model, seen, run, tell)
    low, high = mean_interval(other, random(seed, RESAMPLED, 0))
    decodings = _decodings(model, seen.group, seed, tell)
    found = _spectrum(seen.group.x, decodings, seed)
    result = Audit(
        images=len(seen.names),
        source=seen.source,
        height=seen.group.x.shape[2],
        width=seen.group.x.shape[3],
        cut=seen.cut,
        other_bits=float(other.mean()),
        other_low=low,
        other_high=high,
        swaps=swaps,
        idle=tuple(name for name in CHANGES if name not in {swap.change for swap in swaps}),
        spectrum=found,
        readouts=_readouts(run, model) if images is None else (),
        terms=(*(contract.terms(swaps, found) if contract else ()), *_wish(run, found)),
        weights=weights,
    )
    next(tell)
    result.write(run)
    few = np.linspace(0, len(seen.names) - 1, SHOWN).round().astype(int)
    return Audited(result, seen.group.x[few], decodings[0][few], seen.left_out)


def confirm(run: Run, answers: Path) -> Site:
    """Read what people answered to the sheet of a run; the result is kept in the run as ``results/audit-site.json``.

    Raises:
        DataError: the answers or their key cannot be used.
        DiskError: nothing can be written into the run.
    """
    result = site(answers, run.fingerprint())
    result.write(run)
    return result


def _swaps(model: VLAE, seen: Subjects, run: Run, tell: Iterator[None]) -> tuple[np.ndarray, tuple[Swap, ...]]:
    """Bits that other images' codes cost more than the images' own, and the swap cost of each change that changes anything."""
    seed, x, others = run.settings.train.seed, seen.group.x, seen.others
    noise = noise_for(model, seen.group, seed)
    own = explained(model, x, x, noise)
    other = explained(model, x, others, noise) - own
    pixels = Images(x.double().numpy(), others.double().numpy(), 2**run.facts.depth - 1)
    swaps = []
    for number, name in enumerate(CHANGES):
        y = changed(name, pixels, random(seed, CHANGED, number))
        if (y != pixels.x).any():
            cost = explained(model, x, torch.from_numpy(y).to(x), noise) - own
            swaps.append(swap(name, cost, other, random(seed, RESAMPLED, 0)))
        next(tell)
    return other, tuple(swaps)


def _decodings(model: VLAE, group: Group, seed: int, tell: Iterator[None]) -> list[Tensor]:
    """Several decodings of each image's code."""
    several = []
    for sample in range(DECODINGS):
        several.append(decode_all(model, group, seed, sample))
        next(tell)
    return several


def _spectrum(x: Tensor, decodings: list[Tensor], seed: int) -> Spectrum:
    """What survives by spatial frequency."""
    pixels, frequencies = x.double().numpy(), bands(*x.shape[2:]).frequencies
    own = [powers(pixels, y.double().numpy()) for y in decodings]
    other = [powers(pixels, half_away(y).double().numpy()) for y in decodings]
    return spectrum(together(own), together(other), frequencies, random(seed, RESAMPLED, 1))


def _readouts(run: Run, model: VLAE) -> tuple[Readout, ...]:
    """How well the known factors are read off the code; none without test images."""
    images = run.images()
    return read_off(run, images, model) if images.factors and len(images.indices("test")) else ()


def _wish(run: Run, found: Spectrum) -> tuple[Term, ...]:
    above = run.settings.keep.above
    return () if above is None else (above_term("training", above, found),)


def _counter(total: int, progress: Progress | None) -> Iterator[None]:
    """Tells one more step done each time that it is asked."""
    for done in range(1, total + 1):
        if progress:
            progress(done, total)
        yield
