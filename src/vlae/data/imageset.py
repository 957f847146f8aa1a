"""A set of decoded images in a memory map, with all that is known about each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlae.data.read import Pixels
from vlae.data.source import LeftOut

NAMES_SHOWN = 20


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images ready for batches; made by ``vlae.data.cache.load``.

    Entries with one value an image share their order, the natural order of the names:

    - ``depth``: bits of a value as the model sees it, 1, 8 or 16; ``channels``: 1 or 3;
    - ``dynamic``: the pixels are 8-bit probabilities of a 1-bit image, to be drawn by ``batches.binarise_dynamic`` for each batch;
    - ``names``: relative POSIX paths; ``sha256``: of the image as decoded, before it was resized or converted;
    - ``split``: train, validation or test; ``split_rule``: how it came about, in a sentence;
    - ``labels``, ``lots``: None where not known; ``factors``: columns of numbers, NaN where absent;
    - ``left_out``: what was not used and why; ``notes``: conversions and remarks with the number of images;
    - ``duplicates``: images with the same pixels as an earlier one. They are kept once, but all where the source gives the split:
      a published test set stays whole.
    """

    depth: int
    channels: int
    dynamic: bool
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    split: npt.NDArray[np.str_]
    split_rule: str
    labels: tuple[str | None, ...]
    lots: tuple[str | None, ...]
    factors: Mapping[str, npt.NDArray[np.float64]]
    left_out: tuple[LeftOut, ...]
    notes: Mapping[str, int]
    duplicates: int
    sizes: npt.NDArray[np.int64]
    """Heights and widths, (n, 2)."""
    offsets: npt.NDArray[np.int64]
    """Where in ``data`` the pixels of each image begin."""
    mask_offsets: npt.NDArray[np.int64]
    """Where in ``data`` the mask of each image begins, one byte a pixel; -1 where there is none."""
    data: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """The numbers of the images of a split (train, validation or test)."""
        return np.flatnonzero(self.split == split)

    def shape(self, i: int) -> tuple[int, int, int]:
        """Height, width and channels of image ``i``."""
        height, width = self.sizes[i].tolist()
        return height, width, self.channels

    def pixels(self, i: int) -> Pixels:
        """Image ``i``, (h, w, c), a read-only view of the memory map: uint8, or uint16 where the depth is 16; 1-bit values are 0 and 1."""
        dtype = np.dtype("<u2" if self.depth == 16 else np.uint8)
        shape = self.shape(i)
        start = int(self.offsets[i])
        return self.data[start : start + shape[0] * shape[1] * shape[2] * dtype.itemsize].view(dtype).reshape(shape)

    def mask(self, i: int) -> npt.NDArray[np.bool_] | None:
        """Which pixels of image ``i`` are marked (h, w), a read-only view; None where the source has no mask for it."""
        height, width, _ = self.shape(i)
        start = int(self.mask_offsets[i])
        return None if start < 0 else self.data[start : start + height * width].view(np.bool_).reshape(height, width)

    def summary(self) -> dict[str, Any]:
        """What a run and its report say about the data, as JSON: counts, sizes, split, what was left out and why, conversions."""
        sizes, counts = np.unique(self.sizes, axis=0, return_counts=True)
        return {
            "images": len(self),
            "splits": {name: int((self.split == name).sum()) for name in ("train", "validation", "test")},
            "split_rule": self.split_rule,
            "depth": self.depth,
            "channels": self.channels,
            "binarise_dynamic": self.dynamic,
            "sizes": {
                "different": len(sizes),
                "smallest": self.sizes.min(axis=0).tolist(),
                "largest": self.sizes.max(axis=0).tolist(),
                "most_frequent": sizes[counts.argmax()].tolist(),
            },
            "labels": dict(sorted(Counter(label for label in self.labels if label is not None).items())),
            "lots": len({lot for lot in self.lots if lot is not None}),
            "masks": int((self.mask_offsets >= 0).sum()),
            "factors": sorted(self.factors),
            "conversions": dict(self.notes),
            "duplicates": self.duplicates,
            "left_out": _by_reason(self.left_out),
        }


def _by_reason(left_out: tuple[LeftOut, ...]) -> list[dict[str, Any]]:
    """One entry a reason with the count and the first names, for a summary that stays readable with thousands of files."""
    names: dict[tuple[str, bool], list[str]] = {}
    for name, reason, harmless in left_out:
        names.setdefault((reason, harmless), []).append(name)
    return [
        {"reason": reason, "harmless": harmless, "count": len(found), "names": found[:NAMES_SHOWN]} for (reason, harmless), found in names.items()
    ]
