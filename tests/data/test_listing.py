import os
from pathlib import Path

from vlae.data.listing import list_files
from vlae.data.source import LeftOut

from .samples import fill

NOWHERE = Path("/nowhere")


def test_names_are_relative_posix_paths_in_natural_order(tmp_path):
    fill(tmp_path / "b" / "deep", 11)
    fill(tmp_path, 3)
    names = list(list_files(tmp_path, NOWHERE).files)
    assert names == [f"b/deep/img{i}.png" for i in range(11)] + [f"img{i}.png" for i in range(3)]


def test_links_that_loop_end(tmp_path):
    fill(tmp_path / "a", 1)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    listing = list_files(tmp_path, NOWHERE)
    assert list(listing.files) == ["a/img0.png"]
    assert {name for name, _, _ in listing.left_out} == {"a/loop", "again", "self"}


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    fill(tmp_path / "elsewhere", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(list_files(tmp_path / "data", NOWHERE).files) == ["link/img0.png", "link/img1.png"]


def test_hidden_files_pipes_and_broken_links_are_left_out(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    fill(tmp_path / ".thumbnails", 2)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    listing = list_files(tmp_path, NOWHERE)
    assert list(listing.files) == ["img0.png"]
    assert sorted(listing.left_out) == [
        LeftOut(".DS_Store", "hidden", harmless=True),
        LeftOut("gone.png", "cannot be opened (No such file or directory)"),
        LeftOut("pipe.png", "not a regular file", harmless=True),
    ]


def test_a_name_that_is_not_utf_8_is_left_out_by_a_name_that_can_be_printed(tmp_path):
    fill(tmp_path, 1)
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):
        pass
    ((name, reason, _),) = list_files(tmp_path, NOWHERE).left_out
    assert name.encode().decode() == "\\udcff.png" and "UTF-8" in reason


def test_the_cache_inside_the_folder_is_not_data(tmp_path):
    fill(tmp_path, 1)
    fill(tmp_path / "cache", 3)
    assert list(list_files(tmp_path, tmp_path / "cache").files) == ["img0.png"]


def test_a_folder_that_cannot_be_opened_is_told(tmp_path, monkeypatch):
    fill(tmp_path / "closed", 1)
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list_files(tmp_path, NOWHERE).left_out == (LeftOut("closed", "folder cannot be opened (Permission denied)"),)
