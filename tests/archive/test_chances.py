"""What the coder is driven with, against the tensors of ``mixture``: to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlae.archive.chances import Pixels, logistics
from vlae.archive.loops import quotient
from vlae.archive.mixture import SCALES, Halving, WholeBitHead, WholeHead, WholeLogistics, whole_weights


def same(asked, shares, like):
    """Whether all questions and chances are those of the tensors, whatever is answered; the levels in the end."""
    left = Halving(shares, like)
    for (middle, chance), wanted in zip(asked.questions(), left.middles(), strict=True):
        assert torch.equal(torch.from_numpy(middle), wanted.expand_as(like).flatten(1))
        assert torch.equal(torch.from_numpy(chance), left.upper().expand_as(like).flatten(1))
        upper = (torch.rand(like.shape) + left.upper()) / 2 > 0.5
        left.take(upper)
        asked.take(upper.flatten(1).numpy())
    assert np.array_equal(asked.low, left.low.flatten(1).numpy())
    return left.low


@pytest.mark.parametrize("levels, colours", [(256, 1), (256, 3), (65536, 1)])
@pytest.mark.parametrize("shift", [None, 0, 5])
def test_colours_are_asked_for_as_the_tensors_of_the_head_say(levels, colours, shift):
    """Numbers as those of a network, and some far beyond."""
    head, dtype = WholeHead(levels, colours, 3, shift or 0), torch.float32 if levels == 256 else torch.float64
    offsets = torch.tensor([offset for _, offset in head.rows()]).view(1, -1, 1, 1)
    numbers = (offsets + 300 * torch.randn(2, len(offsets[0]), 5, 9) * torch.randn(2, 1, 5, 9).exp()).round().to(dtype)
    prediction = None if shift is None else (9000 * torch.randn(2, colours, 5, 9)).round().to(dtype)
    told = head(numbers, prediction)
    pixels = Pixels(head, numbers.flatten(2).transpose(1, 2), None if prediction is None else prediction.flatten(2).transpose(1, 2))
    found = []
    for c in range(colours):
        earlier = np.array([some.flatten(1).numpy() for some in found]).reshape(c, 2, 45)
        found.append(same(pixels.colour(c, earlier), told.colour(c, found), torch.zeros(2, 5, 9, dtype=torch.long)))


@pytest.mark.parametrize("levels", [2, 5, 256, 1024])
def test_all_images_may_have_the_same_mixtures(levels):
    logits, means = (torch.randint(-high, high, (1, 4, 3, 8)) for high in (400, 20 * levels))
    shares = WholeLogistics(levels, whole_weights(logits), means, torch.randint(0, len(SCALES), means.shape))
    same(logistics(shares, 5), shares, torch.zeros(5, 3, 8, dtype=torch.long))


def test_a_bit_is_one_question():
    head, logits = WholeBitHead(), torch.randint(-2000, 2000, (3, 1, 4, 6)).float()
    asked = Pixels(head, logits.flatten(2).transpose(1, 2), None).colour(0, np.empty((0, 3, 24), np.int64))
    same(asked, head(logits, None), torch.zeros(3, 4, 6, dtype=torch.long))


@given(st.integers(1, 2**54), st.integers(0, 2**15))
def test_a_quotient_by_floats_is_exact(a, most):
    for b in {max(1, a // max(most, 1)), a // (most + 1) + 1}:
        assert quotient(a, b) == a // b
        assert quotient(a // b * b, b) == a // b
