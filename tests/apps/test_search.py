"""Search through the command line and in Python: the nearest under what is asked, drawn, filtered, by region; and what cannot be done."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import pairwise_distances

from vlae.apps.search import Region, search
from vlae.data.read import write_png
from vlae.engine.embed import Codes
from vlae.engine.retrieval import contact
from vlae.engine.retrieval.contact import Tile, tile, write_contact_sheet
from vlae.engine.retrieval.index import Picture
from vlae.engine.retrieval.named import Query
from vlae.engine.run import Run
from vlae.errors import DataError, DiskError

from ..engine.retrieval.test_index import COUNT, encoder, grid, of_run, synthetic, vector  # noqa: F401
from ..test_cli import picture, refused, vlae


def asked(mean: np.ndarray, **more: object) -> Query:
    """A query of a given code."""
    code = Codes(np.asarray(mean, np.float64)[None], np.full((1, len(mean)), 0.1))
    return Query("asked.png", code, (32, 32), lambda: Picture(np.zeros((8, 8, 1), np.uint8), 8))._replace(**more)


def pixels_of(path: Path) -> np.ndarray:
    """The pixels of a file."""
    with Image.open(path) as image:
        return np.asarray(image)


def found(*words: object) -> dict:
    code, said = vlae("search", *words, "--json")
    assert code == 0, said
    return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]


# What is found


def test_the_nearest_images_of_a_run_in_order_but_the_image_itself(vector: Path) -> None:  # noqa: F811
    index = of_run(encoder(vector))
    distances = pairwise_distances(index.codes.mean)[5]
    order = [n for n in np.argsort(distances).tolist() if n != 5][:4]
    told = found(vector / "run", "05.png", "-n", 4, "--by", "euclidean")
    assert [hit["name"] for hit in told["hits"]] == [index.names[n] for n in order]
    assert [hit["distance"] for hit in told["hits"]] == pytest.approx(distances[order].tolist())
    assert [hit["rank"] for hit in told["hits"]] == [1, 2, 3, 4] and told["among"] == COUNT - 1
    code, said = vlae("search", vector / "run", "05.png", "-n", 4, "--by", "euclidean")
    assert code == 0 and [line.split()[-1] for line in said.splitlines()[1:]] == [index.names[n] for n in order]


@pytest.mark.parametrize("by", ["certainty", "euclidean", "cosine"])
def test_a_file_finds_itself_first(vector: Path, grid: Path, by: str) -> None:  # noqa: F811
    for folder in (vector, grid):
        for words in ((folder / "run",), (folder / "archive", "--run", folder / "run"), (folder / "run", "--images", folder / "images")):
            source, *more = words
            hits = found(source, folder / "images" / "07.png", *more, "--by", by)["hits"]
            # In an archive others may have the same code, to a step.
            same = [hit["name"] for hit in hits if hit["distance"] == pytest.approx(0, abs=1e-3)]
            assert "07.png" in same and (source.name == "archive" or same == ["07.png"] == [hits[0]["name"]])


def test_only_images_of_which_something_is_known(vector: Path) -> None:  # noqa: F811
    manifest = vector / "images" / "manifest.csv"
    for words in ((vector / "run",), (vector / "archive", "--manifest", manifest), (vector / "run", "--images", vector / "images")):
        source, *more = words
        told = found(source, "05.png", *more, "-n", 50, "--where", "label=bad", "--where", "angle>1")
        assert {hit["name"] for hit in told["hits"]} == {"12.png", "15.png", "18.png", "21.png"} and told["among"] == 4


def test_a_region_compares_the_places_that_it_touches() -> None:
    # Two channels of 2 x 2 places; the first image is the query at the upper left, the second everywhere else.
    same, other = np.zeros(8), np.ones(8)
    left = np.tile([True, False, False, False], 2)
    index = synthetic(np.stack([np.where(left, same, other), np.where(left, other, same)]), places=2)

    def first(*region: int) -> tuple[str, float]:
        hit = search(index, asked(same), by="euclidean", region=Region(*region)).hits[0]
        return hit.name, hit.distance

    assert first(0, 0, 16, 16) == ("0000.png", 0) and first(0, 16, 16, 16) == ("0001.png", 0) == first(16, 0, 16, 32)
    assert first(15, 15, 1, 1) == ("0000.png", 0) and first(16, 16, 1, 1) == ("0001.png", 0)
    assert first(0, 0, 32, 32) == ("0001.png", pytest.approx(2**0.5))
    assert first(15, 0, 2, 16) == ("0000.png", pytest.approx(2**0.5))  # it touches one place of each


def test_a_region_of_a_query_of_another_size_is_the_same_share_of_it() -> None:
    index = synthetic(np.stack([np.zeros(4), np.ones(4)]), places=2)
    query = asked(np.array([0.0, 1.0, 1.0, 1.0]), size=(64, 128))
    assert search(index, query, by="euclidean", region=Region(0, 0, 32, 64)).hits[0].name == "0000.png"
    assert search(index, query, by="euclidean", region=Region(0, 64, 32, 64)).hits[0].name == "0001.png"


# What is drawn


def test_the_sheet_shows_the_query_and_what_was_found(vector: Path, tmp_path: Path) -> None:  # noqa: F811
    sheet = tmp_path / "sheet.png"
    for source in ("run", "archive"):
        assert found(vector / source, "05.png", "-n", 3, "-o", sheet)["output"] == str(sheet)
        shown = pixels_of(sheet)[..., 0]
        original = pixels_of(vector / "images" / "05.png").repeat(12, 0).repeat(12, 1)
        assert np.array_equal(shown[contact.GAP : contact.GAP + 144, contact.GAP : contact.GAP + 144], original)
        sheet.unlink()


def test_a_file_is_not_replaced_by_a_sheet(vector: Path, tmp_path: Path) -> None:  # noqa: F811
    mine = picture(tmp_path / "mine.png", (12, 12))
    before = mine.read_bytes()
    code, said = vlae("search", vector / "run", mine, "-o", mine)
    assert code == 6 and refused(said, "exists") and mine.read_bytes() == before
    code, said = vlae("search", vector / "run", mine, "-o", tmp_path / "sheet.jpg")
    assert code == 6 and refused(said, "ends in .png") and not (tmp_path / "sheet.jpg").exists()


def test_images_of_every_kind_are_drawn_and_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    def gone() -> tuple[np.ndarray, int]:
        raise DataError("gone")

    deep = np.array([[[1000], [3000]]], np.uint16)
    tiles = [
        Tile(np.ones((2, 2, 1), np.uint8), 1, ("white",)),
        Tile(deep, 16, ("from black to white",)),
        Tile(np.full((300, 100, 3), (255, 0, 0), np.uint8), 8, ("x" * 200,)),
        Tile(np.full((2, 2, 2), 7, np.uint8), 8, ("grey and alpha",)),
        Tile(np.full((2, 2, 4), 7, np.uint8), 8, ("RGB and alpha", "日本語.png")),
        tile(gone, "lost"),
    ]
    write_contact_sheet(tmp_path / "sheet.png", [tiles[:4], tiles[4:]])
    shown = pixels_of(tmp_path / "sheet.png")
    step, middle = contact.SIDE + contact.GAP, contact.GAP + contact.SIDE // 2
    assert shown[middle, middle].tolist() == [255] * 3 and shown[middle, middle + 2 * step].tolist() == [255, 0, 0]
    assert shown[middle, middle + step - 40].tolist() == [0] * 3 and shown[middle, middle + step + 40].tolist() == [255] * 3
    assert tiles[-1].words == ("lost", "cannot be shown")


# What cannot be done


def test_bad_input_is_one_sentence(vector: Path, grid: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "words.txt").write_text("no image")
    image, wide = vector / "images" / "05.png", picture(tmp_path / "wide.png", (24, 12))
    cases: list[tuple[int, str, tuple[object, ...]]] = [
        (3, "does not exist", (vector / "run", "gone.png")),
        (3, "not an image", (vector / "run", tmp_path / "words.txt")),
        (3, "12 x 24 pixels", (vector / "run", wide)),
        (2, "--run", (vector / "archive", image)),
        (9, "another model", (vector / "archive", image, "--run", grid / "run")),
        (4, "neither a run nor an archive", (tmp_path, image)),
        (2, "cannot be read", (grid / "run", "05.png", "--region", "1,2,3")),
        (2, "cannot be read", (grid / "run", "05.png", "--region", "a,b,c,d")),
        (3, "leads out", (grid / "run", "05.png", "--region", "0,0,25,4")),
        (3, "leads out", (grid / "run", "05.png", "--region", "0,0,0,4")),
        (2, "needs a grid code", (vector / "run", "05.png", "--region", "0,0,2,2")),
        (2, "is no column", (vector / "run", "05.png", "--where", "colour=red")),
        (3, "holds for no image", (vector / "run", "05.png", "--where", "angle>99")),
        (3, "no image to compare", (vector / "run", "05.png", "--where", "angle=0.5")),
        (5, "no device", (vector / "run", "05.png", "--device", "abacus")),
    ]
    for code, part, words in cases:
        got, said = vlae("search", *words)
        assert got == code and refused(said, part), (words, said)


def test_what_is_left_out_is_told_after_the_result(vector: Path, tmp_path: Path) -> None:  # noqa: F811
    picture(tmp_path / "f" / "a.png", (12, 12)), picture(tmp_path / "f" / "wide.png", (24, 12))
    code, said = vlae("search", vector / "run", vector / "images" / "05.png", "--images", tmp_path / "f")
    assert code == 8 and "a.png" in said.splitlines()[1] and "wide.png: it has 12 x 24 pixels" in said


def test_an_archive_needs_its_extra(vector: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said = vlae("search", vector / "archive", "05.png")
    assert code == 5 and refused(said, "vlae[archive]")


def test_a_picture_that_cannot_be_written_is_told(vector: Path) -> None:  # noqa: F811
    index = of_run(encoder(vector))
    with pytest.raises(DiskError):
        search(index, asked(index.codes.mean[0]), sheet=Path("/proc/sheet.png"))


def test_images_of_16_bits(tmp_path: Path) -> None:
    for n in range(20):
        write_png(tmp_path / "images" / f"{n:02d}.png", np.random.default_rng(n).integers(0, 2**16, (12, 12, 1)).astype(np.uint16), 16)
    from ..test_cli import TINY

    assert vlae("train", tmp_path / "images", "-o", tmp_path / "run", *TINY)[0] == 0
    assert Run.open(tmp_path / "run").facts.depth == 16
    assert len(found(tmp_path / "run", "03.png", "-o", tmp_path / "s.png")["hits"]) == 10
