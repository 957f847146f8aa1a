"""What the coder is driven with, against the tensors of ``mixture``: to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlae.archive.chances import logistics, nothing_known, rules_of, unasked
from vlae.archive.loops import Some, ask, mix, quotient
from vlae.archive.mixture import SCALES, Halving, WholeBitHead, WholeHead, WholeLogistics, whole_weights


def halved(shares, like):
    """What the tensors ask of pixels until one level is left, whatever is answered, (Q, N): the chances, the answers; and the levels."""
    left, chances, answers = Halving(shares, like), [], []
    for _ in left.middles():
        chances.append(left.upper().expand_as(like).flatten())
        answers.append((torch.rand(like.shape) + left.upper()) / 2 > 0.5)
        left.take(answers[-1])
    return torch.stack(chances), torch.stack(answers).flatten(1), left.low


def same(found, chances, answers):
    return np.array_equal(found[0], chances.numpy()) and np.array_equal(found[1], answers.numpy())


def pixels(head, numbers, prediction, levels):
    """What is asked of pixels (N), colour after colour."""
    known, found = nothing_known(head, len(numbers))._replace(levels=levels), []
    for c in range(head.colours):
        mix(c, Some(0, 1, len(numbers)), numbers, prediction, rules_of(head), known)
        found.append(asked(head, known, c))
    return tuple(np.concatenate(some) for some in zip(*found, strict=True))


def asked(head, known, c=0):
    """What is asked of a colour whose mixtures and levels are known."""
    count = known.levels.shape[1]
    (chances,), (answers,) = room = unasked(head, 1, count)
    ask(c, Some(0, 1, count), rules_of(head), known, chances, answers)
    return tuple(some[0] for some in room)


def by_place(known, levels):
    """With levels, place after place, image after image."""
    return known._replace(levels=levels.flatten(1).t().reshape(1, -1).numpy())


def rows(values):
    """Pixel after pixel, image after image."""
    return values.flatten(2).transpose(1, 2).flatten(0, 1).contiguous().numpy()


@pytest.mark.parametrize("levels, colours", [(256, 1), (256, 3), (65536, 1)])
@pytest.mark.parametrize("shift", [None, 0, 5])
def test_colours_are_asked_for_as_the_tensors_of_the_head_say(levels, colours, shift):
    """Numbers as those of a network, and some far beyond."""
    head, dtype = WholeHead(levels, colours, 3, shift or 0), torch.float32 if levels == 256 else torch.float64
    offsets = torch.tensor([offset for _, offset in head.rows()]).view(1, -1, 1, 1)
    numbers = (offsets + 300 * torch.randn(2, len(offsets[0]), 5, 9) * torch.randn(2, 1, 5, 9).exp()).round().to(dtype)
    prediction = None if shift is None else (9000 * torch.randn(2, colours, 5, 9)).round().to(dtype)
    told, found, asked_for = head(numbers, prediction), [], []
    for c in range(colours):
        *questions, level = halved(told.colour(c, found), torch.zeros(2, 5, 9, dtype=torch.long))
        found.append(level)
        asked_for.append(questions)
    chances, answers = (torch.cat(some) for some in zip(*asked_for, strict=True))
    given = rows(numbers), rows(numbers[:, :0] if prediction is None else prediction)
    assert same(pixels(head, *given, torch.stack(found).flatten(1).numpy()), chances, answers)


@pytest.mark.parametrize("levels", [2, 5, 256, 1024])
def test_all_images_may_have_the_same_mixtures(levels):
    logits, means = (torch.randint(-high, high, (1, 4, 3, 8)) for high in (400, 20 * levels))
    shares = WholeLogistics(levels, whole_weights(logits), means, torch.randint(0, len(SCALES), means.shape))
    chances, answers, found = halved(shares, torch.zeros(5, 3, 8, dtype=torch.long))
    head, known = logistics(shares, 5)
    of_images = (some.reshape(len(some), -1, 5).swapaxes(1, 2).reshape(len(some), -1) for some in asked(head, by_place(known, found)))
    assert same(tuple(of_images), chances, answers)


def test_a_bit_is_one_question():
    head, logits = WholeBitHead(), torch.randint(-2000, 2000, (3, 1, 4, 6)).float()
    chances, answers, found = halved(head(logits, None), torch.zeros(3, 4, 6, dtype=torch.long))
    assert same(pixels(head, rows(logits), rows(logits[:, :0]), found.view(1, -1).numpy()), chances, answers)


@given(st.integers(1, 2**54), st.integers(0, 2**15))
def test_a_quotient_by_floats_is_exact(a, most):
    for b in {max(1, a // max(most, 1)), a // (most + 1) + 1}:
        assert quotient(a, b) == a // b
        assert quotient(a // b * b, b) == a // b
