"""Whole mixtures: frequencies that add up, rise strictly, and are those of the float mixture but for rounding."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from vlae.archive.mixture import (
    BIT_STEP,
    SCALE_STEP,
    SCALES,
    WEIGHT_BITS,
    WholeBits,
    WholeHead,
    WholeLogistics,
    whole_weights,
)
from vlae.archive.tables import elu, exp, sigmoid, table
from vlae.core.distributions import LogisticHead


def everywhere(logits, means, scales, levels=256):
    """One mixture at every boundary of levels, from 0 to ``levels``."""
    parts = [torch.tensor(v).view(1, -1, 1, 1).expand(1, -1, 1, levels + 1) for v in (logits, means, scales)]
    return WholeLogistics(levels, whole_weights(parts[0]), parts[1], parts[2]), torch.arange(levels + 1).view(1, 1, -1)


@pytest.mark.parametrize("scales", [(0, 0), (len(SCALES) - 1, 3), (30, 31)])
@pytest.mark.parametrize("means", [(0, 4080), (-40_000, 900), (2040, 2041)])
@pytest.mark.parametrize("logits", [(0, 0), (-4000, 4000), (17, -3)])
def test_frequencies_rise_strictly_from_nothing_to_all(logits, means, scales):
    mixture, bounds = everywhere(logits, means, scales)
    below = mixture.below(bounds).flatten()
    assert below[0] == 0 and below[-1] == mixture.total and (below.diff() > 0).all()


def test_they_are_those_of_the_float_mixture_but_for_rounding():
    head, whole = LogisticHead(256, 1, 2), WholeHead(256, 1, 2, prediction_shift=3)
    integers = torch.tensor([8.0, 2200, 100, -4, 1200, 110]).view(1, 6, 1, 1)
    factors, offsets = torch.tensor(whole.rows(), dtype=torch.float64).unbind(1)
    numbers = ((integers.flatten() - offsets) / factors).view(1, 6, 1, 1)
    ahead = 7 / 16 / 127.5
    ours, theirs = whole(integers, torch.full((1, 1, 1, 1), 56.0)), head(numbers, torch.full((1, 1, 1, 1), ahead, dtype=torch.float64))
    levels = torch.arange(256.0, dtype=torch.float64).view(-1, 1, 1, 1)
    one, other = (torch.cat([d.log_prob(x[None]).exp().flatten() for x in levels]) for d in (ours, theirs))
    assert one.sum().item() == pytest.approx(1) and (other * (other / one).log()).sum() < 1e-4, "nats that the rounding costs"


@pytest.mark.parametrize("colours", [1, 3])
def test_colours_follow_one_another_as_in_the_float_mixture(colours):
    """In whole numbers as in the float mixture, for pixels of its own."""
    head, whole = LogisticHead(256, colours, 3), WholeHead(256, colours, 3, prediction_shift=0)
    factors, offsets = torch.tensor(whole.rows(), dtype=torch.float64).unbind(1)
    numbers = 0.5 * torch.randn(1, head.outputs, 30, 40, dtype=torch.float64)
    integers = (numbers * factors.view(1, -1, 1, 1) + offsets.view(1, -1, 1, 1)).round()
    real, ours = head(numbers, None), whole(integers, None)
    x = real.sample(torch.rand(1, head.uniforms, 30, 40, dtype=torch.float64))
    assert (real.log_prob(x) - ours.log_prob(x)).mean().abs() < 2e-3 * colours
    assert real.log_prob(x).std() > 0.5


def test_samples_lie_where_their_uniforms_fall():
    """Of each colour given the earlier ones, and of bits."""
    whole = WholeHead(256, 3, 2, prediction_shift=0)
    rows = torch.tensor([offset for _, offset in whole.rows()]).view(1, -1, 1, 1)
    pixels = [whole((rows + 400 * torch.randn(1, len(whole.rows()), 9, 9)).round(), None), WholeBits(torch.randint(-200, 200, (1, 9, 9)))]
    for kind in pixels:
        uniforms = torch.rand(1, 4 if kind.colours == 3 else 1, 9, 9)
        levels = kind.sample(uniforms).long().unbind(1)
        for c, (level, u) in enumerate(zip(levels, uniforms[0, -kind.colours :], strict=True)):
            shares = kind.colour(c, levels[:c])
            wanted = (u.double() * shares.total).long()
            assert (shares.below(level) <= wanted).all() and (wanted < shares.below(level + 1)).all()


def test_a_bit_has_the_frequencies_of_its_logit():
    logits = torch.tensor([-10_000, -700, -64, 0, 1, 300, 10_000]).view(1, 1, -1)
    bit = WholeBits(logits)
    below = [bit.below(torch.full_like(logits, x)) for x in range(3)]
    assert (below[0] == 0).all() and (below[2] == bit.total).all() and (below[1] > 0).all() and (below[1] < bit.total).all()
    assert torch.allclose(below[1] / bit.total, torch.sigmoid(-logits / BIT_STEP), atol=1e-6)


def test_weights_are_those_of_a_softmax_and_never_too_many():
    logits = torch.randint(-100, 100, (50, 7, 1, 1))
    found = whole_weights(logits)
    assert (found.sum(1) <= 2**WEIGHT_BITS).all()
    assert (found / 2**WEIGHT_BITS - torch.softmax(logits / 16, 1)).abs().max() < 1e-3


def test_tables_do_not_depend_on_the_callers_context():
    with localcontext(prec=4):
        rough = table(sigmoid, -300, 299, 32, 10_000)
    assert torch.equal(rough, table(sigmoid, -300, 300, 32, 10_000)[:-1])


@pytest.mark.parametrize(
    "function, real", [(exp, math.exp), (sigmoid, lambda x: 1 / (1 + math.exp(-x))), (elu, lambda x: x if x > 0 else math.expm1(x))]
)
def test_tables_are_the_nearest_whole_numbers(function, real):
    entries = table(function, -400, 90, SCALE_STEP, 10_000).tolist()
    assert all(abs(entry - 10_000 * real(i / SCALE_STEP)) <= 0.5 + 1e-6 for i, entry in zip(range(-400, 91), entries, strict=True))
    assert abs(float(function(Decimal("0.3"))) - real(0.3)) < 1e-15
