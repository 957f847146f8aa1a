import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlae.data.manifest import Row, locate, read_manifest
from vlae.errors import DataError


def write(folder: Path, content: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_and_jsonl_say_the_same(tmp_path):
    expected = [
        Row("a.png", "good", None, "monday", "train", {"angle": 0.5, "p": 1 / 3}),
        Row("b/c.png", None, "m/c.png", "2", "validation", {"p": 0.0}),
    ]
    table = "name,label,mask,lot,split,angle,p,word\na.png,good,,monday,train,0.5,1/3,x\nb/c.png,,m/c.png,2,VAL,,0/3,y\n"
    lines = [
        {"name": "a.png", "label": "good", "lot": "monday", "split": "train", "angle": 0.5, "p": "1/3", "word": "x"},
        {"name": "b/c.png", "mask": "m/c.png", "lot": 2, "split": "val", "angle": None, "p": 0, "word": "y"},
    ]
    assert read_manifest(write(tmp_path, table)) == expected
    assert read_manifest(write(tmp_path, "\n".join(map(json.dumps, lines)), "m.jsonl")) == expected


@pytest.mark.parametrize("column", ["name", "file", "image", " Image "])
def test_each_name_of_the_first_column(tmp_path, column):
    assert [row.image for row in read_manifest(write(tmp_path, f"{column},day\na,7\n"))] == ["a"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_a_file_of_excel_with_its_encoding_and_line_ends(tmp_path, encoding):
    rows = read_manifest(write(tmp_path, "name,day\r\n部品.png,月曜\r\n\r\n".encode(encoding)))
    assert rows == [Row("部品.png", None, None, "月曜", None, {})]


def test_a_column_with_one_word_or_infinity_is_no_factor(tmp_path):
    rows = read_manifest(write(tmp_path, "name,a,b,c,d\nx,1,1,nan,1/0\ny,2,none,1,1\n"))
    assert [row.factors for row in rows] == [{"a": 1.0}, {"a": 2.0}]


def test_a_table_without_names_has_no_rows(tmp_path):
    assert read_manifest(write(tmp_path, "label,p\ngood,1\n")) == []
    assert read_manifest(write(tmp_path, "")) == []


@pytest.mark.parametrize(
    "content, name, match",
    [
        (b"name\n\x81", "m.csv", "UTF-8"),
        ("name\na.png\n".encode("utf-16"), "m.csv", "UTF-8"),
        ('name\n"a', "m.csv", "unexpected end"),
        ("name,split\na,trian\n", "m.csv", "trian"),
        ('{"name": "a"}\n[1]\n', "m.jsonl", "line 2"),
        ('{"name": "a"\n', "m.jsonl", "line 1"),
        ("[" * 100_000, "m.jsonl", "line 1"),
    ],
)
def test_damaged_tables_are_data_errors(tmp_path, content, name, match):
    with pytest.raises(DataError, match=match):
        read_manifest(write(tmp_path, content, name))


def test_halves_of_characters_become_text_that_can_be_written(tmp_path):
    (row,) = read_manifest(write(tmp_path, '{"name": "a\\ud800", "lot": "\\udfff", "f\\ud800": 1}\n', "m.jsonl"))
    assert (row.image, row.lot, row.factors) == ("a?", "?", {"f?": 1.0})


@pytest.mark.parametrize("written", ["../x.png", "a/../../x.png", "/etc/passwd", "..", "..\\x.png", "/data/set2/x.png"])
def test_paths_that_leave_the_folder_are_nowhere(written):
    assert locate(written, Path("/data/set/manifest.csv"), Path("/data/set")) == []


@pytest.mark.parametrize("written", ["b/x.png", "./b/x.png", "b\\x.png", "c/../b/x.png", "/data/set/b/x.png"])
def test_paths_into_the_folder_are_found(written):
    assert locate(written, Path("/data/set/manifest.csv"), Path("/data/set")) == ["b/x.png"]


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "set", "data"]), max_size=8).map("/".join))
def test_no_path_ever_leaves_the_folder(written):
    folder = Path("/data/set")
    for name in locate(written, Path("/data/manifest.csv"), folder):
        assert (folder / name).resolve().is_relative_to(folder)


@pytest.mark.parametrize(("column", "meant"), [("lots", "lot"), ("Labels", "label"), ("lable", "label"), ("masks", "mask"), ("days", "day")])
def test_a_column_that_is_misspelt_is_told(column: str, meant: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"name,{column}\na.png,x\n")
    with pytest.raises(DataError, match=f"has a column {column.lower()}.*If it is meant to be {meant}, call it so"):
        read_manifest(path)
    path.write_text(f"name,{column},{meant}\na.png,x,y\n")  # beside the known one it means something else
    assert len(read_manifest(path)) == 1
