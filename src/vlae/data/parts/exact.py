"""Random numbers, noise and turns that are the same bits on every machine.

All randomness is SplitMix64 (Steele, Lea, Flood 2014): a counter times an odd constant, scrambled by shifts and multiplications
modulo 2^64. It is written out here, on unsigned 64-bit integers, so that no library's stream can change under it, and it is addressed by
place instead of drawn in turn: a number depends on its key and its coordinates alone, never on how many were drawn before.

All other arithmetic of the package is ``+ - * / sqrt``, floor, comparison, minimum and maximum of float64, one NumPy call an operation.
IEEE 754 prescribes the last bit of each of them. What differs between machines is kept out: ``sin``, ``exp``, ``pow`` and their kin (each
libm rounds them as it likes), ``**``, float sums, means and matrix products (their order varies), and ``interp``, ``hypot`` and
complex numbers (a compiler may fuse a multiplication with an addition inside such a call).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GOLDEN, MIX_A, MIX_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
EVEN_BYTES, PAIRS = 0x00FF00FF00FF00FF, 0x0001000100010001
BYTES_MEAN, BYTES_SD = 8 * 127.5, math.sqrt(8 * (256 * 256 - 1) / 12)  # of the sum of eight bytes


def scramble(cells: NDArray[np.integer], key: int) -> NDArray[np.uint64]:
    """Hash every cell number under a key to 64 random bits.

    >>> [hex(bits) for bits in scramble(np.array([1, 2]), 0)]  # the published first numbers of SplitMix64 with seed 0
    ['0xe220a8397b1dcdaf', '0x6e789e6aa1b965f4']
    """
    z = cells.astype(np.uint64) * np.uint64(GOLDEN) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_A)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_B)
    return z ^ (z >> np.uint64(31))


def subkey(key: int, *words: int | str) -> int:
    """Derive the key of an image, a purpose (a name of up to eight letters) or an octave from the key above it.

    >>> subkey(0, "grain") == subkey(0, "grain") != subkey(1, "grain")
    True
    """
    for word in words:
        number = int.from_bytes(word.encode(), "big") if isinstance(word, str) else word
        key = int(scramble(np.array([number % 2**64], np.uint64), key)[0])
    return key


def uniform(key: int, count: int) -> list[float]:
    """Draw ``count`` numbers of [0, 1), each a multiple of 2^-53.

    >>> all(0.0 <= number < 1.0 for number in uniform(7, 100))
    True
    """
    return [int(bits) / 2**53 for bits in scramble(np.arange(count), key) >> np.uint64(11)]


def normal(rows: NDArray[np.int64], columns: NDArray[np.int64], key: int) -> Array:
    """Draw at every cell the sum of eight random bytes, scaled to mean 0 and standard deviation 1: a bell within 4.88 deviations.

    >>> normal(np.array([[3], [4]]), np.array([0, 1, 2]), key=1).shape
    (2, 3)
    """
    bits = scramble((rows.astype(np.int64) << 32) + columns, key)
    pairs = (bits & np.uint64(EVEN_BYTES)) + ((bits >> np.uint64(8)) & np.uint64(EVEN_BYTES))
    return ((pairs * np.uint64(PAIRS) >> np.uint64(48)).astype(np.float64) - BYTES_MEAN) / BYTES_SD


def value_noise(a: Array, b: Array, key: int) -> Array:
    """Interpolate smoothly, at the points (a, b) in cells, between random numbers (mean 0, deviation 1) on the integer lattice.

    >>> corner = value_noise(np.array([2.0]), np.array([-1.0]), key=5)
    >>> bool(corner == normal(np.array([2]), np.array([-1]), key=5))
    True
    """
    low_a, low_b = np.floor(a), np.floor(b)
    i, j = low_a.astype(np.int64), low_b.astype(np.int64)
    first_i, first_j = int(i.min()), int(j.min())
    rows, columns = np.arange(first_i, int(i.max()) + 2), np.arange(first_j, int(j.max()) + 2)
    table, width = normal(rows[:, None], columns, key).ravel(), len(columns)
    corner = (i - first_i) * width + (j - first_j)
    across, down = smooth(b - low_b), smooth(a - low_a)
    upper = table[corner] + across * (table[corner + 1] - table[corner])
    lower = table[corner + width] + across * (table[corner + width + 1] - table[corner + width])
    return upper + down * (lower - upper)


def smooth(t: Array) -> Array:
    """The cubic 3 t^2 - 2 t^3, which goes from 0 to 1 with level ends."""
    return t * t * (3.0 - 2.0 * t)


def ramp(low: float, high: float, value: Array) -> Array:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    return smooth(np.clip((value - low) / (high - low), 0.0, 1.0))


class Turn(NamedTuple):
    """A direction: its cosine and sine."""

    cos: float
    sin: float


def turn(degrees: float) -> Turn:
    """Compute cosine and sine of an angle by their power series, whose terms are below the last bit after 30 of them.

    >>> [round(part, 15) for part in turn(30)]
    [0.866025403784439, 0.5]
    """
    x = (degrees - 360.0 * math.floor((degrees + 180.0) / 360.0)) * math.pi / 180.0
    cos, sin, term = 1.0, 0.0, 1.0
    for order in range(1, 30, 2):
        term = term * x / order
        sin += term
        term = -term * x / (order + 1)
        cos += term
    return Turn(cos, sin)
