"""Write a folder of images into an archive, from which every pixel comes back."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlae.archive.archive import MODELS, Archive
from vlae.archive.codec import Codec
from vlae.archive.pack import Plain, pack
from vlae.archive.parts import LARGEST, About, Row, write_part
from vlae.core.vlae import VLAE
from vlae.data.exact import LONGEST, Exact, read_exact
from vlae.data.files import beside, disk_errors
from vlae.data.foreign import files_of
from vlae.data.read import Refused, claims_nothing
from vlae.data.source import LeftOut
from vlae.engine.codec import codec_of, encoder_of
from vlae.engine.folders import check_outside, output_folder
from vlae.engine.originals import about_of, delete_originals_of, stamp, stamps
from vlae.engine.pool import Progress, Stopped, spread
from vlae.engine.run import Run
from vlae.engine.verify import verify
from vlae.errors import ArchiveError, DataError

PIXELS = 2**22
"""of images that are worked on at once, at most, unless one has more"""
ALREADY, ANOTHER = "in the archive", "another image of this name is in the archive"


@dataclass(frozen=True)
class Compressed:
    """What became of a folder of images."""

    images: int
    already: int
    """were in the archive, with the same pixels, orientation, profile and EXIF"""
    left_out: tuple[LeftOut, ...]
    pixels: int
    """of the images that were added"""
    file_bytes: int
    """of their files"""
    other_bytes: int
    """as JPEG XL or PNG, whichever is smaller"""
    stream_bytes: int
    encodings: Mapping[str, int]
    notes: Mapping[str, int]
    """what was done to images on reading them, and to how many"""
    deleted: int


def compress(
    run: Run,
    images: Path,
    output: Path,
    check: bool = True,
    delete_originals: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Compressed:
    """Write an image, or all images of a folder, into a new archive or into one that was made with the same model.

    What is in the archive already is passed over, so that the same command goes on with what was interrupted.

    Args:
        run: whose model is used.
        images: an image or a folder of images.
        output: the archive.
        check: decode every image again before it counts as written.
        delete_originals: delete the files that the finished archive can stand for (``originals.delete_originals_of``).
        processes: how many; one for each core by default.
        progress: told the images done and all.

    Raises:
        DataError: no image could be used.
        RunError: the model has no integer twin.
        ArchiveError: the archive is of another model, or damaged.
        DiskError: it cannot be written.
    """
    check_outside(output, images)
    files, passed = files_of(images)
    begun = any((output / name).exists() for name in MODELS)
    codec = None if begun else codec_of(run)  # before there is a folder: not every model has one
    archive = _archive(run, output) if codec is None else _new_archive(output, codec)
    known = stamps(archive, files)
    parts = list(spread(_Compress(run.folder, archive.folder, check, known), _jobs(archive, files, processes), len(files), processes, progress))
    added = [kept for part in parts for kept in part.added]
    left_out = (*passed, *(left for part in parts for left in part.left_out))
    already = sum(part.already for part in parts)
    if not added and not already:
        if not begun:
            _remove(archive)
        told = "; ".join(f"{left.name}: {left.reason}" for left in left_out[:3])
        raise DataError(f"No image of {images} can be used", rule="At least one must be", found=told, do="Mend these or give others")
    deleted = delete_originals_of(archive, files, verify(archive, processes).whole) if delete_originals else 0
    sums = {name: sum(getattr(kept, name) for kept in added) for name in ("pixels", "file_bytes", "other_bytes", "stream_bytes")}
    encodings, notes = Counter(kept.encoding for kept in added), Counter(note for part in parts for note in part.notes.elements())
    return Compressed(len(added), already, left_out, **sums, encodings=dict(encodings), notes=dict(notes), deleted=deleted)


def compress_arrays(run: Run, images: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays, by their names, as an archive in memory. The process's own threads are used.

    Args:
        run: whose model is used.
        images: (height, width), or with 1 to 4 channels behind: bool, uint8 or uint16.

    Raises:
        DataError: an array is no image.
        RunError: the model has no integer twin.
    """
    plain = {name: _plain(name, array) for name, array in images.items()}
    known = ((about_of(name, Exact(*image), image.pixels.nbytes), Exact(*image)) for name, image in plain.items())
    with tempfile.TemporaryDirectory(prefix="vlae-") as folder:
        archive = Archive.create(Path(folder), codec_of(run))
        work = _Compress(run.folder, archive.folder, True, {})
        rows = list(work.rows(iter(known), [], lambda done: None))
        for first in range(0, len(rows), LARGEST):
            write_part(archive.new_part(0), rows[first : first + LARGEST], archive.codec)
        return archive.data


def _plain(name: str, array: npt.NDArray[Any]) -> Plain:
    depth = {"bool": 1, "uint8": 8, "uint16": 16}.get(str(array.dtype))
    pixels = array[..., None] if array.ndim == 2 else array
    if depth is None or pixels.ndim != 3 or not pixels.size or max(pixels.shape) > LONGEST or not 1 <= pixels.shape[2] <= (1 if depth == 1 else 4):
        rule = f"An image is (height, width) or (height, width, channels) of bool, uint8 or uint16, {LONGEST} pixels a side at most"
        raise DataError(f"{name} is no image", rule=rule, found=f"{array.shape} of {array.dtype}", do="Convert it")
    return Plain(pixels.astype(np.uint8) if depth == 1 else pixels, depth)


def _new_archive(output: Path, codec: Codec) -> Archive:
    """An archive without images; where it cannot be written nothing of it is left."""
    with output_folder(output):
        return Archive.create(output, codec)


def _archive(run: Run, output: Path) -> Archive:
    """The archive that is there, with both copies of its model, whole, and a place for parts: a process may have been ended between them."""
    with disk_errors(output):
        (output / "parts").mkdir(exist_ok=True)
    archive = Archive.open(output)
    if archive.codec.weights != run.fingerprint():
        raise ArchiveError(f"{output} was made with another model", rule="An archive has one model", do="Choose another --output, or its run")
    for name in MODELS:
        if not (output / name).is_file() or (output / name).read_bytes() != archive.codec.data:
            with beside(output / name) as file:
                file.write(archive.codec.data)
    return archive


def _remove(archive: Archive) -> None:
    """Remove a new archive that got no image."""
    with suppress(OSError):
        (archive.folder / "parts").rmdir()  # which another writer may have put something in meanwhile
        for name in MODELS:
            (archive.folder / name).unlink()
        archive.folder.rmdir()


def _jobs(archive: Archive, files: Mapping[str, Path], processes: int | None) -> list["_Job"]:
    names, workers = list(files), processes or os.cpu_count() or 1
    each = max(1, min(LARGEST, -(-len(names) // workers)))
    chosen = [names[first : first + each] for first in range(0, len(names), each)]
    return [_Job(archive.new_part(number), {name: files[name] for name in some}) for number, some in enumerate(chosen)]


class _Job(NamedTuple):
    """The images that become one part."""

    part: Path
    files: Mapping[str, Path]


class _Kept(NamedTuple):
    """What is told of an image that was added."""

    encoding: str
    pixels: int
    file_bytes: int
    other_bytes: int
    stream_bytes: int


class _Part(NamedTuple):
    """What became of the images of a part."""

    added: list[_Kept]
    already: int
    left_out: list[LeftOut]
    notes: Counter[str]


@dataclass(frozen=True)
class _Compress:
    run: Path
    archive: Path
    check: bool
    known: Mapping[str, bytes]

    @cached_property
    def model(self) -> VLAE:
        return Run.open(self.run).model(torch.device("cpu"))

    @cached_property
    def codec(self) -> Codec:
        return Archive.open(self.archive).codec

    def __call__(self, job: _Job, step: Callable[[int], None]) -> _Part:
        left_out: list[LeftOut] = []
        notes: Counter[str] = Counter()
        images = self._read(job.files, left_out, notes, step)
        added: list[_Kept] = []
        ended: list[BaseException] = []
        rows = _until_ended(self.rows(images, added, step), ended)
        if (first := next(rows, None)) is not None:
            write_part(job.part, chain([first], rows), self.codec)
        if ended:
            raise ended[0]
        lost = [left for left in left_out if left.reason != ALREADY]
        return _Part(added, len(left_out) - len(lost), lost, notes)

    def _read(
        self, files: Mapping[str, Path], left_out: list[LeftOut], notes: Counter[str], step: Callable[[int], None]
    ) -> Iterator[tuple[About, Exact]]:
        """The images that are new, and what was done to them; of the others why they are left out."""
        for name, path in files.items():
            try:
                image, size = read_exact(path), path.stat().st_size
            except (Refused, OSError) as refused:
                left_out.append(LeftOut(name, str(refused), harmless=isinstance(refused, Refused) and claims_nothing(path, refused)))
                step(1)
                continue
            about = about_of(name, image, size)
            if name not in self.known:
                notes.update(image.notes)
                yield about, image
                continue
            same = self.known[name] == stamp(about)
            left_out.append(LeftOut(name, ALREADY if same else ANOTHER, harmless=same))
            step(1)

    def rows(self, images: Iterator[tuple[About, Exact]], added: list[_Kept], step: Callable[[int], None]) -> Iterator[Row]:
        """Images as rows; what is told of each is ``added``."""
        for some in _grouped(images):
            packed = pack(self.codec, encoder_of(self.model), [Plain(image.pixels, image.depth) for _, image in some], self.check)
            for (about, image), one in zip(some, packed, strict=True):
                added.append(_Kept(one.stored.encoding, image.pixels[..., 0].size, about.file_bytes, one.other_bytes, len(one.stored.stream)))
                yield Row(about, one)
            step(len(some))


def _until_ended(rows: Iterator[Row], ended: list[BaseException]) -> Iterator[Row]:
    """The rows until the user interrupts the work; then a part holds those that were done."""
    try:
        yield from rows
    except (KeyboardInterrupt, Stopped) as why:
        ended.append(why)


def _grouped(images: Iterator[tuple[About, Exact]]) -> Iterator[list[tuple[About, Exact]]]:
    """So many images at once as fit into memory."""
    group: list[tuple[About, Exact]] = []
    for one in images:
        group.append(one)
        if sum(image.pixels.size for _, image in group) >= PIXELS or len(group) >= LARGEST:
            yield group
            group = []
    if group:
        yield group
