"""Few labels by the command line: what it leaves, what it says, and what it refuses."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_cli import TINY, copied, picture, refused, vlae
from vlae.apps.fewshot import Wanted, fewshot
from vlae.apps.fewshot.images import seen
from vlae.engine.labels import curve as module
from vlae.engine.labels.classify import Indices, Labels
from vlae.engine.labels.fewshot import Fewshot
from vlae.engine.results import measured
from vlae.engine.run import Run
from vlae.errors import DataError

MORE = ["train.steps=30", "train.learning_rate=0.01", "train.batch=8", "train.ramp=1", "train.ema=0.8", "data.validation=0.2", "data.test=0.2"]
FILES = ["fewshot-next.csv", "fewshot-predictions.csv", "fewshot.json", "fewshot.png"]


def shaded(path: Path, seed: int) -> str:
    """A dark or a bright image; its class."""
    kind = ("dark", "bright")[seed % 2]
    pixels = np.random.default_rng(seed).integers(0, 90, (12, 12)) + {"dark": 0, "bright": 160}[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return kind


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a run; every test may read it, none change it."""
    folder = tmp_path_factory.mktemp("module")
    for n in range(40):
        shaded(folder / "images" / f"{n:02d}.png", n)
    code, said = vlae("train", folder / "images", "-o", folder / "run", *TINY, *MORE)
    assert code == 0, said
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return copied(made / "run", tmp_path / "run")


def table(path: Path, numbers: range, columns: str = "name,label", row: Callable[[int], str] | None = None) -> Path:
    lines = [row(n) if row else f"{n:02d}.png,{('dark', 'bright')[n % 2]}" for n in numbers]
    path.write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_few_labels_tell_the_rest(run: Path, tmp_path: Path) -> None:
    code, said = vlae("fewshot", run, table(tmp_path / "labels.csv", range(16)), "--next", 3, "--draws", 3)
    assert code == 0 and "16 labels: 8 of bright, 8 of dark" in said and "labels a class" in said
    found = json.loads((run / "results" / "fewshot.json").read_text())
    assert found["weights"] == Run.open(run).fingerprint() and found["images"] == 40 and found["unlabelled"] == 24
    for a in found["accuracies"]:
        assert a["right"] / a["labels"] == a["accuracy"] and a["low"] < a["accuracy"] <= a["high"] and a["certain_right"] <= a["certain"]
    again = measured(Fewshot, Run.open(run), "fewshot", "vlae fewshot")
    assert again is not None and asdict(again.curve[0])["of"] == "code" and list(again.next) == found["next"]
    predictions = rows(run / "results" / "fewshot-predictions.csv")
    assert [row["name"] for row in predictions] == [f"{n:02d}.png" for n in range(16, 40)]
    right = [row["label"] == ("dark", "bright")[int(row["name"][:2]) % 2] for row in predictions]
    assert np.mean(right) > 0.9 and all(row["label"] == row[found["best"]] for row in predictions)
    assert all((row["certain"] == "yes") == (float(row["probability"]) >= 0.9) for row in predictions)
    assert {(p["of"], p["classifier"], p["labels"]) for p in found["curve"]} == {
        (of, kind, n) for of in ("code", "pixels", "PCA of pixels (2)") for kind in ("linear", "neighbours") for n in (1, 2)
    }
    asked = rows(run / "results" / "fewshot-next.csv")
    assert [row["name"] for row in asked] == found["next"] and len(set(found["next"]) - {f"{n:02d}.png" for n in range(16)}) == 3
    with Image.open(run / "results" / "fewshot.png") as image:
        assert image.width > 900


def test_the_same_again_is_the_same_and_changes_nothing_else(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "labels.csv", range(12))

    def files() -> dict[Path, bytes]:
        """All but the codes, which are kept for the next time."""
        return {p: p.read_bytes() for p in [*run.rglob("*"), labels] if p.is_file() and p.name != "codes.safetensors"}

    before = files()
    once = [vlae("fewshot", run, labels, "--next", 2, "--draws", 2, "-o", tmp_path / name, "--json") for name in ("a", "b")]
    assert [code for code, _ in once] == [0, 0] and json.loads(once[0][1])["output"] == str(tmp_path / "a")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == FILES
    assert before == files()
    assert not list(run.glob("results/fewshot*"))


def test_predictions_are_a_table_of_labels_and_a_filled_in_list_another(run: Path, tmp_path: Path) -> None:
    """What the command writes, it reads."""
    vlae("fewshot", run, table(tmp_path / "labels.csv", range(12)), "--next", 8, "--draws", 2, "-o", tmp_path / "a")
    assert vlae("fewshot", run, tmp_path / "a" / "fewshot-predictions.csv", "--draws", 2, "-o", tmp_path / "b")[0] == 0
    waiting = tmp_path / "a" / "fewshot-next.csv"
    code, said = vlae("fewshot", run, waiting, "-o", tmp_path / "c")
    assert code == 3 and refused(said, "holds no labels")
    filled = "".join(f"{row['name']},{('dark', 'bright')[n % 2]}\n" for n, row in enumerate(rows(waiting)))
    waiting.write_text("name,label\n" + filled, encoding="utf-8-sig")
    assert vlae("fewshot", run, waiting, "--draws", 2, "-o", tmp_path / "c")[0] == 0


def test_labels_that_were_written_into_the_list_are_not_blanked(run: Path, tmp_path: Path) -> None:
    labels, waiting = table(tmp_path / "labels.csv", range(12)), run / "results" / "fewshot-next.csv"
    for _ in range(2):  # a list that is still blank is replaced
        assert vlae("fewshot", run, labels, "--next", 8, "--draws", 2)[0] == 0
    waiting.write_text("name,label\n" + "".join(f"{n:02d}.png,{('dark', 'bright')[n % 2]}\n" for n in range(12, 24)) + "30.png,\n")
    before = waiting.read_bytes()
    for given in (labels, waiting):
        code, said = vlae("fewshot", run, given, "--next", 2, "--draws", 2)
        assert code == 6 and refused(said, "has labels in it", "12 labelled, 12.png first", "Copy its rows") and waiting.read_bytes() == before
    assert vlae("fewshot", run, waiting, "--draws", 2)[0] == 0 and waiting.read_bytes() == before


def test_images_of_a_folder_and_those_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    classes = [shaded(tmp_path / "new" / "sub" / f"{n}.png", 100 + n) for n in range(20)]
    (tmp_path / "new" / "sub" / "torn.png").write_bytes((tmp_path / "new" / "sub" / "0.png").read_bytes()[:60])
    labels = table(tmp_path / "new" / "known.csv", range(10), "file,label", lambda n: f"sub\\{n}.png,{classes[n]}")
    code, said = vlae("fewshot", run, labels, "--images", tmp_path / "new", "--draws", 2, "-o", tmp_path / "out")
    assert code == 8 and "torn.png" in said and "known.csv" not in said.split("Warning")[1]
    predictions = rows(tmp_path / "out" / "fewshot-predictions.csv")
    assert len(predictions) == 10 and np.mean([row["label"] == classes[int(Path(row["name"]).stem)] for row in predictions]) >= 0.8
    code, said = vlae("fewshot", run, labels, "--images", tmp_path / "new", "-o", tmp_path / "new" / "out")
    assert code == 6 and refused(said, "inside") and not (tmp_path / "new" / "out").exists()


def test_a_grid_is_also_read_without_regard_to_place(made: Path, tmp_path: Path) -> None:
    """A spot that lies anywhere tells the class."""
    rng = np.random.default_rng(0)
    for n in range(60):
        pixels, (i, j) = rng.integers(0, 60, (32, 32)), rng.integers(0, 26, 2)
        pixels[i : i + 6, j : j + 6] += 190 * (n % 2)
        (tmp_path / "spots").mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "spots" / f"{n:02d}.png")
    grid = ["keep.code=grid", "keep.stride=4", "keep.channels=2", "train.crop=32", "keep.window=stack1", "model.width=4", "train.batch=8"]
    code, said = vlae("train", tmp_path / "spots", "-o", tmp_path / "run", *grid, "train.steps=60", "train.learning_rate=0.01", "train.ema=0.8")
    assert code == 0, said
    found = fewshot(Run.open(tmp_path / "run"), table(tmp_path / "labels.csv", range(30)), wanted=Wanted(draws=2))
    right = {(a.of, a.classifier): a.accuracy for a in found.accuracies}
    assert right.keys() == {(of, kind) for of in ("code", "code, anywhere") for kind in ("linear", "neighbours")}
    assert found.read == "code, anywhere" and right[found.read, found.best] > 0.9


def test_another_run_is_set_beside(run: Path, made: Path, tmp_path: Path) -> None:
    windowless = [setting for setting in TINY if not setting.startswith(("keep.window", "model.width=", "model.pointwise"))]
    code, said = vlae("train", made / "images", "-o", tmp_path / "plain", *windowless, "keep.window=none", *MORE)
    assert code == 0, said
    labels = table(tmp_path / "labels.csv", range(12))
    found = fewshot(Run.open(run), labels, plain=Run.open(tmp_path / "plain"), wanted=Wanted(draws=2))
    assert {p.of for p in found.curve} == {"code", "plain code", "pixels", "PCA of pixels (2)"}
    for first, second in ((run, tmp_path / "plain"), (tmp_path / "plain", run)):  # the codes that are kept of one are not taken for the other's
        read = seen(Run.open(first), Run.open(second), None).codes
        assert (read["plain code"].mean == seen(Run.open(second), None, None).codes["code"].mean).all()
        assert np.abs(read["code"].mean - read["plain code"].mean).max() > 0.1
    for n in range(20):
        picture(tmp_path / "wide" / f"{n}.png", (16, 12), n)
    assert vlae("train", tmp_path / "wide", "-o", tmp_path / "other", *TINY)[0] == 0
    code, said = vlae("fewshot", run, labels, "--beside", tmp_path / "other")
    assert code == 2 and refused(said, "of another form")


def test_lots_are_kept_together(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "l.csv", range(24), "name,label,lot", lambda n: f"{n:02d}.png,{('dark', 'bright')[n % 2]},{n // 4}")
    found = fewshot(Run.open(run), labels, wanted=Wanted(draws=2))
    assert found.lots == 6
    torn = table(tmp_path / "t.csv", range(24), "name,label,day", lambda n: f"{n:02d}.png,{('dark', 'bright')[n % 2]},{n % 2}")
    with pytest.raises(DataError, match="in different lots"):
        fewshot(Run.open(run), torn)


# Bad input


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "holds no labels"),
        (b"name,label\n", "holds no labels"),
        (b"picture,label\n00.png,dark\n", "holds no labels"),
        (b"name,kind\n00.png,dark\n", "holds no labels"),
        (b"name,label\n00.png,dark\n01.png,dark\n02.png,dark\n", "All labels are of one class"),
        (b"name,label\n00.png,dark\n01.png,bright\n", "too few labels"),
        (b"name,label\n00.png,dark\n02.png,dark\n01.png,bright\n", "too few labels"),
        (b"name,label\nx.png,dark\ny.png,bright\n", "names none of the images"),
        (b"name,label\n../../etc/passwd,dark\n", "names none of the images"),
        (b"name,label\n00.png,dark\n./00.png,bright\n", "contradicts itself"),
        (b"name,label\n00.png,\x81\n", "UTF-8"),
        ("name,label\n00.png,dark\n".encode("utf-16"), "UTF-8"),
        (b'name,label\n"00.png,dark\n', "cannot be read"),
        (b"\x00\x01\x02", "holds no labels"),
    ],
)
def test_labels_that_cannot_be_used(run: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    before = sorted(path for path in run.rglob("*") if path.is_file())
    for more in ([], ["-o", tmp_path / "out"]):
        code, said = vlae("fewshot", run, tmp_path / "labels.csv", *more)
        assert code == 3 and refused(said, words) and said.count("Error: ") == 1
    assert sorted(path for path in run.rglob("*") if path.is_file()) == before and not (tmp_path / "out").exists()
    code, said = vlae("fewshot", run, tmp_path / "gone.csv")
    assert code == 3 and refused(said, "gone.csv cannot be read")


def test_names_that_are_not_there_are_told_and_the_rest_is_done(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "labels.csv", range(12))
    labels.write_text(labels.read_text() + "gone.png,dark\n")
    code, said = vlae("fewshot", run, labels, "--draws", 2)
    again = measured(Fewshot, Run.open(run), "fewshot", "vlae fewshot")
    assert again is not None and [left.name for left in again.left_out] == ["gone.png"]
    assert code == 8 and "gone.png: named in labels.csv, but none of the images" in said and (run / "results" / "fewshot.json").is_file()


def test_labels_in_japanese_and_all_images_labelled(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "ラベル.csv", range(40), row=lambda n: f"{n:02d}.png,{('良品', '不良')[n % 2]}")
    code, said = vlae("fewshot", run, labels, "--next", 5, "--draws", 2)
    assert code == 0 and "20 of 良品" in said and rows(run / "results" / "fewshot-predictions.csv") == []
    assert not (run / "results" / "fewshot-next.csv").exists()


def test_a_run_without_a_code_and_one_without_weights(made: Path, run: Path, tmp_path: Path) -> None:
    settings = ["keep.code=none", "keep.window=stack1", "model.width=4", "model.pointwise=0", "train.steps=2", "train.batch=4"]
    assert vlae("train", made / "images", "-o", tmp_path / "bare", *settings)[0] == 0
    labels = table(tmp_path / "labels.csv", range(12))
    code, said = vlae("fewshot", tmp_path / "bare", labels)
    assert code == 2 and refused(said, "has no code")
    (run / "weights.safetensors").unlink()
    code, said = vlae("fewshot", run, labels)
    assert code == 4 and refused(said, "weights.safetensors is missing")
    code, said = vlae("fewshot", tmp_path, labels)
    assert code == 4 and refused(said, "is not a run")


def test_an_output_that_is_there_or_cannot_be_written(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "labels.csv", range(12))
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "precious.txt").write_text("mine")
    code, said = vlae("fewshot", run, labels, "-o", tmp_path / "busy")
    assert code == 6 and refused(said, "not empty") and [p.name for p in (tmp_path / "busy").iterdir()] == ["precious.txt"]
    shutil.rmtree(run / "results", ignore_errors=True)
    (run / "results").write_text("in the way")
    code, said = vlae("fewshot", run, labels)
    assert code == 6 and refused(said)


@pytest.mark.parametrize("tell", [0, 1])
def test_lots_that_leave_few_draws_of_the_curve_or_none(tell: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, numbers = module._drawn, iter(range(9))

    def one_class(classes: Labels, *more: object) -> tuple[Indices, Indices]:
        pool, tested = drawn(classes, *more)  # type: ignore[arg-type]
        return (pool if next(numbers) < tell else pool[classes[pool] == "dark"]), tested

    monkeypatch.setattr(module, "_drawn", one_class)
    code, said = vlae("fewshot", run, table(tmp_path / "labels.csv", range(16)), "--draws", 3)
    assert code == 0 and "Traceback" not in said and ("No curve" in said) == (tell == 0) and (f"({tell} draws)" in said) == (tell > 0)
    found = measured(Fewshot, Run.open(run), "fewshot", "vlae fewshot")
    assert found is not None and found.draws == tell and bool(found.curve) == bool(tell)
    assert all(np.isnan([point.low, point.high]).all() for point in found.curve)
    with Image.open(run / "results" / "fewshot.png") as image:
        assert image.width > 900
