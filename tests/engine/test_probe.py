"""The probe against scikit-learn, and on factors of which the answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from tests.data.samples import fill
from vlae.core.codes import Posterior
from vlae.data import cache
from vlae.engine.build import build
from vlae.engine.embed import embed, summary
from vlae.engine.probe import STRENGTHS, Part, interval, r2, readout, ridges
from vlae.engine.settings import ImageFacts, load_settings, resolve


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)], ids=["tall", "wide"])
def test_ridges_are_those_of_scikit_learn(shape: tuple[int, int], rng: np.random.Generator) -> None:
    x, y, new = rng.normal(size=shape), rng.normal(size=shape[0]) + 7, rng.normal(size=(9, shape[1]))
    strengths = np.array([1e-3, 1.0, 300.0])
    for strength, ridge in zip(strengths, ridges(x, y, strengths), strict=True):
        theirs = Ridge(alpha=strength, solver="svd").fit(x, y)
        assert ridge(new) == pytest.approx(theirs.predict(new), rel=1e-9)


def test_r2_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    y, prediction = rng.normal(size=50), rng.normal(size=50)
    assert r2(y, prediction) == pytest.approx(r2_score(y, prediction), abs=1e-12)


def parts(y_of: object, rng: np.random.Generator, dims: int = 6) -> list[Part]:
    return [Part(x, y_of(x)) for x in (rng.normal(size=(n, dims)) for n in (300, 80, 120))]  # type: ignore[operator]


def test_a_factor_that_is_in_the_code_is_read_off(rng: np.random.Generator) -> None:
    found = readout("angle", *parts(lambda x: 3 * x[:, 0] - x[:, 2] + 40, rng), rng)
    assert found.r2 > 0.999 and found.low > 0.999 and (found.n_train, found.n_test) == (300, 120)


def test_a_factor_that_is_not_in_the_code_is_not_read_off(rng: np.random.Generator) -> None:
    found = readout("grain", *parts(lambda x: rng.normal(size=len(x)), rng, dims=100), rng)
    assert found.low <= found.r2 <= found.high and found.r2 < 0.1
    assert found.strength > STRENGTHS[0]  # validation shrinks what is only noise


def test_half_the_variance_is_told_as_half_and_lies_in_the_interval(rng: np.random.Generator) -> None:
    train, validation, test = (Part(x, x[:, 0] + rng.normal(size=len(x))) for x in (rng.normal(size=(n, 6)) for n in (2000, 500, 2000)))
    found = readout("mixed", train, validation, test, rng)
    assert found.low < 0.5 < found.high and found.high - found.low < 0.1


def test_the_interval_covers_at_its_rate(rng: np.random.Generator) -> None:
    """Of many data sets whose true share is known, about 95% have it in their interval."""
    hits = 0
    for _ in range(200):
        y = rng.normal(size=80)
        low, high = interval(y, y + rng.normal(size=80) * np.sqrt(0.3), rng)
        hits += low < 0.7 < high
    assert 175 <= hits <= 200


@pytest.mark.parametrize("unit", [1e-200, 1e300])
def test_the_unit_of_a_factor_does_not_matter(unit: float) -> None:
    def found(scale: float) -> float:
        rng = np.random.default_rng(0)
        return readout("f", *parts(lambda x: scale * (x[:, 0] + rng.normal(size=len(x))), rng), rng).r2

    assert found(unit) == pytest.approx(found(1.0), rel=1e-9)


def test_codes_of_a_grid_are_equally_long_and_in_the_order_asked_for(tmp_path: Path) -> None:
    """Images of other sizes, one by one or together: the same rows."""
    fill(fill(tmp_path / "images", 4, size=(20, 24)), 7, size=(17, 31), start=4)
    overrides = ["keep.code=grid", "keep.stride=4", "keep.channels=3", "keep.window=stack2", "model.width=4"]
    settings = load_settings(None, overrides, {"data.folder": tmp_path / "images"})
    images, facts = cache.load(settings.data, tmp_path / "cache"), ImageFacts(depth=8, colours=1, size=None)
    torch.manual_seed(0)
    model = build(resolve(settings, facts), facts)
    order = np.array([6, 0, 3, 5])
    together = embed(model, images, order, 4, seed=0).mean
    assert together.shape == (4, 3 * 4 * 4)
    for row, n in zip(together, order, strict=True):
        assert embed(model, images, np.array([n]), 4, seed=0).mean[0] == pytest.approx(row, abs=1e-5)


@pytest.mark.parametrize("size", [(9, 9), (12, 9), (10, 16), (8, 8), (27, 11)])
def test_the_width_of_averaged_places_is_that_of_the_mean_of_independent_numbers(size: tuple[int, int], rng: np.random.Generator) -> None:
    """Var(A z) = A^2 Var(z) with the weights A of every place in every average, which torch itself tells."""
    std = torch.from_numpy(rng.uniform(0.5, 2.0, (1, 1, *size)))
    places = size[0] * size[1]
    weights = F.adaptive_avg_pool2d(torch.eye(places, dtype=torch.float64).view(places, 1, *size), 8).flatten(1).T
    found = summary(Posterior(torch.zeros_like(std), std.log()), 8)
    assert found.std[0] == pytest.approx((weights**2 @ std.flatten() ** 2).sqrt().numpy(), rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_draws_of_equal_values_do_not_widen_the_interval() -> None:
    """Twelve times 0.1 have another mean, by rounding, and so a variance above 0."""
    y = np.array([0.1] * 11 + [0.7])
    assert np.full(12, 0.1).var() > 0
    low, high = interval(y, y + 0.01, np.random.default_rng(0))
    assert -1 < low <= high < 1
