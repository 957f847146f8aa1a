"""How surprising a pixel is expected to be: mean and variance of ``-log p(v)`` over the levels v, under p itself.

B batch, K mixture components, H and W height and width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Where the range of a logistic is cut, in its scales: finely where it is curved, coarsely where it falls exponentially.
_ABOVE = (0.25, 0.8, 1.4, 2.1, 3.0, 4.2, 6.0, 9.0)


class Moments(NamedTuple):
    """Of ``-log p(x_i)`` under p: the predictive entropy, in nats, and the variance; of a pixel in colour, summed over its colours."""

    entropy: Float[Tensor, "B H W"]
    variance: Float[Tensor, "B H W"]


def bernoulli_moments(logits: Float[Tensor, "B H W"]) -> Moments:
    """``-p log p - q log q`` and ``p q (log p - log q)^2``."""
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    return Moments(-p * F.logsigmoid(logits) - q * F.logsigmoid(-logits), p * q * logits.square())


def mixture_moments(levels: int, weights: Float[Tensor, "B K H W"], means: Float[Tensor, "B K H W"], scales: Float[Tensor, "B K H W"]) -> Moments:
    """The moments of a discretised mixture of logistics, whose levels run from -1 to 1.

    Levels are gathered into bins, between cuts at a few multiples of each component's scale around its mean. A bin of m levels has its exact
    mass P and is taken to be flat inside: the entropy is ``sum P log(m / P)``. Where scales are of a few levels, bins are single levels and
    nothing is approximated; where they are wide, the entropy is too high by 0.005 nats in the mean.

    Args:
        levels: how many levels a pixel has.
        weights: of the components; they sum to one.
        means: of the components.
        scales: of the components.
    """
    weights, means, scales = (t.movedim(1, -1).contiguous() for t in (weights, means, scales))
    last = float(levels - 1)
    cuts = _cuts(last, means, scales)
    at = (cuts + 0.5) * (2 / last) - 1
    below = torch.zeros_like(cuts)
    for weight, mean, scale in zip(*(t.split(1, -1) for t in (weights, means, 1 / scales)), strict=True):
        below.addcmul_(weight, (at - mean).mul_(scale).sigmoid_())
    # The lowest and the highest level have everything beyond them.
    below.masked_fill_(cuts < 0, 0.0).masked_fill_(cuts >= last, 1.0)
    mass, count = below.diff(dim=-1).clamp_min_(0), cuts.diff(dim=-1)
    # A bin without a level has no mass, and is of no account.
    surprise = (count.clamp_min_(1) / mass.clamp_min(1e-30)).log_()
    once = mass * surprise
    entropy = once.sum(-1)
    return Moments(entropy, ((once * surprise).sum(-1) - entropy.square()).clamp_min(0))


def _cuts(last: float, means: Float[Tensor, "B H W K"], scales: Float[Tensor, "B H W K"]) -> Float[Tensor, "B H W E"]:
    """Between which levels the bins end, in order: cut c lies between the levels c and c + 1, the first is -1 and the last L - 1."""
    above = means.new_tensor(_ABOVE)
    middle, reach = ((means + 1) * (last / 2)).unsqueeze(-1) - 0.5, (scales * (last / 2)).unsqueeze(-1) * above
    # Rounded away from the mean: so the level that a narrow component lies in has a bin of its own.
    inner = torch.cat([(middle - reach).floor(), (middle + reach).ceil()], -1).flatten(-2).clamp(-1, last)
    ends = means.new_tensor([-1.0, 0.0, last - 1, last]).expand(*inner.shape[:-1], 4)
    return torch.cat([inner, ends], -1).sort(-1).values
