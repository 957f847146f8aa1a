"""Duplicates: images with the same pixels, and images whose codes are much nearer to each other than neighbours usually are."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vlae.data.source import LeftOut
from vlae.engine.retrieval.chance import by_chance
from vlae.engine.retrieval.contact import tile, write_contact_sheet
from vlae.engine.retrieval.index import Index, part_of
from vlae.engine.retrieval.neighbours import By, Nearest, Neighbours

# Neighbours of an image that are looked at.
COUNT = 10
SHOWN = 8
"""images of a group on a contact sheet, at most"""


@dataclass(frozen=True)
class Group:
    """Images that are the same, or nearly so; ``distance`` is the largest that joins one of them to the others."""

    names: tuple[str, ...]
    distance: float


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once among so many ``images``."""

    images: int
    exact: tuple[Group, ...]
    """the same pixels"""
    near: tuple[Group, ...]
    """other pixels, nearly the same code; images of the same pixels are here by the first of them"""
    by: By
    threshold: float | None
    """the largest distance of near-duplicates; None where too few images tell how near neighbours usually are"""
    typical: float | None
    """the median distance of an image to its nearest neighbour"""
    rule: str
    kept_once: int
    """so many images had the same pixels as another, and a run has not kept them"""
    left_out: tuple[LeftOut, ...]

    def tree(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "left_out": [left._asdict() for left in self.left_out]}


def duplicates(
    index: Index, by: By = "certainty", within: float | None = None, sheet: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Duplicates:
    """Find duplicates and near-duplicates.

    Args:
        index: the images.
        by: which distance (``engine.retrieval.neighbours``).
        within: the largest distance of near-duplicates; unset, ``by_chance`` finds it.
        sheet: where to write the groups as a picture, a row each; nothing is written where there are none.
        progress: told the images compared and all.

    Raises:
        DiskError: the picture cannot be written.
        DeviceError: there are more than a million images, and usearch is not installed.
    """
    same = _same(index.sha256)
    distinct = part_of(index, np.array([members[0] for members in same], np.int64))
    nearest = Neighbours(distinct.codes, by).of_each(COUNT, progress)
    first = nearest.distances[:, 0] if nearest.distances.shape[1] else np.zeros(0)
    threshold, rule = (within, "as asked for") if within is not None else by_chance(first)
    near = [] if threshold is None else _linked(nearest, threshold)
    exact = [members for members in same if len(members) > 1]
    if sheet is not None and (exact or near):
        _write_sheet(sheet, index, [*exact, *([same[n][0] for n in members] for members, _ in near)])
    return Duplicates(
        images=len(index),
        exact=tuple(Group(tuple(index.names[n] for n in members), 0.0) for members in exact),
        near=tuple(Group(tuple(distinct.names[n] for n in members), distance) for members, distance in near),
        by=by,
        threshold=threshold,
        typical=float(np.median(first)) if len(first) else None,
        rule=rule,
        kept_once=index.kept_once,
        left_out=index.left_out,
    )


def _same(sha256: tuple[str, ...]) -> list[list[int]]:
    """The images of each content, by their numbers."""
    found: dict[str, list[int]] = {}
    for number, content in enumerate(sha256):
        found.setdefault(content, []).append(number)
    return list(found.values())


def _linked(nearest: Nearest, threshold: float) -> list[tuple[list[int], float]]:
    """The images that are joined by distances up to the threshold, and the largest of these; the closest groups first."""
    one, rank = np.nonzero(nearest.distances <= threshold)
    n, other = len(nearest.distances), nearest.numbers[one, rank]
    _, group = connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(n, n)), directed=False)
    largest = np.zeros(n)
    np.maximum.at(largest, group[one], nearest.distances[one, rank])
    members: dict[int, list[int]] = {}
    for number in np.union1d(one, other).tolist():
        members.setdefault(int(group[number]), []).append(number)
    return sorted(((numbers, float(largest[g])) for g, numbers in members.items()), key=lambda found: found[1])


def _write_sheet(path: Path, index: Index, groups: list[list[int]]) -> None:
    rows = [[tile(partial(index.picture, n), index.names[n]) for n in members[:SHOWN]] for members in groups]
    write_contact_sheet(path, rows)
