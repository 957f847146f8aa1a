"""What the integer mixtures work out pixel by pixel, compiled. Whole numbers: so it is what tensors give, to the last bit.

B images, K components, P pixels of each.
"""

from vlae.core.compiled import Array, compiled


@compiled
def between(weights: Array, slope: Array, offset: Array, masses: Array, x: Array, finer: bool, inverse_bits: int, weight_bits: int, out: Array) -> None:
    """``sum_k w_k C(slope_k x + offset_k) >> weight_bits + x`` (B, P): a mixture's frequencies below the levels ``x``.

    ``masses`` is the table of C, whose places are ``2^inverse_bits`` apart; ``finer`` tells whether mass grows evenly between them.
    """
    images, components, pixels = weights.shape
    last, rest = len(masses) - 1, (1 << inverse_bits) - 1
    for b in range(images):
        for p in range(pixels):
            total = 0
            for k in range(components):
                exact = slope[b, k, p] * x[b, p] + offset[b, k, p]
                place = min(max(exact >> inverse_bits, 0), last)
                below = masses[place]
                if finer:
                    after = min(place + 1, last)
                    below += ((masses[after] - below) * (exact & rest)) >> inverse_bits
                total += weights[b, k, p] * below
            out[b, p] = (total >> weight_bits) + x[b, p]
