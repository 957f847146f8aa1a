"""The three sets of images: magnetic tiles, solar cells (ELPV) and drawn parts, each with its roles.

Pictures of one tile, and neighbouring solar cells, resemble each other: they are a lot, and a lot plays one role as a whole. A model learns
from ``train`` and is stopped by ``validation``; ``calibration`` sets thresholds; whatever is chosen is chosen on ``development``, half of the
spoiled lots and some good ones; what is reported is ``test``.
"""

import csv
import io
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vlae.data import parts
from vlae.data.parts.exact import subkey
from vlae.data.parts.factors import draw_factors
from vlae.data.read import write_png

DATA = Path(os.environ.get("VLAE_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOOD, DOUBTFUL, DEFECTIVE, DEFECTIVE_BLOCK = "good", ("perhaps good", "perhaps defective"), "defective", "defective block"
ROLES = ("train", "validation", "calibration", "development", "test")
SHARES = (0.42, 0.06, 0.24, 0.08, 0.2)
"""of the lots without defects, by role; nineteen for calibration are needed to promise 5% false alarms of new lots"""
BLOCK = 10
"""neighbouring solar cells that are a lot"""
PARTS = {"train": 600, "validation": 100, "calibration": 150, "development": 100, "test": 200}
SPOILED_PARTS = 30
"""of each kind of defect, for development and again for the test"""


class Example(NamedTuple):
    """One image (h, w) uint8; the mask (h, w) of its defect, where it is known."""

    name: str
    pixels: np.ndarray
    label: str
    lot: str
    role: str
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Collection:
    """A set of images."""

    name: str
    examples: tuple[Example, ...]

    def good(self, role: str) -> list[Example]:
        """The good examples of a role."""
        return [e for e in self.examples if e.role == role and e.label == GOOD]

    def spoiled(self, role: str, doubtful: bool = False) -> list[Example]:
        """The defective ones; or those that the experts were not sure about."""
        return [e for e in self.examples if e.role == role and e.label != GOOD and (e.label in DOUBTFUL) == doubtful]

    def few(self, count: int) -> "Collection":
        """The same with at most so many of each role and label, evenly spaced."""
        kinds = defaultdict(list)
        for e in self.examples:
            kinds[e.role, e.label].append(e)
        spaced = ([those[i] for i in np.linspace(0, len(those) - 1, min(count, len(those))).astype(int)] for those in kinds.values())
        return Collection(self.name, tuple(e for those in spaced for e in those))


def assigned(lots: Mapping[str, str | None], seed: int = 0) -> dict[str, str]:
    """The role of each lot: those with a defect, by its kind, take turns between development and test, the others are shared out.

    >>> roles = assigned({"a": "crack", "b": "crack", "c": None, "d": None})
    >>> sorted([roles["a"], roles["b"]]), roles["c"] in ROLES
    (['development', 'test'], True)
    """
    rng, roles = np.random.default_rng(seed), {}
    for kind in sorted({k or "" for k in lots.values()}):
        members = [str(lot) for lot in rng.permutation([lot for lot, k in lots.items() if (k or "") == kind])]
        if kind:
            roles |= {lot: ("test", "development")[n % 2] for n, lot in enumerate(members)}
        else:
            ends = np.rint(np.cumsum(SHARES) * len(members))
            roles |= {lot: ROLES[int(np.searchsorted(ends, n, side="right"))] for n, lot in enumerate(members)}
    return roles


def tiles() -> Collection:
    """Magnetic tiles, 128x128 (Huang, Qiu and Yuan 2020, doi:10.1007/s00371-018-1588-5): a lot is one tile at all its exposures."""
    with np.load(DATA / "magnetic_tile_128.npz", allow_pickle=False) as data:
        images, classes, lots = data["images"], data["cls"], [f"tile {group:03d}" for group in data["group"]]
        masks = np.unpackbits(data["masks"], axis=1)[:, : 128 * 128].reshape(-1, 128, 128).astype(bool)
        labels = [GOOD if c == 0 else str(data["classnames"][c])[3:].lower() for c in classes]
        names = [str(name) for name in data["names"]]
    kinds: dict[str, str | None] = dict.fromkeys(lots)
    for lot, label in zip(lots, labels, strict=True):
        kinds[lot] = kinds[lot] or (None if label == GOOD else label)
    roles = assigned(kinds)
    rows = zip(names, images, labels, lots, masks, strict=True)  # six uneven tiles have an empty mask: nobody marked where
    return Collection("tiles", tuple(Example(n, i, c, lot, roles[lot], m if m.any() else None) for n, i, c, lot, m in rows))


def elpv() -> Collection:
    """Monocrystalline solar cells, 300x300 (Buerhop-Lutz et al. 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15): a lot is a block of neighbours.

    A block of which more than half is defective counts as spoiled, and its defective cells are told apart from those among good ones: a few
    modules are spoiled as a whole and look unlike all others, good cells and all. What is not good in the blocks of good roles is left out.
    """
    labels = dict(zip(("0/3", "1/3", "2/3", "3/3"), (GOOD, *DOUBTFUL, DEFECTIVE), strict=True))
    with zipfile.ZipFile(DATA / "elpv_300_mono.zip") as archive:
        table = csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), encoding="utf-8"))
        known = {Path(row["name"]).stem: labels[row["defect_probability"]] for row in table}
        cells = {Path(n).stem: np.array(Image.open(archive.open(n)).convert("L")) for n in sorted(archive.namelist()) if n.endswith(".webp")}
    lots = {name: f"block {(int(name[4:]) - 1) // BLOCK:03d}" for name in cells}
    defective = defaultdict(list)
    for name, lot in lots.items():
        defective[lot].append(known[name] == DEFECTIVE)
    spoiled = {lot: DEFECTIVE_BLOCK if np.mean(those) > 0.5 else None for lot, those in defective.items()}
    roles = assigned(spoiled)
    told = {name: spoiled[lots[name]] or DEFECTIVE if known[name] == DEFECTIVE else known[name] for name in cells}
    examples = (Example(name, pixels, told[name], lots[name], roles[lots[name]]) for name, pixels in cells.items())
    return Collection("elpv", tuple(e for e in examples if e.label == GOOD or e.role in ("development", "test")))


def drawn_parts() -> Collection:
    """Parts of ``vlae.data.parts``, 64x64, each kind of defect, and no part drawn twice.

    All have six holes, as the parts of one product have: among parts with any number of them, one that misses a hole is a good part.
    """
    indices = (index for index in count() if draw_factors(subkey(0, index)).holes == 6)
    wanted = [(role, None) for role, number in PARTS.items() for _ in range(number)]
    wanted += [(role, defect) for role in ("development", "test") for defect in parts.DEFECTS for _ in range(SPOILED_PARTS)]
    return Collection("parts", tuple(_part(index, *each) for index, each in zip(indices, wanted, strict=False)))


def _part(index: int, role: str, defect: str | None) -> Example:
    part = parts.draw(index, defect=defect)
    return Example(f"part-{index:05d}", part.image, defect or GOOD, f"part {index}", role, part.mask if defect else None)


SETS: dict[str, Callable[[], Collection]] = {"tiles": tiles, "elpv": elpv, "parts": drawn_parts}


def write(collection: Collection, folder: Path) -> None:
    """Write a set as PNG files, masks below masks/, and a manifest that ``vlae train`` reads; the split of what is not trained on is test.

    Every drawn part would be a lot of its own, which tells nothing: parts have no column of lots.
    """
    several = len({e.lot for e in collection.examples}) < len(collection.examples)
    rows = []
    for e in collection.examples:
        write_png(folder / f"{e.name}.png", e.pixels[:, :, None], 8)
        if e.mask is not None:
            write_png(folder / "masks" / f"{e.name}.png", e.mask[:, :, None].astype(np.uint8), 1)
        split = e.role if e.role in ("train", "validation") else "test"
        mask = "" if e.mask is None else f"masks/{e.name}.png"
        rows.append({"name": f"{e.name}.png", "label": e.label, "split": split, "role": e.role, "mask": mask} | ({"lot": e.lot} if several else {}))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
