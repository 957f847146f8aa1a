"""Duplicates: planted ones are found, and images that are merely alike are not taken for them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree
from scipy.stats import weibull_min

from vlae.apps.duplicates import duplicates
from vlae.engine.retrieval import chance
from vlae.engine.retrieval.chance import CHANCE, FEWEST, by_chance

from ..engine.retrieval.test_index import grid, synthetic, vector  # noqa: F401
from ..test_cli import picture, refused, vlae
from .test_search import pixels_of


def cloud(n: int, dims: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dims))


@pytest.mark.parametrize("by", ["certainty", "euclidean", "cosine"])
def test_planted_groups_are_found_and_nothing_else(by: str) -> None:
    codes = cloud(300)
    for source, copies in ((5, (100, 200, 250)), (17, (18,))):
        codes[list(copies)] = codes[source] + 0.01 * cloud(len(copies), seed=source)
    found = duplicates(synthetic(codes), by)  # type: ignore[arg-type]
    groups = {tuple(int(name[:4]) for name in group.names) for group in found.near}
    assert groups == {(5, 100, 200, 250), (17, 18)} and not found.exact
    assert found.threshold is not None and found.typical is not None and found.threshold < found.typical
    assert all(group.distance <= found.threshold for group in found.near)


@pytest.mark.parametrize("dims", [1, 2, 16, 256])
def test_images_that_are_merely_alike_are_hardly_ever_taken_for_duplicates(dims: int) -> None:
    paired = sum(len(group.names) for seed in range(5) for group in duplicates(synthetic(cloud(400, dims, seed)), "euclidean").near)
    assert paired <= 4  # of 2000, where 0.25 are expected


def test_many_near_duplicates_do_not_hide_one_another() -> None:
    codes = cloud(200)
    codes[100:180] = codes[:80] + 0.001 * cloud(80, seed=1)  # of 200 images 160 have one: more than half is too many
    codes = np.concatenate([codes, cloud(200, seed=2)])
    found = duplicates(synthetic(codes), "euclidean")
    assert {tuple(int(name[:4]) for name in group.names) for group in found.near} == {(n, n + 100) for n in range(80)}


def test_chance_is_what_it_is_said_to_be() -> None:
    n, shape = 100_000, 4.0
    distances = 3 * np.random.default_rng(0).weibull(shape, n)
    within = by_chance(distances)[0]
    assert within == pytest.approx(weibull_min(shape, scale=3).ppf(CHANCE / n), rel=0.1)
    assert by_chance(1000 * distances)[0] == pytest.approx(1000 * within)
    assert by_chance(np.zeros(100))[0] is None and by_chance(distances[: FEWEST - 1])[0] is None


def test_why_there_is_no_threshold_is_told() -> None:
    assert by_chance(np.ones(FEWEST - 1))[1].startswith("fewer than 30 images")
    distances = np.append(np.zeros(90), np.ones(10))
    assert by_chance(distances)[1].startswith("90 of 100 images have the same code as another")


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_of_points_that_are_scattered_on_a_plane_so_many_are_so_near_by_chance(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).uniform(size=(50_000, 2))
    nearest = KDTree(points).query(points, k=2)[0][:, 1]
    monkeypatch.setattr(chance, "CHANCE", share * len(points))
    within = by_chance(nearest)[0]
    assert within is not None and np.mean(nearest <= within) == pytest.approx(share, rel=0.3)


def test_the_same_pixels_are_one_image_among_the_near() -> None:
    codes = cloud(100)
    codes[50], codes[60] = codes[10], codes[10] + 0.001
    index = synthetic(codes, sha256=tuple("same" if n in (10, 50) else str(n) for n in range(100)))
    found = duplicates(index, "euclidean")
    assert [group.names for group in found.exact] == [("0010.png", "0050.png")]
    assert [group.names for group in found.near] == [("0010.png", "0060.png")]


def test_few_images_are_compared_only_as_asked() -> None:
    codes = cloud(5)
    codes[3] = codes[1] + 0.01
    assert duplicates(synthetic(codes), "euclidean").threshold is None
    found = duplicates(synthetic(codes), "euclidean", within=0.1)
    assert [group.names for group in found.near] == [("0001.png", "0003.png")] and found.near[0].distance == pytest.approx(0.01 * 8**0.5)
    assert duplicates(synthetic(codes[:1]), "euclidean").near == ()
    assert len(duplicates(synthetic(np.zeros((30, 2))), "euclidean").near) == 0  # codes that are all the same tell nothing apart


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of noise, with a copy of one and a second one of which a pixel is a little lighter."""
    for n in range(40):
        picture(tmp_path / "f" / f"{n:02d}.png", (12, 12), n)
    shutil.copy(tmp_path / "f" / "03.png", tmp_path / "f" / "copy.png")
    pixels = pixels_of(tmp_path / "f" / "08.png").copy()
    pixels[5, 5] ^= 1
    Image.fromarray(pixels).save(tmp_path / "f" / "retouched.png")
    return tmp_path / "f"


def test_a_folder_through_the_command_line(vector: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    code, said = vlae("duplicates", vector / "run", folder, "-o", tmp_path / "sheet.png", "--json")
    found = json.loads(said.splitlines()[-1])
    assert code == 0 and [group["names"] for group in found["exact"]] == [["03.png", "copy.png"]]
    assert [group["names"] for group in found["near"]] == [["08.png", "retouched.png"]] and found["images"] == 42
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > sheet.width
    code, said = vlae("duplicates", vector / "run", folder)
    assert code == 0 and "the same pixels: 03.png, copy.png" in said and "08.png, retouched.png" in said


def test_an_archive_and_bad_input(vector: Path, tmp_path: Path) -> None:  # noqa: F811
    code, said = vlae("duplicates", vector / "archive", "--json")
    assert code == 0 and json.loads(said.splitlines()[-1])["exact"] == []
    code, said = vlae("duplicates", vector / "archive", vector / "images")
    assert code == 2 and refused(said, "is an archive")
    code, said = vlae("duplicates", vector / "run", "--within", "0", "-o", tmp_path / "sheet.png")
    assert code == 0 and "near-duplicates are within 0" in said and "no sheet was written" in said and not (tmp_path / "sheet.png").exists()
    code, said = vlae("duplicates", vector / "run", "--within", "0", "-o", tmp_path / "sheet.png", "--json")
    found = json.loads(said.splitlines()[-1])
    assert code == 0 and found["near"] == [] and found["output"] is None and not (tmp_path / "sheet.png").exists()
    (tmp_path / "empty").mkdir()
    code, said = vlae("duplicates", vector / "run", tmp_path / "empty")
    assert code == 3 and refused(said, "holds no file")
