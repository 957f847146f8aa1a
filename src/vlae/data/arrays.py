"""Images in a ``.npz`` file of arrays.

Either ``images`` with, as far as they are there, ``labels`` (or ``label``, ``cls``), ``classnames``, ``names``, ``lot`` (or ``group``),
``masks``, ``train_idx``, ``validation_idx``, ``test_idx``; or one array for each of ``train``, ``validation``, ``test`` (also ``train_x``,
``valid``, ``val``) with its labels in ``train_y`` and so on. Other one-dimensional arrays of numbers beside ``images`` are factors.

Images are (n, h, w) or (n, h, w, 1 or 3), of uint8, uint16 or bool; or (n, bytes) with the packed bits of square images (98 bytes: 28x28).
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vlae.data.manifest import SPLITS
from vlae.data.read import Picture, Pixels
from vlae.data.settings import DataSettings
from vlae.data.source import Item, LeftOut, Source, text
from vlae.errors import DataError

Array = npt.NDArray[Any]
LABELS = ("labels", "label", "cls")
LOTS = ("lot", "group")


class _Stack(NamedTuple):
    """Images of one array: ``pixels`` (n, h, w, c), their depth, and what was made of them."""

    pixels: Pixels
    depth: int
    notes: tuple[str, ...]

    def picture(self, i: int) -> Picture:
        return Picture(self.pixels[i], self.depth, self.notes)


def read_arrays(settings: DataSettings) -> Source:
    """Read the images of an ``.npz`` file. Errors: ``DataError`` where it is damaged or its arrays are of another form."""
    path = settings.folder
    try:
        with open(path, "rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array without a name")
            arrays = {key: value for key in file.files if isinstance(value := file[key], np.ndarray)}
    except (OSError, ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _refusal(f"{path} cannot be read", "An .npz file holds whole NumPy arrays without Python objects", error) from error
    if "images" in arrays:
        return _from_images(path, arrays, settings.max_pixels)
    return _from_splits(path, arrays, settings.max_pixels)


def _refusal(what: str, rule: str, found: object) -> DataError:
    return DataError(what, rule=rule, found=found, do="Write the file again with numpy.savez")


def _from_images(path: Path, arrays: Mapping[str, Array], max_pixels: int) -> Source:
    stack = _stack(f"{path}, array images", arrays["images"], max_pixels)
    n = len(stack.pixels)
    label, lot = _first(arrays, LABELS), _first(arrays, LOTS)
    factors = _factors(arrays, n, ignore={label, lot})
    splits = _splits(path, arrays, n)
    columns = zip(
        _names(arrays.get("names"), n),
        [partial(stack.picture, i) for i in range(n)],
        _masks(path, arrays, n, max_pixels),
        _labels(_column(path, label, arrays[label], n), arrays.get("classnames")) if label else [None] * n,
        [text(value) for value in _column(path, lot, arrays[lot], n)] if lot else [None] * n,
        splits or [None] * n,
        factors,
        strict=True,
    )
    items = [Item(*values) for values in columns]
    unused = [LeftOut(item.name, "in none of the file's index arrays", harmless=True) for item in items if splits and item.split is None]
    return Source(tuple(item for item in items if not splits or item.split), tuple(unused))


def _from_splits(path: Path, arrays: Mapping[str, Array], max_pixels: int) -> Source:
    """One array a split; names are split/number."""
    classes = arrays.get("classnames")
    items: list[Item] = []
    for key in (key for key in arrays if key.removesuffix("_x") in SPLITS):
        split = key.removesuffix("_x")
        stack = _stack(f"{path}, array {key}", arrays[key], max_pixels)
        n = len(stack.pixels)
        given = arrays.get(f"{split}_y")
        labels = [None] * n if given is None else _labels(_column(path, f"{split}_y", given, n), classes)
        names = (f"{SPLITS[split]}/{name}" for name in _names(None, n))
        items += [Item(name, partial(stack.picture, i), label=labels[i], split=SPLITS[split]) for i, name in enumerate(names)]
    if not items:
        raise _refusal(f"{path} holds no images", "They are called images, or train, validation and test", ", ".join(arrays) or "nothing")
    return Source(tuple(items))


def _stack(where: str, array: Array, max_pixels: int) -> _Stack:
    """Bring an array to (n, h, w, c) and find its depth."""
    notes: tuple[str, ...] = ()
    if array.ndim == 2 and array.dtype == np.uint8 and (side := _packed_side(array.shape[1])):
        array = np.unpackbits(array, axis=1)[:, : side * side].reshape(-1, side, side).astype(bool)
    if array.ndim == 3:
        array = array[..., None]
    sizes = array.shape[1:]
    if array.ndim != 4 or sizes[2] not in (1, 3) or 0 in array.shape or array.dtype.kind not in "ub" or array.dtype.itemsize > 2:
        rule = "Images are (n, h, w) or (n, h, w, 1 or 3) of uint8, uint16 or bool, or (n, bytes) of packed bits"
        raise _refusal(f"{where} holds no images", rule, f"{array.dtype} of shape {array.shape}")
    if sizes[2] == 3 and array.dtype != np.uint8:
        raise _refusal(f"{where} cannot be used", "RGB images have 8 bits", array.dtype)
    if sizes[0] * sizes[1] > max_pixels:
        rule = f"An image has at most data.max_pixels {max_pixels}"
        raise _refusal(f"{where} holds images that are too large", rule, f"{sizes[0]} x {sizes[1]}")
    if array.dtype == np.uint8 and sizes[2] == 1 and array.max() <= 1:
        array, notes = array.astype(bool), ("0 and 1 only, taken as 1 bit",)
    depth = 1 if array.dtype == bool else 8 * array.dtype.itemsize
    return _Stack(array.astype(np.uint16 if depth == 16 else np.uint8, copy=False), depth, notes)


def _packed_side(row_bytes: int) -> int:
    """Side of the square images whose packed bits fill ``row_bytes`` bytes; 0 where there is none.

    >>> _packed_side(98), _packed_side(784)
    (28, 0)
    """
    side = isqrt(8 * row_bytes)
    return side if (side * side + 7) // 8 == row_bytes else 0


def _masks(path: Path, arrays: Mapping[str, Array], n: int, max_pixels: int) -> list[partial[npt.NDArray[np.bool_]] | None]:
    if "masks" not in arrays:
        return [None] * n
    marked: npt.NDArray[np.bool_] = np.any(_stack(f"{path}, array masks", arrays["masks"], max_pixels).pixels, axis=3)
    if len(marked) != n:
        raise _refusal(f"{path}, array masks, does not fit its images", f"It holds {n} masks", len(marked))
    return [partial(marked.__getitem__, i) for i in range(n)]


def _first(arrays: Mapping[str, Array], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in arrays), None)


def _column(path: Path, key: str, array: Array, n: int) -> Array:
    if array.shape != (n,):
        raise _refusal(f"{path}, array {key}, does not fit its images", f"It holds one value an image, ({n},)", array.shape)
    return array


def _names(given: Array | None, n: int) -> list[str]:
    if given is not None and given.shape == (n,) and given.dtype.kind == "U" and len(np.unique(given)) == n:
        return [text(name) for name in given]
    digits = len(str(n - 1))
    return [f"{i:0{digits}d}" for i in range(n)]


def _labels(values: Array, classes: Array | None) -> list[str]:
    """Labels as text: the classes' names where the numbers count them from 0, else the values themselves."""
    if classes is not None and values.dtype.kind in "iu" and values.min() >= 0 and values.max() < len(classes):
        return [text(classes[value]) for value in values]
    return [text(value) for value in values]


def _splits(path: Path, arrays: Mapping[str, Array], n: int) -> list[str | None] | None:
    """The split of each image from the index arrays; None where there are no such arrays."""
    keys = [key for key in arrays if key.endswith("_idx") and key.removesuffix("_idx") in SPLITS]
    indices = {SPLITS[key.removesuffix("_idx")]: arrays[key] for key in keys}
    if not indices:
        return None
    splits: list[str | None] = [None] * n
    for split, index in indices.items():
        if index.ndim != 1 or index.dtype.kind not in "iu" or (len(index) and not 0 <= index.min() <= index.max() < n):
            rule = f"It holds whole numbers from 0 to {n - 1}"
            raise _refusal(f"{path} has a wrong index array for {split}", rule, f"{index.dtype} of shape {index.shape}")
        for i in index:
            if splits[i] not in (None, split):
                raise _refusal(f"{path} names an image in two splits", "An image is in one split", f"image {i} in {splits[i]} and {split}")
            splits[i] = split
    return splits


def _factors(arrays: Mapping[str, Array], n: int, ignore: set[str | None]) -> list[dict[str, float]]:
    numeric = {key: array for key, array in arrays.items() if array.shape == (n,) and array.dtype.kind in "iufb" and key not in ignore}
    kept = {key: array.astype(float) for key, array in numeric.items() if not key.endswith("_idx")}
    return [{key: float(array[i]) for key, array in kept.items() if np.isfinite(array[i])} for i in range(n)]
