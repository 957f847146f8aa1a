"""An archive gives every image back or names it; damage costs what it hits, and no more."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlae.archive.archive import MODELS, Archive, Image
from vlae.archive.parts import FORMAT, Damaged, names_path, read_names, write_part
from vlae.errors import ArchiveError

from .build import archive, encoder, expected, made, plan, row
from .test_pack import pack, same

FORMS = [(8, 1), (8, 3), (1, 1), (8, 1), (16, 1), (8, 4), (8, 1)]
IMAGES = {f"{n}.png": expected(form, (9, 11 + n), n) for n, form in enumerate(FORMS)}
EACH = 3  # of a part


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("whole"), made(plan("stack2"), tame=True).codec, IMAGES, EACH)


@pytest.fixture
def folder(written, tmp_path):
    """A copy to damage."""
    return shutil.copytree(written.folder, tmp_path / "archive")


def lost(folder):
    """Who is lost, and why; all others came out, with the right pixels."""
    found = list(Archive.open(folder).images())
    assert all(same(IMAGES[i.row.about.name], i.pixels) for i in found if isinstance(i, Image))
    damaged = {i.name: i.reason for i in found if isinstance(i, Damaged)}
    assert len(found) == len(IMAGES) and damaged.keys() | {i.row.about.name for i in found if isinstance(i, Image)} == IMAGES.keys()
    return damaged


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def rewritten(path, **columns):
    """The part again, with other values in some columns."""
    table = pq.read_table(path)
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(name), [values])
    pq.write_table(table, path)


def test_every_image_comes_out(written):
    again = Archive.open(written.folder)
    assert lost(written.folder) == {}
    assert again.names == list(IMAGES) and len(again) == len(IMAGES) and len(again.parts) == 3 and again.key == written.codec.key
    assert all(same(image, again[name]) for name, image in IMAGES.items())
    assert [i.row.about.name for i in again.images(names=frozenset({"1.png", "5.png"}))] == ["1.png", "5.png"]
    assert again.dataset().count_rows() == len(IMAGES)
    with pytest.raises(KeyError):
        again["7.png"]


def test_it_is_the_same_in_memory(written):
    again = Archive.of(written.data)
    assert again.key == written.key and all(same(image, again[name]) for name, image in IMAGES.items())


def test_a_flipped_bit_in_a_stream_costs_this_image_and_no_other(written, folder):
    part = written.parts[0]
    rows = list(written.rows([part], streams=True))
    stream = rows[1].packed.stored.stream
    for place in [0, len(stream) - 1, *range(3, len(stream), len(stream) // 12)]:
        shutil.copy(part, folder / "parts")
        flip(folder / "parts" / part.name, part.read_bytes().index(stream) + place, place % 8)
        assert lost(folder) == {"1.png": "its stream is damaged"}
    with pytest.raises(ArchiveError, match=r"1\.png.*damaged"):
        Archive.open(folder)["1.png"]
    assert same(IMAGES["0.png"], Archive.open(folder)["0.png"])


def test_a_part_that_is_damaged_or_gone_costs_its_images_and_names_them(written, folder):
    part = folder / "parts" / written.parts[1].name
    flip(part, -6)
    assert lost(folder).keys() == {"3.png", "4.png", "5.png"}
    part.unlink()
    assert lost(folder).keys() == {"3.png", "4.png", "5.png"} and Archive.open(folder).names == list(IMAGES)


def test_a_damaged_list_of_names_costs_nothing(written, folder):
    for part in Archive.open(folder).parts:
        names_path(part).write_bytes(b"\0")
    assert lost(folder) == {} and Archive.open(folder).names == list(IMAGES)


def test_one_copy_of_the_model_is_enough(written, folder):
    size = len(written.codec.data)
    for name in MODELS:
        for place in range(0, size, size // 20):
            flip(folder / name, place, place % 8)
            assert Archive.open(folder).key == written.key
            shutil.copy(written.folder / name, folder)
        (folder / name).write_bytes(b"")
        assert lost(folder) == {}
        (folder / name).unlink()
        assert lost(folder) == {}
        shutil.copy(written.folder / name, folder)


def test_without_either_it_cannot_be_opened(written, folder):
    for places in ((0, 0), (-1, -2), (9, -1)):
        for name, place in zip(MODELS, places, strict=True):
            shutil.copy(written.folder / name, folder)
            flip(folder / name, place)
        with pytest.raises(ArchiveError):
            Archive.open(folder)
    for name in MODELS:
        (folder / name).unlink()
    with pytest.raises(ArchiveError, match="not an archive"):
        Archive.open(folder)
    with pytest.raises(ArchiveError, match="not an archive"):
        Archive.open(folder / "nowhere")


def test_both_copies_damaged_alike_give_no_image_of_another_model(written, folder):
    """Numbers that are but a little wrong: the parts know the model by its key."""
    for name in MODELS:
        flip(folder / name, -5, 1)
    assert all(isinstance(one, Damaged) and "another model" in one.reason for one in Archive.open(folder).images())


def test_a_part_of_another_model_costs_its_own_images(written, folder, tmp_path):
    other = archive(tmp_path / "other", made(plan("4x2"), tame=True).codec, {"x.png": expected((8, 1), (5, 5))})
    shutil.copy(other.parts[0], folder / "parts")
    shutil.copy(names_path(other.parts[0]), folder / "parts")
    found = list(Archive.open(folder).images())
    assert [one for one in found if isinstance(one, Damaged)] == [Damaged("x.png", f"{other.parts[0].name} was written with another model")]
    assert len(found) == len(IMAGES) + 1


def test_a_flipped_bit_in_what_a_part_says_of_itself_costs_this_part(written, folder):
    part, *others = (folder / "parts" / path.name for path in written.parts)
    good, names = part.read_bytes(), read_names(part)
    for said, told in (
        (written.key.encode(), "was written with another model"),
        (b'"format": 2', "was written by a newer version (format 3): update vlae"),
    ):
        part.write_bytes(good)
        flip(part, good.rindex(said) + len(said) - 1)
        assert lost(folder) == dict.fromkeys(names, f"{part.name} {told}")
    part.write_bytes(good)
    flip(part, good.rindex(written.key.encode()))
    for other in others:
        other.unlink()
        names_path(other).unlink()
    assert [one.name for one in Archive.open(folder).images()] == names, "also where no other part knows the model"


def test_a_hostile_part_does_not_stop_the_reader(written, folder):
    """A pipe, which would be waited for, and a part of more rows than there are."""
    for number, ending in enumerate((".parquet", ".names.json")):
        os.mkfifo(folder / "parts" / f"part-0001{number}-aaaaaaaa{ending}")
    part = folder / "parts" / written.parts[0].name
    pq.write_table(pa.concat_tables([pq.read_table(part)] * 257), folder / "parts" / "part-00020-aaaaaaaa.parquet")
    found = list(Archive.open(folder).images())
    assert sum(isinstance(one, Image) for one in found) == len(IMAGES)
    damaged = [one for one in found if isinstance(one, Damaged)]
    assert [one.name for one in damaged] == [f"(all of part-000{n}-aaaaaaaa.parquet)" for n in (10, 11, 20)]
    assert "rows, more than the 256" in damaged[-1].reason


def test_a_newer_format_is_refused(written, folder):
    for path in written.parts:
        table = pq.read_table(folder / "parts" / path.name)
        told = {"vlae": json.dumps({"format": FORMAT + 1, "codec": written.key})}
        pq.write_table(table.replace_schema_metadata(told), folder / "parts" / path.name)
    with pytest.raises(ArchiveError, match=r"newer version.*Update vlae"):
        Archive.open(folder)


def test_the_stream_of_another_image_is_found_out(written, folder):
    """Though its checksum is right: by the SHA-256 of the pixels."""
    part = folder / "parts" / written.parts[0].name
    table = pq.read_table(part)
    first, *others = range(table.num_rows)
    swap = {name: table[name].take([first, first, *others[1:]]) for name in ("stream", "crc32c", "encoding", "height", "width", "channels", "depth")}
    rewritten(part, **{name: values.combine_chunks() for name, values in swap.items()})
    assert lost(folder) == {"1.png": "its pixels are not those that were stored (SHA-256)"}


@pytest.mark.parametrize(
    "column, value",
    [
        *((name, value) for name in ("height", "width") for value in (0, -1, 2**31 - 1, 2**15, 3)),
        *((name, value) for name in ("channels", "depth") for value in (0, -1, 2, 3, 9, 16)),
        ("encoding", "tar"),
        ("encoding", "png"),
        ("encoding", "jxl"),
        ("sha256", bytes(32)),
        *(("orientation", value) for value in (-1, 0, 9)),
        *((name, None) for name in ("sha256", "height", "channels", "encoding", "code", "crc32c", "stream")),
    ],
)
def test_a_hostile_row_costs_itself_or_its_part(written, folder, column, value):
    part = folder / "parts" / written.parts[0].name
    values = pq.read_table(part)[column]
    rewritten(part, **{column: pa.array([value, *values.to_pylist()[1:]], values.type)})
    damaged = lost(folder)
    assert {"0.png"} <= damaged.keys() <= {"0.png", "1.png", "2.png"}


def test_what_was_added_later_is_there_too(written, folder):
    more = {f"more {n}.png": expected((8, 1), (7, 7), n) for n in range(2)}
    again = Archive.open(folder)
    found = pack(again.codec, encoder(again.codec), list(more.values()))
    write_part(again.new_part(0), [row(name, image, p) for (name, image), p in zip(more.items(), found, strict=True)], again.codec)
    assert Archive.open(folder).names == [*IMAGES, *more] and same(more["more 1.png"], Archive.open(folder)["more 1.png"])


def test_bytes_that_are_no_archive_are_refused(written):
    def zipped(members, kind=zipfile.ZIP_STORED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", kind) as file:
            for name, data in members.items():
                file.writestr(name, data)
        return buffer.getvalue()

    model, good = written.codec.data, written.data
    for data in (
        b"",
        b"PK",
        good[:-1],
        good[: len(good) // 2],
        zipped({}),
        zipped({"../model.safetensors": model}),
        zipped({"/model.safetensors": model}),
        zipped({"model.safetensors": model, "parts/../../x.parquet": b""}),
        zipped({"model.safetensors": model}, zipfile.ZIP_DEFLATED),
        zipped({"model.safetensors": model[:-1]}),
    ):
        with pytest.raises(ArchiveError):
            Archive.of(data)


def test_images_are_decoded_in_batches_and_come_in_their_order(written):
    assert [i.row.about.name for i in written.images()] == list(IMAGES)
    assert np.unique([i.row.packed.stored.encoding for i in written.images()]).tolist() != ["vlae"], "several encodings"
