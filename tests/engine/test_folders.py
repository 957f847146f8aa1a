"""Output folders: new, and gone again where nothing was written."""

from pathlib import Path

import pytest

from vlae.engine.folders import new_folder, output_folder
from vlae.errors import DiskError


def test_an_output_folder_is_new_and_leaves_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
        raise ZeroDivisionError
    assert not (tmp_path / "a" / "b").exists()
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "kept") as folder:
        (folder / "one.png").write_bytes(b"1")
        raise ZeroDivisionError
    assert (tmp_path / "kept" / "one.png").is_file()
    with pytest.raises(DiskError, match="not empty"):
        new_folder(tmp_path / "kept")
    with pytest.raises(DiskError):
        new_folder(tmp_path / "kept" / "one.png")
