"""What is compiled: kept for these very sources, and whatever the place where it is kept is like."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from vlae.core.compiled import compiled, copied, sigmoid

INVERTED = """
import numpy as np
from vlae.core import elements
made = elements.inverse(np.array([[1.0, 2.0]]), np.zeros((1, 3)), np.array([3.0, 0.0, 0.0, 5.0]), np.array([0, 1, 1]), False)
print(made.tolist(), sum(elements.inverse.stats.cache_hits.values()))
"""


def inverted(folder):
    """In a process of its own that keeps what it compiles there."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", INVERTED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.count("Compiling for this processor")


def test_what_was_compiled_is_used_again_unless_it_is_damaged(tmp_path):
    """By hand: the first element is 1, its unit 3, so that the second is 2 + 5 x 3."""
    """And who waits for it is told, once."""
    assert inverted(tmp_path) == ("[[1.0, 17.0]] 0", 1)
    assert inverted(tmp_path) == ("[[1.0, 17.0]] 1", 0)
    for file in tmp_path.rglob("*.nbi"):
        file.write_bytes(file.read_bytes()[:-7])
    assert inverted(tmp_path) == ("[[1.0, 17.0]] 0", 1)


def test_other_sources_have_another_place(tmp_path, monkeypatch):
    from vlae.core import compiled as module

    places = []
    for text in ("one = 1", "one = 2"):
        (tmp_path / "a.py").write_text(text)
        module._folder.cache_clear()
        places.append(module._folder(str(tmp_path / "a.py")))
    assert None not in places and places[0] != places[1]


def test_without_a_place_it_is_compiled_all_the_same():
    assert inverted("/proc/nowhere")[0] == "[[1.0, 17.0]] 0"


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_sigmoid_is_that_of_torch(kind):
    @compiled
    def over(values, out):
        for k in range(len(values)):
            out[k] = sigmoid(values[k])

    x = np.concatenate([np.linspace(-100, 100, 20001), [0.0, 1e-7, -1e-7]]).astype(kind)
    out = np.empty_like(x)
    over(x, out)
    exact = torch.sigmoid(torch.from_numpy(x).double()).numpy()
    # The exponent is a rounded product, |x| times its last bit off; and below exp(-87) single precision ends.
    assert (np.abs(out - exact) <= (4 + np.abs(x)) * np.finfo(kind).eps * exact + np.exp(-87)).all()


def test_numbers_are_copied_as_they_lie():
    @compiled
    def over(values, out):
        copied(values, 2, out, 1, 3)

    values, out = np.arange(6.0), np.zeros(5)
    over(values, out)
    assert out.tolist() == [0, 2, 3, 4, 0]
