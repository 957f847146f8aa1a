"""Similar images on the page of a run: the nearest there are, and as many near-duplicates as ``vlae duplicates`` finds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlae.apps.duplicates import duplicates
from vlae.apps.report import similar
from vlae.apps.report.sections import Section, Told
from vlae.apps.report.words import LANGUAGES, Words
from vlae.engine.retrieval.index import Encoder, of_run

from .test_report import QUICK, SMALL_CODE, Case, Reader, made


def noise_with_copies(folder: Path) -> list[str]:
    """Images of noise, six of which are there again with one pixel a little lighter."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for n in range(60):
        pixels = rng.integers(0, 250, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02d}.png")
        if n < 6:
            pixels[3, 3] += 1
            Image.fromarray(pixels).save(folder / f"{n:02d} again.png")
    return [*QUICK, *SMALL_CODE, "keep.code=grid", "keep.channels=3", "keep.stride=4", "keep.window=stack2"]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("similar"), noise_with_copies)


def told(case: Case, lang: str = "en") -> Told:
    return Told(Words(lang), case.run, case.evaluation, case.run.images())


def section(case: Case) -> Section:
    found = similar.section(told(case))
    assert found is not None
    return found


def test_the_nearest_training_images_are_shown(case: Case) -> None:
    """By the Bhattacharyya coefficient of two normal distributions, multiplied up number by number."""
    index, images = of_run(Encoder.of(case.run)), case.run.images()
    train, rows = images.indices("train"), section(case)["rows"]
    assert len(rows) == similar.ASKED
    for first, *others in rows:
        n = images.names.index(first["name"])
        assert images.split[n] == "test" and first["distance"] is None
        s, t = index.codes.std[n], index.codes.std[train]
        overlap = np.sqrt(2 * s * t / (s**2 + t**2)) * np.exp(-((index.codes.mean[n] - index.codes.mean[train]) ** 2) / (4 * (s**2 + t**2)))
        bits = -np.log2(overlap).sum(1)
        assert [one["name"] for one in others] == [images.names[k] for k in train[np.argsort(bits)[: similar.NEAREST]]]
        assert Reader("".join(one["distance"] for one in others)).figures == pytest.approx(np.sort(bits)[: similar.NEAREST])


def test_as_many_near_duplicates_as_the_command_finds(case: Case) -> None:
    found = duplicates(of_run(Encoder.of(case.run)))
    count = len({name for group in found.near for name in group.names})
    assert count >= 6
    for page in case.pages.values():
        assert f"{count}" in page.split('id="similar"')[1].split("<b>")[2].split("</b>")[0]


def test_of_many_images_some_are_compared(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "MOST_IMAGES", 10)
    found, trained = section(case), len(case.run.images().indices("train"))
    assert f"Compared with 10 of {trained} training images" in found["lead"] and found["near"] is None
    monkeypatch.setattr(similar, "MOST_IMAGES", 2000)
    monkeypatch.setattr(similar, "MOST_PIXELS", 0)
    assert f"Compared with {similar.FEWEST} of {trained}" in section(case)["lead"]
    monkeypatch.undo()
    monkeypatch.setattr(similar, "MOST_DIFFERENCES", 0)
    assert section(case)["near"] is None


def test_labels_are_told_and_harmless(case: Case) -> None:
    images = case.run.images()
    said = replace(told(case), images=replace(images, labels=("<b>bad</b>",) * len(images)))
    found = similar.section(said)
    assert found is not None and all(one["label"] == "<b>bad</b>" for row in found["rows"] for one in row)
    assert {lang for lang in LANGUAGES if 'id="similar"' in case.pages[lang]} == set(LANGUAGES)
