"""Which images to label next: better than random ones, on real sets."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn import datasets
from sklearn.decomposition import PCA

from tests.engine.labels.test_classify import blobs
from vlae.engine.embed import Codes
from vlae.engine.labels import ask as module
from vlae.engine.labels.ask import ask, doubts, kinship
from vlae.engine.labels.classify import Labelled, Linear, fit_linear, predicted, standardised
from vlae.engine.labels.curve import balanced
from vlae.engine.retrieval.neighbours import some_of


def embedded(name: str, dims: int) -> tuple[Codes, np.ndarray]:
    """A set of scikit-learn's as codes: probabilistic PCA (Tipping and Bishop 1999), whose posterior is known."""
    found = getattr(datasets, f"load_{name}")()
    x = found.data / np.where(found.data.std(0) > 0, found.data.std(0), 1) if name != "digits" else found.data
    pca = PCA(dims).fit(x)
    std = np.sqrt(pca.noise_variance_ * np.ones(dims))
    return standardised(Codes(pca.transform(x), np.broadcast_to(std, (len(x), dims)).copy())), found.target.astype(str)


def after(codes: Codes, classes: np.ndarray, seed: int, rounds: int, batch: int, *, asked: bool) -> float:
    """Accuracy on the other half after several rounds of labelling, from one label a class on."""
    order = np.random.default_rng(seed).permutation(len(classes))
    pool, test = np.split(order, 2) if len(order) % 2 == 0 else np.split(order[1:], 2)
    known = np.array([pool[classes[pool] == name][0] for name in np.unique(classes)])
    labelled, lots = Labelled(codes, classes, np.arange(len(classes))), np.random.default_rng([seed, 1])
    for _ in range(rounds):
        rest = np.setdiff1d(pool, known)
        if asked:
            fitted, unknown = fit_linear(labelled.take(known), lots), some_of(codes, rest)
            chosen = ask(unknown, labelled.take(known), doubts(fitted, unknown), batch, lots)
        else:
            chosen = lots.permutation(len(rest))[:batch]
        known = np.concatenate([known, rest[chosen]])
    told, _ = predicted(fit_linear(labelled.take(known), lots), some_of(codes, test))
    return balanced(told, classes[test])


@pytest.mark.parametrize("name, dims, batch, margin, seeds", [("digits", 16, 10, 0.05, 4), ("wine", 6, 3, 0.02, 16)])
def test_labelling_what_is_asked_for_beats_random_choice(name: str, dims: int, batch: int, margin: float, seeds: int) -> None:
    codes, classes = embedded(name, dims)
    gains = [after(codes, classes, seed, 2, batch, asked=True) - after(codes, classes, seed, 2, batch, asked=False) for seed in range(seeds)]
    assert np.mean(gains) > margin and np.mean(gains) > 2 * np.std(gains, ddof=1) / np.sqrt(len(gains))


def test_a_kind_of_image_without_a_label_is_asked_for_first_and_by_its_middle() -> None:
    rng = np.random.default_rng(0)
    labelled = blobs(rng, 30, apart=12.0)
    known = np.array([0, 1, 2, 30, 31, 32])  # none of the third class
    rest = np.setdiff1d(np.arange(90), known)
    unknown = some_of(labelled.codes, rest)
    fitted = fit_linear(labelled.take(known), rng)
    chosen = rest[ask(unknown, labelled.take(known), doubts(fitted, unknown), 1, rng)]
    third = labelled.codes.mean[60:]
    assert labelled.classes[chosen].tolist() == ["c2"]
    assert np.linalg.norm(labelled.codes.mean[chosen[0]] - third.mean(0)) < np.median(np.linalg.norm(third - third.mean(0), axis=1))


def test_doubt_is_the_lack_of_a_margin() -> None:
    one = Linear(np.array(["a", "b", "c"]), np.eye(3), np.zeros(3))
    p = np.array([[0.5, 0.5, 1e-9], [0.98, 0.01, 0.01]])
    assert doubts(one, Codes(np.log(p), np.zeros((2, 3)))) == pytest.approx([1.0, 0.03], abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7, 20, 50])
def test_as_many_different_images_as_wanted_or_all(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CLUSTERS", 6)
    rng = np.random.default_rng(0)
    labelled, same = blobs(rng, 8), blobs(rng, 8)._replace(codes=Codes(np.zeros((24, 4)), np.ones((24, 4))))
    for all_images in (labelled, same):  # also where all are alike
        for known in (all_images.take(np.arange(4)), all_images, labelled):
            chosen = ask(all_images.codes, known, rng.random(24), count, rng)
            assert len(set(chosen.tolist())) == len(chosen) == min(count, 24)


def test_of_very_many_images_some_are_considered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 10)
    rng = np.random.default_rng(0)
    labelled = blobs(rng, 20)
    chosen = ask(labelled.codes, labelled.take(np.arange(2)), np.ones(60), 12, rng)
    assert len(set(chosen.tolist())) == 12 and chosen.max() < 60


def test_kinship_is_cohens_kappa_of_the_nearest_of_another_lot() -> None:
    rng = np.random.default_rng(0)
    one = blobs(rng, 20, apart=1.5)
    apart = cdist(one.codes.mean, one.codes.mean)
    np.fill_diagonal(apart, np.inf)
    share, chance = (one.classes[apart.argmin(1)] == one.classes).mean(), 19 / 59
    assert kinship(one) == pytest.approx((share - chance) / (1 - chance)) and 0.1 < kinship(one) < 0.9
    assert kinship(blobs(rng, 20, apart=20.0)) == 1.0 and kinship(blobs(rng, 60, apart=0.0)) < 0.2
    assert kinship(blobs(rng, 1)) == 1.0 == kinship(one._replace(lots=np.zeros(60, np.int64)))
    twins = Labelled(Codes(*(np.repeat(c, 2, axis=0) for c in one.codes)), np.repeat(rng.permutation(one.classes), 2), np.repeat(one.lots, 2))
    assert kinship(twins) < 0.3 and kinship(twins._replace(lots=np.arange(120))) == 1.0


def test_where_neighbours_are_of_any_class_the_choice_is_random() -> None:
    """Regions tell nothing there, and the images in their middles are no better than others."""
    rng = np.random.default_rng(0)
    labelled = blobs(rng, 100, apart=0.0)
    known, rest = labelled.take(np.arange(0, 300, 15)), some_of(labelled.codes, np.setdiff1d(np.arange(300), np.arange(0, 300, 15)))
    chosen = ask(rest, known, np.ones(280), 140, np.random.default_rng(1))
    assert chosen.tolist() == np.random.default_rng(1).permutation(280)[:140].tolist()
