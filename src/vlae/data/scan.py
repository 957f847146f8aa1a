"""A folder of images: what lies in it, and what its structure or its manifest says about each image.

Only files that were found by walking the folder are ever opened, so a manifest cannot lead out of it.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlae.data.manifest import NAME_COLUMNS, SPLITS, Row, find_manifest, locate, read_manifest
from vlae.data.read import IMAGE_SUFFIXES, NOT_AN_IMAGE, decode, sniff
from vlae.data.settings import DataSettings
from vlae.data.source import Item, LeftOut, Source, natural
from vlae.errors import DataError


class File(NamedTuple):
    """A regular file, with what shows that it has not changed since."""

    path: Path
    size: int
    mtime_ns: int


class Listing(NamedTuple):
    """The files below a folder by their relative POSIX names in natural order, and what was passed over."""

    files: dict[str, File]
    left_out: tuple[LeftOut, ...]


def list_files(folder: Path, skip: Path) -> Listing:
    """List the files below ``folder``, following links but entering each folder once, without hidden files and the folder ``skip``."""
    files: dict[str, File] = {}
    left_out: list[LeftOut] = []
    for path in _walk(folder, skip.resolve(), left_out):
        name = path.relative_to(folder).as_posix()
        found = _regular(path, name)
        if isinstance(found, File):
            files[name] = found
        else:
            left_out.append(found)
    return Listing(dict(sorted(files.items(), key=lambda entry: natural(entry[0]))), tuple(left_out))


def _walk(folder: Path, skip: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        left_out.append(LeftOut(os.path.relpath(error.filename, folder), f"folder cannot be opened ({error.strerror})"))

    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            left_out.append(LeftOut(os.path.relpath(root, folder), "link to a folder that was read already", harmless=True))
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".") and Path(root, name).resolve() != skip]
        yield from (Path(root, name) for name in names)


def _regular(path: Path, name: str) -> File | LeftOut:
    try:
        name.encode()
    except UnicodeEncodeError:
        return LeftOut(name.encode("utf-8", "backslashreplace").decode(), "its name is not valid UTF-8")
    if path.name.startswith("."):
        return LeftOut(name, "hidden", harmless=True)
    try:
        status = path.stat()
    except OSError as error:
        return LeftOut(name, f"cannot be opened ({error.strerror})")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        return LeftOut(name, "not a regular file", harmless=True)
    return File(path, status.st_size, status.st_mtime_ns)


def scan_folder(settings: DataSettings, listing: Listing) -> Source:
    """Say which of the listed files are images and what is known about each: by the manifest, the MVTec layout, or neither.

    Errors: ``DataError`` for an unusable manifest, one that names no image that exists, or a folder of several MVTec data sets.
    """
    if settings.manifest is not None:
        rows = read_manifest(settings.manifest)
        if rows is None:
            raise DataError(
                f"{settings.manifest} names no images", rule=f"One column is called {', '.join(NAME_COLUMNS)}", do="Add or rename that column"
            )
        return _from_manifest(settings, listing, settings.manifest, rows)
    found = find_manifest(settings.folder, listing.files)
    if found is not None:
        path, rows, lists = found
        return _from_manifest(settings, listing, path, rows) if lists else _annotated(settings, listing, path, rows)
    if any(name.startswith("train/good/") for name in listing.files):
        return _from_mvtec(settings, listing)
    _refuse_collections(settings.folder, listing)
    return _plain(settings, listing)


def _item(settings: DataSettings, name: str, file: File) -> Item:
    return Item(name, partial(decode, file.path, settings.max_pixels))


def _mask(path: Path, max_pixels: int) -> npt.NDArray[np.bool_]:
    marked: npt.NDArray[np.bool_] = decode(path, max_pixels).pixels.any(axis=2)
    return marked


def _plain(settings: DataSettings, listing: Listing) -> Source:
    items: list[Item] = []
    left_out = list(listing.left_out)
    for name, file in listing.files.items():
        if _is_other(file.path):
            left_out.append(LeftOut(name, NOT_AN_IMAGE, harmless=True))
        else:
            items.append(_item(settings, name, file))
    return Source(tuple(items), tuple(left_out))


def _is_other(path: Path) -> bool:
    """Whether neither the name nor the content claims to be an image; what claims to be one and is not is a loss, and told as one."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    try:
        with open(path, "rb") as file:
            return sniff(file.read(26)) is None
    except OSError:
        return False


def _described(settings: DataSettings, item: Item, row: Row, mask: File | None) -> Item:
    return replace(
        item,
        label=row.label,
        lot=row.lot,
        split=row.split,
        factors=row.factors,
        mask=partial(_mask, mask.path, settings.max_pixels) if mask else None,
    )


def _from_manifest(settings: DataSettings, listing: Listing, manifest: Path, rows: list[Row]) -> Source:
    """The images are those that the manifest names; the others stay aside."""
    items: dict[str, Item] = {}
    left_out = list(listing.left_out)
    used = set(locate(manifest.name, manifest, settings.folder))
    for row in rows:
        name = _find(row.image, manifest, settings.folder, listing, left_out)
        mask = _find(row.mask, manifest, settings.folder, listing, left_out) if row.mask else None
        if name in items:
            left_out.append(LeftOut(row.image, f"named again in {manifest.name}", harmless=True))
        elif name is not None:
            items[name] = _described(settings, _item(settings, name, listing.files[name]), row, listing.files[mask] if mask else None)
        used |= {name or "", mask or ""}
    if not items:
        raise _names_nothing(manifest, rows, settings.folder)
    left_out += [LeftOut(name, f"not named in {manifest.name}", harmless=True) for name in listing.files if name not in used]
    return Source(tuple(items[name] for name in listing.files if name in items), tuple(left_out))


def _find(written: str, manifest: Path, folder: Path, listing: Listing, left_out: list[LeftOut]) -> str | None:
    names = locate(written, manifest, folder)
    found = next((name for name in names if name in listing.files), None)
    if not names:
        left_out.append(LeftOut(written, f"{manifest.name} leads out of the folder"))
    elif found is None:
        left_out.append(LeftOut(written, f"named in {manifest.name}, but not in the folder"))
    return found


def _names_nothing(manifest: Path, rows: list[Row], folder: Path) -> DataError:
    return DataError(
        f"{manifest} names no image that exists",
        rule=f"Its paths are relative to {folder} or to itself, and stay inside {folder}",
        found=f"{len(rows)} rows, {', '.join(row.image for row in rows[:3])} first",
        do="Correct the paths or data.folder",
    )


def _annotated(settings: DataSettings, listing: Listing, table: Path, rows: list[Row]) -> Source:
    """All images of the folder, with what the table says about some; a row fits a file of the same name, or of one that differs in its suffix."""
    plain = _plain(settings, Listing({name: file for name, file in listing.files.items() if name != table.name}, listing.left_out))
    by_name = {item.name: item for item in plain.items}
    stems = Counter(_stem(name) for name in by_name)
    by_stem = {_stem(name): name for name in by_name if stems[_stem(name)] == 1}
    described: dict[str, Item] = {}
    left_out = list(plain.left_out)
    suffixes = 0
    for row in rows:
        names = locate(row.image, table, settings.folder)
        name = next((name for name in names if name in by_name), None) or next((by_stem[_stem(n)] for n in names if _stem(n) in by_stem), None)
        if name is None:
            left_out.append(LeftOut(row.image, f"named in {table.name}, but not in the folder", harmless=True))
            continue
        suffixes += name not in names
        mask = _find(row.mask, table, settings.folder, listing, left_out) if row.mask else None
        described[name] = _described(settings, by_name[name], row, listing.files[mask] if mask else None)
    if not described:
        raise _names_nothing(table, rows, settings.folder)
    items = tuple(described.get(item.name, item) for item in plain.items)
    return Source(items, tuple(left_out), {f"found by {table.name} under another suffix": suffixes} if suffixes else {})


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _from_mvtec(settings: DataSettings, listing: Listing) -> Source:
    """``train/good``, ``test/<defect>`` (also ``validation/good``), ``ground_truth/<defect>/<name>_mask.png``."""
    items: list[Item] = []
    left_out = list(listing.left_out)
    masks = {_stem(name).removesuffix("_mask"): file for name, file in listing.files.items() if name.startswith("ground_truth/")}
    for name, file in listing.files.items():
        parts = PurePosixPath(name).parts
        split = SPLITS.get(parts[0])
        if parts[0] == "ground_truth":
            continue
        if split is None or len(parts) < 3 or _is_other(file.path):
            left_out.append(LeftOut(name, NOT_AN_IMAGE if _is_other(file.path) else "outside train, validation and test", harmless=True))
            continue
        mask = masks.get(_stem(str(PurePosixPath("ground_truth", *parts[1:])))) if split == "test" else None
        marked = partial(_mask, mask.path, settings.max_pixels) if mask else None
        items.append(replace(_item(settings, name, file), split=split, label=parts[1], mask=marked))
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
