"""Parts of an archive: Parquet files, a row an image, and beside each a list of its names.

Any Parquet engine reads the columns. Streams are written as they are, without compression, so that a flipped bit in one is a flipped bit in
one image; all other columns carry a checksum for each page. The list tells what was in a part that cannot be read any more.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlae.archive.codec import Codec
from vlae.archive.pack import Packed, Stored
from vlae.archive.twin import CODE_FRACTION
from vlae.data.files import beside
from vlae.data.form import Form

FORMAT = 2
"""Format 1 told the types of Arrow besides."""
LARGEST = 256
"""images of a part, at most"""
MOST_METADATA = 2**26
GROUP_BYTES = 2**25
"""Rows are written whenever their streams have so many bytes: memory does not grow with a part."""

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("sha256", pa.binary(32)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int8()),
        ("depth", pa.int8()),
        ("orientation", pa.int8()),
        ("icc", pa.binary()),
        ("exif", pa.binary()),
        ("file_bytes", pa.int64()),
        ("encoding", pa.string()),
        ("code_shape", pa.list_(pa.int16())),
        ("code", pa.list_(pa.int16())),
        ("code_bits", pa.float32()),
        ("pixel_bits", pa.float32()),
        ("other_bytes", pa.int64()),
        ("crc32c", pa.uint32()),
        ("stream", pa.binary()),
    ]
)
_COLUMNS = [name for name in SCHEMA.names if name != "stream"]


class About(NamedTuple):
    """What is kept of an image beside its pixels."""

    name: str
    sha256: bytes
    orientation: int
    icc: bytes | None
    exif: bytes | None
    file_bytes: int


@dataclass(frozen=True)
class Row:
    """An image of an archive."""

    about: About
    packed: Packed


class Damaged(NamedTuple):
    """An image that cannot be given back, and why; of whose pixels the SHA-256 may still be known."""

    name: str
    reason: str
    sha256: bytes | None = None


def names_path(part: Path) -> Path:
    """The list of names beside a part."""
    return part.with_suffix(".names.json")


def write_part(path: Path, rows: Iterable[Row], codec: Codec) -> list[str]:
    """Write a part, complete or not at all, and tell its names. For other engines it tells how large a step of each channel's index is.

    Raises:
        DiskError: it cannot be written.
    """
    steps = (codec.codebook.steps / 2**CODE_FRACTION).tolist() if codec.codebook else []
    told = {"format": FORMAT, "codec": codec.key, "code_steps": steps}
    names: list[str] = []
    with beside(path) as file, _writer(file) as writer:
        writer.add_key_value_metadata({"vlae": json.dumps(told)})
        for group in _groups(rows):
            columns = [_values(row) for row in group]
            writer.write_table(pa.table({name: [c[name] for c in columns] for name in SCHEMA.names}, schema=SCHEMA))
            names += [row.about.name for row in group]
    with beside(names_path(path)) as file:
        file.write(json.dumps({"format": FORMAT, "names": names}, ensure_ascii=False).encode())
    return names


def _writer(file: Any) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        SCHEMA,
        store_schema=False,  # Parquet's own tells all, and Arrow's would be as large as the columns
        compression={name: "zstd" for name in [*_COLUMNS, "code.list.element", "code_shape.list.element"]},  # the stream has none
        use_dictionary=["encoding", "channels", "depth", "orientation", "icc", "exif", "code.list.element"],
        write_statistics=["name"],
        write_page_checksum=True,
    )


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row.packed.stored.stream)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _values(row: Row) -> dict[str, Any]:
    packed, stored = row.packed, row.packed.stored
    return {
        **row.about._asdict(),
        "height": stored.size[0],
        "width": stored.size[1],
        "channels": stored.form.channels,
        "depth": stored.form.depth,
        "encoding": stored.encoding,
        "code_shape": list(packed.code.shape),
        "code": packed.code.flatten(),
        "code_bits": packed.code_bits,
        "pixel_bits": packed.pixel_bits,
        "other_bytes": packed.other_bytes,
        "crc32c": google_crc32c.value(stored.stream),
        "stream": stored.stream,
    }


def format_and_codec(path: Path) -> tuple[int, str] | None:
    """In which format a part was written, and by which key it knows its model; None where it cannot be read."""
    try:
        with pq.ParquetFile(_regular(path), thrift_string_size_limit=MOST_METADATA) as file:
            told = _told(file)
            return int(told["format"]), str(told["codec"])
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def read_part(path: Path, codec: str, streams: bool = True) -> Iterator[Row | Damaged]:
    """The images of a part, a group at a time; those that the part cannot give back (any more) are told by name."""
    names = read_names(path)
    seen = 0
    try:
        _regular(path)
        with pq.ParquetFile(path, page_checksum_verification=True, thrift_string_size_limit=MOST_METADATA) as rest, pq.ParquetFile(path) as file:
            _check(file, codec)
            for group in range(file.num_row_groups):
                for row in _rows(rest, file, group, streams):
                    yield row
                    seen += 1
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = (str(error).splitlines() or [""])[0][:100]
        reason = f"{path.name} {why}" if isinstance(error, _Foreign) else f"{path.name} is damaged ({why})"
        yield from (Damaged(name, reason) for name in (names or [f"(all of {path.name})"])[seen:])


def read_names(part: Path) -> list[str]:
    """The names of a part, as the list beside it has them; none where it cannot be read."""
    try:
        names = json.loads(_regular(names_path(part)).read_text(encoding="utf-8"))["names"]
        return [str(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


class _Foreign(ValueError):
    """A part that may be whole, and cannot be read here."""


def _regular(path: Path) -> Path:
    """A file that is one, or is not there: opening a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError("it is not a regular file")
    return path


def _check(file: pq.ParquetFile, codec: str) -> None:
    told, metadata = _told(file), file.metadata
    if told["format"] > FORMAT:
        raise _Foreign(f"was written by a newer version (format {told['format']}): update vlae")
    if told["codec"] != codec:
        raise _Foreign("was written with another model")
    if not file.schema.equals(_in_parquet()):
        raise ValueError("its columns are not those of an archive")
    if metadata.num_rows > LARGEST:
        raise ValueError(f"it has {metadata.num_rows} rows, more than the {LARGEST} that a part has at most")


@cache
def _in_parquet() -> pq.ParquetSchema:
    """The columns as Parquet knows them, whatever Arrow called their types."""
    with pa.BufferOutputStream() as out:
        pq.write_table(SCHEMA.empty_table(), out)
        return pq.ParquetFile(out.getvalue()).schema


def _told(file: pq.ParquetFile) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(file.metadata.metadata[b"vlae"])
    return told


def _rows(rest: pq.ParquetFile, file: pq.ParquetFile, group: int, streams: bool) -> Iterator[Row | Damaged]:
    columns = rest.read_row_group(group, columns=_COLUMNS, use_threads=False).to_pylist()
    found = file.read_row_group(group, columns=["stream"], use_threads=False)["stream"] if streams else [None] * len(columns)
    for values, stream in zip(columns, found, strict=True):
        name = str(values["name"] or "(an image without a name)")
        data = b"" if stream is None else stream.as_py()
        if stream is not None and google_crc32c.value(data) != values["crc32c"]:
            yield Damaged(name, "its stream is damaged", values["sha256"])
            continue
        try:
            yield _row(values, data)
        except (ValueError, TypeError) as error:
            yield Damaged(name, f"its row is damaged ({error})", values["sha256"])


def _row(values: dict[str, Any], stream: bytes) -> Row:
    if any(value is None for name, value in values.items() if name not in ("icc", "exif")):
        raise ValueError("a value is missing")
    if values["orientation"] not in range(1, 9):
        raise ValueError("there is no such orientation")
    stored = Stored(values["encoding"], stream, (values["height"], values["width"]), Form(values["depth"], values["channels"]))
    code = np.array(values["code"], np.int16).reshape(values["code_shape"])
    packed = Packed(stored, code, values["code_bits"], values["pixel_bits"], values["other_bytes"])
    return Row(About(**{name: values[name] for name in About._fields}), packed)
