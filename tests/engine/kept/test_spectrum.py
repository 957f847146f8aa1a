"""What survives by spatial frequency: on gratings of known period, and on decoders that are known to keep what is coarse."""

import numpy as np
import pytest
from scipy import ndimage

from vlae.engine.kept.spectrum import BORDER, MOST_BANDS, Spectrum, _told, bands, kept_up_to, powers, spectrum, together
from vlae.errors import DataError


def grating(period: float, count: int = 12, size: int = 64, seed: int = 0) -> np.ndarray:
    """Stripes of a period, each image of another direction and phase."""
    rng = np.random.default_rng(seed)
    i, j = np.mgrid[:size, :size]
    angle, phase = rng.uniform(0, np.pi, count), rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.sin(2 * np.pi * (i * np.sin(a) + j * np.cos(a)) / period + p) for a, p in zip(angle, phase, strict=True)])[:, None]


def natural(count: int = 24, size: int = 64, seed: int = 0, colours: int = 1) -> np.ndarray:
    """Random images whose spectrum falls as one over the frequency."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, colours, size, size))) / np.maximum(f, 1 / size)).real


def low(x: np.ndarray, period: float, sharp: float = 0.0) -> np.ndarray:
    """Only what is coarser than a period; with ``sharp`` (in octaves) the cut is gradual."""
    f = np.hypot(np.fft.fftfreq(x.shape[2])[:, None], np.fft.fftfreq(x.shape[3])[None])
    gain = (f < 1 / period) if not sharp else 1 / (1 + np.exp(np.log2(np.maximum(f, 1e-9) * period) / sharp))
    return np.fft.ifft2(np.fft.fft2(x) * gain).real


def of(x: np.ndarray, *decodings: np.ndarray, seed: int = 5) -> Spectrum:
    own = together([powers(x, y) for y in decodings])
    other = together([powers(x, np.roll(y, len(y) // 2, 0)) for y in decodings])
    return spectrum(own, other, bands(*x.shape[2:]).frequencies, np.random.default_rng(seed))


def keeping(x: np.ndarray, period: float, sharp: float = 0.0) -> list[np.ndarray]:
    """Decodings that keep what is coarser than a period and make up the rest anew."""
    made_up = [natural(len(x), x.shape[2], seed=100 + n, colours=x.shape[1]) for n in range(3)]
    return [low(x, period, sharp) + m - low(m, period, sharp) for m in made_up]


@pytest.mark.parametrize("size", [(64, 64), (20, 31), (256, 200), (8, 8)])
def test_toldare_rings_of_their_frequency(size: tuple[int, int]) -> None:
    rings, frequencies = bands(*size)
    step = frequencies[0]
    assert len(frequencies) <= MOST_BANDS and frequencies[-1] <= 0.5 + 1e-12 and rings.shape == size
    i, j = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    for k, f in enumerate(frequencies):
        inside = np.hypot(i, j)[rings == k]
        assert len(inside) and np.abs(inside - f).max() <= step / 2 + 1e-12
    assert rings[0, 0] == len(frequencies)


@pytest.mark.parametrize("period", [16.0, 8.0, 5.0, 3.0])
def test_the_power_of_a_grating_lies_in_the_band_of_its_period(period: float) -> None:
    x = grating(period)
    found = powers(x, x)
    share = found.both.sum(0) / found.both.sum()
    near = np.abs(bands(64, 64).frequencies - 1 / period) <= 2 / 64
    assert share[near].sum() > 0.97 and found.common == pytest.approx(found.both)


@pytest.mark.parametrize("gain", [1.0, 0.5, 0.0, -1.0])
def test_a_paler_decoding_is_worth_less(gain: float) -> None:
    """2 g / (1 + g^2), by hand."""
    x = natural()
    found = powers(x, gain * x)
    assert found.common.sum(0) / found.both.sum(0) == pytest.approx(np.full(32, 2 * gain / (1 + gain**2)))


@pytest.mark.parametrize("period", [16.0, 9.0, 6.0, 4.0])
@pytest.mark.parametrize("sharp", [0.0, 0.15])
def test_the_border_of_a_decoder_that_keeps_what_is_coarse_is_found(period: float, sharp: float) -> None:
    x = natural(48)
    found = of(x, *keeping(x, period, sharp))
    assert found.shape == "border" and found.border == pytest.approx(period, rel=0.15)
    assert found.border_low is not None and found.border_high is not None and found.above is not None and found.below is not None
    assert found.border_low <= found.border <= found.border_high and found.below < found.above
    assert found.keeps(2 * period) == "kept" and found.keeps(period / 2) == "not kept"


def test_colour_and_sides_of_other_lengths() -> None:
    x = natural(24, 64, colours=3)[:, :, :, :50]
    decodings = [y[:, :, :, :50] for y in keeping(natural(24, 64, colours=3), 8.0)]
    assert of(x, *decodings).border == pytest.approx(8.0, rel=0.15)


def test_a_decoder_that_keeps_everything_or_nothing() -> None:
    x = natural()
    whole = of(x, x)
    assert whole.shape == "all" and whole.above == pytest.approx(2.0) and whole.border is None and whole.keeps(2.0) == "kept"
    nothing = of(x, natural(seed=9))
    assert nothing.shape == "none" and nothing.above is None and nothing.keeps(10.0) == "not kept"


def test_what_all_images_share_is_no_merit_of_the_code() -> None:
    """A decoder that knows the common picture alone keeps nothing; one that knows the rest too keeps all."""
    common, rest = 3 * natural(1), natural(24, seed=1)
    x = common + rest
    assert max(of(x, common + natural(24, seed=2)).survives) < BORDER
    assert min(of(x, x).survives) == pytest.approx(1.0)


def test_a_curve_that_rises_again_is_told_as_it_is() -> None:
    """Coarse and fine kept, the middle not: no border is claimed."""
    x = natural(48)
    new = natural(48, seed=7)
    between = low(x, 4.0) - low(x, 12.0)
    found = of(x, x - between + low(new, 4.0) - low(new, 12.0))
    assert found.shape == "several" and found.border is None and found.above is None and found.below is None
    (coarse, fine) = found.ranges
    assert coarse[1] == pytest.approx(12, rel=0.2) and fine[0] == pytest.approx(4, rel=0.2)
    assert found.keeps(13.0) == "kept" and found.keeps(3.0) == "not kept"


def test_few_images_claim_little() -> None:
    x = natural(200)
    decodings = [0.5 * x + np.sqrt(0.75) * natural(200, seed=3)]  # half of the power: right on the border
    few, many = of(x[:2], decodings[0][:2]), of(x, *decodings)
    width = [np.mean(np.array(s.high) - s.low) for s in (few, many)]
    assert width[0] > 3 * width[1] and many.survives == pytest.approx([0.5] * 32, abs=0.1)


def test_intervals_cover_at_their_rate() -> None:
    """Of many sets of images with a known share, about 95% of the bands' intervals hold it."""
    inside = []
    for seed in range(20):
        x = natural(30, 32, seed=seed)
        found = of(x, 0.7 * x + np.sqrt(1 - 0.49) * natural(30, 32, seed=1000 + seed), seed=seed)
        inside += [low <= 0.7 <= high for low, high in zip(found.low, found.high, strict=True)]
    assert 0.85 < np.mean(inside) < 0.99


def test_flat_images_and_toldwithout_power() -> None:
    x = ndimage.gaussian_filter(natural(12), (0, 0, 6, 6))
    found = of(x, x)
    assert np.isfinite([*found.survives, *found.low, *found.high]).all() and 0 < len(found.pixels) <= 32
    same = np.repeat(natural(1), 12, axis=0)
    assert np.isfinite(of(same, same).survives).all() and of(same, same).shape != "all"


def test_flat_images_and_decodings_are_told() -> None:
    x = np.full((9, 1, 16, 16), 7.0)
    with pytest.raises(DataError, match="one grey"):
        of(x, x)


def test_how_much_lies_above_the_border() -> None:
    frequencies = np.linspace(0.02, 0.5, 25)
    assert kept_up_to(np.ones(25), frequencies) == pytest.approx(0.5) and kept_up_to(np.zeros(25), frequencies) == 0
    assert kept_up_to(1 - 2 * frequencies, frequencies) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    ("told", "shape", "above", "below"),
    [
        ("kkk???ll", "border", 3, 7),
        ("k?kk?l?l", "border", 1, 8),  # what is uncertain between ends both
        ("?kkk??ll", "unclear", None, 7),
        ("kkk???l?", "unclear", 3, None),
        ("kklk??ll", "several", None, None),
        ("kkkkkkkk", "all", 8, None),
        ("llllllll", "none", None, 1),
    ],
)
def test_what_is_said_of_sizes_holds_for_each_of_them(told: str, shape: str, above: int | None, below: int | None) -> None:
    """Bands that are kept (k), lost (l) or neither for certain, numbered from the coarsest."""
    interval = {"k": (0.8, 0.9), "l": (0.1, 0.2), "?": (0.3, 0.7)}
    low, high = np.array([interval[band] for band in told]).T
    found = _told((low + high) / 2, low, high, np.zeros(8), np.arange(1, 9) / 16, [1 / 16, 1 / 2])
    assert (found.shape, found.above, found.below) == (shape, above and 16 / above, below and 16 / below)
    if found.above:
        assert found.keeps(found.above) == "kept"


@pytest.mark.filterwarnings("error")
def test_draws_of_blank_images_alone_have_nothing_in_common() -> None:
    x = np.zeros((3, 1, 16, 16))
    x[0] = natural(1, 16)[0]
    found = of(x, x)
    assert np.isfinite([*found.survives, *found.low, *found.high]).all() and max(found.low) == 0.0


@pytest.mark.parametrize("size", [(1, 16), (16, 1)])
def test_images_of_a_pixel_a_side_have_no_bands(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(9, 1, *size))
    with pytest.raises(DataError, match="one pixel wide or high"):
        of(x, x)
