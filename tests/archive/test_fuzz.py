"""Damaged archives: some of the cases of ``fuzz`` in every run, each in a child with little memory and time."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("count, seed", [(200, 0), pytest.param(2000, 10**6, marks=pytest.mark.slow)])
def test_damage_never_gives_wrong_pixels_nor_ends_otherwise_than_by_saying_so(count, seed):
    command = [sys.executable, "-m", "tests.archive.fuzz", "--count", str(count), "--seed", str(seed)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["bad"] == [] and sum(found["outcomes"].values()) == count
    assert {"right", "damage named", "refused"} <= found["outcomes"].keys(), "all of it happens"
