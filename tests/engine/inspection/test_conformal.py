import math

import numpy as np
import pytest
from scipy import stats

from vlae.engine.inspection.conformal import outliers, promise, rate_above, share

SEED = np.random.default_rng(5)


@pytest.mark.parametrize("n, rate", [(19, 0.05), (60, 0.05), (99, 0.1), (40, 0.2)])
def test_false_alarms_follow_their_beta_binomial_law(n, rate):
    """Of m new images, those above the k-th lowest of n are beta-binomial(m, n + 1 - k, k), whatever the scores are distributed as."""
    m, rounds = 50, 4000
    k = math.ceil((n + 1) * (1 - rate) - 1e-9)
    counts = np.zeros(m + 1)
    for _ in range(rounds):
        scores = SEED.standard_cauchy(n + m)
        counts[int((scores[n:] > promise(scores[:n], rate).threshold).sum())] += 1
    expected = rounds * stats.betabinom.pmf(np.arange(m + 1), m, n + 1 - k, k)
    many = expected >= 5
    seen, wanted = np.append(counts[many], counts[~many].sum()), np.append(expected[many], expected[~many].sum())
    assert stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-4


def test_a_new_lot_keeps_the_rate_where_images_of_one_lot_are_alike():
    rate, lots, alarms = 0.1, 19, []
    for _ in range(3000):
        sizes = SEED.integers(1, 30, lots)
        middles = SEED.normal(0, 3, lots + 1)
        scores = np.concatenate([SEED.normal(m, 1, s) for m, s in zip(middles, sizes, strict=False)])
        names = np.repeat([f"lot {n}" for n in range(lots)], sizes)
        alarms.append(SEED.normal(middles[-1], 1) > promise(scores, rate, list(names)).threshold)
    assert 0.3 * rate < np.mean(alarms) <= rate + 4 * math.sqrt(rate / 3000)


def test_too_few_images_promise_what_they_can_and_say_how_many_it_takes():
    few = promise(np.arange(9.0), 0.05)
    assert not few.kept and few.rate == pytest.approx(0.1) and few.threshold == pytest.approx(8.0, rel=1e-4) and few.needed == 19
    assert promise(np.arange(19.0), 0.05).kept
    by_lot = promise(np.arange(40.0), 0.05, ["a"] * 20 + ["b"] * 20)
    assert not by_lot.kept and by_lot.rate == pytest.approx(1 / 3) and by_lot.needed == 19 and by_lot.n_lots == 2
    assert promise(np.arange(49.0), 0.02).needed == 49 and promise(np.arange(49.0), 0.02).kept


def test_one_image_a_lot_is_the_same_as_no_lots():
    scores = SEED.normal(size=57)
    for rate in (0.02, 0.05, 0.3):
        assert promise(scores, rate, [str(n) for n in range(57)]).threshold == promise(scores, rate).threshold


def test_equal_scores_raise_no_alarm():
    assert (np.ones(30) * (1 + 1e-6) <= promise(np.ones(30), 0.05).threshold).all()


def test_a_moved_threshold_tells_its_rate():
    scores = np.arange(1.0, 200.0)
    covered = 0
    for _ in range(1000):
        sample = SEED.uniform(size=80)
        threshold = np.sort(sample)[70]
        _, low, high = rate_above(sample, threshold)
        covered += low <= 1 - threshold <= high
    assert abs(covered - 950) < 4 * math.sqrt(1000 * 0.05 * 0.95)
    assert rate_above(scores, -1.0)[0] == 1.0 and rate_above(scores, 1e9)[0] == pytest.approx(1 / 200)


@pytest.mark.parametrize(("count", "rate", "strength"), [(20, 0.05, 1e-3), (34, 0.03, 5.0), (34, 0.05, 1e3), (1, 0.2, 1.0)])
def test_the_interval_of_lots_holds_whether_lots_alarm_as_a_whole_or_image_by_image(count: int, rate: float, strength: float) -> None:
    """Rates of lots drawn from a beta law, from nearly all or nothing to nearly alike."""
    covered = 0
    for _ in range(500):
        of = SEED.beta(strength * rate, strength * (1 - rate), count)
        scores = (SEED.uniform(size=(count, 6)) < of[:, None]).astype(float).ravel()
        mean, low, high = rate_above(scores, 0.5, np.repeat(np.arange(count), 6).astype(str).tolist())
        covered += low <= rate <= high
        assert low <= mean <= high
    assert covered >= 0.95 * 500 - 4 * math.sqrt(500 * 0.05 * 0.95)


def test_lots_without_an_alarm_leave_room_for_one() -> None:
    mean, low, high = rate_above(np.zeros(34), 0.5, [str(n) for n in range(34)])
    assert (mean, low, high) == pytest.approx((1 / 35, 0, stats.binomtest(0, 34).proportion_ci(0.95, "exact").high))


def test_shares_have_the_interval_of_the_binomial_test():
    for found, of in ((0, 7), (3, 10), (10, 10)):
        theirs = stats.binomtest(found, of).proportion_ci(0.95, "exact")
        assert share(found, of) == pytest.approx((found / of, theirs.low, theirs.high))


def test_defects_among_good_images_stand_out_and_good_ones_do_not():
    good = np.exp(SEED.normal(0, 0.2, 300))
    assert len(outliers(good)) == 0
    assert outliers(np.append(good, [8.0, 9.0])).tolist() == [300, 301]
