"""Muon against the singular value decomposition, and against Adam where it is Adam."""

import copy

import pytest
import torch
from torch import nn

from vlae.core.layers import Conv, Linear, TapConv
from vlae.engine.muon import SHARE, Muon, orthogonal


@pytest.fixture(autouse=True)
def numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("size", [(5, 9), (9, 5), (6, 6), (1, 7)])
def test_matrices_become_nearly_orthogonal_in_the_same_directions(size):
    some = torch.randn(4, *size, dtype=torch.float64)
    turned = orthogonal(some)
    for matrix, found in zip(some, turned, strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.mT @ found @ v.mT
        assert ((inside.diagonal() > 0.6) & (inside.diagonal() < 1.3)).all()
        torch.testing.assert_close(inside, torch.diag(inside.diagonal()), atol=1e-9, rtol=0)
        torch.testing.assert_close(u @ inside @ v, found, atol=1e-9, rtol=0)


def model():
    return nn.ModuleDict({"conv": Conv(3, 8), "taps": TapConv(2, 8, ((0, -1), (-1, 0))), "alike": Conv(3, 8), "linear": Linear(4, 5)})


def with_gradients(made, seed):
    torch.manual_seed(seed)
    for p in made.parameters():
        p.grad = torch.randn_like(p)


def test_convolutions_move_alike_far_downhill_and_the_rest_is_adam():
    ours, theirs = model(), model()
    theirs.load_state_dict(ours.state_dict())
    muon, adam = Muon(ours, 0.01, (0.9, 0.99)), torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.9, 0.99))
    for step in range(3):
        before = copy.deepcopy(ours.state_dict())
        with_gradients(ours, step)
        with_gradients(theirs, step)
        gradients = {name: p.grad.clone() for name, p in ours.named_parameters()}
        muon.step()
        adam.step()
        for name, p in ours.named_parameters():
            if name in ("conv.v", "taps.v", "alike.v"):
                move = p.detach() - before[name]
                assert move.square().mean().sqrt().item() == pytest.approx(0.01 * SHARE, rel=1e-4)
                assert step or (move * gradients[name]).sum() < 0
            else:
                torch.testing.assert_close(p, theirs.get_parameter(name))


def test_tied_layers_move_once():
    tied = nn.ModuleDict({"one": Conv(3, 8), "other": Conv(3, 8)})
    tied["other"].turn_with(tied["one"])
    alone = nn.ModuleDict({"one": Conv(3, 8)})
    alone["one"].load_state_dict(tied["one"].state_dict())
    for made in (tied, alone):
        muon = Muon(made, 0.01, (0.9, 0.99))
        for step in range(2):
            torch.manual_seed(step)
            made["one"].v.grad = torch.randn_like(made["one"].v)
            muon.step()
    assert torch.equal(tied["one"].v, alone["one"].v) and tied["other"].v is tied["one"].v


def test_what_has_no_gradient_stays():
    made = model()
    before = copy.deepcopy(made.state_dict())
    muon = Muon(made, 0.01, (0.9, 0.99))
    made["conv"].v.grad = torch.randn_like(made["conv"].v)
    muon.step()
    assert [name for name, value in made.state_dict().items() if not torch.equal(value, before[name])] == ["conv.v"]
