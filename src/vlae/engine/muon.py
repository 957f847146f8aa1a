"""Muon: momentum that is made orthogonal, for the weights of convolutions; Adam for all other parameters."""

from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlae.core.layers import Conv, TapConv

MOMENTUM, SHARE = 0.95, 0.6
"""What is remembered at each step, and how far weights move: the root of their mean square, as a share of the learning rate."""
TURNS = 5
"""of the iteration, after which all singular values are near one"""


class Muon(torch.optim.Adam):
    """Adam, but that the weights of a convolution move along the orthogonal matrix that is nearest to their momentum.

    They are a matrix W, outputs by all that an output reads, of n numbers and the smaller side r:
    ``W -= lr SHARE O sqrt(n / r)``, ``O = U V^T`` of ``momentum = U S V^T``. So every direction is learned as fast as the steepest, with moves
    about as long as Adam's (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982, equation 4).

    Args:
        model: whose parameters are learned.
        lr: the learning rate.
        betas: of Adam.
    """

    def __init__(self, model: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(model.parameters(), lr=lr, betas=betas, foreach=True)
        self.matrices = list(dict.fromkeys(layer.v for layer in model.modules() if isinstance(layer, Conv | TapConv)))  # tied layers have one

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        learned = sorted((v for v in self.matrices if v.grad is not None), key=_size)
        for _, alike in groupby(learned, key=_size):
            self._turn(list(alike))
        super().step(closure)

    def _turn(self, matrices: list[nn.Parameter]) -> None:
        """Move matrices of one size, and take their gradients away from Adam."""
        ahead = torch.stack([self._momentum(v) for v in matrices])
        moves = orthogonal(ahead)
        moves *= SHARE / moves.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
        for v, move in zip(matrices, moves, strict=True):
            v.sub_(move.view_as(v), alpha=self.param_groups[0]["lr"])
            v.grad = None

    def _momentum(self, v: nn.Parameter) -> Float[Tensor, "o i"]:
        """The running mean of the gradients (Nesterov's, a step ahead)."""
        assert v.grad is not None
        if not self.state[v]:
            self.state[v] = {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(v), "exp_avg_sq": torch.zeros_like(v)}
        self.state[v]["step"] += 1
        mean: Tensor = self.state[v]["exp_avg"].lerp_(v.grad, 1 - MOMENTUM)
        return v.grad.lerp(mean, MOMENTUM).flatten(1)


def _size(v: Tensor) -> tuple[int, int]:
    return len(v), v.numel() // len(v)


def orthogonal(matrices: Float[Tensor, "n o i"]) -> Float[Tensor, "n o i"]:
    """About ``U V^T`` of each ``U S V^T``: a polynomial that drives singular values towards one, applied ``TURNS`` times.

    >>> turned = orthogonal(torch.tensor([[[3.0, 1.0, 0.0], [0.0, 0.2, 0.0]]]))
    >>> bool(((torch.linalg.svdvals(turned) - 1).abs() < 0.35).all())
    True
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    x = matrices / matrices.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
    for _ in range(TURNS):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x
