"""Nats, bits, and bits per dimension.

Inside the core every log probability is in nats; whatever a person reads is in bits.
"""

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", float, npt.NDArray[np.float64])

NATS_PER_BIT = math.log(2.0)


def bits(nats: Number) -> Number:
    """Convert nats to bits, a number or an array of them.

    >>> round(bits(math.log(8.0)), 12)
    3.0
    """
    return nats / NATS_PER_BIT


def nats(bits: Number) -> Number:
    """Convert bits to nats, a number or an array of them.

    >>> round(nats(3.0) - math.log(8.0), 12)
    0.0
    """
    return bits * NATS_PER_BIT


def bits_per_dim(nats: float, dims: int) -> float:
    """Convert the nats of a whole image to bits for each of its ``dims`` pixel values.

    >>> bits_per_dim(784 * math.log(2.0), 784)
    1.0
    """
    return bits(nats) / dims
