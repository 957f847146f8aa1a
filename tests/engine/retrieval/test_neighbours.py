"""The nearest codes: those that scikit-learn finds in float64, whatever rounding and blocks do."""

import sys

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from vlae.engine.embed import Codes
from vlae.engine.retrieval import neighbours
from vlae.engine.retrieval.neighbours import BYS, By, Neighbours, some_of
from vlae.errors import DeviceError

ANY = pytest.mark.parametrize("by", BYS)


def codes(n: int, dims: int = 5, seed: int = 0, offset: float = 0.0, scale: float = 1.0) -> Codes:
    random = np.random.default_rng(seed)
    return Codes(offset + scale * random.standard_normal((n, dims)), scale * random.uniform(0.05, 0.5, (n, dims)))


def bhattacharyya(one: np.ndarray, other: np.ndarray) -> float:
    """By determinants and a system of equations (Fukunaga 1990, equation 3.152), of rows that hold means and then standard deviations."""
    (m, s), (n, t) = np.split(one, 2), np.split(other, 2)
    middle = np.diag(s**2 + t**2) / 2
    logs = [np.linalg.slogdet(matrix)[1] for matrix in (middle, np.diag(s**2), np.diag(t**2))]
    return ((m - n) @ np.linalg.solve(middle, m - n) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2) / np.log(2)


def by_scikit_learn(entries: Codes, queries: Codes, count: int, by: By) -> tuple[np.ndarray, np.ndarray]:
    x, y = ([np.hstack(codes) for codes in (entries, queries)]) if by == "certainty" else (entries.mean, queries.mean)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute", metric=bhattacharyya if by == "certainty" else by).fit(x)
    distances, numbers = search.kneighbors(y)
    return numbers, distances


@ANY
def test_they_are_those_of_scikit_learn(by: By) -> None:
    entries, queries = codes(200), codes(20, seed=1)
    found = Neighbours(entries, by)(queries, 7)
    numbers, distances = by_scikit_learn(entries, queries, 7, by)
    assert np.array_equal(found.numbers, numbers)
    assert np.allclose(found.distances, distances, rtol=1e-9, atol=1e-12)


def test_certainty_is_the_overlap_of_the_posteriors() -> None:
    one, other = codes(1, 2), codes(1, 2, seed=1)
    overlaps = [
        quad(lambda z, d=d: np.sqrt(norm.pdf(z, one.mean[0, d], one.std[0, d]) * norm.pdf(z, other.mean[0, d], other.std[0, d])), -9, 9, limit=200)[0]
        for d in range(2)
    ]
    assert Neighbours(one, "certainty")(other, 1).distances.item() == pytest.approx(-np.log2(np.prod(overlaps)), rel=1e-6)


@ANY
@pytest.mark.parametrize("offset, scale", [(1000.0, 1e-3), (3.0, 1e-4), (0.0, 1e-6), (0.0, 1e6)])
def test_rounding_in_single_precision_changes_nothing(by: By, offset: float, scale: float) -> None:
    entries, queries = codes(300, offset=offset, scale=scale), codes(10, seed=1, offset=offset, scale=scale)
    search = Neighbours(entries, by)
    found = search(queries, 10)
    exact = np.stack([search.distance.exact(some_of(queries, [q]), entries) for q in range(10)])
    assert np.allclose(found.distances, np.sort(exact, axis=1)[:, :10], rtol=1e-12)
    rough = search.distance.rough(queries).double().numpy()
    nearest = rough.argsort(axis=1)[:, :10]
    if offset == 1000 and by != "certainty":  # there the rough distances alone would be wrong
        assert not np.array_equal(np.sort(nearest), np.sort(found.numbers))


@ANY
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_rounding_is_no_larger_than_it_is_said_to_be(by: By, offset: float) -> None:
    entries, queries = codes(400, 64, offset=offset), codes(10, 64, seed=1, offset=offset)
    search = Neighbours(entries, by)
    rough = search.distance.rough(queries)
    exact = np.stack([search.distance.exact(some_of(queries, [q]), entries) for q in range(10)])
    scale = {"certainty": np.log(2) * exact, "euclidean": exact**2 - np.square(queries.mean).sum(1, keepdims=True), "cosine": 2 * exact - 2}[by]
    error = np.abs(rough.double().numpy() - scale).max(1)
    at = torch.from_numpy(scale.max(1)).float()
    assert (error <= search.distance.rounding(queries, at).numpy()).all()


@ANY
def test_blocks_change_nothing(by: By, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, queries = codes(100), codes(9, seed=1)
    whole, told = Neighbours(entries, by)(queries, 5), []
    monkeypatch.setattr(neighbours, "DISTANCES", 200)
    monkeypatch.setattr(neighbours, "BLOCK", 35)
    parts = Neighbours(entries, by)(queries, 5, lambda *done: told.append(done))
    assert np.array_equal(parts.numbers, whole.numbers) and np.allclose(parts.distances, whole.distances)
    assert told == [(2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]


@ANY
def test_no_more_are_found_than_there_are_and_the_first_of_equals(by: By) -> None:
    entries = Codes(np.ones((4, 3)), np.ones((4, 3)))
    found = Neighbours(entries, by)(entries, 9)
    assert found.numbers.tolist() == [[0, 1, 2, 3]] * 4 and np.allclose(found.distances, 0, atol=1e-12)
    assert Neighbours(entries, by)(entries, 2).numbers.tolist() == [[0, 1]] * 4
    each = Neighbours(entries, by).of_each(2)
    assert all(n not in row for n, row in enumerate(each.numbers.tolist()))
    assert Neighbours(some_of(entries, [0]), by).of_each(5).numbers.shape == (1, 0)


def test_a_code_of_zeros_has_no_direction() -> None:
    entries = Codes(np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), np.ones((3, 2)))
    found = Neighbours(entries, "cosine")(Codes(np.array([[2.0, 0.0]]), np.ones((1, 2))), 3)
    assert found.numbers.tolist() == [[1, 0, 2]] and found.distances.tolist() == [[0, 1, 2]]


@ANY
def test_neighbours_of_each_are_those_of_scikit_learn_but_itself(by: By) -> None:
    entries = codes(60)
    numbers, distances = by_scikit_learn(entries, entries, 5, by)
    found = Neighbours(entries, by).of_each(4)
    assert np.array_equal(found.numbers, numbers[:, 1:]) and np.allclose(found.distances, distances[:, 1:])


@ANY
def test_beyond_the_exact_usearch_finds_nearly_all(by: By, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch")
    # Certainties that differ by half between images, as those of models do: the graph has but one scale for all.
    entries = codes(3000, 16)._replace(std=np.random.default_rng(1).uniform(0.2, 0.5, (3000, 16)))
    exact = Neighbours(entries, by).of_each(10)
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    found = Neighbours(entries, by).of_each(10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.numbers.tolist(), found.numbers.tolist(), strict=True)])
    assert 0.95 <= recall and not np.any(found.numbers == np.arange(3000)[:, None])
    same = found.numbers == exact.numbers
    assert np.allclose(found.distances[same], exact.distances[same])


def test_without_usearch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 5)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(DeviceError, match=r"vlae\[search\]"):
        Neighbours(codes(6), "euclidean").of_each(2)
    assert Neighbours(codes(6), "euclidean")(codes(1), 2).numbers.shape == (1, 2)
