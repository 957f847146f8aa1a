"""Audit: what a code keeps, a contract that is checked, a sheet that gives nothing away, and answers read back; for every kind of image."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.stats import beta

from tests.test_cli import TINY, copied, good, picture, refused, vlae
from vlae.apps.audit import audit
from vlae.apps.report.audit import picture as picture_of
from vlae.apps.report.words import LANGUAGES, Words
from vlae.engine.kept.audit import Audit, Rate, Site
from vlae.engine.kept.blind import pairs, rate, read_answers
from vlae.engine.kept.changes import CHANGES
from vlae.engine.kept.contract import Contract
from vlae.engine.kept.guide import GUIDE, in_pixels, row_for
from vlae.engine.kept.swap import Swap
from vlae.engine.run import Run
from vlae.engine.settings import ImageFacts, load_settings, resolve
from vlae.errors import DataError, SettingError

HELD_OUT = ["data.test=0.4", "data.validation=0.1"]


def trained(folder: Path, *overrides: str, fill: Callable[[Path], object] = lambda folder: good(folder, 40)) -> Path:
    fill(folder / "images")
    settings = [name for name in TINY if name.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    code, said = vlae("train", folder / "images", "-o", folder / "run", *settings, *HELD_OUT, *overrides)
    assert code == 0, said
    return folder / "run"


def blobs(folder: Path, count: int = 60) -> Path:
    """Bright squares on a dark ground, here and there: something that a small code soon keeps."""
    folder.mkdir()
    for n in range(count):
        rng = np.random.default_rng(n)
        pixels = rng.integers(40, 60, (12, 12), dtype=np.uint8)
        top, left = rng.integers(0, 9, 2)
        pixels[top : top + 4, left : left + 4] += 150
        Image.fromarray(pixels).save(folder / f"{n:02}.png")
    return folder


LEARNT = [
    *("keep.window=none", "keep.dims=4", "model.hidden=32", "model.width=null", "model.pointwise=null", "model.widths=[8,8,8]"),
    *("model.blocks=[0,0,0]", "train.steps=300", "train.batch=16", "train.learning_rate=0.02", "train.ema=0.9"),
]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained and audited; every test may read it, none change it."""
    run = trained(tmp_path_factory.mktemp("audited"), *LEARNT, fill=blobs)
    code, said = vlae("audit", run)
    assert code == 0, said
    return run


@pytest.fixture
def run(audited: Path, tmp_path: Path) -> Path:
    """The same for one test."""
    return copied(audited, tmp_path / "run")


def found(run: Path) -> Audit:
    result = Audit.read(Run.open(run))
    assert result is not None
    return result


def answered(said: str) -> dict[str, object]:
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


# What is found


def test_an_audit_is_whole_and_the_same_again(audited: Path, run: Path) -> None:
    code, said = vlae("audit", run, "--json")
    told, kept = answered(said), found(run)
    assert code == 0 and kept == found(audited)
    assert told["images"] == kept.images >= 8 and told["source"] == "test" and (kept.height, kept.width, kept.cut) == (12, 12, False)
    assert {s.change for s in kept.swaps} | set(kept.idle) == set(CHANGES) and kept.idle == ("hue",)
    assert all(s.low <= s.share <= s.high for s in kept.swaps if s.verdict != "unclear") and len(kept.spectrum.pixels) == 6
    json.loads((run / "results" / "audit.json").read_text(), parse_constant=pytest.fail)


def test_fewer_images_are_other_figures(run: Path) -> None:
    assert vlae("audit", run, "--limit", 8)[0] == 0
    assert found(run).images == 8


def test_the_picture_is_a_picture_in_every_language(run: Path) -> None:
    texts = {}
    for lang in LANGUAGES:
        assert vlae("audit", run, "--lang", lang)[0] == 0
        text = (run / "results" / "audit.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg") and len(root.findall(".//{*}image")) == 6
        assert not re.search(r"@\d+@|\bnan\b|\{\w+\}", text) and "http" not in re.sub(r"http://www\.w3\.org/", "", text)
        texts[lang] = "".join(root.itertext())
        assert all(str(Words(lang)(f"audit.change.{s.change}")) in texts[lang] for s in found(run).swaps)
    assert re.search("[ぁ-ん]", texts["ja"]) and not re.search("[ぁ-ん]", texts["en"])


@pytest.mark.parametrize("whole, shown", [(50.0, True), (0.0, False)])
def test_the_share_of_a_change_of_which_images_do_not_tell_is_shown_where_there_are_shares(run: Path, whole: float, shown: bool) -> None:
    unclear = Swap("noise", 1.0, 0.0123, -0.2, 0.31, "unclear")
    text = picture_of(Words("en"), replace(found(run), swaps=(unclear,), other_low=whole))
    assert bool(re.search(r"1\.2\s%", text)) == shown and "unclear" in text


def test_steps_are_told_to_their_end(run: Path) -> None:
    seen: list[tuple[int, int]] = []
    audit(Run.open(run), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1)) and len({total for _, total in seen}) == 1


def test_an_audit_of_other_weights_is_none_of_these(run: Path) -> None:
    content = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert Audit.read(Run.open(run)) is None


def binary(folder: Path) -> None:
    folder.mkdir()
    for n in range(40):
        Image.fromarray(np.random.default_rng(n).random((12, 12)) < 0.4).save(folder / f"{n:02}.png")


def deep(folder: Path) -> None:
    folder.mkdir()
    for n in range(40):
        Image.fromarray(np.random.default_rng(n).integers(1000, 4096, (12, 12), dtype=np.uint16)).save(folder / f"{n:02}.png")


def colours(folder: Path) -> None:
    folder.mkdir()
    for n in range(40):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (20, 24 - n % 2, 3), dtype=np.uint8)).save(folder / f"{n:02}.png")


GRID = ["keep.code=grid", "keep.stride=4", "keep.channels=2", "model.widths=[4,4,4]", "model.blocks=[0,0,0]", "train.crop=16", "model.hidden=null"]


@pytest.mark.parametrize(
    "fill, overrides, idle", [(binary, [], {"hue", "brightness", "contrast"}), (deep, [], {"hue"}), (colours, [*GRID, "keep.dims=null"], set())]
)
def test_every_kind_of_image(fill: Callable[[Path], None], overrides: list[str], idle: set[str], tmp_path: Path) -> None:
    run = trained(tmp_path, *overrides, fill=fill)
    assert vlae("audit", run)[0] == 0
    result = found(run)
    small = {"turn_2deg", "scale_3pct"}  # of a dozen pixels, black and white, they move none
    assert set(result.idle) - (small if fill is binary else set()) == idle and result.cut == (fill is colours)
    assert vlae("audit", run, "--sheet", tmp_path / "sheet", "--pairs", 8)[0] == 0


def test_a_model_without_a_code_has_nothing_to_audit(tmp_path: Path) -> None:
    none = {"keep.dims", "model.hidden", "model.prior", "model.widths", "model.blocks"}
    good(tmp_path / "images")
    settings = [s for s in TINY if s.partition("=")[0] not in none]
    assert vlae("train", tmp_path / "images", "-o", tmp_path / "run", *settings, "keep.code=none", *HELD_OUT)[0] == 0
    for words in ([], ["--sheet", tmp_path / "sheet"]):
        code, said = vlae("audit", tmp_path / "run", *words)
        assert code == 2 and refused(said, "no code") and not (tmp_path / "sheet").exists()


# Whose images


def test_images_from_outside(run: Path, tmp_path: Path) -> None:
    folder = good(tmp_path / "others", 12)
    assert vlae("audit", run, "--images", folder)[0] == 0
    assert (found(run).images, found(run).source, found(run).readouts) == (12, "others/", ())
    (folder / "0.png").write_bytes((folder / "00.png").read_bytes()[:60])
    for words in ([], ["--sheet", tmp_path / "s", "--pairs", 12]):
        code, said = vlae("audit", run, "--images", folder, "--json", *words)
        assert code == 8 and "0.png: damaged" in said and answered(said)["images"] == 12
        [left] = answered(said)["left_out"]  # type: ignore[misc]
        assert left["name"] == "0.png" and left["reason"].startswith("damaged")  # type: ignore[index]


def test_images_too_few_or_none(run: Path, tmp_path: Path) -> None:
    before = (run / "results" / "audit.json").read_bytes()
    for folder, part in ((good(tmp_path / "few", 3), "too few"), (tmp_path / "gone", "does not exist")):
        code, said = vlae("audit", run, "--images", folder)
        assert code == 3 and refused(said, part)
    assert (run / "results" / "audit.json").read_bytes() == before


def test_images_smaller_than_what_a_grid_was_trained_on_are_left_out(tmp_path: Path) -> None:
    run = trained(tmp_path, *GRID, "keep.dims=null", fill=colours)
    colours(tmp_path / "others")
    picture(tmp_path / "others" / "dot.png", size=(9, 30))
    code, said = vlae("audit", run, "--images", tmp_path / "others")
    assert code == 8 and "dot.png: smaller than the 16 pixels" in said and (found(run).height, found(run).width) == (20, 23)


# Contracts


@pytest.mark.parametrize(
    "text, part",
    [
        ("keep: {shft_1px: kept}", "Did you mean shift_1px?"),
        ("keep: {qqqqqqq: kept}", "Choose of shift_1px"),
        ("keep: {noise: lost}", "kept, partly, ignored"),
        ("keep: {noise: [kept]}", "kept, partly, ignored"),
        ("keep: {1: kept}", "the change 1"),
        ("keep: {hue: kept}", "leaves these images as they are"),
        ("keap: {noise: ignored}", "Found: keap"),
        ("above: 8mm", "8mm"),
        ("above: 1px", "from 2 on"),
        ("above: yes", "True"),
        ("above: .nan", "nan"),
        ("above: [8]", "[8]"),
        ("keep: {}", "asks for nothing"),
        ("keep: kept", "asks for nothing"),
        ("- noise", "a mapping"),
        ("", "a mapping"),
        ("keep: {noise: ignored", "cannot be read"),
        ("[" * 5000, "cannot be read"),
        ("above: 2001-99-99", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_contracts_that_cannot_be_honoured(run: Path, tmp_path: Path, text: str, part: str) -> None:
    before = (run / "results" / "audit.json").read_bytes()
    (tmp_path / "contract.yaml").write_text(text)
    code, said = vlae("audit", run, "--contract", tmp_path / "contract.yaml")
    assert code == 2 and refused(said, part) and (run / "results" / "audit.json").read_bytes() == before


def test_a_contract_that_is_not_there_or_no_text(run: Path, tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\x00keep")
    for path in (tmp_path / "gone.yaml", tmp_path, tmp_path / "image.yaml"):
        code, said = vlae("audit", run, "--contract", path)
        assert code == 2 and refused(said, "cannot be read")


def test_a_contract_is_held_or_each_broken_term_is_told_with_figures(run: Path, tmp_path: Path) -> None:
    is_so = {s.change: s.verdict for s in found(run).swaps if s.verdict != "unclear"}
    other = {name: "ignored" if verdict == "kept" else "kept" for name, verdict in is_so.items()}
    assert len(is_so) >= 3
    (tmp_path / "held.json").write_text(json.dumps({"keep": is_so}))
    code, said = vlae("audit", run, "--contract", tmp_path / "held.json")
    assert code == 0 and [term.held for term in found(run).terms] == [True] * len(is_so)
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump({"keep": {**is_so, "shift_4px": other["shift_4px"], "blur": other["blur"]}, "above": "2px"}))
    code, said = vlae("audit", run, "--contract", tmp_path / "broken.yaml", "--json")
    assert code == 10 and f"3 of {len(is_so) + 1} terms" in said and "Traceback" not in said
    for name in ("shift_4px", "blur"):
        [swap] = [s for s in found(run).swaps if s.change == name]
        assert f"{name} should be {other[name]} and is {is_so[name]} ({swap.share:.1%}, {swap.low:.1%} to {swap.high:.1%})" in said
    assert len(answered(said)["terms"]) == len(is_so) + 1  # type: ignore[arg-type]


def test_two_things_at_once_are_refused(run: Path, tmp_path: Path) -> None:
    code, said = vlae("audit", run, "--sheet", tmp_path / "s", "--answers", tmp_path / "a.csv")
    assert code == 2 and refused(said, "one of them at a time")


# A wish at training


@pytest.mark.parametrize("written, pixels", [("8px", 8.0), (" 8.5 px", 8.5), (3, 3.0), ("2", 2.0)])
def test_lengths_in_pixels(written: object, pixels: float) -> None:
    assert in_pixels(written) == pixels


@pytest.mark.parametrize("written", ["8 mm", "px", "", "1.9px", "-8", "nan", "inf", None, True, [8]])
def test_what_is_no_length(written: object) -> None:
    with pytest.raises(ValueError, match="number of pixels"):
        in_pixels(written)


def test_the_guide_names_the_widest_window_that_kept_so_much() -> None:
    assert [row.finest for row in GUIDE] == sorted((row.finest for row in GUIDE), reverse=True)
    for row in GUIDE:
        assert row_for(row.finest) == row
        assert row_for(row.finest * 1.001).finest >= row.finest
    assert row_for(2.0) == GUIDE[-1] and row_for(1e9) == GUIDE[0]


def test_a_wish_sets_what_is_not_given() -> None:
    facts = ImageFacts(depth=8, colours=1, size=(64, 64))

    def keep(*overrides: str) -> dict[str, object]:
        return resolve(load_settings(None, overrides, {"data.folder": "images"}), facts).keep.model_dump()

    row = GUIDE[1]
    wished = keep(f"keep.above={row.finest}px")
    assert (wished["window"], wished["preset"], wished["above"]) == (row.window, row.preset, row.finest)
    measured = keep(f"keep.preset={row.preset}", "keep.code=grid")  # with grid codes, as the guide was
    assert [wished[name] for name in ("code", "channels", "stride")] == ["grid", measured["channels"], measured["stride"]]
    assert keep(f"keep.above={row.finest}", "keep.preset=everything")["stride"] == 4
    assert keep(f"keep.above={row.finest}", "keep.code=vector")["dims"] == 128
    assert keep(f"keep.above={row.finest}", "keep.window=r2")["window"] == "r2"
    with pytest.raises(SettingError, match="no effect"):
        keep("keep.above=8px", "keep.code=none")


def test_the_audit_tells_whether_a_wish_came_true(tmp_path: Path) -> None:
    good(tmp_path / "images", 40)
    settings = [*(s for s in TINY if not s.startswith(("keep.window", "keep.dims", "model.hidden"))), "keep.stride=2"]
    for wish in ("6px", "1px"):
        code, said = vlae("train", tmp_path / "images", "-o", tmp_path / wish, "--keep-above", wish, *settings, *HELD_OUT)
        assert (code == 2 and refused(said, "keep.above", "from 2 on")) if wish == "1px" else code == 0, said
    code, said = vlae("audit", tmp_path / "6px")
    [term] = found(tmp_path / "6px").terms
    assert code == 0 and (term.source, term.name, term.wanted) == ("training", "above", "6 px")
    assert term.held == (found(tmp_path / "6px").spectrum.keeps(6.0) == "kept") and "what is above 6 px should be kept" in said


# On site


def pixels_of(page: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]


def test_a_sheet_shows_what_its_key_tells_and_gives_nothing_away(run: Path, tmp_path: Path) -> None:
    assert vlae("audit", run, "--sheet", tmp_path / "s", "--pairs", 10, "--lang", "ja")[0] == 0
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["answers.csv", "key.json", "sheet.html"]
    page, key = (tmp_path / "s" / "sheet.html").read_text(encoding="utf-8"), json.loads((tmp_path / "s" / "key.json").read_text())
    shown, images = pixels_of(page), {path.name: np.asarray(Image.open(path)) for path in (run.parent / "images").glob("*.png")}
    images = images or {path.name: np.asarray(Image.open(path)) for path in Run.open(run).settings.data.folder.glob("*.png")}
    assert len(shown) == 20 and len({pair["image"] for pair in key["pairs"]}) == 10
    for n, pair in enumerate(key["pairs"]):
        left, right = shown[2 * n : 2 * n + 2]
        original, decoding = (left, right) if pair["left"] == "image" else (right, left)
        assert (original == images[pair["image"]]).all() and (decoding != images[pair["image"]]).any()
    assert {pair["left"] for pair in key["pairs"]} == {"image", "decoding"}
    assert not re.search(r"\d\d\.png|decoding|original|復元画像", page) and "http" not in page
    assert (tmp_path / "s" / "answers.csv").read_text().splitlines()[:2] == ["pair,same_part,same_defect", "1,,"]


def test_pairs_are_balanced_and_a_quarter_is_there_to_catch() -> None:
    sides, catches = [], []
    for seed in range(200):
        made = pairs(20, 30, np.random.default_rng(seed))
        assert len({pair.image for pair in made}) == 20 and {pair.decoded for pair in made} <= set(range(30))
        assert sum(pair.catch for pair in made) == 5
        sides += [pair.left == "image" for pair in made]
        catches += [n for n, pair in enumerate(made) if pair.catch]
    assert abs(np.mean(sides) - 0.5) < 0.03 and abs(np.mean(catches) - 9.5) < 1


def test_a_sheet_that_cannot_be_made(run: Path, tmp_path: Path) -> None:
    code, said = vlae("audit", run, "--sheet", tmp_path / "s", "--pairs", 1000)
    assert code == 3 and refused(said, "fewer images than pairs") and not (tmp_path / "s").exists()
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "mine.txt").write_text("mine")
    code, said = vlae("audit", run, "--sheet", tmp_path / "busy", "--pairs", 8)
    assert code == 6 and refused(said) and [path.name for path in (tmp_path / "busy").iterdir()] == ["mine.txt"]
    folder = good(tmp_path / "others", 12)
    code, said = vlae("audit", run, "--images", folder, "--sheet", folder / "s", "--pairs", 8)
    assert code == 6 and refused(said, "inside") and not (folder / "s").exists()


@pytest.fixture
def sheet(run: Path, tmp_path: Path) -> Path:
    assert vlae("audit", run, "--sheet", tmp_path / "sheet", "--pairs", 12)[0] == 0
    return tmp_path / "sheet"


def fill_in(sheet: Path, answer: Callable[[dict[str, str]], tuple[str, str]], encoding: str = "utf-8") -> Path:
    rows = json.loads((sheet / "key.json").read_text())["pairs"]
    lines = ["pair,same_part,same_defect", *(",".join((str(row["pair"]), *answer(row))) for row in rows)]
    (sheet / "answers.csv").write_text("\n".join(lines), encoding=encoding)
    return sheet / "answers.csv"


def test_answers_are_read_back_with_exact_intervals(run: Path, sheet: Path) -> None:
    answers = fill_in(sheet, lambda row: ("yes", "YES ") if row["image"] == row["decoded"] else ("No", ""))
    code, said = vlae("audit", run, "--answers", answers, "--json")
    site, told = Site.read(Run.open(run)), answered(said)
    assert code == 0 and site is not None and told["same_part"] == {"yes": 9, "answers": 9, "low": site.same_part.low, "high": 1.0}
    assert site.same_part.low == pytest.approx(beta.ppf(0.025, 9, 1))
    assert (site.catch_part.yes, site.catch_part.answers) == (0, 3) and site.catch_part.high == pytest.approx(beta.ppf(0.975, 1, 3))
    assert site.catch_defect == Rate(0, 0, 0.0, 1.0) and site.unanswered == 3 and site.pairs == 12


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_answers_in_japanese_as_tables_are_saved_there(run: Path, sheet: Path, encoding: str) -> None:
    code, said = vlae("audit", run, "--answers", fill_in(sheet, lambda row: ("はい", "いいえ"), encoding))
    assert code == 0 and "same part 9 of 9" in said and "same defect 0 of 9" in said


def test_rates_are_those_of_the_beta_law() -> None:
    for yes, count in ((0, 5), (3, 7), (20, 20)):
        found = rate([True] * yes + [False] * (count - yes))
        low = beta.ppf(0.025, yes, count - yes + 1) if yes else 0.0
        high = beta.ppf(0.975, yes + 1, count - yes) if yes < count else 1.0
        assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "lacks the column pair"),
        ("pair,same_part\n1,yes\n", "lacks the column same_defect"),
        ("pair,same_part,same_defect\n", "no answer"),
        ("pair,same_part,same_defect\n1,,\n", "no answer"),
        ("pair,same_part,same_defect\n1,perhaps,\n", "line 2"),
        ("pair,same_part,same_defect\n1,yes,no\n1,yes,no\n", "line 3"),
        ("pair,same_part,same_defect\n\n13,yes,no\n", "line 3"),
        ("pair,same_part,same_defect\n0,yes,no\n", "from 1 to 12"),
        ("pair,same_part,same_defect\none,yes,no\n", "one"),
        (f"pair,same_part,same_defect\n{'9' * 5000},yes,no\n", "line 2"),
        ('pair,same_part,same_defect\n1,"yes,no\n', "cannot be read"),
        ("pair,same_part,same_defect\n1,\x00,no\n", "line 2"),
        ("pair,same_part,same_defect\n1\n", "no answer"),
    ],
)
def test_bad_answers_are_told_in_a_sentence(sheet: Path, text: str, part: str) -> None:
    (sheet / "answers.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(part)):
        read_answers(sheet / "answers.csv", 12)


def test_answers_without_their_key_or_of_another_model(run: Path, sheet: Path, tmp_path: Path) -> None:
    answers = fill_in(sheet, lambda row: ("yes", "yes"))
    for text in ("{", "[]", "{}", '{"weights": 1, "pairs": [{}]}'):
        (tmp_path / "key.json").write_text(text)
        code, said = vlae("audit", run, "--answers", shutil.copy(answers, tmp_path / "answers.csv"))
        assert code == 3 and refused(said, "key.json")
    tree = json.loads((sheet / "key.json").read_text())
    (sheet / "key.json").write_text(json.dumps({**tree, "weights": "0" * 64}))
    code, said = vlae("audit", run, "--answers", answers)
    assert code == 3 and refused(said, "another model") and not (run / "results" / "audit-site.json").exists()
    code, said = vlae("audit", run, "--answers", sheet / "gone.csv")
    assert code == 3 and refused(said)


# In the report

COLUMNS = ("pixels", "survives", "low", "high", "other")


def test_the_report_shows_the_audit_in_both_languages(run: Path, sheet: Path, tmp_path: Path) -> None:
    is_so = found(run).swaps[0]
    (tmp_path / "c.yaml").write_text(f"keep: {{{is_so.change}: kept}}\nabove: 6px\n")
    vlae("audit", run, "--contract", tmp_path / "c.yaml")
    assert vlae("evaluate", run)[0] == vlae("audit", run, "--answers", fill_in(sheet, lambda row: ("yes", "no")))[0] == 0
    for lang in LANGUAGES:
        code, _ = vlae("report", run, "--lang", lang, "-o", tmp_path / f"{lang}.html")
        page = (tmp_path / f"{lang}.html").read_text(encoding="utf-8")
        section = page[page.index('<section id="audit">') :].partition("</section>")[0]
        assert code == 0 and f'href="#audit">{Words(lang).texts["audit.title"]}' in page
        for swap in found(run).swaps:
            assert f"<small>{swap.change}</small>" in section and repr(swap.bits) in section
        assert str(Words(lang)("audit.source_contract")) in section and str(Words(lang)("audit.site")) in section
        assert not re.search(r"\{\w+\}|\bnan\b", section)


def test_a_report_without_an_audit_has_no_such_section_and_a_damaged_one_is_told(run: Path, tmp_path: Path) -> None:
    assert vlae("evaluate", run)[0] == 0
    result = run / "results" / "audit.json"
    tree = json.loads(result.read_text())
    spectrum, term = tree["spectrum"], {"source": "contract", "name": "noise", "wanted": "kept", "found": "kept", "held": True, "figures": ""}
    for change in (
        *({"images": "many"}, {"swaps": [{}]}, {"spectrum": None}, {"more": 1}, {"idle": ["<b>"]}, {"terms": [{**term, "wanted": "<b>"}]}),
        *({"swaps": [{**tree["swaps"][0], "change": "melted"}]}, {"terms": [{**term, "name": "melted"}]}, {"terms": [{**term, "found": "lost"}]}),
        *({"spectrum": {**spectrum, "low": [0.0]}}, {"spectrum": {**spectrum, "shape": "border", "border": None}}),
        *({"spectrum": {**spectrum, "pixels": [0.0] * 6}}, {"spectrum": {**spectrum, **{column: [] for column in COLUMNS}}}),
    ):
        result.write_text(json.dumps({**tree, **change}))
        code, said = vlae("report", run, "-o", tmp_path / "page.html")
        assert code == 4 and refused(said, "Run vlae audit again"), said
    result.unlink()
    assert vlae("report", run, "-o", tmp_path / "page.html")[0] == 0
    assert 'id="audit"' not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_contract_of_the_page_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "contract.yaml").write_text(text)
    assert Contract.read(tmp_path / "contract.yaml").above is not None
    assert all(f"`{name}`" in page for name in CHANGES)
