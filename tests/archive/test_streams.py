"""The range coder writes the words that constriction's does, and reads them."""

import itertools

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlae.archive.chances import nothing_known, rules_of
from vlae.archive.loops import Some
from vlae.archive.mixture import BIT_STEP, REACH, WholeBitHead
from vlae.archive.streams import closed, readers, write, writer
from vlae.archive.times import read_pixels

RAREST = 2.0**-24
BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)
CHANCES = {
    "any": lambda random, n: random.random(n),
    "next to none or all": lambda random, n: np.where(random.random(n) < 0.5, 10 ** -random.uniform(0, 7.3, n), 1 - 10 ** -random.uniform(0, 7.3, n)),
    "ends": lambda random, n: random.choice([RAREST, 0.5, 1 - RAREST], n),
    "all nearly certain": lambda random, n: np.full(n, 1 - RAREST),
}


def words(chances, answers):
    """As constriction writes them, one answer after another."""
    encoder = constriction.stream.queue.RangeEncoder()
    if len(chances):
        encoder.encode(answers.astype(np.int32), BERNOULLI, chances)
    return encoder.get_compressed()


@pytest.mark.parametrize("kind", CHANCES)
@pytest.mark.parametrize("expected", [True, False])
def test_the_words_are_those_of_constriction(kind, expected):
    random = np.random.default_rng(0)
    for n in [*range(40), *random.integers(40, 4000, 60)]:
        chances = CHANCES[kind](random, n).clip(RAREST, 1 - RAREST)
        answers = random.random(n) < (chances if expected else 0.5)
        into = writer(n)
        bits = write(chances[None], answers[None], np.array([0, n]), into)
        assert np.array_equal(closed(into), words(chances, answers))
        assert bits == pytest.approx(-np.log2(np.where(answers, chances, 1 - chances)).sum())


def test_there_is_room_for_answers_against_all_expectation():
    chances, answers = np.full(2**17, 1 - RAREST), np.zeros(2**17, bool)
    into = writer(2**17)
    write(chances[None], answers[None], np.array([0, 2**17]), into)
    assert into.done[0] <= len(into.words)
    assert np.array_equal(closed(into), words(chances, answers))


def test_answers_come_time_after_time_question_after_question():
    random = np.random.default_rng(1)
    chances, starts = random.random((3, 50)).clip(0.01, 0.99), np.array([0, 1, 20, 20, 50])
    answers, into = random.random((3, 50)) < chances, writer(150)
    write(chances, answers, starts, into)
    order = [(q, n) for begin, end in itertools.pairwise(starts) for q in range(3) for n in range(begin, end)]
    assert np.array_equal(closed(into), words(*(np.array([some[place] for place in order]) for some in (chances, answers))))


@given(st.lists(st.tuples(st.integers(-4000, 4000), st.booleans()), max_size=60), st.integers(1, 3))
def test_what_constriction_writes_is_read(pixels, apart):
    """Bits of two images, one after another or by turns."""
    rules, reach = rules_of(WholeBitHead()), REACH * BIT_STEP
    logits, wanted = np.array([logit for logit, _ in pixels], np.float32), np.array([one for _, one in pixels], bool)
    total = (1 << rules.mass_bits) + 2
    chances = ((total - rules.zeros[(logits.clip(-reach, reach) + reach).astype(int)]) / total).clip(RAREST, 1 - RAREST)
    ours, known = (
        readers([words(chances, wanted), words(chances[::-1].copy(), ~wanted[::-1])]),
        nothing_known(WholeBitHead(), apart * len(pixels) + 1),
    )
    for image, (some, answers) in enumerate([(logits, wanted), (logits[::-1], ~wanted[::-1])]):
        spread = np.zeros((apart * len(pixels) + 1, 1), np.float32)
        spread[1::apart, 0][: len(some)] = some
        read_pixels(image, Some(1, apart, len(pixels)), spread, spread[:, :0].copy(), rules, known, ours)
        assert np.array_equal(known.levels[0, 1::apart][: len(pixels)], answers)


def test_words_cut_short_are_read_as_if_zeros_followed():
    into = writer(3000)
    chances = np.full((1, 3000), 0.5)
    write(chances, np.ones((1, 3000), bool), np.array([0, 3000]), into)
    some = readers([closed(into)[:10], closed(into)[:0]])
    known, numbers = nothing_known(WholeBitHead(), 3000), np.zeros((3000, 1), np.float32)
    for image in range(2):
        read_pixels(image, Some(0, 1, 3000), numbers, numbers[:, :0].copy(), rules_of(WholeBitHead()), known, some)
    assert not known.levels.any()  # the second has no words at all
