"""Whole mixtures: frequencies that add up, rise strictly, and are those of the float mixture but for rounding."""

import math
from decimal import Decimal

import pytest
import torch

from vlae.archive.mixture import SCALE_STEP, SCALES, WEIGHT_BITS, WholeHead, WholeMixture, whole_weights
from vlae.archive.tables import elu, exp, sigmoid, table
from vlae.core.distributions import LogisticHead


def everywhere(logits, means, scales, levels=256):
    """One mixture at every boundary of levels, from 0 to ``levels``."""
    parts = [torch.tensor(v).view(1, -1, 1, 1).expand(1, -1, 1, levels + 1) for v in (logits, means, scales)]
    return WholeMixture(levels, whole_weights(parts[0]), parts[1], parts[2]), torch.arange(levels + 1).view(1, 1, -1)


@pytest.mark.parametrize("scales", [(0, 0), (len(SCALES) - 1, 3), (30, 31)])
@pytest.mark.parametrize("means", [(0, 4080), (-40_000, 900), (2040, 2041)])
@pytest.mark.parametrize("logits", [(0, 0), (-4000, 4000), (17, -3)])
def test_frequencies_rise_strictly_from_nothing_to_all(logits, means, scales):
    mixture, bounds = everywhere(logits, means, scales)
    below = mixture.below(bounds).flatten()
    assert below[0] == 0 and below[-1] == mixture.total and (below.diff() > 0).all()


def test_they_are_those_of_the_float_mixture_but_for_rounding():
    head, whole = LogisticHead(256, 1, 2), WholeHead(256, 2, prediction_shift=3)
    integers = torch.tensor([8.0, 2200, 100, -4, 1200, 110]).view(1, 6, 1, 1)
    factors, offsets = torch.tensor(whole.rows(), dtype=torch.float64).unbind(1)
    numbers = ((integers.flatten() - offsets) / factors).view(1, 6, 1, 1)
    ahead = 7 / 16 / 127.5
    ours, theirs = whole(integers, torch.full((1, 1, 1, 1), 56.0)), head(numbers, torch.full((1, 1, 1, 1), ahead, dtype=torch.float64))
    levels = torch.arange(256.0, dtype=torch.float64).view(-1, 1, 1, 1)
    one, other = (torch.cat([d.log_prob(x[None]).exp().flatten() for x in levels]) for d in (ours, theirs))
    assert one.sum().item() == pytest.approx(1) and (other * (other / one).log()).sum() < 1e-4, "nats that the rounding costs"


def test_a_sample_lies_where_its_uniform_falls():
    mixture, _ = everywhere((0, 5), (800, 3000), (30, 40))
    one = WholeMixture(256, mixture.weights[..., :1], mixture.means[..., :1], mixture.scales[..., :1])
    for u in torch.rand(200).tolist():
        level = one.sample(torch.full((1, 2, 1, 1), u))[:, 0].long()
        assert one.below(level) <= int(u * one.total) < one.below(level + 1)


def test_weights_are_those_of_a_softmax_and_never_too_many():
    logits = torch.randint(-100, 100, (50, 7, 1, 1))
    found = whole_weights(logits)
    assert (found.sum(1) <= 2**WEIGHT_BITS).all()
    assert (found / 2**WEIGHT_BITS - torch.softmax(logits / 16, 1)).abs().max() < 1e-3


@pytest.mark.parametrize(
    "function, real", [(exp, math.exp), (sigmoid, lambda x: 1 / (1 + math.exp(-x))), (elu, lambda x: x if x > 0 else math.expm1(x))]
)
def test_tables_are_the_nearest_whole_numbers(function, real):
    entries = table(function, -400, 90, SCALE_STEP, 10_000).tolist()
    assert all(abs(entry - 10_000 * real(i / SCALE_STEP)) <= 0.5 + 1e-6 for i, entry in zip(range(-400, 91), entries, strict=True))
    assert abs(float(function(Decimal("0.3"))) - real(0.3)) < 1e-15
