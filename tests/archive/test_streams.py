"""The range coder writes the words that constriction's does, and reads them."""

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlae.archive.chances import nothing_known, rules_of
from vlae.archive.loops import Some
from vlae.archive.mixture import BIT_STEP, REACH, WholeBitHead
from vlae.archive.streams import closed, readers, write, writers
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
        into = writers(2, n)
        write(1, chances[: n // 2], answers[: n // 2], into)
        write(0, chances, ~answers, into)
        write(1, chances[n // 2 :], answers[n // 2 :], into)
        assert np.array_equal(closed(1, into), words(chances, answers)) and np.array_equal(closed(0, into), words(chances, ~answers))
        assert into.bits[1] == pytest.approx(-np.log2(np.where(answers, chances, 1 - chances)).sum())


def test_there_is_room_for_answers_against_all_expectation():
    chances, answers = np.full(2**17, 1 - RAREST), np.zeros(2**17, bool)
    into = writers(1, 2**17)
    write(0, chances, answers, into)
    assert into.done[0] <= into.words.shape[1]
    assert np.array_equal(closed(0, into), words(chances, answers))


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
    into = writers(1, 3000)
    write(0, np.full(3000, 0.5), np.ones(3000, bool), into)
    some = readers([closed(0, into)[:10], closed(0, into)[:0]])
    known, numbers = nothing_known(WholeBitHead(), 3000), np.zeros((3000, 1), np.float32)
    for image in range(2):
        read_pixels(image, Some(0, 1, 3000), numbers, numbers[:, :0].copy(), rules_of(WholeBitHead()), known, some)
    assert not known.levels.any()  # the second has no words at all
