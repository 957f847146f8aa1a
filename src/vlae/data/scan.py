"""What is known about each image of a folder before it is decoded: by a manifest, by the MVTec layout, or nothing.

Only files that were found by walking the folder are ever opened, so a manifest cannot lead out of it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from vlae.data.listing import File, Listing
from vlae.data.manifest import NAME_COLUMNS, SPLITS, Row, locate, read_manifest
from vlae.data.read import IMAGE_SUFFIXES, NOT_AN_IMAGE, decode, sniff
from vlae.data.settings import DataSettings
from vlae.data.source import Item, LeftOut, Source
from vlae.errors import DataError


def scan_folder(settings: DataSettings, listing: Listing) -> Source:
    """Say which of the listed files are images, and what the folder tells about each.

    Errors: ``DataError`` for a manifest that cannot be used or names no image that exists, or for a folder of several MVTec data sets.
    """
    folder = settings.folder
    manifests = [settings.manifest] if settings.manifest else [folder / name for name in ("manifest.csv", "manifest.jsonl") if name in listing.files]
    if manifests:
        rows = read_manifest(manifests[0])
        if not rows:
            rule = f"A column called {', '.join(NAME_COLUMNS)} names them"
            raise DataError(f"{manifests[0]} names no images", rule=rule, do="Add or rename that column")
        return _listed(settings, listing, _match(_Table(manifests[0], folder, listing.files, lists=True), rows))
    if "labels.csv" in listing.files and (rows := read_manifest(folder / "labels.csv")):
        return _annotated(settings, listing, _match(_Table(folder / "labels.csv", folder, listing.files, lists=False), rows))
    if any(name.startswith("train/good/") for name in listing.files):
        return _mvtec(settings, listing)
    _refuse_collections(folder, listing)
    return _plain(settings, listing)


def _plain(settings: DataSettings, listing: Listing) -> Source:
    other = {name for name, file in listing.files.items() if _is_other(file.path)}
    items = (_item(settings, name, file) for name, file in listing.files.items() if name not in other)
    return Source(tuple(items), (*listing.left_out, *(LeftOut(name, NOT_AN_IMAGE, harmless=True) for name in listing.files if name in other)))


def _item(settings: DataSettings, name: str, file: File) -> Item:
    return Item(name, partial(decode, file.path, settings.max_pixels))


def _is_other(path: Path) -> bool:
    """Whether neither the name nor the content claims to be an image; what claims to be one and is not is a loss, and told as one."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    try:
        with open(path, "rb") as file:
            return sniff(file.read(26)) is None
    except OSError:
        return False


def _mask(file: File, max_pixels: int) -> npt.NDArray[np.bool_]:
    return np.any(decode(file.path, max_pixels).pixels, axis=2)


@dataclass(frozen=True)
class _Table:
    """A table beside the images: its file, the folder and its files, and whether it ``lists`` the images or only annotates them."""

    path: Path
    folder: Path
    files: Mapping[str, File]
    lists: bool

    def find(self, written: str, stems: Mapping[str, str]) -> str | LeftOut:
        """The file that a path in the table means: of that name, or the only one that differs from it in its suffix."""
        names = locate(written, self.path, self.folder)
        if not names:
            return LeftOut(written, f"{self.path.name} leads out of the folder")
        found = [name for name in names if name in self.files] or [stems[_stem(name)] for name in names if _stem(name) in stems]
        return found[0] if found else LeftOut(written, f"named in {self.path.name}, but not in the folder", harmless=not self.lists)


@dataclass
class _Matched:
    """The rows and masks of a table by the names of the images, and what fits nothing."""

    table: _Table
    rows: dict[str, Row] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    other_suffix: int = 0

    def described(self, settings: DataSettings, item: Item) -> Item:
        """An image with what its row says."""
        row = self.rows.get(item.name)
        if row is None:
            return item
        mask = self.masks.get(item.name)
        marked = partial(_mask, self.table.files[mask], settings.max_pixels) if mask else None
        return replace(item, label=row.label, lot=row.lot, split=row.split, factors=row.factors, mask=marked)

    def notes(self) -> dict[str, int]:
        """Remarks for the user."""
        return {f"in {self.table.path.name} under another suffix": self.other_suffix} if self.other_suffix else {}


def _match(table: _Table, rows: list[Row]) -> _Matched:
    counts = Counter(_stem(name) for name in table.files)
    stems = {_stem(name): name for name in table.files if counts[_stem(name)] == 1}
    matched = _Matched(table)
    for row in rows:
        image = table.find(row.image, stems)
        mask = table.find(row.mask, stems) if row.mask else None
        matched.left_out += [found for found in (image, mask) if isinstance(found, LeftOut)]
        if not isinstance(image, str):
            continue
        if image in matched.rows:
            matched.left_out.append(LeftOut(row.image, f"named again in {table.path.name}", harmless=True))
            continue
        matched.rows[image] = row
        matched.other_suffix += PurePosixPath(image).suffix != PurePosixPath(row.image).suffix
        if isinstance(mask, str):
            matched.masks[image] = mask
    if not matched.rows:
        raise _names_nothing(table, rows)
    return matched


def _names_nothing(table: _Table, rows: list[Row]) -> DataError:
    return DataError(
        f"{table.path} names no image that exists",
        rule=f"Its paths are relative to {table.folder} or to itself, and stay inside {table.folder}",
        found=f"{len(rows)} rows, {', '.join(row.image for row in rows[:3])} first",
        do="Correct the paths or data.folder",
    )


def _listed(settings: DataSettings, listing: Listing, matched: _Matched) -> Source:
    """The images that a manifest names; the others stay aside."""
    items = (matched.described(settings, _item(settings, name, file)) for name, file in listing.files.items() if name in matched.rows)
    table = matched.table.path
    known = {*matched.rows, *matched.masks.values(), *locate(table.name, table, matched.table.folder)}
    unnamed = (LeftOut(name, f"not named in {table.name}", harmless=True) for name in listing.files if name not in known)
    return Source(tuple(items), (*listing.left_out, *matched.left_out, *unnamed), matched.notes())


def _annotated(settings: DataSettings, listing: Listing, matched: _Matched) -> Source:
    """All images of the folder but for masks, with what the table says about some."""
    known = {*matched.masks.values(), matched.table.path.name}
    plain = _plain(settings, Listing({name: file for name, file in listing.files.items() if name not in known}, listing.left_out))
    items = (matched.described(settings, item) for item in plain.items)
    return Source(tuple(items), (*plain.left_out, *matched.left_out), matched.notes())


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _mvtec(settings: DataSettings, listing: Listing) -> Source:
    """``train/good``, ``test/<defect>`` (also ``validation/good``), ``ground_truth/<defect>/<name>_mask.png``."""
    truth = {_stem(name).removesuffix("_mask"): file for name, file in listing.files.items() if name.startswith("ground_truth/")}
    plain = _plain(settings, Listing({name: file for name, file in listing.files.items() if not name.startswith("ground_truth/")}, listing.left_out))
    items: list[Item] = []
    left_out = list(plain.left_out)
    for item in plain.items:
        top, *below = PurePosixPath(item.name).parts
        if top not in SPLITS or len(below) < 2:
            left_out.append(LeftOut(item.name, "outside train, validation and test", harmless=True))
            continue
        mask = truth.get(_stem(f"ground_truth/{'/'.join(below)}")) if top == "test" else None
        marked = partial(_mask, mask, settings.max_pixels) if mask else None
        items.append(replace(item, split=SPLITS[top], label=below[0], mask=marked))
    return Source(tuple(items), tuple(left_out))


def _refuse_collections(folder: Path, listing: Listing) -> None:
    """Refuse a folder of several MVTec data sets: taken as plain images, their masks would be trained on."""
    sets = sorted({PurePosixPath(name).parts[0] for name in listing.files if PurePosixPath(name).parts[1:3] == ("train", "good")})
    if sets:
        raise DataError(
            f"{folder} holds data sets in the MVTec layout",
            rule="data.folder is one of them",
            found=", ".join(sets[:5]),
            do=f"Set data.folder to {folder / sets[0]}",
        )
