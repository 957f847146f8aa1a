"""Calibrate and detect: what is promised, what is found, and what is said to bad input."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

from tests.test_cli import TINY, copied, refused, vlae
from vlae.apps.calibrate import calibrate
from vlae.apps.detect import detect
from vlae.apps.report.defects import _counted, _words
from vlae.apps.report.words import Words
from vlae.data.read import decode
from vlae.engine.formats import save_tensors
from vlae.engine.inspection.calibration import Calibration, read_reference
from vlae.engine.inspection.conformal import promise
from vlae.engine.inspection.detection import Detection, Found, pictures
from vlae.engine.inspection.inspect import Looked, inspect, reference_of
from vlae.engine.inspection.regions import Region
from vlae.engine.run import Run
from vlae.errors import DataError, DiskError

SIZE = (16, 20)
GRID = [word for word in TINY if not word.startswith(("keep.dims", "model.hidden", "train.steps"))]


def part(path: Path, seed: int, spoiled: bool = False) -> Path:
    """A grey part with a rough texture; a spoiled one has a bright spot."""
    rng = np.random.default_rng(seed)
    pixels = 120 + 10 * rng.standard_normal(SIZE)
    if spoiled:
        pixels[4:8, 10:14] += 110
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def folder(path: Path, seeds: range, spoiled: bool = False) -> Path:
    for seed in seeds:
        part(path / f"{seed:04d}.png", seed, spoiled)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on good parts and calibrated on others; every test may read it, none change it."""
    home = tmp_path_factory.mktemp("detect")
    images = folder(home / "images", range(60))
    code, said = vlae(
        "train", images, *GRID, "keep.code=grid", "keep.stride=2", "train.crop=16", "train.steps=60", "train.validate_every=30", "-o", home / "run"
    )
    assert code == 0, said
    code, said = vlae("calibrate", home / "run", folder(home / "good", range(1000, 1060)))
    assert code == 0 and "promised   at most 5.0% of new good images" in said
    return home


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    return Run.open(copied(made / "run", tmp_path / "run"))


def test_spoiled_parts_raise_alarms_where_they_are_spoiled_and_good_ones_seldom_do(made: Path, run: Run, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    folder(shown / "spoiled", range(2000, 2012), spoiled=True)
    folder(shown / "good", range(3000, 3060))
    rows = [f"{path.relative_to(shown)},{path.parent.name}" for path in sorted(shown.rglob("*.png"))]
    (shown / "manifest.csv").write_text("\n".join(["name,label", *rows]))
    found = detect(run, shown, tmp_path / "out", all_maps=True)
    lines = [json.loads(line) for line in (tmp_path / "out/detections.jsonl").read_text().splitlines()]
    assert found.images == len(lines) == 72 and found.alarms == sum(line["alarm"] for line in lines)
    for line in lines:
        if line["label"] == "spoiled":
            [first, *_] = line["regions"]
            (left, top), (right, bottom) = (first["left"], first["top"]), (first["left"] + first["width"], first["top"] + first["height"])
            assert line["alarm"] and left < 14 and right > 10 and top < 8 and bottom > 4
        assert line["alarm"] == (line["score"] > 1) == bool(line["regions"])
        assert decode(tmp_path / "out/maps" / line["name"], 10**6).pixels.shape == (SIZE[0], 2 * SIZE[1] + 4, 3)
    assert found.counted is not None and found.counted.detected[0] == 1.0 and found.counted.false_alarms[0] <= 0.15
    assert found.counted.image_AUROC > 0.95 and {f.label for f in found.highest} == {"spoiled"}
    assert Detection.read(run) == found


def test_scores_do_not_depend_on_what_lies_beside(run: Run, tmp_path: Path) -> None:
    several = folder(tmp_path / "several", range(40, 44), spoiled=True)
    together = {f.name: f.score for f in detect(run, several, tmp_path / "a").highest}
    for path in several.iterdir():
        [alone] = detect(run, path, tmp_path / f"b-{path.stem}").highest
        assert alone.score == pytest.approx(together[path.name], rel=1e-5)


def test_the_threshold_is_that_of_the_scores_and_can_be_moved(run: Run, tmp_path: Path) -> None:
    known = Calibration.read(run)
    assert known.promise == promise(np.array(known.scores), 0.05) and known.promise.kept
    strict, loose = (detect(run, folder(tmp_path / "new", range(500, 540)), tmp_path / str(rate), rate) for rate in (0.02, 0.5))
    assert strict.promise.threshold > known.promise.threshold > loose.promise.threshold and strict.alarms <= loose.alarms > 0
    code, said = vlae("detect", run.folder, tmp_path / "new", "-o", tmp_path / "said", "--false-alarms", "50%", "--json")
    assert code == 0 and json.loads(said)["alarms"] == loose.alarms
    positions = [row["threshold"] for row in known.rates()]
    assert positions == sorted(set(positions), reverse=True)


def test_lots_of_a_manifest_are_promised_as_lots(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "lots", range(700, 740))
    with (images / "manifest.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "lot"])
        writer.writerows([path.name, f"day {n % 8}"] for n, path in enumerate(sorted(images.glob("*.png"))))
    found = calibrate(run, images)[0].promise
    assert found.n_lots == 8 and not found.kept and found.needed == 19 and found.rate == pytest.approx(1 / 9)
    code, said = vlae("calibrate", run.folder, images)
    assert code == 0 and "5% cannot be promised from so few: it takes 19 lots" in said


def test_images_of_lots_that_were_trained_on_calibrate_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = run.images()

    def of_lots(lots: list[str]) -> None:
        monkeypatch.setattr(Run, "images", lambda self: replace(own, lots=tuple(lots)))

    of_lots([f"day {n % 8}" for n in range(len(own))])
    images = folder(tmp_path / "lots", range(700, 748))
    rows = [f"{path.name},day {n % 12}" for n, path in enumerate(sorted(images.glob("*.png")))]
    (images / "manifest.csv").write_text("\n".join(["name,lot", *rows]))
    found, left_out = calibrate(run, images)
    assert set(found.lots or ()) == {f"day {n}" for n in range(8, 12)} and len(found.names) == 16 and found.promise.n_lots == 4
    assert len(left_out) == 32 and left_out[0].reason == "the run was trained on its lot, day 0" and not left_out[0].harmless
    (images / "manifest.csv").write_text("\n".join(["name,lot", *(row.partition(",")[0] + ",day 1" for row in rows)]))
    with pytest.raises(DataError, match=r"too few good images.*48 left out.*the run was trained on its lot, day 1"):
        calibrate(run, images)
    with pytest.raises(DataError, match="too few good images"):  # its own test images, of a split by content
        calibrate(run)
    tests = own.indices("test")
    of_lots(["new" if n in tests[1:] else "day" for n in range(len(own))])
    assert calibrate(run)[0].names == tuple(own.names[n] for n in tests[1:])


def test_a_good_folder_that_holds_defects_is_told(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "mixed", range(800, 840))
    part(images / "bad.png", 1, spoiled=True)
    code, said = vlae("calibrate", run.folder, images)
    assert code == 0 and "Look at bad.png" in said


def test_without_images_the_run_is_calibrated_on_its_own_test_images(run: Run) -> None:
    own = run.images()
    assert set(calibrate(run)[0].names) == {own.names[n] for n in own.indices("test")}


def test_the_reference_is_kept_as_it_was(run: Run) -> None:
    model, size = run.model(torch.device("cpu")), Calibration.read(run).size
    before = read_reference(run, model, size)
    calibrate(run)
    after = read_reference(run, model, size)
    assert before.mean.keys() == after.mean.keys() and all((before.mean[name] == after.mean[name]).all() for name in before.mean)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_bad_input_is_told_in_a_sentence(made: Path, run: Run, tmp_path: Path) -> None:
    code, said = vlae("calibrate", run.folder, made / "images")
    assert code == 3 and refused(said, "were used in training", "or none")
    few = folder(tmp_path / "few", range(900, 902))
    code, said = vlae("calibrate", run.folder, few)
    assert code == 3 and refused(said, "too few good images")
    for rate in ("0", "100%", "five", "1e-320", "nan"):
        assert vlae("calibrate", run.folder, few, "--false-alarms", rate)[0] == 2
    (tmp_path / "empty").mkdir()
    assert vlae("detect", run.folder, tmp_path / "empty", "-o", tmp_path / "out")[0] == 3
    assert vlae("detect", run.folder, tmp_path / "absent", "-o", tmp_path / "out")[0] == 3
    Image.new("L", (64, 64)).save(few / "other.png")
    (few / "text.png").write_text("no image")
    code, said = vlae("detect", run.folder, few, "-o", tmp_path / "out")
    assert code == 8 and "other.png: it has 64x64 pixels, and good parts 20x16" in said and "text.png" in said
    code, said = vlae("detect", run.folder, few, "-o", tmp_path / "out")
    assert code == 6 and refused(said, "not empty")
    assert vlae("detect", run.folder, few, "-o", few / "out")[0] == 6


@pytest.mark.parametrize("file", ["calibration.safetensors", "results/calibration.json"])
def test_a_calibration_that_is_damaged_gone_or_of_other_weights_is_told(file: str, run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "new", range(500, 503))
    spoil(run.folder / file)
    code, said = vlae("detect", run.folder, images, "-o", tmp_path / "out")
    assert code == 4 and refused(said, "calibrat") and not (tmp_path / "out").exists()
    (run.folder / file).unlink()
    code, said = vlae("detect", run.folder, images, "-o", tmp_path / "out")
    assert code == 4 and refused(said, "is not calibrated", "vlae calibrate")


def test_other_weights_need_another_calibration(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "new", range(500, 503))
    shutil.copy(run.weights, tmp_path / "old")
    save_tensors(run.weights, {name: t + 1e-3 for name, t in load_file(run.weights).items()}, step="1")
    code, said = vlae("detect", run.folder, images, "-o", tmp_path / "out")
    assert code == 4 and refused(said, "was trained on since it was calibrated")


@pytest.mark.parametrize("lang, said", [("en", "What is unlike good parts"), ("ja", "良品と異なるところ")])
def test_the_report_shows_the_promise_and_what_was_found(lang: str, said: str, run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "shown", range(2000, 2003), spoiled=True)
    detect(run, images, tmp_path / "out")
    code, _ = vlae("report", run.folder, "--lang", lang, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    section = page[page.index('<section id="defects">') :].partition("</section>")[0]
    known = Calibration.read(run)
    assert code == 0 and said in section and f"<b>{known.promise.threshold:.2f}</b>" in section
    assert all(f"{path.name}: " in section for path in images.iterdir())
    assert section.count("data:image/png") == 3 and 'alt=""' not in section
    assert section.count("<tr><td>") == len(known.rates())
    (run.folder / "results/calibration.json").unlink()
    vlae("report", run.folder, "--lang", lang, "-o", tmp_path / "without.html")
    assert said not in (tmp_path / "without.html").read_text()


def test_large_images_in_tiles_score_the_same(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = folder(tmp_path / "shown", range(60, 64), spoiled=True)
    whole = detect(run, images, tmp_path / "whole").highest
    monkeypatch.setattr("vlae.engine.inspection.look.MOST_PIXELS", 10)
    monkeypatch.setattr("vlae.engine.inspection.tiles.TILE", 6)
    for one, other in zip(whole, detect(run, images, tmp_path / "tiles").highest, strict=True):
        assert one.name == other.name and one.score == pytest.approx(other.score, rel=1e-4)
        assert [(r.left, r.top, r.area, r.kind) for r in one.regions] == [(r.left, r.top, r.area, r.kind) for r in other.regions]


def put(run: Run, **tensors: torch.Tensor | None) -> None:
    """Other tensors in the reference; None takes one away."""
    path = run.folder / "calibration.safetensors"
    with safe_open(path, framework="pt") as file:
        held, told = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    tree = held | {name.replace("__", "/").replace("_", " "): t for name, t in tensors.items()}
    path.write_bytes(save({name: t for name, t in tree.items() if t is not None}, told))


HOSTILE = {
    "not a number": {"residual": torch.full((16,), torch.nan)},
    "a table gone": {"mean__texture_3": None},
    "a table too many": {"mean__texture_4": torch.zeros(())},
    "another size": {"deviation__texture_5": torch.ones(3, 4)},
    "no deviation": {"deviation__texture_5": torch.zeros(SIZE)},
    "no unit": {"unit__layout_prior": torch.tensor(0.0)},
    "no bins": {"entropy": torch.empty(0), "residual": torch.empty(0), "excess": torch.empty(0)},
    "a scalar": {"entropy": torch.tensor(1.0)},
    "other places": {"places__usual": torch.zeros(3, 3, 3)},
    "no surroundings": {"places__pull": None},
    "places unlike those around them": {"places__pull": torch.zeros(1, 1, 1, 1)},
    "nothing costs": {"places__whitening": torch.zeros(3, 4, 8, 8)},
    "no gain": {"gain": torch.tensor(1.0)},
}


@pytest.mark.parametrize("tensors", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reference_is_told_and_never_hides_a_defect(tensors: dict[str, torch.Tensor | None], run: Run, tmp_path: Path) -> None:
    put(run, **tensors)
    code, said = vlae("detect", run.folder, folder(tmp_path / "new", range(500, 502)), "-o", tmp_path / "out")
    assert code == 4 and refused(said, "is damaged", "vlae calibrate") and not (tmp_path / "out").exists()


NONSENSE = {
    "no scores": {"scores": [], "names": []},
    "fewer names": {"names": ["a.png"]},
    "fewer lots": {"lots": ["a"]},
    "all are zero": {"scores": [0.0] * 60},
    "an infinite one": {"scores": [1e999] * 60},
    "no rate": {"false_alarms": 0.0},
    "a rate above all": {"false_alarms": 5.0},
}


@pytest.mark.parametrize("fields", NONSENSE.values(), ids=NONSENSE)
def test_scores_that_were_edited_to_nonsense_are_told(fields: dict[str, object], run: Run, tmp_path: Path) -> None:
    path = run.folder / "results/calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    code, said = vlae("detect", run.folder, folder(tmp_path / "new", range(500, 502)), "-o", tmp_path / "out")
    assert code == 4 and refused(said, "is damaged", "vlae calibrate")


def test_weights_that_are_no_numbers_cannot_be_calibrated(run: Run) -> None:
    save_tensors(run.weights, {name: t * torch.nan for name, t in load_file(run.weights).items()}, step="1")
    code, said = vlae("calibrate", run.folder)
    assert code == 4 and refused(said, "no likelihood")


def test_what_calibrate_leaves_out_is_told(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "good", range(1200, 1206))
    Image.new("L", (64, 64)).save(images / "other.png")
    (images / "text.png").write_text("no image")
    code, said = vlae("calibrate", run.folder, images)
    assert code == 8 and "from 6 good images" in said and "other.png: it has 64x64 pixels" in said and "text.png" in said
    (images / "manifest.csv").write_text("name,label\n" + "".join(f"{n}.png,scratched\n" for n in range(1200, 1205)) + "1205.png,good\n")
    code, said = vlae("calibrate", run.folder, images)
    assert code == 3 and refused(said, "too few good images", "1, and 7 left out", "1200.png: it is labelled scratched")
    folder(images, range(1206, 1212))
    (images / "manifest.csv").write_text("name,label\n1200.png,scratched\nnotes.txt,\n" + "".join(f"{n}.png,good\n" for n in range(1201, 1212)))
    (images / "notes.txt").write_text("of the plant")
    code, said = vlae("calibrate", run.folder, images)
    assert "from 11 good images" in said and "1 image labelled otherwise than good and left out: 1200.png" in said


def test_no_rate_is_counted_from_images_that_the_run_has_seen(run: Run, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    folder(shown / "good", range(20))  # trained on, chosen by or kept for tests
    folder(shown / "good", range(1000, 1020))  # calibrated with
    folder(shown / "good", range(3000, 3010))
    folder(shown / "spoiled", range(2000, 2005), spoiled=True)
    rows = [f"{path.relative_to(shown)},{path.parent.name}" for path in sorted(shown.rglob("*.png"))]
    (shown / "manifest.csv").write_text("\n".join(["name,label", *rows]))
    own = run.images()
    tests = sum(own.names[n] < "0020" for n in own.indices("test"))
    found = detect(run, shown, tmp_path / "out")
    assert found.images == 55 and found.seen == 40 - tests and found.counted is not None
    assert (found.counted.good, found.counted.defective) == (10 + tests, 5)
    assert len(found.scores) == 55 and list(found.scores) == sorted(found.scores) and sum(s > 1 for s in found.scores) == found.alarms
    assert f"{found.seen} images of these the run was trained on" in vlae("detect", run.folder, shown, "-o", tmp_path / "again")[1]


def test_what_good_parts_look_like_is_learned_from_good_ones_alone(run: Run) -> None:
    """Images that are labelled as defects count as little as those that lie elsewhere."""
    own, model = run.images(), run.model(torch.device("cpu"))
    spoiled = own.indices("train")[::3]
    labelled = replace(own, labels=tuple("spot" if n in spoiled else "good" for n in range(len(own))))
    elsewhere = own.split.copy()
    elsewhere[spoiled] = "test"
    found, expected, all_of_them = (reference_of(run, model, images)[0] for images in (labelled, replace(own, split=elsewhere), own))
    assert torch.equal(found.residual, expected.residual) and not torch.equal(found.residual, all_of_them.residual)
    no_good = replace(own, labels=("A",) * len(own))  # labels that tell something else
    assert torch.equal(reference_of(run, model, no_good)[0].residual, all_of_them.residual)


def test_a_calibrated_image_raises_no_alarm_afterwards(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "good", range(1300, 1312))
    calibrate(run, images)
    assert not detect(run, images, tmp_path / "out").alarms


def test_an_interrupt_leaves_no_picture_beside_another_image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (folder(tmp_path / name, seeds, spoiled=True) for name, seeds in (("one", range(3)), ("other", range(3, 6))))
    detect(run, one, tmp_path / "o1")
    shown = {path.name: path.read_bytes() for path in pictures(run).iterdir()}

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlae.engine.inspection.detection.write_png", interrupted)
        with pytest.raises(KeyboardInterrupt):
            detect(run, other, tmp_path / "o2")
    assert {path.name: path.read_bytes() for path in pictures(run).iterdir()} == shown
    last = Detection.read(run)
    assert last is not None and last.source == "one" and {path.name for path in pictures(run).parent.iterdir()} >= {"detection", "detection.json"}
    assert not [path for path in pictures(run).parent.iterdir() if path.name.startswith(".")]
    detect(run, other, tmp_path / "o3")
    assert {path.name: path.read_bytes() for path in pictures(run).iterdir()} != shown


def test_a_full_disk_costs_no_calibration(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, images = Calibration.read(run), folder(tmp_path / "good", range(1400, 1406))

    def full(*args: object, **more: object) -> None:
        raise DiskError("There is no room")

    monkeypatch.setattr("vlae.engine.inspection.calibration.save_tensors", full)
    with pytest.raises(DiskError):
        calibrate(run, images)
    assert Calibration.read(run) == before


def test_an_alarm_without_a_region_is_told_as_what_it_is() -> None:
    from vlae.cli.inspection import _words

    assert "no likelihood" in _words(Found("a.png", True, float("nan"), (), {}, None, None))


def test_what_is_found_is_counted_where_all_labels_are_of_defects(run: Run, tmp_path: Path) -> None:
    images = folder(tmp_path / "shown", range(2000, 2004), spoiled=True)
    (images / "manifest.csv").write_text("name,label\n" + "".join(f"{n}.png,spot\n" for n in range(2000, 2003)))
    code, said = vlae("detect", run.folder, images, "-o", tmp_path / "out")
    assert code == 0 and "of 3 images labelled as defects, 100.0% (29.2% to 100.0%) raise an alarm; none is labelled good" in said
    last = Detection.read(run)
    assert last is not None and last.counted is not None and (last.counted.good, last.counted.defective) == (0, 3)
    assert last.counted.false_alarms is None and last.counted.image_AUROC is None
    assert _counted(Words("en"), last.counted).startswith("Of the 3 images labelled as defects, 100.0% raise an alarm (95% interval 29.2 to 100.0%).")
    assert _counted(Words("ja"), last.counted).startswith("欠陥のラベルがある3枚のうち100.0%で警報")


def test_a_score_that_is_no_number_ranks_highest_and_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*args: object) -> Iterator[Looked]:
        shown = args[3]
        for number, look in inspect(*args):  # type: ignore[arg-type]
            broken = look._replace(map=np.full_like(look.map, np.nan), kinds=(np.nan,) * len(look.kinds))
            yield Looked(number, broken if shown.names[number] == "2001.png" else look)  # type: ignore[attr-defined]

    monkeypatch.setattr("vlae.apps.detect.inspect", lost)
    images = folder(folder(tmp_path / "shown", range(2000, 2004), spoiled=True), range(3000, 3020))
    rows = [f"{n}.png,{label}" for label, seeds in (("spot", range(2000, 2004)), ("good", range(3000, 3020))) for n in seeds]
    (images / "manifest.csv").write_text("\n".join(["name,label", *rows]))
    found = detect(run, images, tmp_path / "out")
    assert found.highest[0].name == "2001.png" and found.highest[0].alarm and found.counted is not None and found.counted.image_AUROC == 1.0
    last = Detection.read(run)
    assert last is not None
    assert _words(Words("en"), last.highest[0]) == "the model finds no likelihood for this image, which counts as an alarm"
    assert "尤度を計算できません" in _words(Words("ja"), last.highest[0])


def test_global_evidence_is_told_after_a_mark() -> None:
    found = Found("a.png", True, 3.0, (Region(1, 2, 3, 4, 12, 3.0, "texture", 55632.0),), {}, 546.0, None)
    assert _words(Words("en"), found).endswith("+55,632 bits; as a whole 546 standard deviations from good parts")
    assert _words(Words("ja"), found).endswith("+55,632 ビット、画像全体では良品から標準偏差の546倍の隔たり")
