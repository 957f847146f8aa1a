"""Images decoded once into one uncompressed, memory-mapped file, described by an ``index.json`` beside it.

The index names its pixel file by a key: a hash of the format, of every setting that changes pixels, and of the names, sizes and times
of the files. It is written last, so a cache is whole or absent; and it holds the hash of the pixels, so that damage is seen. ``load``
rebuilds a cache that has another key or is damaged; ``reopen`` takes it as it is, and needs the files no longer.

The split is no part of the index: it is found anew from the settings each time, and ``fingerprint`` tells whether it came out the same.
"""

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from vlae.data.arrays import read_arrays
from vlae.data.files import beside, disk_errors, sha256
from vlae.data.form import common_form
from vlae.data.imageset import ImageSet
from vlae.data.listing import File, Listing, list_files
from vlae.data.scan import scan_folder
from vlae.data.settings import DataSettings
from vlae.data.source import LeftOut, Source, with_block_lots
from vlae.data.split import Split, assign
from vlae.data.spool import Progress, Record, spool, unify
from vlae.errors import DataError, SettingError

FORMAT: Literal[1] = 1
ABANDONED_S = 3600.0
NOT_IN_KEY = {"folder", "manifest", "validation", "test", "pool_validation", "split_by", "only_label"}


class Index(BaseModel):
    """The content of ``index.json``; ``sha256`` is that of the pixel file."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1]
    key: str
    sha256: str
    depth: int
    channels: int
    records: list[Record]
    left_out: list[LeftOut]
    notes: dict[str, int]
    duplicates: int


def load(settings: DataSettings, cache: Path, progress: Progress | None = None) -> ImageSet:
    """Open the images that ``settings`` name, decoding them into the folder ``cache`` unless that is done already.

    ``progress(done, total)`` is called after each decoded image. The memory map is read-only.
    Errors: ``DataError`` where no image can be used or the images do not fit together, ``SettingError`` for a setting that has no effect
    on these images or cannot be honoured, ``DiskError`` where ``cache`` cannot be written.

    >>> from vlae.data.read import write_png
    >>> folder = Path(tempfile.mkdtemp())
    >>> for level in range(20):
    ...     write_png(folder / f"{level}.png", np.full((4, 6, 1), level, np.uint8), depth=8)
    >>> images = load(DataSettings(folder=folder), folder / "cache")
    >>> len(images), images.names[2], images.pixels(2).shape, images.pixels(2).max().item()
    (20, '2.png', (4, 6, 1), 2)
    """
    settings = settings.found
    return _open(_decoded(settings, cache, progress), cache, settings)


def load_whole(settings: DataSettings, cache: Path, progress: Progress | None = None) -> ImageSet:
    """The same without a split, all of them test images: for images that nothing is trained on, however few there are."""
    settings = settings.found
    index = _decoded(settings, cache, progress)
    return _images(index, cache, settings, Split(np.full(len(index.records), "test", "<U10"), "not split"))


def reopen(settings: DataSettings, cache: Path, told: str) -> ImageSet | None:
    """Open the images of ``cache`` as they were decoded and split, whatever has become of their files.

    ``told`` is what ``fingerprint`` said of them; None where the cache is missing, or they are no longer these.
    """
    index = _read(cache)
    try:
        images = _open(index, cache, settings) if index is not None else None
    except (DataError, SettingError):  # settings of another split, which these images cannot have
        return None
    return images if images is not None and fingerprint(cache, images) == told else None


def fingerprint(cache: Path, images: ImageSet) -> str:
    """What tells the images of a cache and their split from all others: a hash of the index, which holds that of the pixels, and the split.

    When and where their files lay is no part of it.
    """
    index = _read_index(cache).model_copy(update={"key": ""})
    return hashlib.sha256("\n".join([index.model_dump_json(), *images.split.tolist()]).encode()).hexdigest()


def _decoded(settings: DataSettings, cache: Path, progress: Progress | None) -> Index:
    """The index of the images, which are decoded unless that is done already."""
    listing = _listing(settings, cache)
    key = _key(settings, listing)
    index = _read(cache)
    return index if index is not None and index.key == key else _build(settings, listing, cache, key, progress)


def _listing(settings: DataSettings, cache: Path) -> Listing:
    folder, rule = settings.folder, "data.folder is a folder of images or an .npz file"
    if folder.is_dir():
        listing = list_files(folder, skip=cache)
        if not listing.files:
            raise DataError(f"{folder} is empty", rule=rule, do="Give the folder of your images")
        return listing
    if not folder.exists():
        do = "Correct data.folder, or name the folder that it lies in by the environment variable VLAE_DATA"
        raise DataError(f"{folder} does not exist", rule=rule, do=do)
    if folder.suffix.lower() != ".npz":
        raise DataError(f"{folder} is a file", rule=rule, do="Name its folder, or unpack it if it is an archive")
    if settings.manifest is not None:
        raise SettingError("data.manifest is set", rule="It describes a folder", found=f"the file {folder}", do="Leave data.manifest out")
    status = folder.stat()
    return Listing({folder.name: File(folder, status.st_size, status.st_mtime_ns)}, ())


def _key(settings: DataSettings, listing: Listing) -> str:
    decoding = settings.model_dump(mode="json", exclude=NOT_IN_KEY)
    files = [(name, file.size, file.mtime_ns) for name, file in listing.files.items()]
    if settings.manifest is not None and settings.manifest.is_file():
        status = settings.manifest.stat()
        files.append((f"manifest {settings.manifest}", status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([FORMAT, decoding, files]).encode()).hexdigest()


def _pixel_file(cache: Path, key: str) -> Path:
    return cache / f"pixels-{key[:16]}.bin"


def _read(cache: Path) -> Index | None:
    """The index in the cache; None where there is none, one of another format, or one that does not fit its pixels."""
    try:
        index = _read_index(cache)
        whole = sha256(_pixel_file(cache, index.key)) == index.sha256
    except (OSError, ValidationError):
        return None
    return index if whole else None


def _read_index(cache: Path) -> Index:
    return Index.model_validate_json((cache / "index.json").read_bytes())


def _build(settings: DataSettings, listing: Listing, cache: Path, key: str, progress: Progress | None) -> Index:
    source = _source(settings, listing)
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        index = _decode(source, settings, cache, key, progress)
        with beside(cache / "index.json") as file:
            file.write(index.model_dump_json().encode())
        _sweep(cache, key)
    return index


def _decode(source: Source, settings: DataSettings, cache: Path, key: str, progress: Progress | None) -> Index:
    """Write the pixel file, and say what is in it."""
    with tempfile.TemporaryFile(dir=cache) as file:  # it has no name, and is gone even after a SIGKILL
        waiting, left_out, duplicates = spool(source, settings, file, progress)
        left_out = [*source.left_out, *left_out]
        if not waiting:
            raise _nothing(settings.folder, left_out)
        form = common_form([(image.item.name, image.form) for image in waiting], settings)
        with beside(_pixel_file(cache, key)) as pixels:
            records, notes = unify(waiting, file, pixels, form)
    return Index(
        format=FORMAT,
        key=key,
        sha256=sha256(_pixel_file(cache, key)),
        depth=form.depth,
        channels=form.channels,
        records=records,
        left_out=left_out,
        notes={**source.notes, **notes},
        duplicates=duplicates,
    )


def _source(settings: DataSettings, listing: Listing) -> Source:
    source = scan_folder(settings, listing) if settings.folder.is_dir() else read_arrays(settings)
    return source if settings.lot_block is None else with_block_lots(source, settings.lot_block)


def _nothing(folder: Path, left_out: Sequence[LeftOut]) -> DataError:
    reasons = Counter(reason for _, reason, _ in left_out).most_common(3)
    return DataError(
        f"{folder} holds no image that can be used",
        rule="Images are PNG, JPEG, BMP, TIFF or WebP files",
        found="; ".join(f"{count} x {reason}" for reason, count in reasons) or "no files",
        do="Give the folder of your images, or mend them",
    )


def _sweep(cache: Path, key: str) -> None:
    """Remove the pixels that the index no longer names, and what a build that was killed has left behind for an hour."""
    stale = [path for path in cache.glob("pixels-*.bin") if path != _pixel_file(cache, key)]
    dead = [path for path in cache.glob(".*.part") if time.time() - path.stat().st_mtime > ABANDONED_S]
    for path in stale + dead:
        path.unlink(missing_ok=True)


def _open(index: Index, cache: Path, settings: DataSettings) -> ImageSet:
    sha256, labels, lots, given = ([getattr(record, name) for record in index.records] for name in ("sha256", "label", "lot", "split"))
    return _images(index, cache, settings, assign(sha256, lots, given, labels, settings))


def _images(index: Index, cache: Path, settings: DataSettings, split: Split) -> ImageSet:
    records = index.records
    dynamic = settings.binarise == "dynamic"
    return ImageSet(
        depth=1 if dynamic else index.depth,
        channels=index.channels,
        dynamic=dynamic,
        names=tuple(record.name for record in records),
        sha256=tuple(record.sha256 for record in records),
        split=split.of,
        split_rule=split.rule,
        labels=tuple(record.label for record in records),
        lots=tuple(record.lot for record in records),
        factors=_factors(records),
        left_out=tuple(index.left_out),
        notes=index.notes,
        duplicates=index.duplicates,
        sizes=np.array([record.size for record in records], np.int64),
        offsets=np.array([record.offset for record in records], np.int64),
        mask_offsets=np.array([record.mask_offset for record in records], np.int64),
        data=np.memmap(_pixel_file(cache, index.key), np.uint8, mode="r").view(np.ndarray),
    )


def _factors(records: Sequence[Record]) -> dict[str, np.ndarray]:
    columns = sorted({column for record in records for column in record.factors})
    return {column: np.array([record.factors.get(column, np.nan) for record in records]) for column in columns}
