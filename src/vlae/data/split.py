"""Training, validation and test images: a split that stays when images are added.

Each image (or lot) has a number u in [0, 1) that is a hash of its pixels (or of its lot's name) and of nothing else:
u < validation is validation, u >= 1 - test is test, the rest trains. Adding images moves none of the others, and identical images are
never parted. (With so few images that a part would stay empty, the nearest image is taken for it, until there are more.)
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlae.data.settings import DataSettings
from vlae.errors import DataError, SettingError

HELD_OUT = ("validation", "test")


class Split(NamedTuple):
    """``of``: train, validation or test for each image; ``rule``: one sentence that says how it came about."""

    of: npt.NDArray[np.str_]
    rule: str


def assign(
    sha256: Sequence[str], lots: Sequence[str | None], given: Sequence[str | None], labels: Sequence[str | None], settings: DataSettings
) -> Split:
    """Split images by what the source gives, and what it does not give by content or by lot, out of its training images.

    Of the images that it says nothing of, those that are equal to one held out, or of its lot, are held out with it.

    Arguments, one entry an image: hash of the pixels, lot, split demanded by the source (None: to be found), label.
    Errors: ``SettingError`` for a setting that changes nothing, ``DataError`` where training or validation would be empty.
    """
    _check(lots, given, labels, settings)
    if settings.pool_validation:
        given = ["train" if name == "validation" else name for name in given]
    unwanted = np.array([settings.only_label is not None and label != settings.only_label for label in labels], dtype=bool)
    by_lot = settings.split_by != "content" and any(lot is not None for lot in lots)
    groups = [f"lot {lot}" if by_lot and lot is not None else f"image {sha}" for lot, sha in zip(lots, sha256, strict=True)]
    held = {group: part for part in HELD_OUT for group, name in zip(groups, given, strict=True) if name == part}
    split = np.array([name or held.get(group, "train") for group, name in zip(groups, given, strict=True)], dtype="<U10")
    missing = [name for name in HELD_OUT if name not in given]
    pool = (split == "train") & ~unwanted
    found = _by_hash([group for group, free in zip(groups, pool, strict=True) if free], settings, missing)
    split[pool] = found
    split[unwanted] = "test"
    _check_filled(split, settings)
    return Split(split, _rule(given, missing, by_lot, settings))


def position(group: str) -> float:
    """Place of a group in [0, 1): the first 53 bits of the SHA-256 of its name.

    >>> position("lot a") == position("lot a"), 0 <= position("lot b") < 1
    (True, True)
    """
    digest = hashlib.sha256(b"vlae split 1\0" + group.encode("utf-8")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def _by_hash(groups: Sequence[str], settings: DataSettings, missing: Sequence[str]) -> npt.NDArray[np.str_]:
    u, inverse = np.unique([position(group) for group in groups], return_inverse=True)  # sorted: the held out ones lie at the two ends
    n, validation, test = len(u), 0, 0
    least_test = int("test" in missing and settings.test > 0 and n > 1 + ("validation" in missing))
    if "validation" in missing:
        validation = _between(1, int((u < settings.validation).sum()), n - 1 - least_test)
    if "test" in missing:
        test = _between(least_test, int((u >= 1.0 - settings.test).sum()), n - 1 - validation)
    of = np.array(["validation"] * validation + ["train"] * (n - validation - test) + ["test"] * test, dtype="<U10")
    return of[inverse]


def _between(least: int, value: int, most: int) -> int:
    return max(min(max(value, least), most), 0)


def _check(lots: Sequence[str | None], given: Sequence[str | None], labels: Sequence[str | None], settings: DataSettings) -> None:
    if settings.split_by == "lot" and not any(lot is not None for lot in lots):
        do = "Add a column lot to the manifest, or set data.lot_block"
        raise SettingError("data.split_by is lot", rule="It needs lots", found="no lots", do=do)
    if all(name in given for name in HELD_OUT) and not settings.pool_validation:
        for name, value, unset in (("split_by", settings.split_by, "auto"), ("lot_block", settings.lot_block, None)):
            if value != unset:
                rule = "A split that the source gives is kept"
                raise SettingError(f"data.{name} is {value}", rule=rule, found="such a split", do=f"Leave data.{name} out")
    if settings.pool_validation and "validation" not in given:
        what, rule = "data.pool_validation is set", "It is for validation images that the source gives"
        raise SettingError(what, rule=rule, found="none", do="Leave data.pool_validation out")
    known = sorted({label for label in labels if label is not None})
    if settings.only_label is not None and settings.only_label not in known:
        found = ", ".join(known[:10]) or "no labels"
        raise SettingError(f"data.only_label is {settings.only_label}", rule="It is the label of some image", found=found, do="Correct it")


def _check_filled(split: npt.NDArray[np.str_], settings: DataSettings) -> None:
    for name in ("train", "validation"):
        if not (split == name).any():
            counts = ", ".join(f"{(split == part).sum()} {part}" for part in ("train", "validation", "test"))
            raise DataError(
                f"No image is left for {'training' if name == 'train' else name}",
                rule="Training and validation need one image (or lot) each",
                found=counts,
                do=f"Add images, or change data.validation {settings.validation} and data.test {settings.test}",
            )


def _rule(given: Sequence[str | None], missing: Sequence[str], by_lot: bool, settings: DataSettings) -> str:
    shares = " and ".join(f"{getattr(settings, name):.0%} {name}" for name in missing)
    how = f"{shares} by a hash of {'the lot' if by_lot else 'the pixels'}"
    only = f"; images of other labels than {settings.only_label} are test images" if settings.only_label else ""
    if not any(given):
        return how + only
    pool = "training and validation images" if settings.pool_validation else "training images"
    return f"given by the source{f'; {how}, out of its {pool}' if missing else ''}{only}"
