"""The classifiers against SciPy, scikit-learn and drawn codes, and on classes of which the answer is known."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from vlae.engine.embed import Codes
from vlae.engine.labels import classify
from vlae.engine.labels.classify import (
    FITS,
    Labelled,
    Linear,
    SoftNeighbours,
    anywhere,
    cross_validated,
    distances,
    divided,
    fit_linear,
    parts,
    predicted,
    standardised,
)
from vlae.engine.retrieval.neighbours import some_of


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def blobs(rng: np.random.Generator, each: int, classes: int = 3, dims: int = 4, apart: float = 4.0, std: float = 0.3) -> Labelled:
    """Classes around corners, every image a lot of its own."""
    names = np.array([f"c{n}" for n in range(classes)])
    of = np.repeat(names, each)
    mean = apart * np.repeat(np.eye(classes, dims), each, axis=0) + rng.normal(size=(len(of), dims))
    return Labelled(Codes(mean, np.full(mean.shape, std)), of, np.arange(len(of)))


def linear(rng: np.random.Generator, classes: int, dims: int = 3, share: float = 1.0) -> Linear:
    return Linear(np.array([f"c{n}" for n in range(classes)]), rng.normal(size=(dims, classes)), rng.normal(size=classes), share)


# The linear classifier


def test_two_classes_are_mackays_moderated_output(rng: np.random.Generator) -> None:
    codes, one = Codes(rng.normal(size=(20, 3)), rng.uniform(0, 2, (20, 3))), linear(rng, 2)
    w, b = one.weights[:, 1] - one.weights[:, 0], one.offsets[1] - one.offsets[0]
    kappa = 1 / np.sqrt(1 + np.pi / 8 * (codes.std**2 @ w**2))
    assert one.probabilities(codes)[:, 1] == pytest.approx(expit(kappa * (codes.mean @ w + b)), rel=1e-12)


@pytest.mark.parametrize("classes, left", [(2, 0.1), (3, 0.5), (6, 0.8)])
def test_probabilities_are_nearer_the_mean_over_drawn_codes_than_those_of_the_middle(rng: np.random.Generator, classes: int, left: float) -> None:
    """For two classes very near; for more, pairs of classes are taken for independent of one another."""
    codes, one = Codes(rng.normal(size=(30, 3)), rng.uniform(0, 1.5, (30, 3))), linear(rng, classes)
    drawn = codes.mean + codes.std * rng.standard_normal((4000, *codes.mean.shape))
    true = softmax(drawn @ one.weights + one.offsets, axis=2).mean(0)
    moderated = one.probabilities(codes)
    plain = softmax(codes.mean @ one.weights + one.offsets, axis=1)
    assert moderated.sum(1) == pytest.approx(np.ones(30))
    assert np.abs(moderated - true).mean() < left * np.abs(plain - true).mean()


def test_certain_codes_get_the_softmax(rng: np.random.Generator) -> None:
    codes, one = Codes(rng.normal(size=(9, 3)), np.zeros((9, 3))), linear(rng, 4)
    assert one.probabilities(codes) == pytest.approx(softmax(codes.mean @ one.weights + one.offsets, axis=1))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dims", [5, 70], ids=["few numbers", "more numbers than images"])
def test_weights_are_those_of_scikit_learn(rng: np.random.Generator, classes: int, dims: int) -> None:
    """With more numbers than images they are found among sums of the images: the same weights."""
    labelled, new = blobs(rng, 8, classes, dims, apart=1.0), Codes(rng.normal(size=(7, dims)), np.zeros((7, dims)))
    ours = classify._logistic(labelled, 0.7)
    theirs = LogisticRegression(C=0.7, tol=1e-8, max_iter=10_000).fit(labelled.codes.mean, labelled.classes)
    assert ours.probabilities(new) == pytest.approx(theirs.predict_proba(new.mean), abs=2e-3)


def test_the_strength_is_chosen_by_what_is_held_back(rng: np.random.Generator) -> None:
    """Of noise nothing is believed; of what is there, much."""
    noise = blobs(rng, 30, 2, 10, apart=0.0)
    told = fit_linear(noise, rng).probabilities(blobs(rng, 200, 2, 10, apart=0.0).codes)
    assert np.abs(told - 0.5).max() < 0.35
    clear = fit_linear(blobs(rng, 30, 2, 10, apart=6.0), rng).probabilities(blobs(rng, 200, 2, 10, apart=6.0).codes)
    assert clear.max(1).mean() > 0.97


def test_how_much_of_the_variance_counts_is_chosen_too(rng: np.random.Generator) -> None:
    """Codes with a wide posterior are told at random: only a classifier that looks at it is not certain of them."""

    def some(n: int) -> Labelled:
        one = blobs(rng, n, 2, 2, apart=5.0, std=0.05)
        lost = rng.random(2 * n) < 0.5
        one.codes.mean[lost] = one.codes.mean[rng.permutation(np.flatnonzero(lost))]
        one.codes.std[lost] = 30.0
        return one

    fitted, test = fit_linear(some(100), rng), some(500)
    _, probability = predicted(fitted, test.codes)
    wide = test.codes.std[:, 0] > 1
    assert fitted.share > 0 and probability[wide].mean() < 0.6 and probability[~wide].mean() > 0.7


# Nearest neighbours


def test_distances_are_the_mean_of_squared_ones_of_drawn_codes(rng: np.random.Generator) -> None:
    a, b = (Codes(rng.normal(size=(n, 4)), rng.uniform(0, 1, (n, 4))) for n in (5, 6))
    assert distances(Codes(a.mean, 0 * a.std), Codes(b.mean, 0 * b.std)) == pytest.approx(cdist(a.mean, b.mean, "sqeuclidean"))
    drawn = [c.mean + c.std * rng.standard_normal((20_000, *c.mean.shape)) for c in (a, b)]
    mean = np.mean(np.sum((drawn[0][:, :, None] - drawn[1][:, None]) ** 2, axis=3), axis=0)
    assert distances(a, b) == pytest.approx(mean, rel=0.03)


def test_cold_neighbours_are_the_nearest_neighbour_and_hot_ones_the_most_frequent_class(rng: np.random.Generator) -> None:
    labelled, new = blobs(rng, 10, apart=2.0), blobs(rng, 20, apart=2.0).codes
    nearest = labelled.classes[cdist(new.mean, labelled.codes.mean).argmin(1)]
    assert (predicted(SoftNeighbours(labelled, 1e-4), new)[0] == nearest).all()
    assert SoftNeighbours(labelled.take(np.arange(15)), 1e9).probabilities(new)[0] == pytest.approx([11 / 17, 6 / 17], rel=1e-6)


def test_an_uncertain_neighbour_counts_less(rng: np.random.Generator) -> None:
    codes = Codes(np.array([[-1.0], [1.0]]), np.array([[0.1], [2.0]]))
    p = SoftNeighbours(Labelled(codes, np.array(["sure", "vague"]), np.arange(2)), 1.0).probabilities(Codes(np.zeros((1, 1)), np.ones((1, 1))))
    assert p[0, 0] > 0.7


def test_the_temperature_is_nearly_the_same_from_some_of_the_images(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = blobs(rng, 60, apart=1.5)
    whole = FITS["neighbours"](labelled, rng)
    monkeypatch.setattr(classify, "NUMBERS_AT_ONCE", 90 * 180)
    some = FITS["neighbours"](labelled, rng)
    assert isinstance(whole, SoftNeighbours) and isinstance(some, SoftNeighbours)
    assert 0.4 < some.temperature / whole.temperature < 2.5


# Both


@pytest.mark.parametrize("kind", FITS)
def test_classes_that_lie_apart_are_told_apart_and_probabilities_come_true(rng: np.random.Generator, kind: str) -> None:
    fitted = FITS[kind](blobs(rng, 20), rng)
    test = blobs(rng, 400)
    told, probability = predicted(fitted, test.codes)
    right = (told == test.classes).mean()
    assert right > 0.95 and abs(probability.mean() - right) < 0.06


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", FITS)
def test_one_label_a_class_is_enough_and_one_class_is_told(rng: np.random.Generator, kind: str) -> None:
    told, _ = predicted(FITS[kind](blobs(rng, 1, apart=9.0), rng), blobs(rng, 50, apart=9.0).codes)
    assert (told == blobs(rng, 50).classes).mean() > 0.9
    only = blobs(rng, 5).take(np.arange(5))
    assert FITS[kind](only, rng).probabilities(only.codes) == pytest.approx(np.ones((5, 1)))


@pytest.mark.parametrize("kind", FITS)
def test_blocks_change_nothing(rng: np.random.Generator, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, codes = FITS[kind](blobs(rng, 6), rng), blobs(rng, 20).codes
    whole = fitted.probabilities(codes)
    monkeypatch.setattr(classify, "NUMBERS_AT_ONCE", 7)
    assert fitted.probabilities(codes) == pytest.approx(whole, rel=1e-12)
    assert fitted.probabilities(some_of(codes, range(0))).shape == (0, 3)


def test_a_number_that_the_code_does_not_use_stays_small(rng: np.random.Generator) -> None:
    used, unused = rng.normal(size=(500, 1)), 0.01 * rng.normal(size=(500, 1))
    scaled = standardised(Codes(3 + 5 * np.hstack([used, unused]), np.hstack([np.full((500, 1), 0.1), np.ones((500, 1))])))
    assert scaled.mean.std(0) == pytest.approx([1, 0.05], abs=0.02) and scaled.mean.mean(0) == pytest.approx([0, 0], abs=1e-12)
    assert (scaled.mean**2 + scaled.std**2).mean(0) == pytest.approx([1, 1])
    constant = standardised(Codes(np.ones((3, 1)), np.zeros((3, 1))))
    assert constant.mean.tolist() == [[0.0]] * 3


def test_without_regard_to_place_a_grid_is_the_same_wherever_things_lie(rng: np.random.Generator) -> None:
    grid = Codes(rng.normal(size=(6, 3, 16)), rng.uniform(0, 1, (6, 3, 16)))
    order = rng.permutation(16)
    one, other = (anywhere(Codes(*(n.reshape(6, -1) for n in codes)), 3) for codes in (grid, Codes(grid.mean[:, :, order], grid.std[:, :, order])))
    assert one.mean == pytest.approx(other.mean) and one.std == pytest.approx(other.std) and one.mean.shape == one.std.shape == (6, 21)
    assert one.mean.reshape(6, 3, 7)[2, 1] == pytest.approx(np.quantile(grid.mean[2, 1], classify.QUANTILES))
    assert one.std.reshape(6, 3, 7)[2, 1] == pytest.approx(np.full(7, np.sqrt((grid.std[2, 1] ** 2).sum()) / 16))


# Parts


def test_parts_keep_lots_whole_and_classes_even(rng: np.random.Generator) -> None:
    classes, lots = rng.choice(["a", "a", "a", "b"], 300), rng.integers(0, 60, 300)
    part = parts(classes, lots, 4, rng)
    assert all(len(np.unique(part[lots == lot])) == 1 for lot in np.unique(lots))
    for name in "ab":
        share = np.bincount(part[classes == name], minlength=4) / (classes == name).sum()
        assert share == pytest.approx(np.full(4, 0.25), abs=0.08)
    alone = parts(np.repeat(["a", "b"], [40, 8]), np.arange(48), 4, rng)
    assert np.bincount(alone[:40]).tolist() == [10] * 4 and np.bincount(alone[40:]).tolist() == [2] * 4


def test_every_image_is_tested_once_by_a_classifier_that_never_saw_its_lot(rng: np.random.Generator) -> None:
    labelled = blobs(rng, 12)._replace(lots=np.repeat(np.arange(18), 2))
    tested = []
    for train, test in divided(labelled, 5, rng):
        assert not set(train.lots) & set(test.lots)
        tested += test.codes.mean[:, 0].tolist()
    assert sorted(tested) == sorted(labelled.codes.mean[:, 0].tolist())


def test_what_is_known_of_a_lot_does_not_leak(rng: np.random.Generator) -> None:
    """Twins of random class: whoever divides them is right about all, whoever does not about a third."""
    one = blobs(rng, 40, apart=0.0, dims=20)
    one = one._replace(classes=rng.permutation(one.classes))
    twins = Labelled(Codes(*(np.repeat(c, 2, axis=0) for c in one.codes)), np.repeat(one.classes, 2), np.repeat(one.lots, 2))
    kept = cross_validated(FITS["neighbours"], twins, 5, rng).right.mean()
    torn = cross_validated(FITS["neighbours"], twins._replace(lots=np.arange(240)), 5, rng).right.mean()
    assert kept < 0.5 and torn > 0.7


@pytest.mark.parametrize("kind", FITS)
def test_cross_validation_tells_what_new_images_show(rng: np.random.Generator, kind: str) -> None:
    labelled, new = blobs(rng, 60, apart=1.5), blobs(rng, 2000, apart=1.5)
    held = cross_validated(FITS[kind], labelled, 5, rng)
    told, _ = predicted(FITS[kind](labelled, rng), new.codes)
    assert held.right.mean() == pytest.approx((told == new.classes).mean(), abs=0.1) and len(held.right) == 180
