"""The core is tested in float64: what is exact is then seen to be exact."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch


@pytest.fixture(autouse=True)
def numbers(request: pytest.FixtureRequest) -> Iterator[None]:
    """The type, place and seed of every number that a test makes; as they were again afterwards."""
    before, device = torch.get_default_dtype(), request.config.getoption("--device")
    torch.set_default_dtype(getattr(torch, request.config.getoption("--dtype")))
    try:
        with nullcontext() if device == "cpu" else torch.device(device), torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)
