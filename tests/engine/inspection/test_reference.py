"""Good parts as a reference: what is usual of them scores alike, however rough they are, and what is not scores high."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vlae.engine.inspection.evidence import Code, Evidence, PixelEvidence
from vlae.engine.inspection.look import spread
from vlae.engine.inspection.places import LEAST_IMAGES
from vlae.engine.inspection.reference import UNIT, fitted, summed

SIZE = (24, 32)


def drawn(n: int, seed: int, bias: float = 0.3, wider: float = 1.5) -> Evidence:
    """Evidence of good images whose model is wrong in a way that depends on the roughness: too sure, and too surprised where it is rough."""
    rng = np.random.default_rng(seed)
    entropy = rng.uniform(1, 5, (n, *SIZE))
    variance = 0.5 + 0.2 * entropy
    surprise = bias * (entropy - 3) + wider * np.sqrt(variance) * rng.standard_normal((n, *SIZE))
    pixels = (torch.from_numpy(v) for v in (surprise, entropy, variance))
    z = torch.from_numpy(rng.standard_normal((n, 2, 3, 4)) + np.arange(4))
    return Evidence(PixelEvidence(*pixels, None), Code(z, torch.from_numpy(rng.gamma(9, 1, (n, 3, 4)))))


def with_surprise(e: Evidence, surprise: torch.Tensor) -> Evidence:
    return e._replace(pixels=e.pixels._replace(surprise=surprise))


@pytest.mark.parametrize("by_place", [True, False])
def test_surprise_is_zero_on_average_on_good_parts_however_rough(by_place: bool) -> None:
    reference = fitted([drawn(40, 0), drawn(40, 1)], by_place)
    new = drawn(200, 2)
    bits = reference.pixels(new.pixels).bits
    rough = new.pixels.entropy > 4
    assert abs(new.pixels.surprise[rough].mean().item()) > 0.3
    for where in (rough, new.pixels.entropy < 2):
        assert abs(bits[where].mean().item()) < 0.05


def test_one_unit_is_what_one_good_image_in_ten_shows() -> None:
    reference = fitted([drawn(200, 0)], by_place=False)
    strengths = reference.pixels(drawn(400, 1).pixels)
    layout = reference.layout(drawn(400, 1).code).layout
    assert (layout.flatten(1).amax(1) > 1).double().mean().item() == pytest.approx(1 - UNIT, abs=0.05)
    # The strongest of three sides, which look at the same pixels.
    assert 1 - UNIT - 0.05 < (strengths.texture.flatten(1).amax(1) > 1).double().mean().item() < 3 * (1 - UNIT) + 0.05


@pytest.mark.parametrize("sign", [1, -1])
def test_evidence_is_two_sided_and_lies_where_it_was_put(sign: int) -> None:
    reference = fitted([drawn(60, 0)], by_place=True)
    new = drawn(1, 5)
    surprise = new.pixels.surprise.clone()
    surprise[0, 10:15, 20:25] += sign * 4.0
    found = reference.pixels(with_surprise(new, surprise).pixels).texture[0]
    row, column = np.unravel_index(int(found.argmax()), SIZE)
    assert 10 <= row < 15 and 20 <= column < 25
    assert found.max() > 2 * reference.pixels(new.pixels).texture.max()


def test_places_that_always_vary_are_forgiven_where_places_are_told_apart() -> None:
    def noisy(n: int, seed: int) -> Evidence:
        e = drawn(n, seed)
        surprise = e.pixels.surprise.clone()
        surprise[:, :8, :8] *= 5
        return with_surprise(e, surprise)

    new = noisy(100, 9)
    share = {}
    for by_place in (True, False):
        found = fitted([noisy(100, 0)], by_place).pixels(new.pixels).texture
        where = [np.unravel_index(int(one.argmax()), SIZE) for one in found]
        share[by_place] = np.mean([row < 12 and column < 12 for row, column in where])
    assert share[True] < 0.6 < share[False]


def test_sums_over_squares_are_those_of_scipy() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 9, 14)))
    for side in (1, 3, 5, 9):
        theirs = ndimage.uniform_filter(values.numpy(), (0, side, side), mode="constant") * side**2
        assert np.allclose(summed(values, side).numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("size, places", [((300, 300), (19, 19)), ((33, 65), (2, 3)), ((16, 16), (1, 1)), ((40, 90), (5, 12)), ((7, 11), (1, 1))])
def test_places_are_spread_over_the_pixels_that_they_stand_for(size: tuple[int, int], places: tuple[int, int]) -> None:
    numbers = torch.arange(places[0] * places[1]).view(1, *places)
    found = spread(numbers, size)
    stride = next(s for s in (8, 16, 32, 64) if (-(-size[0] // s), -(-size[1] // s)) == places)
    for i, j in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
        assert found[0, i, j] == numbers[0, i // stride, j // stride]


def test_global_evidence_is_high_where_the_whole_model_saves_little() -> None:
    e = drawn(30, 0)
    saved = 1.0 + 0.1 * torch.randn(30, *SIZE)
    good = e._replace(pixels=e.pixels._replace(saved=saved))
    reference = fitted([good], by_place=False)
    assert good.gain is not None
    expected = (saved.mean((1, 2)) - e.code.bits.sum((1, 2)) / (SIZE[0] * SIZE[1])).numpy()
    assert np.allclose(good.gain.numpy(), expected)
    assert abs(reference.unlike(good.gain).mean().item()) < 1e-5 and reference.unlike(good.gain - 1).min() > 3


def test_codes_that_are_usual_elsewhere_are_layout_evidence_here() -> None:
    reference = fitted([drawn(200, 0)], by_place=True)
    new = drawn(50, 3).code
    moved = new._replace(z=new.by_place.flip(3))
    assert reference.layout(moved).layout.amax((1, 2)).min() > 1.5 > reference.layout(new).layout.amax((1, 2)).median()


def test_bits_of_layout_are_those_beyond_good_codes() -> None:
    e = drawn(500, 0)
    reference, new = fitted([e], by_place=True), drawn(300, 1).code
    bits = reference.layout(new).bits
    assert torch.allclose(bits + reference.mean["layout place 1"], reference.places.bits(reference.places.rest(new.by_place)))
    assert bits.mean().abs() < 0.1 < bits.std()


def test_a_unit_is_what_images_show_that_the_model_did_not_learn_from() -> None:
    known, new = drawn(300, 0), drawn(100, 1)
    new = with_surprise(new, 1.5 * new.pixels.surprise)
    told = {kind: fitted([known, new], True, [False] * 300 + [kind] * 100) for kind in (True, False)}
    strong = {kind: (r.pixels(new.pixels).texture.flatten(1).amax(1) > 1).double().mean().item() for kind, r in told.items()}
    assert strong[True] < 3 * (1 - UNIT) + 0.05 and strong[False] > 2 * strong[True]


@pytest.mark.parametrize("by_place", [True, False])
def test_rounding_is_no_evidence_where_all_codes_are_the_same(by_place: bool) -> None:
    e = drawn(40, 0)
    code = Code(torch.full((40, 2, 3, 4), 5.0), torch.full((40, 3, 4), 90.0))
    reference = fitted([e._replace(code=code)], by_place)
    rng = torch.Generator().manual_seed(0)
    rounded = Code(*(t * (1 + 2e-7 * torch.randn(t.shape, generator=rng)) for t in (code.by_place, code.bits)))
    assert reference.layout(rounded).layout.max() < 0.2
    other = Code(code.by_place + 0.01, code.bits + 0.1)
    assert reference.layout(other).layout.min() > 5


@pytest.mark.parametrize("by_place", [True, False])
def test_what_varies_is_measured_as_it_is(by_place: bool) -> None:
    e = drawn(40, 0)
    reference = fitted([e], by_place)
    share = 40 / (40 + LEAST_IMAGES)
    variance = e.code.bits.var(0)
    expected = (share * variance + (1 - share) * variance.mean()).sqrt() if by_place else e.code.bits.std()
    assert torch.equal(reference.deviation["layout prior"], expected)
    highest = ((e.code.bits - reference.mean["layout prior"]) / expected).abs().flatten(1).amax(1)
    assert torch.equal(reference.unit["layout prior"], highest.quantile(UNIT))
