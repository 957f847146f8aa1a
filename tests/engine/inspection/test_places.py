"""Codes by place: each is judged by what good parts' codes are there, given those around it."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from vlae.engine.inspection.places import MOST_NUMBERS, Places, around, learned, reads

SHAPE = (2, 3, 4)


def codes(n: int, seed: int, noise: float = 0.3) -> torch.Tensor:
    """Codes that lie alike: a mean for each place, and deviations that neighbours share."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, SHAPE[0], 1, 1)) + rng.standard_normal((n, SHAPE[0], 1, SHAPE[2]))
    return torch.from_numpy(np.arange(12).reshape(3, 4) + shared + noise * rng.standard_normal((n, *SHAPE)))


def cost(places: Places, z: torch.Tensor) -> torch.Tensor:
    return places.bits(places.rest(z))


def test_bits_are_those_of_the_conditional_normal_distribution() -> None:
    z = codes(20_000, 0)
    (places, _), new = learned(z), codes(200, 1)
    flat, other = z.flatten(1).numpy(), new.flatten(1).numpy()
    mean, covariance = flat.mean(0), np.cov(flat.T)
    for i, j in ((1, 1), (0, 0), (2, 3)):
        own = [np.ravel_multi_index((k, i, j), SHAPE) for k in range(SHAPE[0])]
        near = [(a, b) for a in range(3) for b in range(4) if 0 < max(abs(a - i), abs(b - j)) < 2]
        beside = [np.ravel_multi_index((k, *place), SHAPE) for k in range(SHAPE[0]) for place in near]
        pull = np.linalg.solve(covariance[np.ix_(beside, beside)], covariance[np.ix_(beside, own)])
        rest = covariance[np.ix_(own, own)] - covariance[np.ix_(own, beside)] @ pull
        off = other[:, own] - mean[own] - (other[:, beside] - mean[beside]) @ pull
        normal = stats.multivariate_normal(np.zeros(SHAPE[0]), rest)
        theirs = (normal.logpdf(np.zeros(SHAPE[0])) - normal.logpdf(off)) / np.log(2)
        np.testing.assert_allclose(cost(places, new)[:, i, j].numpy(), theirs, rtol=0.06, atol=0.02)


def test_only_the_places_around_one_are_read() -> None:
    off = torch.randn(1, *SHAPE, dtype=torch.float64, requires_grad=True)
    (around(off)[0, :, 1, 2].sum()).backward()
    assert off.grad is not None
    reads = off.grad[0, 0].bool().tolist()
    assert reads == [[False, True, True, True], [False, True, False, True], [False, True, True, True]]


def test_what_does_not_fit_its_surroundings_costs_though_it_is_usual_there() -> None:
    (places, _), new = learned(codes(2000, 0)), codes(400, 1)
    other = codes(400, 2)
    swapped = new.clone()
    swapped[:, :, 1, 1] = other[:, :, 1, 1]
    before, after = (cost(places, z)[:, 1, 1].median().item() for z in (new, swapped))
    assert after > 5 * before


def test_a_vector_is_one_place_without_surroundings() -> None:
    z = torch.from_numpy(np.random.default_rng(0).multivariate_normal([1.0, 2.0], [[2.0, 1.0], [1.0, 3.0]], 20_000))[:, :, None, None]
    normal = stats.multivariate_normal([1.0, 2.0], [[2.0, 1.0], [1.0, 3.0]])
    theirs = (normal.logpdf([1.0, 2.0]) - normal.logpdf(z[:100, :, 0, 0].numpy())) / np.log(2)
    np.testing.assert_allclose(cost(learned(z)[0], z[:100])[:, 0, 0].numpy(), theirs, rtol=0.1, atol=0.02)


def blurred(n: int, channels: int, seed: int) -> torch.Tensor:
    """Codes of 6x6 places whose neighbours are much alike."""
    rng = torch.Generator().manual_seed(seed)
    smooth = functional.avg_pool2d(torch.randn(n, channels, 6, 6, generator=rng), 3, 1, 1)
    return 3 * smooth + 0.3 * torch.randn(n, channels, 6, 6, generator=rng)


@pytest.mark.parametrize("channels, n", [(2, 60), (8, 20), (8, 60), (8, 90), (16, 90), (16, 150)])
def test_good_parts_are_judged_as_new_ones_are_however_few_they_are(channels: int, n: int) -> None:
    """A regression on 8 x channels numbers explains as many images to the last digit, and new ones not at all."""
    z, new = blurred(n, channels, 0), blurred(300, channels, 1)
    places, rest = learned(z)
    good, unseen = places.bits(rest).mean().item(), cost(places, new).mean().item()
    assert 0.6 * unseen < good < 1.4 * unseen and unseen < 2 * channels
    broken = new.clone()
    broken[:, :, 3, 3] += 2 * torch.randn(300, channels, generator=torch.Generator().manual_seed(2))
    assert cost(places, broken)[:, 3, 3].median() > 3 * unseen


def test_codes_that_never_vary_cost_nothing_and_others_something_finite() -> None:
    z = torch.ones(40, *SHAPE)
    places, rest = learned(z)
    assert rest.abs().max() == 0 and cost(places, z).abs().max() == 0 and cost(places, z + 1).isfinite().all()


def test_where_too_much_would_be_kept_every_place_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(8, 19, 19) == 64 and reads(512, 1, 1) == 0 == reads(16, 4096, 4096)
    assert MOST_NUMBERS * 4 <= 2**26, "no calibration is larger than 64 MB by this"
    z = codes(4000, 0)
    monkeypatch.setattr("vlae.engine.inspection.places.MOST_NUMBERS", 100)
    places, _ = learned(z)
    assert places.fits(*SHAPE) and places.pull.numel() == 0
    place = z[:, :, 1, 2].numpy()
    normal = stats.multivariate_normal(place.mean(0), np.cov(place.T))
    theirs = (normal.logpdf(place.mean(0)) - normal.logpdf(place)) / np.log(2)
    np.testing.assert_allclose(cost(places, z)[:, 1, 2].numpy(), theirs, rtol=0.03, atol=0.02)
