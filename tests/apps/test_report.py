"""The page of a run: complete, self-contained, harmless, and true to the results; for every kind of image and of model."""

import ast
import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import vlae.data
from vlae.apps.evaluate import _protocol, evaluate
from vlae.apps.report import drawings, pictures, report
from vlae.apps.report import page as page_of
from vlae.apps.report.findings import MOVES, Findings, Moved, Shown, Site, look, site
from vlae.apps.report.papers import papers
from vlae.apps.report.sections import Told, verdict
from vlae.apps.report.words import LANGUAGES, Words
from vlae.apps.train import prepare
from vlae.data.parts import write
from vlae.data.settings import DataSettings
from vlae.data.split import assign
from vlae.engine.fit import Trainer
from vlae.engine.probe import Readout
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.engine.settings import load_settings
from vlae.errors import DiskError, RunError, SettingError

HOSTILE = "<script>alert(1)<script>&\"'$x^2$ {n} @0@.png"
QUICK = [
    *("train.steps=2", "train.batch=4", "train.validate_every=1", "train.ema=0.5", "model.width=4", "model.map_channels=2"),
    *("data.validation=0.2", "data.test=0.2"),
]
SMALL_CODE = ["model.widths=[4, 4, 4]", "model.blocks=[0, 1, 0]", "model.prior_hidden=8"]
VECTOR = [*SMALL_CODE, "model.hidden=8", "keep.dims=7"]


def grey_parts(folder: Path) -> list[str]:
    """Grey parts whose factors are known, with a column and files of names that no page would like."""
    write(folder, 70, size=16)
    table = (folder / "manifest.csv").read_text().splitlines()
    bad = "<b>$1_</b>&amp;"
    lines = [f"{table[0]},{bad}", *(f"{line},{n % 7}" for n, line in enumerate(table[1:])), "torn.png"]
    (folder / "manifest.csv").write_text("\n".join(lines))
    (folder / HOSTILE).write_bytes(b"not an image")
    (folder / "torn.png").write_bytes((folder / "part-00000.png").read_bytes()[:50])
    return [*QUICK, *VECTOR, "keep.window=4x2"]


def colours_of_all_sizes(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for n in range(14):
        pixels = rng.integers(0, 256, (20, 24 - n % 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"colour{n}.png")
    return [*QUICK, *SMALL_CODE, "keep.window=stack2", "keep.code=grid", "keep.channels=3", "keep.stride=4", "train.crop=16"]


def drawings_of_one_bit(folder: Path) -> list[str]:
    rng = np.random.default_rng(1)
    folder.mkdir()
    for n in range(20):
        Image.fromarray(rng.random((12, 10)) < 0.3).save(folder / f"drawing{n}.png")
    return [*(q for q in QUICK if "map_channels" not in q), "keep.code=none", "keep.window=all"]


def deep_images(folder: Path) -> list[str]:
    rng = np.random.default_rng(2)
    folder.mkdir()
    for n in range(20):
        Image.fromarray(rng.integers(1000, 4096, (12, 12), dtype=np.uint16)).save(folder / f"deep{n}.png")
    return [*(q for q in QUICK if "width" not in q), *VECTOR, "keep.preset=everything"]


@dataclass(frozen=True)
class Case:
    run: Run
    pages: dict[str, str]

    @property
    def page(self) -> str:
        return self.pages["en"]

    @property
    def evaluation(self) -> Evaluation:
        found = Evaluation.read(self.run, "test")
        assert found is not None
        return found


def made(folder: Path, fill: Callable[[Path], list[str]]) -> Case:
    overrides = fill(folder / "images")
    run = prepare(load_settings(None, overrides, {"data.folder": folder / "images"}), folder / "run")
    trainer = Trainer(run, run.images())
    trainer.start()
    trainer.train()
    evaluation, images = evaluate(run), run.images()
    found = look(run, images, evaluation, lambda done, total: None)
    return Case(run, {lang: page_of(Told(Words(lang), run, evaluation, images), found) for lang in LANGUAGES})


@pytest.fixture(scope="module")
def vector(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("vector"), grey_parts)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("grid"), colours_of_all_sizes)


@pytest.fixture(scope="module")
def codeless(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("codeless"), drawings_of_one_bit)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("plain"), deep_images)


@pytest.fixture(params=["vector", "grid", "codeless", "plain"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=LANGUAGES)
def page(request: pytest.FixtureRequest, case: Case) -> str:
    return case.pages[request.param]


class Reader(HTMLParser):
    """Tags, attributes and the visible text of a page; elements that are never closed, or closed twice, are an error."""

    VOID = frozenset(("meta", "img", "br", "col", "link", "input"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.figures: list[float] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "data":
            self.figures.append(float(dict(attrs)["value"] or ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    @property
    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.found if "id" in attrs]


def test_the_page_is_whole_and_small(page: str) -> None:
    reader = Reader(page)
    assert len(page.encode()) < 5_000_000
    assert {"bits", "map", "data", "settings"} <= set(reader.ids)


def test_nothing_comes_from_elsewhere(page: str) -> None:
    """Every address is inside the page, and no style reaches out of it."""
    for tag, attrs in Reader(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert attrs.get(name) is None or str(attrs[name]).startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|https?://(?!www\.w3\.org/)", page)


def test_names_inside_the_page_are_unique_and_point_somewhere(page: str) -> None:
    ids = Reader(page).ids
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="|url\()#([\w-]+)', page)
    assert targets and set(targets) <= set(ids)


def test_no_mark_of_the_drawing_is_left(page: str) -> None:
    assert not re.search(r"@\d+@|\{\w+\}|\bnan\b|\binf\b", Reader(page).text.replace(HOSTILE, ""))


def test_every_picture_is_described(page: str) -> None:
    reader = Reader(page)
    images = [attrs for tag, attrs in reader.found if tag == "img" and "src" in attrs]
    plots = [attrs for tag, attrs in reader.found if tag == "svg"]
    assert images and plots
    assert all(attrs.get("alt") for attrs in images) and all(attrs.get("aria-label") for attrs in plots)


def test_figures_are_those_of_the_results(case: Case) -> None:
    e = case.evaluation
    bits = 1 / np.log(2)
    shown = Reader(case.page).figures
    wanted = [e.nll_nats * bits, e.nll_nats * bits * e.n_images / e.pixels, e.distortion_bits]
    if case.run.settings.keep.code != "none":
        wanted += [e.rate_bits, e.psnr, e.ssim, *sorted(e.rate_bits_by_group)[-3:]]
    for value in wanted:
        assert value is None or any(figure == pytest.approx(value, rel=1e-12) for figure in shown)


def test_figures_are_the_same_in_every_language(case: Case) -> None:
    english, japanese = (Reader(case.pages[lang]) for lang in LANGUAGES)
    assert english.figures == japanese.figures
    assert [tag for tag, _ in english.found if tag in ("img", "svg", "section")] == [
        tag for tag, _ in japanese.found if tag in ("img", "svg", "section")
    ]


def test_what_a_model_lacks_is_left_out(vector: Case, grid: Case, codeless: Case, plain: Case) -> None:
    optional = {"decodings", "code", "probe", "similar", "window"}
    found = [optional & set(Reader(case.page).ids) for case in (vector, grid, codeless, plain)]
    assert found == [optional, {"decodings", "code", "similar", "window"}, {"window"}, {"decodings", "code", "similar"}]


def test_hostile_names_are_shown_as_they_are(vector: Case) -> None:
    for page in vector.pages.values():
        reader = Reader(page)
        assert "alert(1)" not in "".join(re.findall(r"<script>.*?</script>", page, re.DOTALL))
        assert len([tag for tag, _ in reader.found if tag == "script"]) == 1
        assert HOSTILE in reader.text
        assert reader.text.count("<b>$1_</b>&amp;") >= 2  # in the table and in the plot, in which no mathematics is read


def test_what_was_left_out_is_told_with_its_reason(vector: Case) -> None:
    left_out = vector.run.images().left_out
    assert any(entry.name == "torn.png" and not entry.harmless for entry in left_out)
    text = Reader(vector.page).text
    for entry in left_out:
        assert entry.name in text and entry.reason in text


def test_every_setting_is_told(case: Case) -> None:
    text = Reader(case.page).text
    for group, values in case.run.settings.model_dump(mode="json", exclude={"format"}).items():
        assert group in text
        for name, value in values.items():
            assert name in text
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                assert str(value) in text


def test_the_probe_is_kept_in_the_run(vector: Case) -> None:
    stored = json.loads((vector.run.folder / "results" / "probe.json").read_text())
    factors = {row["factor"] for row in stored["readouts"]}
    assert stored["format"] == 1 and {"x", "y", "grain", "<b>$1_</b>&amp;"} <= factors
    figures = Reader(vector.page).figures
    assert all(row["r2"] in figures for row in stored["readouts"])


def test_the_page_is_the_same_again(vector: Case, tmp_path: Path) -> None:
    again = report(Run.open(vector.run.folder), tmp_path / "again.html", "ja")
    assert again.read_text(encoding="utf-8") == vector.pages["ja"]


def test_a_page_replaces_an_older_one_and_no_other_file(plain: Case, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.new("L", (4, 4)).save(image)
    before = image.read_bytes()
    (tmp_path / "other.html").write_text("<!doctype html><title>mine</title>")
    for path in (image, tmp_path / "other.html", tmp_path):
        with pytest.raises(DiskError, match=r"exists\. Nothing but an older report is overwritten"):
            report(plain.run, path)
    assert image.read_bytes() == before
    (tmp_path / "page.html").write_text(plain.page, encoding="utf-8")
    report(plain.run, tmp_path / "page.html", "ja")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == plain.pages["ja"]


@pytest.mark.parametrize("optimizer, named", [("adamax", "Adamax"), ("adam", "Adam"), ("muon", "Adam, Muon")])
def test_papers_are_those_of_the_optimizer_and_of_members_that_were_used(plain: Case, optimizer: str, named: str) -> None:
    def cited(members: int | None) -> str:
        own = plain.run.settings
        model, train = own.model.model_copy(update={"members": members}), own.train.model_copy(update={"optimizer": optimizer})
        return "\n".join(papers(own.model_copy(update={"model": model, "train": train}), depth=1, importance=False, probed=False))

    found = cited(None)
    assert ("arXiv:1412.6980" in found, "(Adamax: section 7.1)" in found, "Muon: " in found) == ("Adam" in named, "Adamax" in named, "Muon" in named)
    assert found.count("1412.6980") == 1 and "arXiv:1612.01474" not in found
    assert "arXiv:1612.01474" not in cited(1) and "arXiv:1612.01474" in cited(2)


def test_progress_reaches_its_end_and_the_page_its_place(plain: Case) -> None:
    seen: list[tuple[int, int]] = []
    path = report(plain.run, progress=lambda done, total: seen.append((done, total)))
    assert path == plain.run.folder / "report.html" and path.is_file()
    assert seen[-1][0] == seen[-1][1] and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_run_that_was_not_evaluated_says_what_to_do(plain: Case, tmp_path: Path) -> None:
    bare = replace(plain.run, folder=tmp_path)
    with pytest.raises(RunError, match="Run vlae evaluate"):
        report(bare)


def test_validation_stands_in_where_there_is_no_test(plain: Case, tmp_path: Path) -> None:
    results = plain.run.folder / "results"
    test = results / "evaluation-test.json"
    before = test.read_bytes()
    try:
        evaluate(plain.run, "validation")
        test.unlink()
        text = Reader(report(plain.run, tmp_path / "page.html").read_text(encoding="utf-8")).text
    finally:
        test.write_bytes(before)
    assert "validation images, by which the weights were chosen" in text and "vlae evaluate" in text


def test_another_language_is_refused(plain: Case) -> None:
    with pytest.raises(SettingError, match="en, ja"):
        report(plain.run, lang="tlh")


def test_both_languages_say_the_same_things() -> None:
    english, japanese = (Words(lang).texts for lang in LANGUAGES)
    assert list(english) == list(japanese)
    for key in english:
        names = [set(re.findall(r"{(\w+)}", texts[key])) for texts in (english, japanese)]
        codes = [re.findall(r"<code>[^{<]*</code>", texts[key]) for texts in (english, japanese)]
        assert names[0] == names[1] and sorted(codes[0]) == sorted(codes[1]), key
        assert key in ("join",) or japanese[key], key


def test_texts_escape_what_is_put_in() -> None:
    assert Words("en")("answer.names_kept", names="<i>&") == "Can be read off the code: &lt;i&gt;&amp;."


# What the other floors say, in Japanese


# Functions that return what is said.
RETURNED = {"_colours": "reason", "_as_seen": "note", "wrongly_named": "note"}
YIELDED = {"one_picture": "note"}
CONSTANTS = {"NOT_AN_IMAGE": "reason", "OVER_WHITE": "note", "PALETTE_TO_RGB": "note", "EXIF_IGNORED": "note", "MAIN_PICTURE": "note"}
ARCHIVES = {"exact.py"}
"""What is said there stands on no page."""


def sentences_of_the_data() -> Iterator[tuple[str, str]]:
    """Every reason, name and note that stands in the code of the data floor, with 7 for each value that is put in."""
    for path in sorted(p for p in Path(vlae.data.__file__).parent.glob("*.py") if p.name not in ARCHIVES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = {
                "reason": [a for call in calls(node, "Refused") for a in call.args] + [a for call in calls(node, "LeftOut") for a in call.args[1:]],
                "name": [call.args[0] for call in calls(node, "LeftOut") if isinstance(call.args[0], ast.JoinedStr)],
                "note": noted(node),
            }
            if isinstance(node, ast.FunctionDef) and node.name in RETURNED:
                found[RETURNED[node.name]] += [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
            if isinstance(node, ast.FunctionDef) and node.name in YIELDED:
                found[YIELDED[node.name]] += [n.value for n in ast.walk(node) if isinstance(n, ast.Yield) and n.value]
            if isinstance(node, ast.Assign) and (kind := CONSTANTS.get(ast.unparse(node.targets[0]))):
                found[kind].append(node.value)
            yield from ((kind, text) for kind, nodes in found.items() for n in nodes for text in texts(n))


def calls(node: ast.AST, name: str) -> list[ast.Call]:
    return [node] if isinstance(node, ast.Call) and ast.unparse(node.func) == name else []


def noted(node: ast.AST) -> list[ast.AST]:
    """What becomes a note: assigned to notes, given as notes, third of a picture, or counted by notes()."""
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [node.value] if re.search(r"\bnotes?\b|wrongly_named", " ".join(map(ast.unparse, targets))) else []
    if isinstance(node, ast.Call):
        return [k.value for k in node.keywords if k.arg == "notes"] + (node.args[2:] if calls(node, "Picture") else [])
    return [n for n in ast.walk(node) if isinstance(n, ast.JoinedStr)] if isinstance(node, ast.FunctionDef) and node.name == "notes" else []


def texts(node: ast.AST) -> Iterator[str]:
    """The texts in an expression, but for those inside the values and the calls in it."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.Call | ast.Compare | ast.Subscript):
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def rules_of_splits() -> Iterator[str]:
    sha, labels = [f"{n:02}" for n in range(30)], ["good", "torn"] * 15
    for given, lot, only in product(([], ["test"], ["validation"], ["validation", "test"]), (None, "lot"), (None, "good")):
        splits = [given[n] if n < len(given) else None if not given else "train" for n in range(30)]
        lots = [lot and f"{lot} {n}" for n in range(30)]
        for pooled in (False, True)[: 1 + ("validation" in given)]:
            data = DataSettings(folder=Path("images"), only_label=only, pool_validation=pooled)
            yield assign(sha, lots, splits, labels, data).rule


def protocols() -> Iterator[str]:
    for depth, binarise, code, split, samples, pooled in product(
        (1, 8, 16), ("none", "static", "dynamic"), ("none", "grid"), ("train", "validation", "test"), (1, 64), (None, True)
    ):
        train, data = SimpleNamespace(precision="bf16-mixed"), SimpleNamespace(binarise=binarise, pool_validation=pooled, validation=0.05)
        settings = SimpleNamespace(data=data, keep=SimpleNamespace(code=code), train=train)
        yield _protocol(SimpleNamespace(facts=SimpleNamespace(depth=depth), settings=settings), split, 12, samples)


def test_everything_that_the_data_floor_says_is_known_in_every_language() -> None:
    said = [*sentences_of_the_data(), *(("rule", rule) for rule in rules_of_splits()), *(("protocol", line) for line in protocols())]
    counts = {kind: len({text for k, text in said if k == kind}) for kind in ("reason", "name", "note", "rule", "protocol")}
    assert counts["reason"] >= 25 and counts["name"] == 1 and counts["note"] >= 18 and counts["rule"] == 22 and counts["protocol"] >= 54
    for kind, text in said:
        assert Words("en").said(kind, text) == text
        japanese = Words("ja").said(kind, text)
        assert re.search("[ぁ-んァ-ヶ一-龠]", japanese), (kind, text)
        # Names of settings, formats and files may stay as they are; sentences may not.
        assert not re.search(r"\b(the|of|is|are|to|in|by|not|images?|pixels|test|train|validation)\b(?! のいずれ|、)", japanese), (kind, japanese)


def test_names_of_the_user_are_never_translated() -> None:
    words = Words("ja")
    assert words.said("reason", "some new reason") == "some new reason"
    assert words.said("name", "hidden") == "hidden" and words.said("name", "mask of hidden") == "hidden のマスク"
    assert "given by the source 以外" in words.said(
        "rule", "10% test by a hash of the lot; images of other labels than given by the source are test images"
    )


def test_no_english_is_left_on_a_japanese_page(vector: Case) -> None:
    text = Reader(vector.pages["ja"]).text
    for entry in vector.run.images().left_out:
        assert entry.reason not in text
    assert vector.run.images().split_rule not in text and vector.evaluation.protocol not in text


# What is claimed


@pytest.mark.parametrize(
    ("r2", "low", "high", "expected"),
    [
        (0.9, 0.8, 0.95, "kept"),
        (0.6, 0.2, 0.8, "kept"),
        (0.3, 0.2, 0.4, "partly"),
        (0.0, -0.3, 0.2, "left"),
        (0.6, 0.0, 0.8, "unclear"),
        (0.0, -0.3, 0.6, "unclear"),
        (0.3, -0.1, 0.4, "unclear"),
    ],
)
def test_a_verdict_is_what_the_interval_allows(r2: float, low: float, high: float, expected: str) -> None:
    assert verdict(Readout("x", r2, low, high, 100, 50, 1.0)) == expected


def test_what_is_read_off_a_code_that_tells_nothing_is_not_called_kept(vector: Case) -> None:
    images = vector.run.images()
    found = look(vector.run, images, vector.evaluation, lambda done, total: None)
    found = replace(found, readouts=(Readout("hole_count", 0.9, 0.85, 0.95, 100, 50, 1.0),))
    for rate, named in ((100.0, True), (0.01, False)):
        text = page_of(Told(Words("en"), vector.run, replace(vector.evaluation, rate_bits=rate), images), found)
        assert ("next to no bits" in text) != named
        answered = text.split("<h2", 1)[0]  # the answer stands first
        assert ("hole_count" in answered) == named


def test_decodings_that_show_nothing_are_said_to(grid: Case) -> None:
    images, told = grid.run.images(), Told(Words("en"), grid.run, grid.evaluation, grid.run.images())
    rng = np.random.default_rng(0)
    x = rng.normal(128, 40, (4, 3, 16, 16)).astype(np.float32)

    def shown(noise: float) -> tuple[Shown, ...]:
        drawn = x[:, None] + rng.normal(0, noise, (4, 2, 3, 16, 16)).astype(np.float32)
        return tuple(Shown(images.names[0], True, v, d, v[0]) for v, d in zip(x, drawn, strict=True))

    for noise, unlike in ((50.0, False), (60.0, True)):  # images differ from one another by 40 times the root of 2
        found = Findings(shown(noise), (), (), None, 1)
        text = page_of(told, found)
        assert found.unlike == unlike
        assert ("no nearer to their images" in text) == unlike and ("What stays the same" in text.split("</h2>", 1)[1]) != unlike


def test_doubts_are_told(grid: Case) -> None:
    """Lots make figures less sure, and so do test images that were trained on."""
    images = grid.run.images()
    found = look(grid.run, images, grid.evaluation, lambda done, total: None)
    lots, same = replace(images, lots=("a",) * len(images)), replace(images, sha256=("same",) * len(images))
    plain, one_lot, seen = (page_of(Told(Words("en"), grid.run, grid.evaluation, i), found) for i in (images, lots, same))
    assert "come from one lot" in one_lot and "come from one lot" not in plain
    assert "same pixels as a training image" in seen and "same pixels as a training image" not in plain


# Pictures


@pytest.mark.parametrize(
    ("levels", "shown"),
    [((0, 1), [0, 255]), ((0, 255), [0, 255]), ((1000, 4000), [0, 255])],
    ids=["1 bit", "8 bits", "16 bits"],
)
def test_black_is_black_and_white_is_white(levels: tuple[int, int], shown: list[int]) -> None:
    x = np.array([[levels]], np.float32)
    assert decoded(pictures.picture(x, pictures.Range(*levels))).ravel().tolist() == shown


def test_colours_stay_colours() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.float32)
    assert (decoded(pictures.picture(x, pictures.Range(0, 255))).transpose(2, 0, 1) == x).all()


def test_a_value_has_one_colour_in_every_map() -> None:
    """No map is stretched to its own range."""
    calm, wild = np.array([[0.0, 1.0]]), np.array([[1.0, 9.0]])
    low, high = (decoded(pictures.heat(m, 10.0), "RGB") for m in (calm, wild))
    assert (low[0, 1] == high[0, 0]).all() and high[0, 1].sum() > high[0, 0].sum()


def test_the_range_of_deep_images_is_what_they_use(plain: Case) -> None:
    black, white = pictures.levels_shown(plain.run.images())
    assert 1000 <= black < 1100 and 4000 < white <= 4096
    text = Reader(plain.page).text
    assert f"{black:,.0f}" in text and f"{white:,.0f}" in text


def test_pictures_shrink_until_they_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 400, 400)).astype(np.float32)

    def draw(side: int) -> list[list[pictures.Picture]]:
        return [[pictures.picture(pictures.middle(noise, side), pictures.Range(0, 255))]]

    [[small]] = pictures.within(60_000, draw)
    [[large]] = pictures.within(10**9, draw)
    assert large.width == 300 and small.width < 300 and len(small.uri) <= 60_000


def test_a_strip_becomes_small_too() -> None:
    small = pictures.thumbnail(np.full((1, 3, 1000), 255, np.float32), pictures.Range(0, 255), 64)
    assert (small.height, small.width) == (1, 62) and (decoded(small) == 255).all()


def decoded(picture: pictures.Picture, mode: str | None = None) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert(mode) if mode else image)


def test_incompressible_images_leave_the_page_small(grid: Case) -> None:
    """The largest page there can be: colours of pure chance, as large as they are ever shown."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 3, 300, 300)).astype(np.float32)
    large = Shown("noise" * 100, False, noise[0], noise[1:], noise[0, 0].astype(np.float64))
    moved = tuple(Moved(n, 1.0, noise[n : n + 5]) for n in range(3))
    found = Findings((large,) * 6, moved, (), Site(large, 150, 150, frozenset({(149, 150), (150, 149)})), 1)
    told = Told(Words("ja"), grid.run, grid.evaluation, grid.run.images())
    text = page_of(told, found)
    assert 2_000_000 < len(text.encode()) < 5_000_000 and "noise" * 100 not in text


# The window, and what moving the code does


def test_the_outline_encloses_the_cells() -> None:
    """Crossing the border once, from outside, leads inside: for every cell, counted along its row."""
    cells = {(0, 0), (0, 1), (0, 3), (1, 1), (2, 0), (2, 1), (2, 2)}
    walls = {(int(i), int(j)) for j, i in re.findall(r"M(\d+) (\d+)v1", drawings.outline(cells))}
    for i in range(4):
        for j in range(5):
            crossed = sum((i, k) in walls for k in range(j + 1))
            assert ((i, j) in cells) == (crossed % 2 == 1)


def test_the_site_shows_exactly_the_window(vector: Case) -> None:
    model = vector.run.model(torch.device("cpu"))
    bits = np.zeros((16, 16))
    bits[8, 9] = 50.0
    x = np.zeros((1, 16, 16), np.float32)
    found = site(model, Shown("a", True, x, np.empty((0, 1, 16, 16), np.float32), bits))
    assert isinstance(found, Site) and abs(found.row - 8) <= 2 and abs(found.column - 9) <= 2
    assert {(i - found.row, j - found.column) for i, j in found.seen} == model.decoder.window.offsets


def test_a_window_larger_than_the_image_is_cut_at_its_sides(codeless: Case) -> None:
    model = codeless.run.model(torch.device("cpu"))
    shape = (12, 10)
    found = site(model, Shown("a", True, np.zeros((1, *shape), np.float32), np.empty((0, 1, *shape), np.float32), np.ones(shape)))
    assert found is not None
    before = {(i, j) for i in range(12) for j in range(10) if (i, j) < (found.row, found.column)}
    assert found.seen == before


@pytest.mark.parametrize("kind", ["vector", "grid"])
def test_moving_nothing_changes_nothing_and_moving_something_does(kind: str, request: pytest.FixtureRequest) -> None:
    """In the middle column all rows are the same picture: the code as it is, with the same random numbers."""
    page = request.getfixturevalue(kind).page
    table = page[page.index('class="gallery moved"') :]
    rows = [re.findall(r'src="([^"]*)"', row) for row in re.findall(r"<tr>.*?</tr>", table[: table.index("</table>")], re.DOTALL)[1:]]
    middle = MOVES.index(0)
    assert len(rows) >= 2 and len({row[middle] for row in rows}) == 1
    assert any(len(set(row[: len(MOVES)])) > 1 for row in rows)


def test_a_window_of_all_pixels_of_images_of_all_sizes(tmp_path: Path) -> None:
    """It is as large as the crops that the model learned from."""

    def fill(folder: Path) -> list[str]:
        colours_of_all_sizes(folder)
        return [*(q for q in QUICK if "map_channels" not in q), "keep.code=none", "keep.window=all", "train.crop=16"]

    assert "sees every pixel" in made(tmp_path, fill).page
