"""The detector: its promise, the same answers as the command line's, and what people build with it."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.utils.estimator_checks import check_estimator

import vlae
from tests.estimators.test_encoder import SMALL, images
from tests.test_cli import TINY
from tests.test_cli import vlae as command
from vlae import VLAEDetector
from vlae.engine.formats import save_tensors
from vlae.engine.run import Run

SIZE = (8, 9)

# scikit-learn's checks that fail, each with its reason.
ROUNDING = "evidence is computed in float32, and a convolution rounds otherwise in another batch; strengths divide it by how little it varies"
FAILING = {"check_methods_subset_invariance": ROUNDING, "check_methods_sample_order_invariance": ROUNDING}


def tiny(**more: Any) -> VLAEDetector:
    return VLAEDetector(**{"steps": 1, "settings": SMALL, **more})


def parts(count: int, seed: int, size: tuple[int, int] = SIZE, spoiled: bool = False) -> np.ndarray:
    """Grey parts with a rough texture; spoiled ones have a bright spot."""
    pixels = 120 + 10 * np.random.default_rng(seed).standard_normal((count, *size))
    if spoiled:
        pixels[:, 2:5, 3:6] += 110
    return pixels.clip(0, 255).astype(np.uint8)


def folder(path: Path, pixels: np.ndarray) -> Path:
    path.mkdir(parents=True)
    for n, one in enumerate(pixels):
        Image.fromarray(one).save(path / f"{n:04d}.png")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on good parts; none of the tests changes it."""
    home = tmp_path_factory.mktemp("detector")
    code, said = command("train", folder(home / "images", parts(50, 0)), "-o", home / "run", *TINY, "train.steps=40")
    assert code == 0, said
    return home / "run"


def test_scikit_learns_checks() -> None:
    results = check_estimator(tiny(), expected_failed_checks=FAILING, on_fail=None, on_skip=None)
    assert {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"} == {}
    assert FAILING.keys() <= {result["check_name"] for result in results} and len(results) > 35


# The promise


def test_false_alarms_follow_their_law(run: Path) -> None:
    """Of n = 39 scores the 38th is the threshold: a share of Beta(2, 38) of new images lies above it (Vovk 2012)."""
    splits, new = 40, 60
    counts = np.array([VLAEDetector(run).fit(parts(39, 100 + s)).predict(parts(new, 1000 + s)).sum() for s in range(splits)])
    law, rng = stats.betabinom(new, 2, 38), np.random.default_rng(0)
    assert law.mean() == pytest.approx(0.05 * new)
    assert counts.mean() == pytest.approx(law.mean(), abs=3 * law.std() / np.sqrt(splits))
    shares = law.cdf(counts - 1) + rng.random(splits) * law.pmf(counts)  # uniform, if that is the law
    assert stats.kstest(shares, "uniform").pvalue > 0.01


def test_a_model_of_its_own_keeps_the_promise() -> None:
    """8 of 40 images calibrate, and the 7th of their scores is the threshold: 2 of 9 new images lie above it."""
    fits, new = 16, 40
    found = [tiny(false_alarms=0.25, random_state=s).fit(parts(40, s)).predict(parts(new, 1000 + s)).sum() for s in range(fits)]
    law = stats.betabinom(new, 2, 7)
    assert np.mean(found) == pytest.approx(law.mean(), abs=3 * law.std() / np.sqrt(fits))


@pytest.mark.parametrize("count, rate, calibrating", [(200, 0.05, 40), (60, 0.05, 19), (30, 0.05, 15), (3, 0.05, 1), (40, 0.25, 8)])
def test_a_fifth_calibrates_or_as_many_as_the_promise_takes(count: int, rate: float, calibrating: int) -> None:
    promised = tiny(false_alarms=rate).fit(parts(count, 0)).promise_
    assert promised.n_images == calibrating and promised.n_lots is None and promised.asked == rate
    assert promised.kept == (calibrating >= 1 / rate - 1) and promised.rate == (rate if promised.kept else 1 / (calibrating + 1))


def test_copies_count_once() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6), dtype=np.uint8)
    once, thrice = (VLAEDetector(steps=2).fit(X) for X in (images, np.concatenate([images] * 3)))
    assert thrice.promise_ == once.promise_
    with pytest.raises(ValueError, match="not the same"):
        VLAEDetector(steps=2).fit(np.concatenate([images[:2]] * 5))


def test_no_image_both_teaches_and_calibrates() -> None:
    detector = tiny()
    detector.seed_ = 3
    seen, unseen = detector._divided(50, None)
    assert sorted([*seen, *unseen]) == list(range(50)) and set(seen).isdisjoint(unseen)
    lots = np.array(list("abcdefghij") * 5)
    seen, unseen = detector._divided(50, lots)
    assert sorted([*seen, *unseen]) == list(range(50)) and set(lots[seen]).isdisjoint(lots[unseen]) and len(set(lots[unseen])) == 5


def test_real_numbers_are_scaled_by_what_was_learned_from() -> None:
    """An image that calibrates is scaled as a new one is: beyond what was seen it is cut off."""
    x = np.random.default_rng(0).normal(20, 5, (30, *SIZE))
    _, unseen = tiny().fit(x)._divided(30, None)
    x[unseen[0], 0, 0] = 1000
    form = tiny().fit(x).form_
    assert form.high < 50 and form.levels(x[unseen].reshape(len(unseen), -1)).max() == 255


@pytest.mark.parametrize("more", [{}, {"run": True}])
def test_lots_are_promised_as_lots(run: Path, more: dict[str, Any]) -> None:
    days = [20260101 + n % 8 for n in range(40)]
    promised = (VLAEDetector(run) if more else tiny()).fit(parts(40, 5), lots=days).promise_
    lots = 8 if more else 4
    assert (promised.n_lots, promised.n_images, promised.needed) == (lots, 5 * lots, 19)
    assert not promised.kept and promised.rate == pytest.approx(1 / (lots + 1))


def test_images_of_lots_that_the_run_was_trained_on_calibrate_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Run.open(run).images()
    monkeypatch.setattr(Run, "images", lambda self: replace(own, lots=tuple(str(n % 4) for n in range(len(own)))))
    with pytest.warns(UserWarning, match="20 of the 40 images calibrate nothing: the run was trained on their lots"):
        promised = VLAEDetector(run).fit(parts(40, 5), lots=[n % 8 for n in range(40)]).promise_
    assert (promised.n_lots, promised.n_images) == (4, 20)
    with pytest.raises(ValueError, match="at least 3 images of lots that the run was not trained on; got 2 of 40"):
        VLAEDetector(run).fit(parts(40, 5), lots=["new"] * 2 + [0] * 38)
    assert VLAEDetector(run).fit(parts(40, 5)).promise_.n_images == 40


# Scores, maps and regions


def test_scores_and_alarms_are_those_of_the_command_line(run: Path, tmp_path: Path) -> None:
    good, shown = parts(30, 7), np.concatenate([parts(12, 8), parts(4, 9, spoiled=True)])
    calibrated = shutil.copytree(run, tmp_path / "run")
    assert command("calibrate", calibrated, folder(tmp_path / "good", good))[0] == 0
    assert command("detect", calibrated, folder(tmp_path / "shown", shown), "-o", tmp_path / "out")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out/detections.jsonl").read_text().splitlines()]
    detector = VLAEDetector(run).fit(good)
    assert detector.threshold_ == pytest.approx(json.loads((calibrated / "results/calibration.json").read_text())["promise"]["threshold"], rel=1e-4)
    assert detector.score_samples(shown) / detector.threshold_ == pytest.approx([line["score"] for line in lines], rel=1e-4)
    assert detector.predict(shown).tolist() == [line["alarm"] for line in lines]
    boxes = [[(r.left, r.top, r.width, r.height, r.kind) for r in found] for found in detector.regions(shown)]
    assert boxes == [[(r["left"], r["top"], r["width"], r["height"], r["kind"]) for r in line["regions"]] for line in lines]


@pytest.mark.parametrize("settings", [SMALL, ("keep.code=none", "keep.window=stack1", "model.width=4", "model.pointwise=0")])
def test_spoiled_images_score_higher_and_regions_lie_where_they_are_spoiled(settings: tuple[str, ...]) -> None:
    detector = tiny(steps=40, settings=settings).fit(parts(80, 0))
    good, spoiled = parts(40, 1), parts(10, 2, spoiled=True)
    scores = detector.score_samples(np.concatenate([good, spoiled]))
    assert roc_auc_score([0] * 40 + [1] * 10, scores) == 1.0 and detector.predict(spoiled).all()
    for first, *_ in detector.regions(spoiled):
        assert first.left < 6 and first.left + first.width > 3 and first.top < 5 and first.top + first.height > 2 and first.strength > 1


def test_what_is_said_of_an_image_agrees(run: Path) -> None:
    x = np.concatenate([parts(40, 1), parts(5, 2, spoiled=True)])
    detector = VLAEDetector(run, false_alarms=0.2).fit(parts(30, 7))
    scores, maps, found = detector.score_samples(x), detector.maps(x), detector.regions(x)
    assert maps.shape == (45, *SIZE) and maps.dtype == np.float32 and np.array_equal(maps.max((1, 2)), scores)
    assert np.array_equal(detector.decision_function(x), scores - detector.threshold_)
    assert detector.score_samples(x[::-1][:7]) == pytest.approx(scores[::-1][:7], rel=1e-4)  # but for rounding
    alarms = detector.predict(x)
    assert 5 < alarms.sum() < 40 and np.array_equal(alarms, scores > detector.threshold_) and [bool(f) for f in found] == alarms.astype(bool).tolist()
    assert [f[0].strength for f in found if f] == pytest.approx(scores[alarms == 1] / detector.threshold_)
    detector.threshold_ = float(np.median(scores))
    assert detector.predict(x).sum() == 22


@pytest.mark.parametrize("size, dtype", [((8, 9), np.uint16), ((8, 9), bool), ((8, 9, 3), np.uint8)])
def test_images_of_every_type(size: tuple[int, ...], dtype: type) -> None:
    x = images(40, size, dtype)
    detector = tiny().fit(x)
    assert np.isfinite(detector.score_samples(x)).all() and detector.maps(x).shape == (40, 8, 9)
    rows = tiny(shape=size).fit(x.reshape(40, -1))
    assert np.array_equal(rows.score_samples(x.reshape(40, -1)), detector.score_samples(x))


# Runs


def test_a_run_stays_as_it_is_and_is_not_needed_later(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    detector, x = VLAEDetector(copy).fit(parts(20, 1)), parts(9, 2)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    kept = pickle.dumps(detector)
    shutil.rmtree(copy)
    assert np.array_equal(pickle.loads(kept).score_samples(x), detector.score_samples(x))


def test_of_a_run_without_its_images_x_is_divided(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("config.yaml", "images.json"):
        shutil.copy(run / name, copy)
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace(str(run.parent / "images"), str(tmp_path / "gone")))
    save_tensors(copy / "weights.safetensors", load_file(run / "weights.safetensors"), handed_on="half")
    assert Run.open(copy).handed_on
    detector = VLAEDetector(copy).fit(parts(60, 1))
    assert detector.promise_.n_images == 19 and detector.predict(parts(5, 2, spoiled=True)).all()
    shutil.copy(run / "weights.safetensors", copy)
    with pytest.raises(vlae.errors.RunError):
        VLAEDetector(copy).fit(parts(60, 1))


def test_images_that_the_run_was_trained_on_are_refused(run: Path) -> None:
    own = Run.open(run).images()
    trained = [own.pixels(int(own.indices(split)[0]))[..., 0] for split in ("train", "validation")]
    with pytest.raises(ValueError, match="2 of the 22 images were used to train the run"):
        VLAEDetector(run).fit(np.concatenate([parts(20, 1), trained]))


def test_where_places_are_told_apart_images_have_one_size(tmp_path: Path) -> None:
    home = folder(tmp_path / "images", parts(30, 0, (16, 16)))
    Image.fromarray(parts(1, 1, (24, 20))[0]).save(home / "other.png")
    (home / "manifest.csv").write_text("\n".join(["name,split", *(f"{p.name},{'test' if p.stem == 'other' else ''}" for p in home.glob("*.png"))]))
    grid = [word for word in TINY if not word.startswith(("keep.dims", "model.hidden"))]
    code, said = command("train", home, "-o", tmp_path / "run", *grid, "keep.code=grid", "keep.stride=2", "train.crop=16")
    assert code == 0, said
    assert VLAEDetector(tmp_path / "run").fit(parts(20, 2, (16, 16))).promise_.kept
    with pytest.raises(ValueError, match=r"have their size: \(16, 16\); got \(24, 20\)"):
        VLAEDetector(tmp_path / "run").fit(parts(20, 2, (24, 20)))


# What people do


def test_a_fitted_detector_can_be_kept(run: Path, tmp_path: Path) -> None:
    x = parts(15, 3)
    for detector in (tiny().fit(parts(30, 1)), VLAEDetector(run).fit(parts(30, 1))):
        joblib.dump(detector, tmp_path / "detector")
        for again in (pickle.loads(pickle.dumps(detector)), joblib.load(tmp_path / "detector")):
            assert np.array_equal(again.decision_function(x), detector.decision_function(x)) and again.promise_ == detector.promise_
        fresh = clone(detector)
        assert fresh.get_params() == detector.get_params() and not hasattr(fresh, "threshold_")
        assert np.array_equal(fresh.fit(parts(30, 1)).score_samples(x), detector.score_samples(x))


def test_cross_validation_and_other_random_states() -> None:
    x = parts(30, 1)
    assert cross_val_predict(tiny(), x, cv=2, method="decision_function").shape == (30,)
    once, other = (tiny(random_state=state).fit(x).score_samples(x) for state in (0, 1))
    assert not np.allclose(once, other)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 5, float("nan"), "5%", None])
def test_a_rate_that_is_no_share_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match="false_alarms must be a share above 0 and below 1"):
        tiny(false_alarms=rate).fit(parts(30, 0))


def test_bad_input_is_told(run: Path, tmp_path: Path) -> None:
    for x, lots, words in (
        (parts(2, 0), None, "minimum of 3"),
        (parts(20, 0), ["a"] * 19, "inconsistent numbers of samples"),
        (parts(20, 0), ["a"] * 19 + [None], "1 have none, the first is image 19"),
        (parts(20, 0), [np.nan] + ["a"] * 19, "1 have none, the first is image 0"),
        (parts(20, 0), ["a"] * 20, "at least two lots, one of 2 images; got 20 images of 1 lots"),
        (np.full((20, *SIZE), np.nan), None, "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny().fit(x, lots=lots)
    for x, words in ((parts(20, 0, (9, 8)), r"are \(8, 9, 1\)"), (parts(20, 0) + 0.5, "whole values from 0 to 255")):
        with pytest.raises(ValueError, match=words):
            VLAEDetector(run).fit(x)
    with pytest.raises(ValueError, match="but VLAEDetector was fitted on"):
        tiny().fit(parts(20, 0)).predict(parts(20, 0, (9, 8)))
    with pytest.raises(vlae.errors.RunError, match="is not a run"):
        VLAEDetector(tmp_path).fit(parts(20, 0))
