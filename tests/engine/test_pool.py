"""Work in several processes: all of it is done, errors are told as they are, and its end leaves nobody behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path

import pytest

from vlae.engine import pool
from vlae.engine.pool import spread
from vlae.errors import DataError, DeviceError


def squared(thing: int, step: Callable[[int], None]) -> int:
    """Three steps, and a result."""
    for _ in range(3):
        step(1)
    return thing * thing


@dataclass(frozen=True)
class Odd:
    """Work in which something happens to one thing; the others are noted in a folder when they begin and end."""

    folder: Path
    what: str

    def __call__(self, thing: int, step: Callable[[int], None]) -> int:
        (self.folder / f"{thing} began").touch()
        if thing == 1 and self.what == "refused":
            raise DataError("The image is odd", rule="It must be even", found=thing, do="Add one")
        if thing == 1 and self.what == "wrong":
            raise ZeroDivisionError("a mistake of ours")
        if thing == 1 and "killed" in self.what:
            if "counts" in self.what:
                pool._worker[1].get_lock().acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(20 if thing else 0):
            time.sleep(0.05)
            step(1)
        (self.folder / f"{thing} ended").touch()
        return thing


def ended(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.endswith("ended")}


def living(group: int) -> list[int]:
    """The processes of a group that live."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its) == group and state != "Z":
            alive.append(int(path.parent.name))
    return alive


def test_one_process_does_all_in_order_and_tells_every_step() -> None:
    told: list[tuple[int, int]] = []
    assert list(spread(squared, [3, 1, 2], 9, 1, lambda *more: told.append(more))) == [9, 1, 4]
    assert told == [(n, 9) for n in range(1, 10)]
    assert list(spread(squared, [], 0, None)) == [] and list(spread(squared, [5], 3, 8)) == [25]


def test_one_process_raises_what_the_work_raises(tmp_path: Path) -> None:
    results = spread(Odd(tmp_path, "refused"), [0, 1, 2], 3, 1)
    assert next(results) == 0
    with pytest.raises(DataError, match=r"The image is odd. It must be even. Found: 1. Add one."):
        next(results)
    assert not (tmp_path / "2 began").exists()


@pytest.mark.slow
def test_several_processes_do_all_and_count_it() -> None:
    told: list[tuple[int, int]] = []
    things = list(range(11))
    assert sorted(spread(squared, things, 33, 2, lambda *more: told.append(more))) == [n * n for n in things]
    assert told == sorted(told) and told[-1] == (33, 33) and not active_children()


@pytest.mark.slow
@pytest.mark.parametrize(
    "what, kind, said",
    [("refused", DataError, r"^The image is odd. It must be even. Found: 1. Add one.$"), ("wrong", ZeroDivisionError, "a mistake of ours")],
)
def test_an_error_ends_all_work_and_is_raised_once(tmp_path: Path, what: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        list(spread(Odd(tmp_path, what), list(range(12)), 12, 2))
    assert not active_children() and "11 ended" not in ended(tmp_path) and not (tmp_path / "11 began").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["killed", "killed while it counts"])
def test_a_process_that_is_killed_is_told(tmp_path: Path, what: str) -> None:
    with pytest.raises(DeviceError, match=r"ended from outside.*--processes") as error:
        list(spread(Odd(tmp_path, what), list(range(12)), 12, 2, lambda done, of: None))
    assert error.value.__suppress_context__ and not active_children() and not (tmp_path / "11 began").exists()


@pytest.mark.slow
def test_whoever_wants_no_more_results_stops_the_others(tmp_path: Path) -> None:
    results = spread(Odd(tmp_path, "nothing"), list(range(12)), 12, 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert not active_children() and len(ended(tmp_path)) <= 3


WORK = """
import sys
from pathlib import Path
from tests.engine.test_pool import Odd
from vlae.engine.pool import spread
if __name__ == "__main__":
    try:
        list(spread(Odd(Path(sys.argv[1]), "nothing"), list(range(12)), 12, 2))
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", ["interrupted while they begin", "interrupted", "killed"])
def test_the_end_of_the_first_process_is_the_end_of_all(tmp_path: Path, how: str) -> None:
    """An interrupt of a terminal goes to all processes at once; a kill may meet the first alone."""
    (tmp_path / "work.py").write_text(WORK)
    folder = tmp_path / "told"
    folder.mkdir()
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, str(tmp_path / "work.py"), str(folder)]
    child = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True, stderr=subprocess.PIPE, text=True)
    waited = time.monotonic()
    while time.monotonic() < waited + 60 and not (len(living(child.pid)) == 4 if "begin" in how else any(folder.iterdir())):
        time.sleep(0.01)  # 4 with multiprocessing's own
    time.sleep(0.5 if "begin" in how else 0)  # they import torch
    if how == "killed":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGINT)
    err = child.communicate(timeout=60)[1]
    if how != "killed":
        assert (child.returncode, err) == (1, "interrupted\n")
    waited = time.monotonic()
    while living(child.pid) and time.monotonic() < waited + 20:
        time.sleep(0.05)
    assert not living(child.pid) and len(ended(folder)) <= 3
