"""A part is a Parquet file for everybody; what is damaged in it is named, and what is not comes out."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vlae.archive import parts as module
from vlae.archive.parts import FORMAT, About, Damaged, Row, names_path, read_part, write_part

from .build import encoder, expected, made, plan, row
from .test_pack import pack


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A codec, rows of several forms, and the part that holds them in several groups."""
    codec = made(plan("stack2"), tame=True).codec
    images = [expected(form, (11, 8), seed) for seed, form in enumerate([(8, 1), (8, 3), (1, 1), (8, 1), (16, 2), (8, 1)])]
    rows = [row(f"{n}/ä {n}.png", image, p) for n, (image, p) in enumerate(zip(images, pack(codec, encoder(codec), images), strict=True))]
    rows[1] = Row(About("1/ä 1.png", rows[1].about.sha256, 6, b"icc" * 9, b"Exif\0\0", 1234), rows[1].packed)
    path = tmp_path_factory.mktemp("parts") / "part-00000-00000000.parquet"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "GROUP_BYTES", 300)
        assert write_part(path, rows, codec) == [r.about.name for r in rows]
    assert pq.ParquetFile(path).num_row_groups > 1
    return codec, rows, path


@pytest.fixture
def part(written, tmp_path):
    """A copy to damage."""
    for file in (written[2], names_path(written[2])):
        shutil.copy(file, tmp_path)
    return tmp_path / written[2].name


def told(rows):
    """All that rows say, but for NaN, which is no number."""
    return [
        (r.about, r.packed.stored, r.packed.code.tolist(), r.packed.code.shape, np.float32(r.packed.pixel_bits).tobytes(), r.packed.other_bytes)
        for r in rows
    ]


def test_rows_are_read_as_they_were_written(written):
    codec, rows, path = written
    assert told(read_part(path, codec.key)) == told(rows)
    assert [r.packed.stored.stream for r in read_part(path, codec.key, streams=False)] == [b""] * len(rows)


def test_other_engines_read_the_columns(written):
    """Codes, in steps that the file tells, and bits: without any code of ours."""
    codec, rows, path = written
    table = pq.read_table(path, columns=["name", "code_shape", "code", "code_bits", "pixel_bits", "height", "sha256", "encoding"])
    steps = json.loads(pq.read_schema(path).metadata[b"vlae"])["code_steps"]
    assert table["name"].to_pylist() == [r.about.name for r in rows]
    seen = 0
    for values, r in zip(table.to_pylist(), rows, strict=True):
        code = np.array(values["code"]).reshape(values["code_shape"])
        assert np.array_equal(code, r.packed.code) and values["height"] == 11
        if r.packed.code.size:
            seen += 1
            codes = codec.codebook.code(torch.from_numpy(r.packed.code).long()[None])[0].numpy()
            assert np.array_equal(code * np.array(steps)[:, None, None], codes)
            assert values["code_bits"] + values["pixel_bits"] > 8
    assert seen == 4, "all that show greys"
    kinds = {
        column.path_in_schema: column.compression
        for column in map(pq.ParquetFile(path).metadata.row_group(0).column, range(len(table.schema.names) + 10))
    }
    assert kinds.pop("stream") == "UNCOMPRESSED" and set(kinds.values()) == {"ZSTD"}


def flipped(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_a_flipped_bit_in_a_stream_costs_this_image(written, part):
    codec, rows, path = written
    good = path.read_bytes()
    for n, r in enumerate(rows):
        stream = r.packed.stored.stream
        assert good.count(stream) == 1, "as it is"
        for place in range(0, len(stream), 7 if n else 1):
            part.write_bytes(good)
            flipped(part, good.index(stream) + place, place % 8)
            found = list(read_part(part, codec.key))
            assert found[n] == Damaged(r.about.name, "its stream is damaged", r.about.sha256)
            assert told(found[:n] + found[n + 1 :]) == told(rows[:n] + rows[n + 1 :])


def test_any_other_flipped_bit_costs_at_most_this_part_and_each_image_is_named(written, part):
    codec, rows, path = written
    good, names = path.read_bytes(), [r.about.name for r in rows]
    streams = {n for r in rows for n in range(good.index(r.packed.stored.stream), good.index(r.packed.stored.stream) + len(r.packed.stored.stream))}
    places = [n for n in range(len(good)) if n not in streams]
    lost = 0
    for place in places[:: max(1, len(places) // 600)]:
        part.write_bytes(good)
        flipped(part, place, place % 8)
        found = list(read_part(part, codec.key))
        whole = [r for r in found if isinstance(r, Row)]
        by_name = dict(zip(names, told(rows), strict=True))
        assert sorted(r.about.name if isinstance(r, Row) else r.name for r in found) == sorted(names), place
        assert all(by_name[r.about.name] == one for r, one in zip(whole, told(whole), strict=True)), place
        lost += len(found) - len(whole)
    assert lost


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -9, -200])
def test_a_part_that_is_cut_short_names_its_images(written, part, keep):
    part.write_bytes(part.read_bytes()[:keep])
    assert [type(r) for r in read_part(part, written[0].key)] == [Damaged] * 6
    assert [r.name for r in read_part(part, written[0].key)] == [r.about.name for r in written[1]]


def test_a_part_that_is_gone_names_its_images_too_and_without_the_list_at_least_itself(written, part):
    part.unlink()
    assert [r.name for r in read_part(part, written[0].key)] == [r.about.name for r in written[1]]
    names_path(part).unlink()
    (one,) = read_part(part, written[0].key)
    assert isinstance(one, Damaged) and part.name in one.name


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"names": 3}', b'{"names": [1]}', b"\xff\xfe", b'{"names": null}', b"[" * 10**5])
def test_a_damaged_list_of_names_loses_nothing(written, part, data):
    names_path(part).write_bytes(data)
    assert told(read_part(part, written[0].key)) == told(written[1])
    names_path(part).unlink()
    assert told(read_part(part, written[0].key)) == told(written[1])


def test_a_part_of_another_model_or_a_newer_format_gives_nothing_and_says_why(written, part):
    assert {r.reason for r in read_part(part, "0" * 64)} == {f"{part.name} was written with another model"}
    table = pq.read_table(part)
    newer = json.loads(table.schema.metadata[b"vlae"]) | {"format": FORMAT + 1}
    pq.write_table(table.replace_schema_metadata({"vlae": json.dumps(newer)}), part)
    assert {r.reason for r in read_part(part, written[0].key)} == {f"{part.name} was written by a newer version (format {FORMAT + 1}): update vlae"}


def test_a_part_with_other_columns_is_damaged(written, part):
    table = pq.read_table(part)
    for other in (table.drop_columns(["crc32c"]), table.rename_columns([n.upper() for n in table.column_names]), table.replace_schema_metadata(None)):
        pq.write_table(other, part)
        assert [type(r) for r in read_part(part, written[0].key)] == [Damaged] * 6


def test_no_part_is_left_half_written(written, tmp_path):
    def broken():
        yield written[1][0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_part(tmp_path / "new.parquet", broken(), written[0])
    assert not list(tmp_path.iterdir())
