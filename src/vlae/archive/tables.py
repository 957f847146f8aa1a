"""Tables of integers for what networks do besides sums: made of decimal arithmetic, which is the same on every machine.

A float's exponential may differ in the last bit from one library to the next, and with it the rounding of a table's entry. Nothing here
depends on the caller's own decimal context.
"""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache

import torch
from jaxtyping import Int64
from torch import Tensor

_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN)


def exp(x: Decimal) -> Decimal:
    """The exponential, correctly rounded to 40 digits."""
    return x.exp(_EXACT)


def sigmoid(x: Decimal) -> Decimal:
    """``1 / (1 + exp(-x))``."""
    return _EXACT.divide(Decimal(1), _EXACT.add(Decimal(1), exp(_EXACT.minus(x))))


def elu(x: Decimal) -> Decimal:
    """``x``, or ``exp(x) - 1`` below zero."""
    return x if x > 0 else _EXACT.subtract(exp(x), Decimal(1))


@cache
def table(function: Callable[[Decimal], Decimal], first: int, last: int, step: int, scale: int) -> Int64[Tensor, " n"]:
    """``scale * function(i / step)``, rounded, for all ``i`` from ``first`` to ``last``.

    >>> table(sigmoid, -2, 2, step=1, scale=1000).tolist()
    [119, 269, 500, 731, 881]
    """
    values = (_EXACT.multiply(Decimal(scale), function(_EXACT.divide(Decimal(i), Decimal(step)))) for i in range(first, last + 1))
    return torch.tensor([int(_EXACT.to_integral_value(v)) for v in values])
