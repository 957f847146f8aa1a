"""How fine a structure survives in a code: coherence between images and decodings of their codes, by spatial frequency.

n images, C colours, H and W height and width, K bands of frequency.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from vlae.errors import DataError

Numbers = npt.NDArray[np.float64]
Shape = Literal["border", "all", "none", "several", "unclear"]

BORDER = 0.5
MOST_BANDS = 48
RESAMPLES = 1000
# A band with less of the images' power than this holds nothing but rounding.
LEAST_POWER = 1e-9
# Coherence with other images' decodings from which all the images count as the same.
SAME = 0.99


@dataclass(frozen=True)
class Powers:
    """What the spectra of images and of decodings have in common, and what each has, image by image and band by band: each (n, K)."""

    common: Numbers
    """sum of Re X conj(Y) over the band's frequencies"""
    both: Numbers
    """sum of (|X|^2 + |Y|^2) / 2"""


@dataclass(frozen=True)
class Spectrum:
    """How much of the images survives in decodings of their codes, from coarse structures to fine ones."""

    pixels: tuple[float, ...]
    """period of each band's frequency: a dark and a bright stripe together"""
    survives: tuple[float, ...]
    """coherence less that with another image's decodings, as a share of what is left to 1"""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """bounds of its 95% bootstrap interval, over the images"""
    other: tuple[float, ...]
    """coherence with another image's decodings: what all the images share, and the decoder knows without a code"""
    shape: Shape
    """border: kept above a border, not below. all, none: of every band. several: kept, and not, and kept again. unclear: the rest"""
    above: float | None
    """the finest period down to which every band is kept for certain (``low`` is above one half)"""
    below: float | None
    """the coarsest period from which on every finer band is lost for certain (``high`` is below one half)"""
    border: float | None
    """where the curve crosses one half, in pixels, where ``shape`` is border"""
    border_low: float | None
    border_high: float | None
    """bounds of its 95% bootstrap interval"""

    def __post_init__(self) -> None:
        """Raises ValueError for what is no curve: a file is anybody's."""
        columns = (self.pixels, self.survives, self.low, self.high, self.other)
        crossing = (self.above, self.below, self.border, self.border_low, self.border_high)
        if {len(column) for column in columns} != {len(self.pixels) or 1} or min(self.pixels) <= 0:
            raise ValueError("its columns have one number for each band")
        if self.shape == "border" and not all(crossing):
            raise ValueError("a border lies somewhere")

    def keeps(self, pixels: float) -> Literal["kept", "not kept", "unclear"]:
        """Whether structures of so many pixels and more are kept: all of them for certain, some of them certainly not, or neither."""
        coarse = [(low, high) for period, low, high in zip(self.pixels, self.low, self.high, strict=True) if period >= pixels]
        if any(high < BORDER for _, high in coarse):
            return "not kept"
        return "kept" if coarse and all(low > BORDER for low, _ in coarse) else "unclear"

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The runs of neighbouring bands that are kept for certain, each from its coarsest to its finest period."""
        sure = np.flatnonzero(np.array(self.low) > BORDER)
        runs = np.split(sure, np.flatnonzero(np.diff(sure) > 1) + 1) if len(sure) else []
        return tuple((self.pixels[run[0]], self.pixels[run[-1]]) for run in runs)


class Bands(NamedTuple):
    """Rings of spatial frequency: which of them each coefficient of a Fourier transform lies in (H, W), and their middles in cycles a pixel.

    Coefficients in none of them (the mean, and the corners beyond one cycle in two pixels) have the number K.
    """

    rings: npt.NDArray[np.int64]
    frequencies: Numbers


def bands(height: int, width: int) -> Bands:
    """Rings as narrow as the shorter side tells apart, at most ``MOST_BANDS`` of them."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    step = max(1 / min(height, width), 0.5 / MOST_BANDS)
    count = int(0.5 / step + 1e-9)
    rings = np.rint(frequency / step).astype(np.int64) - 1
    return Bands(np.where((rings < 0) | (rings >= count), count, rings), step * np.arange(1, count + 1, dtype=np.float64))


def powers(x: Numbers, y: Numbers) -> Powers:
    """What images and decodings, each (n, C, H, W), have in common in each band; each is windowed (Hann) without its mean."""
    height, width = x.shape[2:]
    among = bands(height, width)
    spectrum, decoded = _transformed(x), _transformed(y)
    common = (spectrum * decoded.conj()).real.sum(1)
    both = ((np.abs(spectrum) ** 2 + np.abs(decoded) ** 2) / 2).sum(1)
    return Powers(_by_band(common, among), _by_band(both, among))


def together(several: Sequence[Powers]) -> Powers:
    """The powers of several decodings of the same images as one."""
    return Powers(np.sum([p.common for p in several], 0), np.sum([p.both for p in several], 0))


def _transformed(x: Numbers) -> npt.NDArray[np.complex128]:
    height, width = x.shape[2:]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    return np.fft.fft2((x - x.mean((2, 3), keepdims=True)) * window)


def _by_band(values: Numbers, among: Bands) -> Numbers:
    count = len(among.frequencies)
    return np.stack([np.bincount(among.rings.ravel(), image.ravel(), count + 1)[:count] for image in values])


def spectrum(own: Powers, other: Powers, frequencies: Numbers, rng: np.random.Generator) -> Spectrum:
    """From the powers of images with decodings of their own codes, and with those of another image's, to what survives.

    The coherence of a band is ``C = sum Re X conj(Y) / sum (|X|^2 + |Y|^2) / 2``, over images, decodings and the band's frequencies:
    1 where decodings are the images, 0 where they have nothing in common, and, unlike with the geometric mean of the powers, below 1
    where a decoding is only paler. What survives is ``(C_own - C_other) / (1 - C_other)``, C_other at least 0.

    Args:
        own: of images and decodings of their codes, (n, K).
        other: of the same images and decodings of other images' codes.
        frequencies: of the bands, in cycles a pixel, (K,).
        rng: for the bootstrap (Efron 1979).

    Raises:
        DataError: the images are too narrow for a band, or neither they nor decodings show anything.
    """
    if not len(frequencies):
        raise DataError("The images are one pixel wide or high", rule="Stripes are told from two pixels a side on", do="Give larger images")
    told = own.both.sum(0) > LEAST_POWER * own.both.sum()
    if not told.any():
        raise DataError("The images are of one grey each", rule="What a code keeps is seen by images that show something", do="Give other images")
    own, other = (Powers(p.common[:, told], p.both[:, told]) for p in (own, other))
    frequencies = frequencies[told]
    n = len(own.common)
    times = np.stack([np.bincount(drawn, minlength=n) for drawn in rng.integers(0, n, (RESAMPLES, n))]).astype(np.float64)
    curve, resampled = _survives(own, other, np.ones(n)), _survives(own, other, times)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    sides = np.percentile([kept_up_to(c, frequencies) for c in resampled], [2.5, 97.5]).tolist()
    return _told(curve, low, high, _coherence(other, np.ones(n)), frequencies, sides)


def _survives(own: Powers, other: Powers, times: Numbers) -> Numbers:
    """What survives where each image counts so many times: (K,), or (R, K) for R rows of times."""
    shared = np.maximum(_coherence(other, times), 0)  # images that are unlike by chance make nothing better
    # Where all the images are the same nothing is left to be kept.
    return np.where(shared < SAME, (_coherence(own, times) - shared) / np.maximum(1 - shared, 1 - SAME), 0)


def _coherence(powers: Powers, times: Numbers) -> Numbers:
    """The coherence of each band; 0 where the images that count show nothing."""
    common, both = times @ powers.common, times @ powers.both
    return np.divide(common, both, out=np.zeros_like(common), where=both > 0)


def kept_up_to(curve: Numbers, frequencies: Numbers) -> float:
    """The frequency up to which a falling curve lies above one half: how much of the frequencies does, by straight lines between bands.

    >>> kept_up_to(np.array([1.0, 0.8, 0.4, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])).__round__(3)
    0.275
    """
    fine = np.linspace(0, frequencies[-1], 2001)
    return float((np.interp(fine, frequencies, curve) > BORDER).mean() * frequencies[-1])


def _told(curve: Numbers, low: Numbers, high: Numbers, other: Numbers, frequencies: Numbers, sides: list[float]) -> Spectrum:
    pixels = 1 / frequencies
    kept, lost = low > BORDER, high < BORDER
    coarse, fine = int(np.cumprod(kept).sum()), int(np.cumprod(lost[::-1]).sum())
    shape = _shape(kept, lost, coarse, fine)
    falls = shape != "several"
    crossing = [1 / f for f in (kept_up_to(curve, frequencies), sides[1], sides[0])] if shape == "border" else [None] * 3
    return Spectrum(
        pixels=tuple(pixels.tolist()),
        survives=tuple(curve.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        other=tuple(other.tolist()),
        shape=shape,
        above=float(pixels[coarse - 1]) if falls and coarse else None,
        below=float(pixels[-fine]) if falls and fine else None,
        border=crossing[0],
        border_low=crossing[1],
        border_high=crossing[2],
    )


def _shape(kept: npt.NDArray[np.bool_], lost: npt.NDArray[np.bool_], coarse: int, fine: int) -> Shape:
    """From which of the bands, the coarsest first, are kept and lost for certain: so many at the coarse end, and at the fine one."""
    if len(kept) in (coarse, fine):
        return "all" if coarse else "none"
    if lost.any() and kept[lost.argmax() :].any():
        return "several"
    return "border" if coarse and fine else "unclear"
