"""Evaluate: what the images of a split cost, in bits of code and bits of pixels, and how alike their decodings are."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlae.core.estimate import Estimate, importance_sampled
from vlae.core.vlae import VLAE
from vlae.data.imageset import ImageSet
from vlae.engine.batches import CODE, normal
from vlae.engine.device import arithmetic, find_device
from vlae.engine.formats import finite, read_lines, write_text
from vlae.engine.measure import PIXELS_AT_ONCE, Cost, Group, chosen, costs, decode, groups, joined, placed
from vlae.engine.memory import keep_freed_memory
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.engine.similarity import psnr, ssim
from vlae.errors import SettingError
from vlae.units import bits

Progress = Callable[[int, int], None]

DECODED_IMAGES = 16
MOST_SAMPLES = 4096


def evaluate(
    run: Run, split: str = "test", samples: int | None = None, limit: int | None = None, device: str = "cpu", progress: Progress | None = None
) -> Evaluation:
    """Measure a split of the run's own images; the result is kept in the run.

    Args:
        run: the run; its averaged weights are used.
        split: train, validation or test.
        samples: importance samples for the likelihood of a vector code; 1 gives the bound. Unset, a model that was handed on is measured as
            it was then, and any other by the bound.
        limit: only so many images, evenly spaced.
        device: where to compute.
        progress: told the images done and all.

    Raises:
        DataError: the split is empty.
        DiskError: nothing can be written into the run.
        SettingError: importance sampling is asked for where it is not defined.
    """
    keep_freed_memory()
    # Taken before the weights are read: a training that replaces them in between makes the result one of old weights, not a wrong one.
    weights = run.fingerprint()
    images, model = run.images(), run.model(find_device(device))
    numbers = chosen(images, split, limit)
    if samples is None:
        samples = run.own_samples()
    _check_samples(run, samples)
    run.check_results()
    seed = run.settings.train.seed
    cost = joined(list(_costs(model, images, numbers, seed, progress)))
    total = Total(cost.distortion + cost.rate)
    if samples > 1:
        log = Log(run.folder / "results" / f"likelihood-{split}-{samples}.jsonl", weights)
        # Its thousands of decodings are done in the arithmetic of the training: every pixel still has a distribution that sums to one.
        with arithmetic(run.settings.train.precision, next(model.parameters()).device):
            total = _importance(log, model, images, numbers, seed, samples, progress)
    result = _evaluation(run, weights, images, split, limit, cost, total, _similarities(model, images, cost.numbers, seed))
    _write_per_image(run, images, split, cost, total.nll)
    result.write(run)
    return result


class Total(NamedTuple):
    """What each image costs in all, in nats, and from how many samples of its code that is known."""

    nll: np.ndarray
    samples: int = 1
    effective_samples: float | None = None


def _check_samples(run: Run, samples: int) -> None:
    if samples > 1 and run.settings.keep.code != "vector":
        raise SettingError(
            "Importance sampling needs a vector code", rule="Other codes report the bound", found=f"keep.code={run.settings.keep.code}"
        )
    if not 1 <= samples <= MOST_SAMPLES:
        raise SettingError("This number of samples cannot be used", rule=f"--samples is from 1 to {MOST_SAMPLES}", found=samples)


def _costs(model: VLAE, images: ImageSet, numbers: np.ndarray, seed: int, progress: Progress | None) -> Iterator[Cost]:
    done = 0
    for cost, _ in costs(model, images, numbers, seed):
        done += len(cost.numbers)
        if progress:
            progress(done, len(numbers))
        yield cost


@dataclass(frozen=True)
class Log:
    """Where the likelihood of each image is kept once it is known, so that an evaluation can be resumed; that of other weights is passed over."""

    path: Path
    weights: str

    def read(self) -> dict[int, tuple[float, float]]:
        """The negative log likelihood and the effective samples of the images that are done."""
        rows = read_lines(self.path, {"weights": str, "image": int, "nll_nats": float, "effective_samples": float})
        return {row["image"]: (row["nll_nats"], row["effective_samples"]) for row in rows if row["weights"] == self.weights}

    def append(self, rows: Mapping[int, tuple[float, float]]) -> None:
        """Keep more images."""
        with self.path.open("a", encoding="utf-8") as file:
            for n, (nll, effective) in rows.items():
                # A new line comes first, so that one that was cut off stands alone.
                line = {"format": 1, "weights": self.weights, "image": n, "nll_nats": nll, "effective_samples": effective}
                file.write("\n" + json.dumps(finite(line)))


def _importance(log: Log, model: VLAE, images: ImageSet, numbers: np.ndarray, seed: int, samples: int, progress: Progress | None) -> Total:
    """The importance-sampled negative log likelihood of each image."""
    done = log.read()
    todo = np.array([n for n in numbers.tolist() if n not in done], dtype=np.int64)
    left = len(todo)
    # Several images together only where the samples of one do not fill a batch: what is done is kept image by image, or nearly so.
    for group in groups(images, todo, seed, at_once=PIXELS_AT_ONCE // samples):
        likelihood = importance_sampled(model, placed(group.x, model), _noises(model, group, seed, samples))
        found = zip(group.numbers.tolist(), (-likelihood.log_px).tolist(), likelihood.effective_samples.tolist(), strict=True)
        rows = {n: (nll, effective) for n, nll, effective in found}
        log.append(rows)
        done |= rows
        left -= len(rows)
        if progress:
            progress(len(numbers) - left, len(numbers))
    values = np.array([done[n] for n in numbers.tolist()])
    return Total(values[:, 0], samples, float(values[:, 1].mean()))


def _noises(model: VLAE, group: Group, seed: int, samples: int) -> Iterator[Tensor]:
    """Noise in pieces as large as may be decoded at once, each sample of each image from its own seed."""
    each = max(1, PIXELS_AT_ONCE // (len(group.x) * group.x.shape[2] * group.x.shape[3]))
    shape = model.code_shape(*group.x.shape[2:])
    per_image = [normal((samples, *shape), seed + 1, CODE, 2**32 + int(n)) for n in group.numbers]
    yield from placed(torch.stack(per_image, dim=1), model).split(each)


def _similarities(model: VLAE, images: ImageSet, numbers: np.ndarray, seed: int) -> tuple[float, float] | None:
    """Mean PSNR and SSIM of one decoding each of a few images."""
    if model.encoder is None:
        return None
    few = numbers[np.linspace(0, len(numbers) - 1, min(DECODED_IMAGES, len(numbers))).round().astype(int)]
    values = []
    for group in groups(images, few, seed):
        decoded = decode(model, group, seed)
        for x, y in zip(group.x.numpy(), decoded.cpu().numpy(), strict=True):
            top = model.decoder.head.levels - 1
            values.append((psnr(x, y, top), ssim(x, y, top)))
    return tuple(np.mean(values, axis=0).tolist())


def _evaluation(
    run: Run, weights: str, images: ImageSet, split: str, limit: int | None, cost: Cost, total: Total, alike: tuple[float, float] | None
) -> Evaluation:
    rate, distortion = (Estimate.of(torch.from_numpy(v)).times(bits(1)) for v in (cost.rate, cost.distortion))
    nll = Estimate.of(torch.from_numpy(total.nll))
    dims = cost.pixels * images.channels
    # Images of different sizes: the ratio of the sums, and the delta method for its error.
    per_dim = float(bits(total.nll.sum()) / dims.sum())
    residual = Estimate.of(torch.from_numpy((total.nll * bits(1) - per_dim * dims) / dims.mean()))
    return Evaluation(
        split=split,
        n_images=nll.n,
        limit=limit,
        pixels=int(cost.pixels.sum()),
        dims=int(dims.sum()),
        nll_nats=nll.value,
        nll_nats_se=nll.se,
        bits_per_dim=per_dim,
        bits_per_dim_se=residual.se,
        rate_bits=rate.value,
        rate_bits_se=rate.se,
        distortion_bits=distortion.value,
        distortion_bits_se=distortion.se,
        rate_bits_by_group=tuple((cost.by_group.mean(0) * bits(1)).tolist()),
        psnr=None if alike is None or not math.isfinite(alike[0]) else alike[0],
        ssim=None if alike is None else alike[1],
        importance_samples=total.samples,
        effective_samples=total.effective_samples,
        protocol=_protocol(run, split, nll.n, total.samples),
        weights=weights,
    )


def _protocol(run: Run, split: str, count: int, samples: int) -> str:
    facts, data = run.facts, run.settings.data
    pixels = {1: "1-bit", 8: "8-bit", 16: "16-bit"}[facts.depth]
    binarised = {"none": "", "static": ", binarised once at half", "dynamic": ", each binarised at random once"}[data.binarise]
    how = "bound (one sample)" if samples == 1 else f"importance-sampled, K = {samples}, {run.settings.train.precision}"
    if run.settings.keep.code == "none":
        how = "exact likelihood"
    learnt = f"; {1 - data.validation:.0%} of the given training and validation images learnt from" if data.pool_validation else ""
    return f"{how}; {count} {split} images, {pixels}{binarised}{learnt}; averaged weights; standard errors over images"


def _write_per_image(run: Run, images: ImageSet, split: str, cost: Cost, nll: np.ndarray) -> None:
    rows = zip(cost.numbers.tolist(), bits(cost.rate), bits(cost.distortion), nll, cost.pixels.tolist(), strict=True)
    lines = [
        json.dumps(finite({"format": 1, "image": images.names[n], "rate_bits": r, "distortion_bits": d, "nll_nats": v, "pixels": p}))
        for n, r, d, v, p in rows
    ]
    write_text(run.folder / "results" / f"per_image-{split}.jsonl", "\n".join(lines) + "\n")
