"""A folder of parts with its manifest."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from vlae.data.files import beside, disk_errors
from vlae.data.parts.drawing import Part, check_defect, check_whole, draw, possible
from vlae.data.parts.exact import turn
from vlae.data.parts.shapes import OUTLINES
from vlae.data.read import write_png
from vlae.errors import DiskError

Columns = dict[str, float | str]


def rows(part: Part) -> Columns:
    """Flatten the factors of a part to the columns of a manifest.

    Numbers stay as they are. ``texture`` is 1 for brushed and 0 for cast; ``angle_cos`` and ``angle_sin`` are those of the angle times
    the symmetry of the outline, so that outlines that look the same have the same; ``places`` lists the holes as "u v; u v" in the
    part's frame.

    >>> from vlae.data.parts import draw
    >>> columns = rows(draw(1))
    >>> columns["outline"], columns["holes"], columns["texture"]
    ('disc', 5.0, 1.0)
    """
    f = part.factors
    symmetric = turn(OUTLINES[f.outline].symmetry * f.angle)
    return {
        "outline": f.outline,
        "x": f.x,
        "y": f.y,
        "angle": f.angle,
        "angle_cos": symmetric.cos,
        "angle_sin": symmetric.sin,
        "size": f.size,
        "holes": float(f.holes),
        "places": "; ".join(f"{u:.4f} {v:.4f}" for u, v in f.places),
        "texture": float(f.texture == "brushed"),
        "grain": f.grain,
        "light": f.light,
        "light_angle": f.light_angle,
        "gradient": f.gradient,
        "noise": f.noise,
        "metal": f.metal,
    }


def write(
    folder: Path,
    count: int,
    size: int | tuple[int, int] = 64,
    seed: int = 0,
    colour: bool = False,
    defects: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``count`` parts as part-00000.png and so on, masks of the spoiled ones below masks/, and manifest.csv at the very end.

    Good parts and the ``defects`` take turns in that order; a part without holes stays good where a defect would need one. ``progress`` is
    called with the number written and ``count``. Errors: ``DiskError`` where the folder is in use or cannot be written; those of ``draw``.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "parts"
    >>> write(folder, 3, size=32, defects=["scratch"])
    >>> sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    ['manifest.csv', 'masks/part-00001.png', 'part-00000.png', 'part-00001.png', 'part-00002.png']
    """
    check_whole("count", count, 1, 100_000)
    for defect in defects:
        check_defect(defect)
    _check_unused(folder)
    table = []
    for index in range(count):
        part = _turn_of(index, size, seed, colour, defects)
        table.append(_write_part(folder, f"part-{index:05d}.png", part))
        if progress is not None:
            progress(index + 1, count)
    _write_table(folder / "manifest.csv", table)


def _check_unused(folder: Path) -> None:
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            rule = "Parts are written to a new or an empty folder"
            raise DiskError(f"{folder} is in use", rule=rule, found="files", do="Choose another folder or empty it")


def _turn_of(index: int, size: int | tuple[int, int], seed: int, colour: bool, defects: Sequence[str]) -> Part:
    defect = (None, *defects)[index % (1 + len(defects))]
    good = draw(index, size, seed, colour)
    if defect is None or not possible(defect, good.factors):
        return good
    return draw(index, size, seed, colour, defect)


def _write_part(folder: Path, name: str, part: Part) -> Columns:
    height, width = part.mask.shape
    write_png(folder / name, part.image.reshape(height, width, -1), 8)
    mask = f"masks/{name}" if part.defect else ""
    if mask:
        write_png(folder / mask, part.mask[:, :, None].astype("uint8"), 1)
    return {"name": name, "label": part.defect or "good", "mask": mask, **rows(part)}


def _write_table(path: Path, table: list[Columns]) -> None:
    with beside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.DictWriter(text, table[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        text.detach()
