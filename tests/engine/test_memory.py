"""Numbers that are too small for processors, and that they are nothing for a training alone."""

import pytest
import torch

from vlae.engine.memory import without_denormals


def halved() -> float:
    return (torch.full((64,), 1.5e-38) / 2)[0].item()


def test_what_is_too_small_is_zero_within_and_is_again_what_it_is_afterwards() -> None:
    with pytest.raises(KeyError), without_denormals():
        assert halved() == 0
        raise KeyError
    assert halved() > 0
