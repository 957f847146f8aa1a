"""The archive is tested in float32, in which its whole numbers must be exact."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def numbers() -> Iterator[None]:
    """The type, seed and threads of every test; as they were again afterwards."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)
