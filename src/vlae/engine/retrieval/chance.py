"""How near chance alone brings two of many images: nearer ones are near-duplicates."""

import math

import numpy as np

from vlae.engine.embed import Numbers

# So many images tell how near neighbours usually are.
FEWEST = 30
CHANCE = 0.05
"""images of a whole set that are told as near-duplicates by chance, on average"""


def by_chance(distances: Numbers) -> tuple[float | None, str]:
    """The distance within which chance alone brings two images only seldom, from the distances of n images to their nearest neighbours.

    Where codes are scattered at random, evenly in the neighbourhood of each, these distances follow a Weibull distribution, whose shape is
    the number of directions that codes spread in (Levina and Bickel 2004, NIPS 17, for that Poisson process): with a median m and an upper
    quartile u a share p of them lies within ``m (-ln(1 - p) / ln 2)^(ln(u / m) / ln 2)``. That is the answer for p = ``CHANCE`` / n. The lower
    quartile has no say, so that many near-duplicates do not hide one another.

    >>> round(by_chance(np.linspace(1, 2, 100))[0], 3)
    0.3
    """
    apart = distances[distances > 0]
    if len(apart) < FEWEST <= len(distances):
        same = len(distances) - len(apart)
        return None, f"{same} of {len(distances)} images have the same code as another, and too few are left to tell how near neighbours usually are"
    if len(apart) < FEWEST:
        return None, f"fewer than {FEWEST} images tell nothing of how near neighbours usually are"
    middle, upper = np.percentile(np.log(apart), [50, 75]).tolist()
    rare = -math.log1p(-CHANCE / len(distances)) / math.log(2)
    rule = f"so near that of {len(distances)} images scattered like these chance would bring {CHANCE} to another"
    return math.exp(middle + (upper - middle) * math.log2(rare)), rule
