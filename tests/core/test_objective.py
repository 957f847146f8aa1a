import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlae.core.objective import RateControl, elbo, free_bits, weighted
from vlae.core.vlae import Terms


def some_terms(shape, seed=0):
    """Random terms of six images, whose groups cost little, about the floor, and much."""
    generator = torch.Generator().manual_seed(seed)
    pixels, parts, prior = (torch.randn(6, *s, generator=generator, dtype=torch.float64) for s in ((4, 5), shape, shape))
    costs = torch.linspace(-0.5, 2.0, shape[0], dtype=torch.float64).view(-1, *[1] * (len(shape) - 1))
    return Terms(*(t.requires_grad_() for t in (pixels, parts + costs, prior)))


SHAPES = {"vector": (7,), "grid": (5, 2, 3)}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def gradients(loss, terms):
    return torch.autograd.grad(loss, list(terms[:3]))


@each_shape
def test_elbo_is_the_mean_of_three_terms_an_image(shape):
    terms = some_terms(shape)
    by_image = [(terms.log_px_z_map[n].sum() + terms.log_pz_parts[n].sum() - terms.log_qz_x_parts[n].sum()).item() for n in range(6)]
    assert elbo(terms).item() == pytest.approx(-math.fsum(by_image) / 6)
    assert elbo(terms).item() == pytest.approx(-terms.elbo.mean().item())


@each_shape
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
def test_a_weight_multiplies_the_cost_of_the_code(shape, beta):
    terms = some_terms(shape)
    of_pixels, kl = -terms.log_px_z.mean(), (terms.log_qz_x - terms.log_pz).mean()
    assert elbo(terms, beta).item() == weighted(terms, beta).item() == pytest.approx((of_pixels + beta * kl).item())
    assert free_bits(terms, -1e9, beta).item() == pytest.approx((of_pixels + beta * kl).item())


def literally(terms, floor, beta):
    """``beta sum_g max(floor, mean over images of KL_g)``, group by group."""
    total = -terms.log_px_z_map.sum() / 6
    for group in range(terms.log_qz_x_parts.shape[1]):
        kl = (terms.log_qz_x_parts[:, group] - terms.log_pz_parts[:, group]).sum() / 6
        total = total + beta * torch.maximum(kl, torch.tensor(floor, dtype=torch.float64))
    return total


@each_shape
@given(floor=st.sampled_from([-3.0, 0.0, 0.5, 1.0, 100.0]), beta=st.sampled_from([0.2, 1.0]), seed=st.integers(0, 3))
def test_free_bits_are_their_formula_and_so_are_their_gradients(shape, floor, beta, seed):
    terms = some_terms(shape, seed)
    torch.testing.assert_close(free_bits(terms, floor, beta), literally(terms, floor, beta))
    ours, theirs = (gradients(loss(terms, floor, beta), terms) for loss in (free_bits, literally))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_floor_is_where_it_says():
    """A hundredth of a nat above what a group costs it is the floor that is paid, and a hundredth below the cost."""
    cost = 3.0
    parts = cost + torch.tensor([[-1.0], [0.5], [0.5]])
    terms = Terms(torch.zeros(3, 4, 5), parts, torch.zeros(3, 1))
    assert free_bits(terms, cost + 0.01).item() == pytest.approx(cost + 0.01)
    assert free_bits(terms, cost - 0.01).item() == pytest.approx(cost)


def test_some_groups_lie_below_the_floor_and_some_above():
    """Or the test above would have nothing to tell."""
    kl = some_terms((7,)).kl_by_group.mean(0)
    assert 0 < (kl > 0.5).sum() < 7


def test_free_bits_of_a_spread_batch_are_those_of_the_whole():
    """Two processes with half the batch each: the average of their losses and of their gradients is that of one with all."""
    whole = some_terms((7,))
    halves = [Terms(*(part[at] for part in whole[:3])) for at in (slice(0, 3), slice(3, 6))]
    both = torch.stack([half.kl_by_group.mean(0) for half in halves]).mean(0).detach()
    spread = sum(free_bits(half, 0.5, mean=lambda _: both) for half in halves) / 2
    torch.testing.assert_close(spread, free_bits(whole, 0.5))
    for ours, theirs in zip(gradients(spread, whole), gradients(free_bits(whole, 0.5), whole), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_free_bits_do_not_hide_a_cost_that_is_not_a_number():
    terms = some_terms((7,))
    broken = terms._replace(log_pz_parts=terms.log_pz_parts + torch.tensor([0.0] * 6 + [math.nan]))
    assert free_bits(broken, 0.5).isnan()


def test_without_a_code_the_objectives_cost_the_pixels():
    pixels, nothing = torch.randn(3, 4, 4), torch.zeros(3, 0)
    terms = Terms(pixels, nothing, nothing)
    assert elbo(terms).item() == free_bits(terms, 1.0).item() == pytest.approx(-pixels.sum().item() / 3)


@pytest.mark.parametrize(
    "kl, weight",
    [(106.0, 0.55), (105.0, 0.5), (100.0, 0.5), (95.0, 0.5), (94.0, 0.5 / 1.1), (0.0, 0.5 / 1.1), (-3.0, 0.5 / 1.1), (math.inf, 0.55)],
)
def test_the_rule_of_soft_free_bits(kl, weight):
    control = RateControl(target=100.0, weight=0.5)
    assert control.after(kl) == (100.0, pytest.approx(weight), 1e-3, 1.0)


def test_soft_free_bits_never_charge_more_than_the_bound():
    control = RateControl(target=10.0)
    for _ in range(5):
        control = control.after(1000.0)
    assert control.weight == 1
    for _ in range(1000):
        control = control.after(0.0)
    assert control.weight == 1e-3


def test_a_rate_target_may_charge_more_and_settles_near_it():
    """With a code that costs 40 nats at weight 1, and less the more it is charged."""
    control = RateControl(target=20.0, most=math.inf)
    for _ in range(200):
        control = control.after(40 / control.weight)
    assert control.weight == pytest.approx(2, rel=0.1)
