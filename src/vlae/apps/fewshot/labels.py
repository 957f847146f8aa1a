"""Labels that a person wrote into a table, put to the images that they name."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from vlae.data.manifest import NAME_COLUMNS, locate, read_manifest
from vlae.data.source import LeftOut
from vlae.errors import DataError


class Known(NamedTuple):
    """The label, and the lot if one is told, of images by their names; and the rows that name no image."""

    labels: dict[str, str]
    lots: dict[str, str]
    left_out: tuple[LeftOut, ...]


def known(table: Path, folder: Path, names: Collection[str]) -> Known:
    """Read a table of labels.

    Args:
        table: a CSV or JSONL file with a column called name, file or image, and a column label; rows without a label are passed over.
        folder: what the names are relative to, if not to the table.
        names: of the images.

    Raises:
        DataError: the table cannot be read or names none of the images, two labels contradict each other, or there are too few of them.
    """
    rows = [(row, row.label) for row in read_manifest(table) if row.label]
    if not rows:
        rule = f"A table of labels has a column called {', '.join(NAME_COLUMNS)} and a column label"
        raise DataError(f"{table} holds no labels", rule=rule, do="Add these columns and a row for each image that you know")
    found, left_out, there = Known({}, {}, ()), list[LeftOut](), set(names)
    for row, label in rows:
        name = next((name for name in (row.image, *locate(row.image, table, folder)) if name in there), None)
        if name is None:
            left_out.append(LeftOut(row.image, f"named in {table.name}, but none of the images"))
            continue
        if found.labels.setdefault(name, label) != label:
            contradiction = f"{row.image} is {found.labels[name]} and {label}"
            raise DataError(f"{table} contradicts itself", rule="An image has one label", found=contradiction, do="Correct one of them")
        if row.lot:
            found.lots[name] = row.lot
    if not found.labels:
        what, first = f"{table} names none of the images", ", ".join(row.image for row, _ in rows[:3])
        rule, do = f"Names are relative to {folder} or to the table", "Correct them, or give the folder of their images with --images"
        raise DataError(what, rule=rule, found=f"{first} first", do=do)
    check_enough(list(found.labels.values()), range(len(found.labels)))
    return found._replace(left_out=tuple(left_out))


def check_enough(classes: Sequence[str], lots: Sequence[int]) -> None:
    """Refuse labels from which nothing can be both learnt and tested.

    Raises:
        DataError: fewer than two classes have labels in two lots; an image without a lot is one of its own.
    """
    counts = Counter(classes)
    listed = ", ".join(f"{count} of {name}" for name, count in counts.most_common(5))
    if len(counts) == 1:
        rule = "A classifier tells at least two classes apart"
        raise DataError("All labels are of one class", rule=rule, found=listed, do="Label images of another class too")
    in_lots = Counter(name for name, _ in set(zip(classes, lots, strict=True)))
    if sum(count > 1 for count in in_lots.values()) < 2:
        rule = "Two classes at least need two labels each, in different lots where there are lots: one to learn from and one to test on"
        raise DataError("There are too few labels", rule=rule, found=listed, do="Label a few more")
