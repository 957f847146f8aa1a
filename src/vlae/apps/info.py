"""What an archive holds, and what it saves."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vlae.archive.archive import MODELS, Archive
from vlae.archive.parts import Damaged, Row, names_path


@dataclass(frozen=True)
class ArchiveInfo:
    """Counts and sizes of an archive, in bytes."""

    images: int
    damaged: tuple[Damaged, ...]
    parts: int
    encodings: Mapping[str, int]
    pixels: int
    archive_bytes: int
    """of all its files but the model"""
    model_bytes: int
    """of both copies of the model"""
    other_bytes: int
    """of the images as JPEG XL or PNG, whichever is smaller"""
    file_bytes: int
    """of the files that they came from"""
    code_bits: float
    """of all codes together"""

    @property
    def bits_per_pixel(self) -> float:
        """Of the whole archive but the model."""
        return 8 * self.archive_bytes / self.pixels if self.pixels else 0.0

    @property
    def pays_from(self) -> int | None:
        """From how many such images on the archive, its model included, is smaller than JPEG XL or PNG; None where it never is."""
        saved = self.other_bytes - self.archive_bytes
        return -(-self.model_bytes * self.images // saved) if saved > 0 else None


def info(archive: Archive) -> ArchiveInfo:
    """Read what is known of every image, without its stream."""
    found = list(archive.rows())
    rows = [row for row in found if isinstance(row, Row)]
    files = [path for part in archive.parts for path in (part, names_path(part)) if path.is_file()]
    models = [path.stat().st_size for name in MODELS if (path := archive.folder / name).is_file()]
    return ArchiveInfo(
        images=len(rows),
        damaged=tuple(row for row in found if isinstance(row, Damaged)),
        parts=len(archive.parts),
        encodings=dict(Counter(row.packed.stored.encoding for row in rows)),
        pixels=sum(row.packed.stored.size[0] * row.packed.stored.size[1] for row in rows),
        archive_bytes=sum(path.stat().st_size for path in files),
        model_bytes=sum(models),
        other_bytes=sum(row.packed.other_bytes for row in rows),
        file_bytes=sum(row.about.file_bytes for row in rows),
        code_bits=sum(row.packed.code_bits for row in rows if row.packed.code.size),
    )
