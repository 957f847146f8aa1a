"""Words give back the codes and the images, however many are written or read together and on however many threads."""

import copy
import itertools

import constriction
import numpy as np
import pytest
import torch

from vlae.archive.coder import decode, encode
from vlae.archive.mixture import Halving
from vlae.archive.whole import MOST
from vlae.core.schedule import schedule

from .build import made, plan, tensors
from .test_twin import FORMS, KINDS, NAMES

SIZES = [(1, 1), (1, 9), (7, 1), (5, 6)]


def words(codec, index, x, together):
    """The words of all images, so many in one call."""
    indices = [None] * len(x) if index is None else index.split(together)
    return [image.words for some, few in zip(x.split(together), indices, strict=False) for image in encode(codec, few, some)]


def halved(shares, level):
    """The chance and the answer of each question that tells a level, by tensors (Q, ...)."""
    left, chances, answers = Halving(shares, level), [], []
    for middle in left.middles():
        chances.append(left.upper().expand(level.shape))
        answers.append(level >= middle)
        left.take(answers[-1])
    return torch.stack(chances), torch.stack(answers)


def comes_back(codec, index, x, streams, together):
    """Whether words give the codes and images when so many are read in one call."""
    found = [decode(codec, streams[n : n + together], x.shape[2:]) for n in range(0, len(streams), together)]
    return torch.equal(torch.cat([f.x for f in found]), x) and (index is None or torch.equal(torch.cat([f.code for f in found]), index))


@pytest.mark.parametrize("kind, code", list(itertools.product(KINDS, ["grid", "vector", "none"])))
def test_images_are_the_same_words_and_come_back_however_many_are_coded_together(kind, code):
    one = made(plan("4x2", code=code, size=(6, 7), **KINDS[kind]), batch=7)
    streams = words(one.codec, one.index, one.x, 1)
    for together in (3, 7):
        assert all(np.array_equal(a, b) for a, b in zip(words(one.codec, one.index, one.x, together), streams, strict=True))
    assert all(comes_back(one.codec, one.index, one.x, streams, together) for together in (7, 3, 1))
    assert not comes_back(one.codec, one.index, one.x, streams[::-1], 7)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name, condition, pointwise", FORMS[::3])
def test_an_image_of_any_size_comes_back_from_its_words(name, condition, pointwise, size):
    one = made(plan(name, condition=condition, pointwise=pointwise, size=size), size=size)
    one.x[1], one.x[2] = 0, 255
    streams = words(one.codec, one.index, one.x, 3)
    assert comes_back(one.codec, one.index, one.x, streams, 3)
    double = copy.copy(one.codec)
    object.__setattr__(double, "twin", copy.deepcopy(one.codec.twin).double())
    assert all(np.array_equal(a, b) for a, b in zip(words(double, one.index, one.x.double(), 2), streams, strict=True))
    assert comes_back(double, one.index, one.x.double(), streams, 2)


@pytest.mark.parametrize("code", ["grid", "vector"])
@pytest.mark.parametrize("coarseness", [0.01, 3.0, 1e4])
def test_codes_come_back_in_steps_of_any_size(code, coarseness):
    one = made(plan("stack2", code=code, size=(6, 7)), coarseness=coarseness)
    assert (one.codec.codebook.steps == 1).all() if coarseness < 1 else (one.codec.codebook.steps > 1).all()
    one.index[0] = one.codec.codebook.index(torch.full_like(one.codes[:1], 1e6))
    one.index[1] = one.codec.codebook.index(torch.full_like(one.codes[:1], -1e6))
    assert comes_back(one.codec, one.index, one.x, words(one.codec, one.index, one.x, 2), 3)


@pytest.mark.parametrize("code", ["grid", "vector"])
def test_images_with_the_same_code_come_back_beside_others(code):
    one = made(plan("stack2", code=code, size=(6, 7)), batch=4)
    one.index[2] = one.index[0]
    streams = words(one.codec, one.index, one.x, 4)
    assert all(np.array_equal(a, b) for a, b in zip(words(one.codec, one.index, one.x, 1), streams, strict=True))
    assert comes_back(one.codec, one.index, one.x, streams, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_as_many_as_the_frequencies_say(kind):
    """On images of its own: what is rarer than one in a million has twice its share, since the coder adds one part in 2^24 to it."""
    one = made(plan("stack2", **KINDS[kind]), size=(24, 24))
    x = one.codec.twin.sample(one.z, torch.rand(3, one.codec.twin.head.uniforms, 24, 24, dtype=one.codec.twin.dtype))
    shares, level = one.codec.codebook.shares(12 * 12), one.codec.codebook.levels(one.index)
    code = -((shares.below(level + 1) - shares.below(level)) / shares.total).log2().sum((1, 2))
    pixels = -one.codec.twin(one.z, x).log_prob(x).sum((1, 2)) / np.log(2)
    for image, c, p in zip(encode(one.codec, one.index, x), code.tolist(), pixels.tolist(), strict=True):
        assert image.code_bits == pytest.approx(c, rel=1e-6) and image.pixel_bits == pytest.approx(p, rel=1e-6)
        assert c + p <= 32 * len(image.words) <= c + p + 80


@pytest.mark.parametrize("name, kind", list(itertools.product(NAMES, KINDS)))
def test_the_words_are_those_of_the_frequencies_by_tensors_and_of_constriction(name, kind):
    """The code, then time after time, colour after colour, all first questions, then all second ones, from the upper row down."""
    one = made(plan(name, size=(6, 7), **KINDS[kind]))
    codec, (height, width) = one.codec, one.x.shape[2:]
    slope = schedule(codec.twin.net.layers, codec.twin.net.predictor).slope if name != "none" else 0
    times = [column + slope * row if slope else 0 for row in range(height) for column in range(width)]
    colours = list(one.x.long().unbind(1))
    with torch.no_grad():
        told = codec.twin(one.z, one.x)
    pixels = [[some.flatten(2) for some in halved(told.colour(c, colours[:c]), level)] for c, level in enumerate(colours)]
    levels = codec.codebook.levels(one.index)
    code = [some.flatten(2) for some in halved(codec.codebook.shares(levels.shape[2]), levels)]
    for image, encoded in enumerate(encode(codec, one.index, one.x)):
        order = [(*code, q, place) for q in range(len(code[0])) for place in range(code[0].shape[2])]
        for time in sorted(set(times)):
            here = [place for place, at in enumerate(times) if at == time]
            order += [(*some, q, place) for some in pixels for q in range(len(some[0])) for place in here]
        chances, answers = (np.array([some[k][some[2], image, some[3]].item() for some in order]) for k in range(2))
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(answers.astype(np.int32), constriction.stream.model.Bernoulli(perfect=False), chances)
        assert np.array_equal(encoded.words, encoder.get_compressed())


def test_threads_do_not_matter():
    one = made(plan("stack2"), size=(40, 40))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        streams = words(one.codec, one.index, one.x, 3)
        assert comes_back(one.codec, one.index, one.x, streams, 2)
        found.append((streams, tensors(one.codec.twin, one.z, one.x)))
    (streams, first), (others, second) = found
    assert all(np.array_equal(a, b) for a, b in zip(streams, others, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_any_words_give_an_image_of_the_size_asked_for_or_are_refused(kind):
    """Damage is found by checksums, not by the coder: it must not make levels that do not exist, nor hang."""
    one = made(plan("4x2", **KINDS[kind]), tame=True)
    random, images = np.random.default_rng(0), 0
    for some in [np.zeros(n, np.uint32) for n in (0, 1, 9)] + [random.integers(0, 2**32, 200, np.uint32) for _ in range(20)]:
        try:
            x = decode(one.codec, [some], (6, 7)).x
        except AssertionError as refused:
            assert "invalid" in str(refused)
        else:
            images += 1
            assert x.shape == (1, one.codec.plan.colours, 6, 7) and torch.equal(x, x.round().clamp(0, one.codec.plan.levels - 1))
    assert images > 10


def test_values_reach_their_bounds_in_these_tests():
    """Else nothing were known of what is cut off there."""
    one = made(plan("all", size=(6, 7)), batch=7)
    assert any((value.abs() == MOST).any() for value in tensors(one.codec.twin, one.z, one.x))
