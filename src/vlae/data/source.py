"""What a folder, a manifest or a file of arrays offers before any image is decoded."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vlae.data.read import Picture
from vlae.errors import SettingError


class LeftOut(NamedTuple):
    """Something that is not used, and why; ``harmless`` where no image is lost by it (a README, an image that nobody asked for)."""

    name: str
    reason: str
    harmless: bool = False


@dataclass(frozen=True)
class Item:
    """One image to come: ``picture()`` and ``mask()`` (h, w) decode it and may raise ``Refused``; ``split`` is what the source demands."""

    name: str
    picture: Callable[[], Picture]
    mask: Callable[[], npt.NDArray[np.bool_]] | None = None
    label: str | None = None
    lot: str | None = None
    split: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The images to come in the natural order of their names, what is left out already, and remarks with their counts."""

    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def natural(name: str) -> list[Any]:
    """Key to sort names as people count: cell2 before cell10.

    >>> sorted(["cell10", "cell2"], key=natural)
    ['cell2', 'cell10']
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def text(value: object) -> str:
    r"""A value as text that can be written: JSON and NumPy can name halves of characters, UTF-8 cannot.

    >>> text("a\ud800")
    'a?'
    """
    return str(value).encode("utf-8", "replace").decode()


def with_block_lots(source: Source, block: int) -> Source:
    """Make every ``block`` consecutive images of a source one lot. Errors: ``SettingError`` where the source names lots itself."""
    if any(item.lot is not None for item in source.items):
        raise SettingError(
            f"data.lot_block is {block}", rule="It makes lots where there are none", found="lots in the data", do="Leave data.lot_block out"
        )
    return replace(source, items=tuple(replace(item, lot=f"block {rank // block:05d}") for rank, item in enumerate(source.items)))
