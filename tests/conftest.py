"""What every test shares: numbers in float64 on the CPU unless told otherwise, and the same examples in every run."""

import os
import signal

import pytest
from hypothesis import settings

# Workers with a thread for every core wait for one another. (Torch reads it when it is imported, later, and so do children.)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Work in the background of a shell is begun deaf to interrupts, and so would be its children, which tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("same every time", derandomize=True, deadline=None, database=None, max_examples=30)
settings.load_profile("same every time")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--dtype", choices=["float64", "float32"], default="float64", help="what the core is tested in")
    parser.addoption("--device", default="cpu", help="where the core is tested")
