"""Codes by place: each is judged by what good parts' codes are there, given those around it."""

import numpy as np
import torch
from scipy import stats

from vlae.engine.inspection.places import Places, around, bits_of_good

SHAPE = (2, 3, 4)


def codes(n: int, seed: int, noise: float = 0.3) -> torch.Tensor:
    """Codes that lie alike: a mean for each place, and deviations that neighbours share."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, SHAPE[0], 1, 1)) + rng.standard_normal((n, SHAPE[0], 1, SHAPE[2]))
    return torch.from_numpy(np.arange(12).reshape(3, 4) + shared + noise * rng.standard_normal((n, *SHAPE)))


def test_bits_are_those_of_the_conditional_normal_distribution() -> None:
    z = codes(20_000, 0)
    places, new = Places.fitted(z), codes(200, 1)
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
        np.testing.assert_allclose(places.bits(new)[:, i, j].numpy(), theirs, rtol=0.06, atol=0.02)


def test_only_the_places_around_one_are_read() -> None:
    off = torch.randn(1, *SHAPE, dtype=torch.float64, requires_grad=True)
    (around(off)[0, :, 1, 2].sum()).backward()
    assert off.grad is not None
    reads = off.grad[0, 0].bool().tolist()
    assert reads == [[False, True, True, True], [False, True, False, True], [False, True, True, True]]


def test_what_does_not_fit_its_surroundings_costs_though_it_is_usual_there() -> None:
    places, new = Places.fitted(codes(2000, 0)), codes(400, 1)
    other = codes(400, 2)
    swapped = new.clone()
    swapped[:, :, 1, 1] = other[:, :, 1, 1]
    before, after = (places.bits(z)[:, 1, 1].median().item() for z in (new, swapped))
    assert after > 5 * before


def test_a_vector_is_one_place_without_surroundings() -> None:
    z = torch.from_numpy(np.random.default_rng(0).multivariate_normal([1.0, 2.0], [[2.0, 1.0], [1.0, 3.0]], 20_000))[:, :, None, None]
    normal = stats.multivariate_normal([1.0, 2.0], [[2.0, 1.0], [1.0, 3.0]])
    theirs = (normal.logpdf([1.0, 2.0]) - normal.logpdf(z[:100, :, 0, 0].numpy())) / np.log(2)
    np.testing.assert_allclose(Places.fitted(z).bits(z[:100])[:, 0, 0].numpy(), theirs, rtol=0.1, atol=0.02)


def test_good_parts_are_judged_as_new_ones_are() -> None:
    """Under a fit to themselves few images would look better than any other."""
    z, new = codes(60, 0), codes(500, 1)
    places = Places.fitted(z)
    themselves, crossed, unseen = places.bits(z).mean().item(), bits_of_good(z).mean().item(), places.bits(new).mean().item()
    assert themselves < 0.75 * unseen and 0.85 * unseen < crossed < 1.35 * unseen


def test_codes_that_never_vary_cost_nothing_finite() -> None:
    z = torch.ones(40, *SHAPE)
    places = Places.fitted(z)
    assert places.bits(z).abs().max() == 0 and places.bits(z + 1).isfinite().all() and bits_of_good(z).abs().max() == 0
