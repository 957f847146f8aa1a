"""Evaluate: what the images of a split cost, in bits of code and bits of pixels, and how alike their decodings are."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlae.core.estimate import Estimate, importance_sampled
from vlae.core.vlae import VLAE
from vlae.data.imageset import ImageSet
from vlae.engine.batches import CODE, normal
from vlae.engine.device import find_device
from vlae.engine.measure import PIXELS_AT_ONCE, Cost, Group, chosen, costs, decode, groups, joined, placed
from vlae.engine.results import Evaluation
from vlae.engine.run import Run, write_text
from vlae.engine.similarity import psnr, ssim
from vlae.errors import SettingError
from vlae.units import bits

Progress = Callable[[int, int], None]

DECODED_IMAGES = 16
MOST_SAMPLES = 4096


def evaluate(
    run: Run, split: str = "test", samples: int = 1, limit: int | None = None, device: str = "cpu", progress: Progress | None = None
) -> Evaluation:
    """Measure a split of the run's own images; the result is kept in the run.

    Args:
        run: the run; its averaged weights are used.
        split: train, validation or test.
        samples: importance samples for the likelihood of a vector code; 1 gives the bound.
        limit: only so many images, evenly spaced.
        device: where to compute.
        progress: told the images done and all.

    Raises:
        DataError: the split is empty.
        SettingError: importance sampling is asked for where it is not defined.
    """
    images, model = run.images(), run.model(find_device(device))
    numbers = chosen(images, split, limit)
    _check_samples(run, samples)
    seed = run.settings.train.seed
    parts = list(_costs(model, images, numbers, seed, progress))
    cost = joined(parts)
    nll, effective = -_elbo(cost), None
    if samples > 1:
        nll, effective = _importance(run, model, images, numbers, split, samples, progress)
    result = _evaluation(run, images, split, cost, nll, samples, effective, _similarities(model, images, cost.numbers, seed))
    _write_per_image(run, images, split, cost, nll)
    result.write(run)
    return result


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


def _elbo(cost: Cost) -> np.ndarray:
    return -(cost.distortion + cost.rate)


def _importance(
    run: Run, model: VLAE, images: ImageSet, numbers: np.ndarray, split: str, samples: int, progress: Progress | None
) -> tuple[np.ndarray, float]:
    """The importance-sampled negative log likelihood of each image; images already done are read from the run, so that it can be resumed."""
    seed = run.settings.train.seed
    path = run.folder / "results" / f"likelihood-{split}-{samples}.jsonl"
    weights = _fingerprint(run)
    done = _read_likelihoods(path, weights)
    todo = np.array([n for n in numbers.tolist() if n not in done], dtype=np.int64)
    for group in groups(images, todo, seed, at_once=8 * 784):
        likelihood = importance_sampled(model, placed(group.x, model), _noises(model, group, seed, samples))
        for n, log_px, effective in zip(group.numbers.tolist(), likelihood.log_px.tolist(), likelihood.effective_samples.tolist(), strict=True):
            done[n] = (-log_px, effective)
        _append_likelihoods(path, weights, {n: done[n] for n in group.numbers.tolist()})
        if progress:
            progress(len(done), len(numbers))
    values = np.array([done[n] for n in numbers.tolist()])
    return values[:, 0], float(values[:, 1].mean())


def _noises(model: VLAE, group: Group, seed: int, samples: int) -> Iterator[Tensor]:
    """Noise in pieces, each sample of each image from its own seed."""
    each = max(1, PIXELS_AT_ONCE // (len(group.x) * group.x.shape[2] * group.x.shape[3]))
    shape = model.code_shape(*group.x.shape[2:])
    per_image = [normal((samples, *shape), seed + 1, CODE, 2**32 + int(n)) for n in group.numbers]
    whole = placed(torch.stack(per_image, dim=1), model)
    yield from whole.split(each)


def _fingerprint(run: Run) -> str:
    stat = run.weights.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _read_likelihoods(path: Path, weights: str) -> dict[int, tuple[float, float]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return {row["image"]: (row["nll_nats"], row["effective_samples"]) for row in rows if row["weights"] == weights}


def _append_likelihoods(path: Path, weights: str, rows: dict[int, tuple[float, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for n, (nll, effective) in rows.items():
            # A new line comes first, so that one that was cut off stands alone.
            line = {"format": 1, "weights": weights, "image": n, "nll_nats": nll, "effective_samples": effective}
            file.write("\n" + json.dumps(line))


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
    run: Run,
    images: ImageSet,
    split: str,
    cost: Cost,
    nll: np.ndarray,
    samples: int,
    effective: float | None,
    alike: tuple[float, float] | None,
) -> Evaluation:
    rate, distortion = (Estimate.of(torch.from_numpy(v)).times(bits(1)) for v in (cost.rate, cost.distortion))
    total = Estimate.of(torch.from_numpy(nll))
    dims = cost.pixels * images.channels
    # Images of different sizes: the ratio of the sums, and the delta method for its error.
    per_dim = float(bits(nll.sum()) / dims.sum())
    residual = Estimate.of(torch.from_numpy((nll * bits(1) - per_dim * dims) / dims.mean()))
    return Evaluation(
        split=split,
        n_images=len(nll),
        pixels=int(cost.pixels.sum()),
        dims=int(dims.sum()),
        nll_nats=total.value,
        nll_nats_se=total.se,
        bits_per_dim=per_dim,
        bits_per_dim_se=residual.se,
        rate_bits=rate.value,
        rate_bits_se=rate.se,
        distortion_bits=distortion.value,
        distortion_bits_se=distortion.se,
        rate_bits_by_group=tuple((cost.by_group.mean(0) * bits(1)).tolist()),
        psnr=None if alike is None or not math.isfinite(alike[0]) else alike[0],
        ssim=None if alike is None else alike[1],
        importance_samples=samples,
        effective_samples=effective,
        protocol=_protocol(run, split, len(nll), samples),
    )


def _protocol(run: Run, split: str, count: int, samples: int) -> str:
    facts, data = run.facts, run.settings.data
    pixels = {1: "1-bit", 8: "8-bit", 16: "16-bit"}[facts.depth]
    binarised = {"none": "", "static": ", binarised once at half", "dynamic": ", each binarised at random once"}[data.binarise]
    how = "bound (one sample)" if samples == 1 else f"importance-sampled, K = {samples}"
    if run.settings.keep.code == "none":
        how = "exact likelihood"
    return f"{how}; {count} {split} images, {pixels}{binarised}; averaged weights; standard errors over images"


def _write_per_image(run: Run, images: ImageSet, split: str, cost: Cost, nll: np.ndarray) -> None:
    rows = zip(cost.numbers.tolist(), bits(cost.rate), bits(cost.distortion), nll, cost.pixels.tolist(), strict=True)
    lines = [
        json.dumps({"format": 1, "image": images.names[n], "rate_bits": r, "distortion_bits": d, "nll_nats": v, "pixels": p})
        for n, r, d, v, p in rows
    ]
    write_text(run.folder / "results" / f"per_image-{split}.jsonl", "\n".join(lines) + "\n")
