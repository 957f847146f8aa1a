"""The two passes over the images: decode each once into a spool, then bring all to one form.

Only when all images have been seen is it known whether they are grey, and how deep; decoding twice would cost more than writing twice.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from vlae.data.convert import equal_channels, resize, resize_mask
from vlae.data.form import Form, convert
from vlae.data.read import Pixels, Refused
from vlae.data.settings import DataSettings
from vlae.data.source import Item, LeftOut, Source

Progress = Callable[[int, int], None]
Mask = npt.NDArray[np.bool_]


class Record(BaseModel):
    """One image in the pixel file: where its pixels and its mask (-1: none) begin, and what is known about it."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    size: tuple[int, int]
    offset: int
    mask_offset: int
    label: str | None
    lot: str | None
    split: str | None
    factors: dict[str, float]


class Taken(NamedTuple):
    """One image decoded; ``equal_channels`` where it was stored as RGB and shows greys only."""

    sha256: str
    pixels: Pixels
    depth: int
    mask: Mask | None
    notes: tuple[str, ...]
    equal_channels: bool


class Waiting(NamedTuple):
    """One image in the spool, in the form in which it was found."""

    item: Item
    sha256: str
    size: tuple[int, int]
    form: Form
    has_mask: bool
    notes: tuple[str, ...]
    equal_channels: bool


class Spooled(NamedTuple):
    """What the first pass found."""

    waiting: list[Waiting]
    left_out: list[LeftOut]
    duplicates: int


def dtype(depth: int) -> np.dtype[np.unsignedinteger]:
    """The type of values of ``depth`` bits in a file, the same on every machine."""
    return np.dtype("<u2" if depth == 16 else np.uint8)


def spool(source: Source, settings: DataSettings, file: BinaryIO, progress: Progress | None) -> Spooled:
    """First pass: decode each image once and write it to ``file`` as it is; an image that cannot be used is left out with the reason.

    Images with the same pixels are kept once, unless the source gives a split: a published test set stays whole.
    """
    keep_duplicates = any(item.split for item in source.items)
    waiting: list[Waiting] = []
    left_out: list[LeftOut] = []
    seen: Counter[str] = Counter()
    for done, item in enumerate(source.items, start=1):
        try:
            taken = _take(item, settings, left_out)
        except Refused as refused:
            left_out.append(LeftOut(item.name, str(refused)))
        else:
            if taken.sha256 not in seen or keep_duplicates:
                waiting.append(_write(item, taken, file))
            seen[taken.sha256] += 1
        if progress is not None:
            progress(done, len(source.items))
    return Spooled(waiting, left_out, seen.total() - len(seen))


def unify(waiting: Iterable[Waiting], file: BinaryIO, out: BinaryIO, form: Form) -> tuple[list[Record], Counter[str]]:
    """Second pass: read the images back, bring each to ``form``, write it to ``out``; and count what was done."""
    records: list[Record] = []
    notes: Counter[str] = Counter()
    file.seek(0)
    for image in waiting:
        pixels, done = convert(_read(image, file), image.form, form)
        notes.update((*image.notes, *_as_seen(done, image, form)))
        offset = out.tell()
        out.write(pixels.astype(dtype(form.depth), copy=False).tobytes())
        mask_offset = out.tell() if image.has_mask else -1
        if image.has_mask:
            out.write(file.read(image.size[0] * image.size[1]))
        records.append(_record(image, offset, mask_offset))
    return records, notes


def identity(pixels: Pixels, depth: int) -> str:
    """SHA-256 of an image as decoded: of its shape, its depth and its values, 16-bit ones with the lower byte first.

    RGB that shows greys only is taken as grey before, so that an image has one identity in whatever file it lies.

    >>> identity(np.zeros((2, 3, 1), np.uint8), 8) == identity(np.zeros((3, 2, 1), np.uint8), 8)
    False
    """
    return hashlib.sha256(f"{pixels.shape} {depth}\0".encode() + pixels.astype(dtype(depth), copy=False).tobytes()).hexdigest()


def _take(item: Item, settings: DataSettings, left_out: list[LeftOut]) -> Taken:
    pixels, depth, notes = item.picture()
    size = pixels.shape[:2]
    if min(size) < settings.minimum:
        raise Refused(f"{size[0]} x {size[1]} pixels, smaller than data.minimum {settings.minimum}")
    equal = equal_channels(pixels)
    pixels = pixels[..., :1] if equal else pixels
    taken = Taken(identity(pixels, depth), pixels, depth, _take_mask(item, size, left_out), notes, equal)
    return taken if settings.size in (None, size) else _resized(taken, settings.size)


def _take_mask(item: Item, size: tuple[int, ...], left_out: list[LeftOut]) -> Mask | None:
    """The mask of an image; where it cannot be used, that is told, and the image stays."""
    if item.mask is None:
        return None
    try:
        mask = item.mask()
        if mask.shape != size:
            raise Refused(f"{mask.shape[0]} x {mask.shape[1]} pixels, its image has {size[0]} x {size[1]}")
    except Refused as refused:
        left_out.append(LeftOut(f"mask of {item.name}", str(refused)))
        return None
    return mask


def _resized(taken: Taken, size: tuple[int, int]) -> Taken:
    pixels = resize(taken.pixels, size, taken.depth)
    mask = None if taken.mask is None else resize_mask(taken.mask, size)
    note = "resized, and set to 1 bit at half of white" if taken.depth == 1 else "resized"
    return taken._replace(pixels=pixels, mask=mask, notes=(*taken.notes, note))


def _write(item: Item, taken: Taken, file: BinaryIO) -> Waiting:
    file.write(taken.pixels.astype(dtype(taken.depth), copy=False).tobytes())
    if taken.mask is not None:
        file.write(taken.mask.tobytes())
    height, width, channels = taken.pixels.shape
    form = Form(taken.depth, channels)
    return Waiting(item, taken.sha256, (height, width), form, taken.mask is not None, taken.notes, taken.equal_channels)


def _read(image: Waiting, file: BinaryIO) -> Pixels:
    shape = (*image.size, image.form.channels)
    kind = dtype(image.form.depth)
    return np.frombuffer(file.read(shape[0] * shape[1] * shape[2] * kind.itemsize), kind).reshape(shape)


def _as_seen(done: tuple[str, ...], image: Waiting, form: Form) -> tuple[str, ...]:
    """The remarks on a conversion as the user sees it: RGB that shows greys waits as grey."""
    if not image.equal_channels:
        return done
    return ("equal channels taken as grey", *done) if form.channels == 1 else tuple(note for note in done if note != "grey to RGB")


def _record(image: Waiting, offset: int, mask_offset: int) -> Record:
    item = image.item
    return Record(
        name=item.name,
        sha256=image.sha256,
        size=image.size,
        offset=offset,
        mask_offset=mask_offset,
        label=item.label,
        lot=item.lot,
        split=item.split,
        factors=dict(item.factors),
    )
