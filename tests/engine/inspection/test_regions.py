"""Regions: connected, told with their place, area and bits, and bits add up."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

from vlae.engine.inspection.look import Look
from vlae.engine.inspection.regions import regions


def made(strength: np.ndarray, seed: int = 0) -> Look:
    rng = np.random.default_rng(seed)
    bits, layout = (rng.standard_normal(strength.shape).astype(np.float32) for _ in range(2))
    kind = rng.integers(0, 2, strength.shape).astype(np.uint8)
    return Look(strength.astype(np.float32), kind, bits, layout, (float(strength.max()),), None)


def test_they_are_the_connected_components_of_what_lies_above_the_threshold() -> None:
    strength = np.random.default_rng(1).uniform(0, 2, (30, 40))
    found = regions(made(strength), 1.4)
    points = np.argwhere(strength.astype(np.float32) > 1.4)
    count, of = connected_components(radius_neighbors_graph(points, 1.5))
    assert len(found) == count
    theirs = sorted(tuple(np.concatenate([part.min(0), np.ptp(part, 0) + 1, [len(part)]])) for part in (points[of == n] for n in range(count)))
    assert sorted((r.top, r.left, r.height, r.width, r.area) for r in found) == theirs
    assert [r.strength for r in found] == sorted((r.strength for r in found), reverse=True)
    assert found[0].strength == pytest.approx(strength.max() / 1.4, rel=1e-6)


def test_bits_are_those_of_its_pixels_and_of_its_kind() -> None:
    strength = np.zeros((12, 12))
    strength[2:5, 3:8] = 2
    strength[3, 4] = 3
    strength[8:10, 8:10] = 1.5
    look = made(strength)
    look.kind[3, 4], look.kind[8:10, 8:10] = 0, 1
    first, second = regions(look, 1.0)
    assert first.kind == "texture" and first.bits == pytest.approx(float(look.bits[2:5, 3:8].sum()), abs=1e-4)
    assert second.kind == "layout" and second.bits == pytest.approx(float(look.layout_bits[8:10, 8:10].sum()), abs=1e-4)


def test_nothing_above_the_threshold_is_no_region() -> None:
    assert regions(made(np.ones((5, 5))), 1.0) == []
