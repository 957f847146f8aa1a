"""What is known of images beside their pixels, a column each: labels, lots, factors; and the images of which something is true.

n images.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vlae.errors import DataError, SettingError

Column = npt.NDArray[Any]
"""numbers, NaN where not known, or text, None where not known: (n,)"""

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([^=<>!]*[^=<>!\s])\s*(=|!=|<=|>=|<|>)(?![=<>])\s*(.*?)\s*")


class Known(Protocol):
    """What a manifest tells of an image."""

    @property
    def label(self) -> str | None: ...
    @property
    def lot(self) -> str | None: ...
    @property
    def split(self) -> str | None: ...
    @property
    def factors(self) -> Mapping[str, float]: ...


def columns_of(images: Sequence[Known | None]) -> dict[str, Column]:
    """The columns of images of which something is known, or nothing."""
    found: dict[str, Column] = {name: np.array([getattr(i, name, None) for i in images], object) for name in ("label", "lot", "split")}
    factors = sorted({name for image in images if image for name in image.factors})
    return found | {name: np.array([i.factors.get(name, np.nan) if i else np.nan for i in images], np.float64) for name in factors}


def matching(columns: Mapping[str, Column], conditions: Sequence[str], n: int) -> npt.NDArray[np.int64]:
    """The numbers of the images for which all conditions hold, each of the form ``column=value``, with =, !=, <, <=, > or >=.

    >>> columns = {"lot": np.array(["a", "a", None], object), "angle": np.array([0.1, 0.9, 0.9])}
    >>> matching(columns, ["lot=a", "angle > 0.5"], 3).tolist(), matching(columns, ["lot!=a"], 3).tolist()
    ([1], [2])

    Raises:
        SettingError: a condition cannot be read, or its column is none.
        DataError: they hold for no image.
    """
    holds = np.ones(n, bool)
    for condition in conditions:
        holds &= _holds(columns, condition)
    if not holds.any():
        raise DataError(f"{' and '.join(conditions)} holds for no image", rule="At least one is left to search", do="Ask for less by --where")
    return np.flatnonzero(holds)


def _holds(columns: Mapping[str, Column], condition: str) -> npt.NDArray[np.bool_]:
    rule = "A condition is COLUMN=VALUE, with =, !=, <, <=, > or >="
    read = _CONDITION.fullmatch(condition)
    if read is None:
        raise SettingError(f"--where {condition!r} is no condition", rule=rule, do="Write label=good or 'angle>0.5'")
    sign, written = read[2], read[3]
    known = [column for column, values in columns.items() if values.dtype != object or any(value is not None for value in values)]
    name = read[1] if read[1] in known else next((column for column in known if column.lower() == read[1].lower()), None)
    if name is None:
        raise SettingError(f"--where {condition!r} cannot be decided", rule=f"{read[1]} is no column that is known", found=", ".join(known) or "none")
    values = columns[name]
    if values.dtype != object:
        try:
            return np.asarray(COMPARISONS[sign](values, float(written)))
        except ValueError:
            raise SettingError(f"--where {condition!r} cannot be decided", rule=f"{name} is a number", found=written, do="Give one") from None
    if sign not in ("=", "!="):
        raise SettingError(f"--where {condition!r} cannot be decided", rule=f"{name} is text", found=sign, do="Use = or !=")
    return np.array([COMPARISONS[sign](value, written) for value in values], bool)
