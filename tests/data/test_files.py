import os
import resource
import signal
import subprocess
import sys

import pytest

from vlae.data.files import beside
from vlae.errors import DiskError


def test_nothing_is_left_of_a_body_that_raises(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"before")
    with pytest.raises(KeyError), beside(target) as file:
        file.write(b"half")
        raise KeyError
    assert target.read_bytes() == b"before" and os.listdir(tmp_path) == ["a"]


def test_the_older_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"before")
    with beside(target) as file:
        file.write(b"after")
        file.flush()
        assert target.read_bytes() == b"before"
    assert target.read_bytes() == b"after"


def test_a_kill_leaves_the_older_file(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"before")
    body = f"""
import os, signal
from pathlib import Path
from vlae.data.files import beside
with beside(Path({str(target)!r})) as file:
    file.write(b"half"); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", body]).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"before"


@pytest.fixture
def full_disk():
    """No file may grow beyond 4096 bytes: writing fails as on a full disk, with another errno."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_disk_error_and_leaves_nothing(tmp_path, full_disk):
    with pytest.raises(DiskError, match="cannot be written"), beside(tmp_path / "a") as file:
        file.write(b"x" * 100_000)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="cannot be written"), beside(tmp_path / "file" / "a"):
        pass


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    with beside(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
