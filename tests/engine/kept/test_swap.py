"""The swap cost against a model whose answer is known by hand, and its verdicts against counts."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vlae.core.codes import Code
from vlae.engine.kept.swap import IGNORED, KEPT, explained, mean_interval, swap, verdict

A, V, S = 0.8, 0.3, 2.0
"""The toy: q(z|x) = N(A x, V^2), p(x|z) = N(z, S^2), pixel by pixel."""


class Toy:
    def parameters(self) -> list[Tensor]:
        return [torch.zeros(1, dtype=torch.float64)].__iter__()  # type: ignore[return-value]

    def posterior(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=lambda noise: Code(A * x + V * noise, noise))

    def decoder(self, z: Tensor, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(log_prob=lambda x: (-((x - z) ** 2) / (2 * S**2) - math.log(S * math.sqrt(2 * math.pi)))[:, 0])


def bits_of(x: Tensor, source: Tensor, seed: int = 0) -> np.ndarray:
    noise = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return explained(Toy(), x, source, noise)  # type: ignore[arg-type]


def picture(count: int = 400) -> Tensor:
    return 5 * torch.randn(count, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shift", [0.0, 1.0, -3.0])
def test_the_cost_is_that_of_the_linear_gaussian_model(shift: float) -> None:
    """E[-log p(x|A(x+d)+Ve) + log p(x|Ax+Ve)] = (A^2 d^2 - 2 A d (1-A) x) / 2 S^2 a pixel: what the noise adds falls out in the mean."""
    x = picture()
    cost = bits_of(x, x + shift) - bits_of(x, x)
    known = ((A * shift) ** 2 - 2 * A * shift * (1 - A) * x).sum((1, 2, 3)).numpy() / (2 * S**2 * math.log(2))
    spread = A * abs(shift) * V * math.sqrt(12) / (S**2 * math.log(2))
    assert (cost - known).mean() == pytest.approx(0, abs=4 * spread / math.sqrt(len(x)) + 1e-9)
    assert (cost - known).std() == pytest.approx(spread, rel=0.15, abs=1e-9)


def test_a_share_is_that_of_the_closed_form() -> None:
    """Another image costs E = A^2 E(y-x)^2 - 2 A (1-A) E x (y-x), which is 2 A^2 + 2 A (1-A) = 2 A times the variance."""
    x = picture(4000)
    cost, other = bits_of(x, x + 2.0) - bits_of(x, x), bits_of(x, x.roll(1, 0)) - bits_of(x, x)
    found = swap("toy", cost, other, np.random.default_rng(0))
    assert found.share == pytest.approx(A * 2.0**2 / (2 * 25), rel=0.1) and found.low < A * 4 / 50 < found.high


def test_images_are_explained_one_by_one_as_together() -> None:
    x = picture(5)
    noise = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single = [explained(Toy(), x[n : n + 1], x[n : n + 1] + 1, noise[n : n + 1])[0] for n in range(5)]  # type: ignore[arg-type]
    assert explained(Toy(), x, x + 1, noise) == pytest.approx(single, rel=1e-12)  # type: ignore[arg-type]


def test_the_interval_covers_the_ratio_at_its_rate() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        other = rng.gamma(4, 25, 60)
        cost = 0.3 * other + rng.normal(0, 20, 60)
        found = swap("x", cost, other, rng)
        hits += found.low < 0.3 < found.high
    assert 178 <= hits <= 200


@pytest.mark.parametrize("share, expected", [(0.5, "kept"), (0.05, "partly"), (0.0, "ignored"), (-0.1, "ignored")])
def test_verdicts(share: float, expected: str) -> None:
    rng = np.random.default_rng(0)
    other = rng.normal(100, 5, 50)
    assert swap("x", share * other + rng.normal(0, 0.5, 50), other, rng).verdict == expected


def test_a_verdict_is_what_the_interval_allows() -> None:
    assert [verdict(KEPT + 1e-9, 1.0), verdict(KEPT, 1.0), verdict(-1.0, IGNORED - 1e-9)] == ["kept", "partly", "ignored"]
    assert [verdict(1e-9, IGNORED), verdict(0.0, IGNORED), verdict(-1.0, 1.0)] == ["partly", "unclear", "unclear"]


@pytest.mark.parametrize("other", [np.zeros(20), np.linspace(-1, 1.1, 20), np.full(20, -3.0), np.full(20, 0.5)])
def test_without_a_cost_of_another_image_nothing_is_claimed(other: np.ndarray) -> None:
    found = swap("x", np.ones(20), other, np.random.default_rng(0))
    assert found.verdict == "unclear" and math.isfinite(found.share + found.low + found.high)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = mean_interval(values, np.random.default_rng(1))
    assert (low, high) == pytest.approx((values.mean() - 1.96 * 0.1, values.mean() + 1.96 * 0.1), abs=0.03)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("harmed", ["cost", "other"])
def test_of_costs_that_are_not_finite_nothing_is_claimed(harmed: str, number: float) -> None:
    costs = {"cost": np.full(20, 50.0), "other": np.full(20, 100.0)}
    costs[harmed][3] = number
    found = swap("x", costs["cost"], costs["other"], np.random.default_rng(0))
    assert found.verdict == "unclear" and math.isfinite(found.share + found.low + found.high)
