"""Which images to label next: better than random ones, on real sets."""

import numpy as np
import pytest
from sklearn import datasets
from sklearn.decomposition import PCA

from tests.engine.test_classify import blobs
from vlae.engine import ask as module
from vlae.engine.ask import ask, doubts
from vlae.engine.classify import Labelled, Linear, fit_linear, predicted, standardised
from vlae.engine.curve import balanced
from vlae.engine.embed import Codes
from vlae.engine.neighbours import some_of


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
            chosen = ask(unknown, some_of(codes, known), doubts(fitted, unknown), batch, lots)
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
    chosen = rest[ask(unknown, some_of(labelled.codes, known), doubts(fitted, unknown), 1, rng)]
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
    codes = blobs(rng, 8).codes
    same = Codes(np.zeros((20, 4)), np.ones((20, 4)))
    for unknown, known in ((some_of(codes, range(20)), some_of(codes, range(20, 24))), (codes, codes)):
        chosen = ask(unknown, known, rng.random(len(unknown.mean)), count, rng)
        assert len(set(chosen.tolist())) == len(chosen) == min(count, len(unknown.mean))
    for known in (some_of(codes, range(0)), some_of(same, range(3))):
        assert len(set(ask(same, known, np.ones(20), count, rng).tolist())) == min(count, 20)


def test_of_very_many_images_some_are_considered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 10)
    rng = np.random.default_rng(0)
    codes = blobs(rng, 20).codes
    chosen = ask(codes, some_of(codes, range(2)), np.ones(60), 12, rng)
    assert len(set(chosen.tolist())) == 12 and chosen.max() < 60
