"""Search: the images that are most like one image, by their codes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vlae.data.source import LeftOut
from vlae.engine.embed import Codes
from vlae.engine.retrieval.columns import matching
from vlae.engine.retrieval.contact import tile, write_contact_sheet
from vlae.engine.retrieval.index import Index, part_of
from vlae.engine.retrieval.named import Query
from vlae.engine.retrieval.neighbours import By, Neighbours
from vlae.errors import DataError, SettingError


@dataclass(frozen=True)
class Hit:
    """An image that was found."""

    rank: int
    name: str
    distance: float


@dataclass(frozen=True)
class Found:
    """What a search found, nearest first; ``among`` so many images."""

    query: str
    by: By
    among: int
    hits: tuple[Hit, ...]
    left_out: tuple[LeftOut, ...]

    def tree(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "left_out": [left._asdict() for left in self.left_out]}


class Region(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def search(
    index: Index,
    query: Query,
    count: int = 10,
    by: By = "certainty",
    where: Sequence[str] = (),
    region: Region | None = None,
    sheet: Path | None = None,
) -> Found:
    """The ``count`` images of an index whose codes are nearest to that of a query, which is never among them itself.

    Args:
        index: the images.
        query: the image that they are compared with.
        count: how many.
        by: which distance (``engine.retrieval.neighbours``).
        where: conditions on what is known of the images, ``label=good``, all of which must hold.
        region: compare only the places of the code that this part of the query touches; of other images those at the same place.
        sheet: where to write query and results as a picture.

    Raises:
        SettingError: a condition has no sense, or a region is asked of codes that are vectors.
        DataError: no image is left, or the region leads out of the query.
        DiskError: the picture cannot be written.
    """
    numbers = matching(index.columns, where, len(index))
    numbers = numbers[numbers != query.number]
    if not len(numbers):
        raise DataError(f"There is no image to compare {query.name} with", rule="At least one other is needed", do="Ask for less by --where")
    chosen, code = part_of(index, numbers), query.code
    entries = chosen.codes
    if region is not None:
        within = _within(index, query, region)
        entries, code = (Codes(codes.mean[:, within], codes.std[:, within]) for codes in (entries, code))
    nearest = Neighbours(entries, by)(code, count)
    ranked = enumerate(zip(nearest.numbers[0].tolist(), nearest.distances[0].tolist(), strict=True), start=1)
    hits = [(n, Hit(rank, chosen.names[n], distance)) for rank, (n, distance) in ranked]
    if sheet is not None:
        _write_sheet(sheet, chosen, query, hits)
    return Found(query.name, by, len(chosen), tuple(hit for _, hit in hits), index.left_out)


def _within(index: Index, query: Query, region: Region) -> npt.NDArray[np.bool_]:
    """Which numbers of a code, channel by channel and row by row, belong to places that a region touches."""
    if index.places is None:
        raise SettingError(
            "--region needs a grid code", rule="A vector is one code for the whole image", do="Leave --region out, or train with keep.code=grid"
        )
    (top, left, height, width), size = region, query.size
    if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
        rule = "It is top,left,height,width in pixels, inside the image"
        raise DataError(f"--region leads out of {query.name}", rule=rule, found=f"{top},{left},{height},{width} of {size[0]} x {size[1]} pixels")
    # Place k covers the pixels from k / places to (k + 1) / places of the side.
    edges = np.arange(index.places + 1) / index.places
    rows, columns = (
        (edges[:-1] * side < first + long) & (edges[1:] * side > first) for first, long, side in ((top, height, size[0]), (left, width, size[1]))
    )
    channels = index.codes.mean.shape[1] // index.places**2
    return np.tile(np.outer(rows, columns).ravel(), channels)


def _write_sheet(path: Path, index: Index, query: Query, hits: Sequence[tuple[int, Hit]]) -> None:
    tiles = [tile(query.picture, "query", Path(query.name).name)]
    tiles += [tile(partial(index.picture, n), f"{hit.rank}: {hit.distance:.4g}", hit.name) for n, hit in hits]
    columns = max(4, int(np.ceil(np.sqrt(len(tiles)))))
    write_contact_sheet(path, [tiles[first : first + columns] for first in range(0, len(tiles), columns)])
