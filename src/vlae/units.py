"""Nats, bits, and bits per dimension.

Inside the core every log probability is in nats; whatever a person reads is in bits.
"""

import math

NATS_PER_BIT = math.log(2.0)


def bits(nats: float) -> float:
    """Convert nats to bits.

    >>> round(bits(math.log(8.0)), 12)
    3.0
    """
    return nats / NATS_PER_BIT


def nats(bits: float) -> float:
    """Convert bits to nats.

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
