"""Few labels on the page of a run: the figures of the result, in words that they bear out."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlae.apps.fewshot import Wanted, fewshot
from vlae.apps.report import fewshot as told_of
from vlae.apps.report import page as page_of
from vlae.apps.report.findings import Findings, look
from vlae.apps.report.sections import Section, Told
from vlae.apps.report.words import LANGUAGES, Words
from vlae.engine.labels.curve import Point
from vlae.engine.run import Run
from vlae.errors import RunError

from .test_report import Case, Reader, grey_parts, made

LABELLED = 36


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A run with labels of outlines, as hostile as they come."""
    found = made(tmp_path_factory.mktemp("fewshot"), grey_parts)
    folder = found.run.settings.data.folder
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"].startswith("part")][:LABELLED]
    names = {outline: f"<i>{outline}</i> $x^2$ @0@" for outline in {row["outline"] for row in rows}}
    table = folder.parent / "labels.csv"
    table.write_text("name,label\n" + "".join(f"{row['name']},{names[row['outline']]}\n" for row in rows), encoding="utf-8")
    fewshot(found.run, table, wanted=Wanted(next=8, draws=3))
    return found


@pytest.fixture(scope="module")
def found(case: Case) -> Findings:
    return look(case.run, case.run.images(), case.evaluation, lambda done, total: None)


@pytest.fixture
def changed(case: Case, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Told]:
    """A copy of the run whose result somebody has changed."""

    def copy(change: Callable[[dict[str, Any]], Any]) -> Told:
        shutil.copytree(case.run.folder, tmp_path / "run")
        path = tmp_path / "run" / "results" / "fewshot.json"
        tree = json.loads(path.read_text(encoding="utf-8"))
        change(tree)
        path.write_text(json.dumps(tree), encoding="utf-8")
        run = Run.open(tmp_path / "run")
        return Told(Words("en"), run, case.evaluation, run.images())

    return copy


def result(told: Told) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((told.run.folder / "results" / "fewshot.json").read_text(encoding="utf-8"))
    return tree


def section(told: Told) -> Section:
    found = told_of.section(told)
    assert found is not None
    return found


def test_the_page_tells_the_figures_in_every_language(case: Case, found: Findings) -> None:
    tree = result(Told(Words("en"), case.run, case.evaluation, case.run.images()))
    best = max(a["accuracy"] for a in tree["accuracies"])
    pages = [page_of(Told(Words(lang), case.run, case.evaluation, case.run.images()), found) for lang in LANGUAGES]
    readers = [Reader(page) for page in pages]
    assert readers[0].figures == readers[1].figures
    for page, reader in zip(pages, readers, strict=True):
        assert "fewshot" in reader.ids and len(reader.ids) == len(set(reader.ids)) and len(page.encode()) < 5_000_000
        assert all(a["accuracy"] in reader.figures for a in tree["accuracies"])
        own = Reader(page.split('<section id="fewshot">')[1].split("</section>")[0])
        assert f"{100 * best:.1f}" in own.text and f"{LABELLED}" in own.text
        assert all(name in own.text for name in tree["next"][: told_of.SHOWN])
        assert "<i>" in own.text and all(tag != "i" for tag, _ in own.found)  # labels are shown as they are
        assert all(attrs.get("alt") for tag, attrs in own.found if tag == "img")
        assert len([tag for tag, _ in own.found if tag == "img"]) == 2 * told_of.SHOWN


def test_predictions_are_those_of_the_table_from_the_surest_to_the_least_sure(case: Case) -> None:
    with (case.run.folder / "results" / "fewshot-predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    shown = section(Told(Words("en"), case.run, case.evaluation, case.run.images()))["predicted"]
    probabilities = [float(table[one["name"]]["probability"]) for one in shown]
    assert len(shown) == told_of.SHOWN and probabilities == sorted(probabilities, reverse=True)
    everything = [float(row["probability"]) for row in table.values()]
    assert probabilities[0] == max(everything) and probabilities[-1] == min(everything)
    for one in shown:
        assert Reader(str(one["words"])).text.startswith(table[one["name"]]["label"])


def test_without_a_table_of_predictions_the_rest_is_told(changed: Callable[..., Told]) -> None:
    told = changed(lambda tree: None)
    table = told.run.folder / "results" / "fewshot-predictions.csv"
    for content in (b"\xff\xfe\x00", b"", b"name,label\na.png,good\n", b'name,"'):
        table.write_bytes(content)
        found = section(told)
        assert found["predicted"] == [] and found["answer"] and found["next"]["shown"][0]["words"] is None
    table.unlink()
    assert section(told)["predicted"] == []


def test_images_of_a_folder_are_named_and_not_mistaken_for_those_of_the_run(changed: Callable[..., Told]) -> None:
    found = section(changed(lambda tree: tree.update(source="<new>/")))
    assert "those of &lt;new&gt;/" in found["answer"]
    assert all(one["picture"] is None for one in [*found["predicted"], *found["next"]["shown"]])


def test_other_weights_were_not_measured(changed: Callable[..., Told]) -> None:
    assert told_of.section(changed(lambda tree: tree.update(weights="0" * 64))) is None


@pytest.mark.parametrize("field", ["best", "read"])
def test_a_result_that_names_no_classifier_is_refused(changed: Callable[..., Told], field: str) -> None:
    told = changed(lambda tree: tree.update({field: "oracle"}))
    with pytest.raises(RunError, match="damaged"):
        told_of.section(told)


def test_where_images_that_are_alike_differ_in_class_nobody_is_promised_more(changed: Callable[..., Told]) -> None:
    assert "drawn at random" in section(changed(lambda tree: tree.update(kinship=0.1)))["next"]["lead"]


def points(fewer: list[float], more: list[float]) -> list[Point]:
    """A code that is right so often in each draw, with 1 label a class and with 2."""
    counted = [(1, fewer), (2, more)]
    return [Point("code", kind, n, sum(v) / len(v), 0.0, 1.0, tuple(v)) for kind in ("linear", "neighbours") for n, v in counted]


@pytest.mark.parametrize(
    ("fewer", "more", "rising"),
    [([0.4, 0.6, 0.5], [0.5, 0.7, 0.61], True), ([0.4, 0.6, 0.5], [0.6, 0.5, 0.55], False), ([0.5, 0.5], [0.4, 0.4], False)],
)
def test_more_labels_are_said_to_help_only_where_they_did_beyond_chance(fewer: list[float], more: list[float], rising: bool) -> None:
    """The draws are compared one by one: what they have in common does not count."""
    said = " ".join(told_of._more(Words("en"), points(fewer, more)))
    assert ("More labels help" in said) == rising and ("cannot be told" in said) != rising
