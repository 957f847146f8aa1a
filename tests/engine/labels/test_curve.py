"""The curve of accuracy against labels."""

import numpy as np
import pytest
from scipy import stats

from tests.engine.labels.test_classify import blobs
from vlae.engine.embed import Codes
from vlae.engine.labels import curve as module
from vlae.engine.labels.curve import balanced, curve, first, interval


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


def test_the_interval_is_students(rng: np.random.Generator) -> None:
    values = rng.normal(size=9)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert interval(values) == pytest.approx((values.mean(), low, high))
    assert np.isnan(interval(values[:1])[1])


def test_more_labels_tell_more_and_what_tells_nothing_stays_at_chance(rng: np.random.Generator) -> None:
    labelled = blobs(rng, 44, apart=2.5)
    nothing = Codes(rng.normal(size=(132, 4)), np.zeros((132, 4)))
    told: list[tuple[int, int]] = []
    read = {"code": labelled.codes, "nothing": nothing}
    points = curve(read, labelled.classes, labelled.lots, 4, 0, progress=lambda *done: told.append(done))
    accuracy = {(p.of, p.classifier, p.labels): p for p in points}
    assert {p.labels for p in points} == {1, 2, 5, 10, 20} and all(len(p.by_draw) == 4 and p.low < p.accuracy < p.high for p in points)
    for kind in ("linear", "neighbours"):
        assert accuracy["code", kind, 20].accuracy > accuracy["code", kind, 1].accuracy + 0.05
        assert 0.2 < accuracy["nothing", kind, 20].accuracy < 0.45
    assert told[-1] == (len(points) * 4, len(points) * 4) and len(told) == len(points) * 4


def test_the_same_seed_gives_the_same_and_lots_are_not_divided(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = blobs(rng, 20)
    lots = np.repeat(np.arange(30), 2)
    drawn = []
    once = module._drawn

    def watched(*given: object) -> object:
        drawn.append(once(*given))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(module, "_drawn", watched)
    points = curve({"code": labelled.codes}, labelled.classes, lots, 3, 1, (1, 2))
    assert points == curve({"code": labelled.codes}, labelled.classes, lots, 3, 1, (1, 2))
    assert drawn and all(not set(lots[pool]) & set(lots[tested]) for pool, tested in drawn)


def test_smaller_sets_are_parts_of_larger_ones_and_rare_classes_give_all_they_have() -> None:
    classes, pool = np.array(["a"] * 6 + ["b"] * 2), np.array([7, 3, 1, 0, 6, 2, 4, 5])
    assert first(1, pool, classes).tolist() == [3, 7]
    assert first(5, pool, classes).tolist() == [3, 1, 0, 2, 4, 7, 6]


def test_classes_have_equal_weight() -> None:
    truth = np.array(["a"] * 90 + ["b"] * 10)
    assert balanced(np.full(100, "a"), truth) == 0.5 and balanced(truth, truth) == 1.0


def test_draws_whose_half_has_one_class_tell_nothing(rng: np.random.Generator) -> None:
    """Two lots have both classes and one has one: of some halves, whole lots leave a single class."""
    classes, lots = np.array(list("aaabab")), np.repeat(np.arange(3), 2)
    codes = {"code": Codes(rng.normal(size=(6, 2)), np.ones((6, 2)))}
    pools = [module._drawn(classes, lots, module.random(0, module.DRAWS, draw))[0] for draw in range(12)]
    tell = sum(len(set(classes[pool])) > 1 for pool in pools)
    assert 0 < tell < 12
    told: list[tuple[int, int]] = []
    points = curve(codes, classes, lots, 12, 0, progress=lambda *done: told.append(done))
    assert points and all(len(point.by_draw) == tell and np.isfinite(point.accuracy) for point in points)
    assert told[-1] == (len(points) * tell, len(points) * tell)


def test_without_a_draw_that_tells_there_is_no_curve(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = np.array(["a", "a", "b", "b"])
    monkeypatch.setattr(module, "_drawn", lambda *_: (np.array([0, 1]), np.array([2, 3])))
    assert curve({"code": Codes(rng.normal(size=(4, 2)), np.ones((4, 2)))}, classes, np.arange(4), 3, 0) == ()
