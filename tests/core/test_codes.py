import math

import pytest
import torch
from torch.distributions import Independent, Normal

from vlae.core.codes import Posterior, Prior
from vlae.core.flows import grid_flow, vector_flow

from .build import near, randomise

SHAPES = {"vector": (5,), "grid": (2, 3, 4)}


def flow_for(shape, context=0, scaled=True):
    if len(shape) == 1:
        return randomise(vector_flow(shape[0], 3, 8, scaled=scaled, context=context))
    return randomise(grid_flow(shape[0], 3, 5, scaled=scaled, context=context))


def log_density(of_noise, noise):
    """The log density of what noise is mapped to, by the change of variables with autograd's Jacobian."""
    count = noise.numel()
    jacobian = torch.autograd.functional.jacobian(of_noise, noise).reshape(count, count)
    return Independent(Normal(torch.zeros_like(noise), 1.0), noise.dim()).log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_gaussian_posterior_is_that_of_torch(shape):
    mean, log_std = torch.randn(4, *shape), torch.randn(4, *shape)
    z, log_q = Posterior(mean, log_std).sample(torch.randn(4, *shape))
    near(log_q, Normal(mean, log_std.exp()).log_prob(z))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scaled", [False, True])
def test_an_iaf_posterior_knows_the_density_of_its_samples(shape, scaled):
    context = torch.randn(2, 3, *shape[1:])
    mean, log_std, noise, flow = torch.randn(2, *shape), torch.randn(2, *shape), torch.randn(2, *shape), flow_for(shape, 3, scaled)
    log_q = Posterior(mean, log_std, flow, context).sample(noise).log_q
    assert log_q.shape == (2, *shape)
    for n in range(2):
        here = slice(n, n + 1)
        near(
            log_q[n].sum(),
            log_density(lambda eps, s=here: Posterior(mean[s], log_std[s], flow, context[s]).sample(eps[None]).z[0], noise[n]),
        )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_prior_of_flows_knows_the_density_of_its_samples(shape):
    """The Jacobian of its samples by differences: sampling goes element by element and keeps no gradient."""
    prior, noise = Prior(flow_for(shape)), torch.randn(2, *shape, dtype=torch.float64)
    prior.double()
    z, count, step = prior.sample(noise), math.prod(shape), 1e-6
    log_prob = prior.log_prob(z)
    assert log_prob.shape == z.shape
    moves = step * torch.eye(count, dtype=torch.float64).view(count, *shape)
    for n in range(2):
        jacobian = ((prior.sample(noise[n] + moves) - prior.sample(noise[n] - moves)) / (2 * step)).flatten(1)
        by_hand = Normal(0.0, 1.0).log_prob(noise[n]).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_prob[n].sum(), by_hand, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_gaussian_prior_is_that_of_torch(shape):
    z = torch.randn(3, *shape)
    near(Prior().log_prob(z), Normal(0.0, 1.0).log_prob(z))
    assert Prior().sample(z) is z


@pytest.mark.parametrize("scaled", [False, True])
def test_a_prior_is_a_density(scaled):
    """Its integral over the plane, finely in the middle and far out."""
    prior, side = Prior(flow_for((2,), scaled=scaled)).double(), torch.linspace(-6, 6, 601, dtype=torch.float64).sinh()
    with torch.no_grad():
        density = prior.log_prob(torch.cartesian_prod(side, side)).sum(1).exp().view(601, 601)
    assert torch.trapezoid(torch.trapezoid(density, side), side).item() == pytest.approx(1, abs=1e-3)


def test_the_centre_is_the_code_of_no_noise():
    mean, log_std, flow = torch.randn(4, 5), torch.randn(4, 5), flow_for((5,))
    assert torch.equal(Posterior(mean, log_std).centre, mean)
    assert torch.equal(Posterior(mean, log_std, flow).centre, flow(mean).value)


def test_a_code_is_differentiable_in_its_posterior():
    mean, log_std = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    noise = torch.randn(4, 5)
    Posterior(mean, log_std).sample(noise).z.sum().backward()
    near(mean.grad, torch.ones(4, 5))
    near(log_std.grad, noise * log_std.detach().exp())


def test_minus_log_q_of_samples_is_the_entropy():
    """That of a Gaussian, in closed form."""
    log_std = torch.tensor([-1.0, 0.5, 2.0]).expand(20_000, 3)
    nats = -Posterior(torch.zeros_like(log_std), log_std).sample(torch.randn(20_000, 3)).log_q.sum(1)
    entropy = Normal(0.0, log_std[0].exp()).entropy().sum()
    assert abs(nats.mean() - entropy) < 4.5 * nats.std() / math.sqrt(20_000)
