"""What the inspection benchmark measures with: sets, baselines and metrics against something independent of them."""

import os
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
pytest.importorskip("pyod", reason="pyod is absent: pip install vlae[benchmarks]")

import inspection
from defects import baselines, changes, metrics, sets
from runs import trained
from vlae.data import parts
from vlae.engine.measure import costs
from vlae.units import bits

SHARED = Path(os.environ.get("VLAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def regions(mask):
    """The connected regions of a mask, corners included, by flooding."""
    left, found = {tuple(p) for p in np.argwhere(mask)}, []
    while left:
        waiting, region = [left.pop()], []
        while waiting:
            i, j = waiting.pop()
            region.append((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(region)
    return found


def brute_aupro(maps, masks, most):
    """The curve threshold by threshold, region by region, and its area by a fine sum."""
    all_regions = [(m, *zip(*region, strict=True)) for m, mask in zip(maps, masks, strict=True) for region in regions(mask)]
    curve = [(0.0, 0.0)]
    for limit in sorted(set(maps.ravel().tolist()), reverse=True):
        overlap = np.mean([(m[list(i), list(j)] >= limit).mean() for m, i, j in all_regions])
        curve.append((float((maps >= limit)[~masks].mean()), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < most and x1 > x0:
            end = min(x1, most)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / most


@pytest.mark.parametrize("values", [4, 1000])  # many ties, and hardly any
@pytest.mark.parametrize("most", [0.05, 0.3, 1.0])
def test_aupro_is_that_of_a_count_at_every_threshold(values, most):
    rng = np.random.default_rng(values)
    masks = rng.random((3, 12, 10)) < 0.15
    masks[2] = False
    maps = (rng.integers(0, values, masks.shape) + masks * values // 4).astype(np.float64)
    assert metrics.aupro(maps, masks, most) == pytest.approx(brute_aupro(maps, masks, most), abs=1e-12)


def test_aupro_of_a_perfect_map_is_one_and_of_a_constant_one_half_the_limit():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, 2:4, 2:5] = True
    assert metrics.aupro(masks.astype(float), masks) == pytest.approx(1.0)
    assert metrics.aupro(np.zeros(masks.shape), masks) == pytest.approx(0.15)


@pytest.fixture
def grain():
    """Images whose pixels hang together, each place otherwise."""
    noise = np.random.default_rng(1).normal(size=(40, 13, 12))
    return np.clip(120 + 20 * noise + 15 * np.roll(noise, 1, axis=2) + 3 * np.arange(12), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("places", ["one", "mean", "each"])
def test_a_patch_gaussian_is_that_of_scipy(grain, places):
    """Twice the log density below that of the mean is the squared distance."""
    maps = baselines.PatchGaussian(3, 1, places).fit(grain).maps(grain)
    x = grain.astype(np.float64)
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2)).reshape(40, 11, 10, 9)
    means = np.broadcast_to(patches.mean((0, 1, 2)), (11, 10, 9)) if places == "one" else patches.mean(0)
    centred = patches - means
    for i, j in [(0, 0), (5, 7), (10, 9)]:
        some = centred[:, i, j] if places == "each" else centred.reshape(-1, 9)
        covariance = some.T @ some / len(some)
        covariance += 0.01 * covariance.trace() / 9 * np.eye(9)
        there = stats.multivariate_normal(means[i, j], covariance)
        expected = 2 * (there.logpdf(means[i, j]) - there.logpdf(patches[:, i, j])) / 9
        assert maps[:, i + 1, j + 1] == pytest.approx(expected, rel=1e-4)


def test_a_patch_gaussian_of_averaged_pixels_maps_every_pixel(grain):
    assert baselines.PatchGaussian(3, 2, "each").fit(grain).maps(grain).shape == grain.shape


def test_reconstruction_from_all_components_has_no_error_on_what_was_seen(grain):
    assert baselines.Reconstruction(1000).fit(grain).maps(grain).max() < 1e-2
    assert baselines.Reconstruction(2).fit(grain).maps(grain).mean() > 1


@pytest.mark.parametrize("name", baselines.PYOD)
def test_detectors_of_pyod_find_what_is_far_from_everything(grain, name):
    found = baselines.OnComponents(name, 4, whiten=True).fit(grain[:30]).scores(np.concatenate([grain[30:], 255 - grain[:1]]))
    assert found.scores.argmax() == 10


def test_a_lot_plays_one_role():
    lots = {f"lot {n}": [None, None, None, "crack", "dent"][n % 5] for n in range(200)}
    roles = sets.assigned(lots)
    assert Counter(roles[lot] for lot, kind in lots.items() if kind == "crack") == {"development": 20, "test": 20}
    assert {roles[lot] for lot, kind in lots.items() if kind is None} == set(sets.ROLES)


@pytest.mark.parametrize("name", ["tiles", "elpv"])
def test_no_tile_and_no_block_of_cells_is_in_two_parts(name):
    if not (SHARED / {"tiles": "magnetic_tile_128.npz", "elpv": "elpv_300_mono.zip"}[name]).is_file():
        pytest.skip("the shared data are absent: set VLAE_DATA to their folder")
    found = sets.SETS[name]()
    roles = {lot: {e.role for e in found.examples if e.lot == lot} for lot in {e.lot for e in found.examples}}
    assert all(len(those) == 1 for those in roles.values())
    assert {e.role for e in found.examples if e.label != sets.GOOD} == {"development", "test"}
    assert all(e.mask is None or e.mask.any() for e in found.examples)
    assert len({e.lot for e in found.good("calibration")}) >= 19


def test_parts_drawn_again_are_the_same_but_for_the_change():
    examples = [sets.Example(f"part-{n:05d}", parts.draw(n).image, sets.GOOD, "", "test") for n in (3, 7)]
    assert all(np.array_equal(changes.redrawn(e), e.pixels) for e in examples)
    found = changes.variants(sets.Collection("parts", ()), examples)
    assert tuple(found) == changes.NAMES and all((x != np.stack([e.pixels for e in examples])).any() for x in found.values())
    shifted = found["shifted by 2 pixels"][0]
    apart = [np.abs(np.roll(examples[0].pixels, by, axis=1).astype(int) - shifted)[20:44, 20:44].mean() for by in range(5)]
    assert np.argmin(apart) == 2


def test_the_noise_of_a_smooth_image_is_found_and_made_half_as_strong_again():
    smooth = 100 + 30 * np.sin(np.arange(64) / 20)[:, None] * np.ones((5, 64, 64))
    noisy = np.rint(smooth + np.random.default_rng(1).normal(0, 4, smooth.shape)).astype(np.uint8)
    assert changes.noise(noisy.astype(float)) == pytest.approx(4, rel=0.1)
    examples = [sets.Example("", x, sets.GOOD, "", "test") for x in noisy]
    found = changes.variants(sets.Collection("tiles", ()), examples)
    assert changes.noise(found["noise x1.5"].astype(float)) == pytest.approx(6, rel=0.1)
    assert found["light +10%"] == pytest.approx(noisy * 1.1, abs=0.5) and found["light -10%"] == pytest.approx(noisy * 0.9, abs=0.5)
    assert np.array_equal(found["shifted by 2 pixels"][:, :, 2:], noisy[:, :, :-2])


def test_ours_is_compared_with_the_best_of_the_others_on_each_set():
    values = {"vlae": (0.9, 0.8), "good on a": (0.95, 0.5), "good on b": (0.5, 0.7)}
    rows = [
        inspection.row(f"{name}, {kind}", "image AUROC", value, "") for kind, both in values.items() for name, value in zip("ab", both, strict=True)
    ]
    found = [r for r in inspection.means(rows, ["a", "b"]) if r["aim"]]
    assert [(r["against"], round(r["value"], 6), r["met"]) for r in found] == [
        ("good on a", -0.05, False),
        ("good on b", 0.1, True),
        ("good on a", 0.125, True),
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Good images of 8x8 pixels, and runs that learned a little from them: with a code and no window, and with a window and no code."""
    folder = tmp_path_factory.mktemp("runs")
    x = np.clip(np.random.default_rng(0).normal(120, 20, (12, 8, 8)) + 10 * np.arange(8), 0, 255).astype(np.uint8)
    roles = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    examples = [sets.Example(f"{n}", pixels, sets.GOOD, f"lot {n // 2}", role) for n, (pixels, role) in enumerate(zip(x, roles, strict=True))]
    sets.write(sets.Collection("tiny", tuple(examples)), folder / "images")
    few = ["train.steps=5", "train.validate_every=5", "train.batch=4"]
    settings = {"plain": ["keep.code=vector", "keep.window=none"], "none": ["keep.code=none"]}
    return x, *(trained(folder / "images", folder / name, [*few, *some]) for name, some in settings.items())


def test_a_set_that_was_written_is_read_as_it_is(tiny):
    x, plain, _ = tiny
    images = plain.images()
    assert all(np.array_equal(images.pixels(n)[..., 0], x[int(Path(images.names[n]).stem)]) for n in range(12))
    assert Counter(images.split.tolist()) == {"train": 8, "validation": 2, "test": 2} and set(images.lots) == {f"lot {n}" for n in range(6)}


def test_the_expected_pixel_of_a_plain_vae_is_the_mean_of_its_decodings(tiny):
    x, plain, _ = tiny
    fitted = baselines.Trained(plain, "squared error").fit(x)
    z = fitted.model.posterior(torch.from_numpy(x[:1, None].astype(np.float32))).mean.detach()
    uniforms = torch.rand(4000, fitted.model.decoder.head.uniforms, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = fitted.model.decoder.sample(z.expand(4000, -1), uniforms).mean(0)[0].numpy()
    expected = np.square((x[0] - drawn) * 2 / 255)
    assert fitted.maps(x[:1])[0] == pytest.approx(expected, abs=0.05)


def test_the_likelihood_of_a_run_without_a_code_is_what_evaluation_finds(tiny):
    x, _, none = tiny
    images = none.images()
    cost, maps = next(costs(none.model(torch.device("cpu")), images, np.arange(12), seed=0))
    shown = np.stack([images.pixels(int(n))[..., 0] for n in cost.numbers])
    found = baselines.Bound(none).fit(x).scores(shown)
    assert found.scores * 64 == pytest.approx(bits(cost.distortion)) and found.maps == pytest.approx(bits(maps.numpy()), rel=1e-5)
    assert baselines.Trained(none).fit(x).maps(shown) == pytest.approx(found.maps, rel=1e-5)


def test_the_score_of_an_image_depends_on_no_other(tiny):
    x, plain, _ = tiny
    for detector in (baselines.Bound(plain), baselines.Pooled(baselines.Trained(plain), 1.0, "max"), baselines.Pooled(baselines.PatchGaussian(3))):
        fitted = detector.fit(x)
        assert fitted.scores(x).scores[7:8] == pytest.approx(fitted.scores(x[7:8]).scores, rel=1e-4)
