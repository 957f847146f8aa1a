import math

import pytest
import torch

from vlae.core.distributions import Bernoulli, LogisticMixture

from .build import near
from .test_distributions import every_pixel, random_mixture, row


def by_enumeration(log_p):
    """Entropy and variance of ``-log p`` from the log probabilities of every level."""
    p = log_p.exp()
    entropy = -(p * log_p).sum()
    return entropy, (p * log_p.square()).sum() - entropy.square()


def test_those_of_a_bernoulli_are_those_of_its_two_levels():
    for logit in (-6.0, -0.3, 0.0, 2.0, 40.0):
        pixel = Bernoulli(torch.full((1, 1, 1, 1), logit))
        log_p = Bernoulli(torch.full((1, 1, 1, 2), logit)).log_prob(row([0, 1])).flatten()
        for found, true in zip(pixel.moments(row([0])), by_enumeration(log_p), strict=True):
            near(found.squeeze(), true, 1e-12)


@pytest.mark.parametrize("log_scales", [(-9.0, -6.0), (-6.0, -4.0), (-4.0, -1.0), (-8.0, 1.0)])
@pytest.mark.parametrize("levels", [256, 4096])
def test_those_of_a_mixture_are_nearly_those_of_all_its_levels(levels, log_scales):
    errors = []
    for _ in range(60):
        logits, means = 2 * torch.randn(1, 3, 1, 1), torch.empty(1, 1, 1, 1, 1).uniform_(-1.1, 1.1) + 0.1 * torch.randn(1, 3, 1, 1, 1)
        scales = torch.empty(1, 3, 1, 1, 1).uniform_(*log_scales)
        one = LogisticMixture(levels, logits, means, scales)
        every = LogisticMixture(levels, *(t.expand(*t.shape[:-1], levels) for t in (logits, means, scales)))
        entropy, variance = by_enumeration(every.log_prob(row(range(levels))).flatten())
        found = one.moments(row([0]))
        errors.append((found.entropy.item() - entropy.item(), found.variance.item() - variance.item()))
    bias, spread = torch.tensor(errors).mean(0).tolist(), torch.tensor(errors).abs().amax(0).tolist()
    assert abs(bias[0]) < 0.01 and abs(bias[1]) < 0.05
    assert spread[0] < 0.1 and spread[1] < 0.4


def test_narrow_components_are_exact():
    sharp = LogisticMixture(
        256, torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1), torch.tensor([-0.5, 0.25]).view(1, 2, 1, 1, 1), -20 * torch.ones(1, 2, 1, 1, 1)
    )
    true = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    near(sharp.moments(row([0])).entropy.squeeze(), torch.tensor(true), 1e-9)


def test_colours_are_expected_given_the_true_earlier_ones():
    levels = 6
    p = random_mixture(levels, 3, 2, levels**3)
    x = every_pixel(levels, 3)
    joint = p.log_prob(x).exp().view(levels, levels, levels)
    found = p.moments(x).entropy.view(levels, levels, levels)
    for red, green in ((0, 0), (3, 1), (5, 4)):
        chain = (joint.sum((1, 2)), joint[red].sum(1) / joint[red].sum(), joint[red, green] / joint[red, green].sum())
        true = sum(-(q * q.log()).sum() for q in chain)
        near(found[red, green], true.expand(levels), 0.05)


def test_what_a_model_draws_is_as_surprising_as_it_expects():
    pixels = 40_000
    p = random_mixture(256, 3, 3, pixels)
    x = p.sample(torch.rand(1, 4, 1, pixels).clamp(1e-9, 1 - 1e-9))
    off = (-p.log_prob(x) - p.moments(x).entropy).flatten()
    variance = p.moments(x).variance.mean()
    assert abs(off.mean().item()) < 5 * math.sqrt(variance.item() / pixels) + 0.02
    assert off.var().item() == pytest.approx(variance.item(), rel=0.1)
