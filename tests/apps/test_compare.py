"""Compare: layout is what the other's code costs, texture what the pixels cost given their own; both told by place."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from vlae.apps import compare as app
from vlae.apps.compare import TEXTURE_SIDE, Difference, compare
from vlae.engine.kept.swap import explained
from vlae.engine.measure import noise_for

from ..engine.retrieval.test_index import encoder, grid, vector  # noqa: F401
from ..test_cli import picture, refused, vlae
from .test_search import pixels_of


@pytest.fixture(params=["vector", "grid"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_an_image_differs_in_nothing_from_itself(folder: Path, tmp_path: Path) -> None:
    one = folder / "images" / "00.png"
    found = compare(encoder(folder), one, one, tmp_path / "c.png")
    assert (found.layout_bits, found.texture_bits, found.layout, found.texture) == (0, 0, (), ())
    assert found.words() == ["no part differs in layout by 10 bits", "no part differs in texture alone"]


def test_layout_is_the_swap_cost_of_both_ways(folder: Path, tmp_path: Path) -> None:
    look = encoder(folder)
    one, other = (app._guest(look, folder / "images" / f"{n:02d}.png") for n in (0, 1))
    noises = [noise_for(look.model, one.group, 0, sample) for sample in range(app.SAMPLES)]
    x, y = one.group.x, other.group.x
    costs = [
        explained(look.model, x, y, noise)
        - explained(look.model, x, x, noise)
        + explained(look.model, y, x, noise)
        - explained(look.model, y, y, noise)
        for noise in noises
    ]
    found = compare(look, folder / "images" / "00.png", folder / "images" / "01.png", tmp_path / "c.png")
    assert found.layout_bits == pytest.approx(float(np.mean(costs)) / 2, rel=1e-4, abs=1e-3)


def test_texture_is_the_bits_that_each_needs_given_its_own_code(folder: Path) -> None:
    look = encoder(folder)
    x = torch.cat([app._guest(look, folder / "images" / f"{n:02d}.png").group.x for n in (0, 1)])
    with torch.no_grad():
        needed = -look.model.decoder(look.model.posterior(x).centre, x).log_prob(x).double().numpy() / np.log(2)
    texture, chance = app._texture(look.model, x)
    assert np.allclose(texture, uniform_filter(needed[1] - needed[0], TEXTURE_SIDE), atol=1e-4) and (chance > 0).all()


def test_differences_are_told_by_place() -> None:
    values = np.zeros((20, 30))
    values[2:5, 3:9], values[10:12, 20:22] = 2.0, -10.0
    values[5, 9] = 1.0  # touches the first at a corner
    assert app._differences(values != 0, values) == [Difference(10, 20, 2, 2, 4, -40.0), Difference(2, 3, 4, 7, 19, 37.0)]
    assert app._differences(values != 0, values, mean=True)[1].bits == pytest.approx(37 / 19)
    assert str(Difference(2, 3, 4, 7, 19, 37.0)) == "rows 2 to 5, columns 3 to 9"
    assert app._differences(np.zeros((3, 3), bool), np.ones((3, 3))) == []


def test_both_kinds_are_found_where_they_are(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = pixels_of(folder / "images" / "00.png").shape
    layout, texture = np.zeros(size), np.zeros(size)
    layout[:5, :5], texture[6:, 6:], texture[:3, :3] = 2.0, 3.0, 3.0
    monkeypatch.setattr(app, "_layout", lambda *_: layout)
    monkeypatch.setattr(app, "_texture", lambda *_: (texture, np.full(size, 0.1)))
    found = compare(encoder(folder), folder / "images" / "00.png", folder / "images" / "01.png", tmp_path / "c.png")
    (moved,), (changed,) = found.layout, found.texture  # a texture where the layout differs is not told
    assert (moved.top, moved.left) == (0, 0) and moved.bits == 50
    assert (changed.top, changed.left, changed.bits) == (6, 6, 3.0) and changed.pixels == (size[0] - 6) * (size[1] - 6)
    assert found.words()[0].startswith("layout differs at rows 0 to ") and "columns 6 to" in found.words()[1]
    shown = pixels_of(tmp_path / "c.png")
    assert len({tuple(pixel) for row in shown for pixel in row.tolist()}) > 20


def test_the_command_and_its_picture(grid: Path, tmp_path: Path) -> None:  # noqa: F811
    one, other = grid / "images" / "00.png", grid / "images" / "01.png"
    code, said = vlae("compare", grid / "run", one, other, "-o", tmp_path / "c.png", "--json")
    found = json.loads(said.splitlines()[-1])
    assert code == 0 and found["output"] == str(tmp_path / "c.png") and {"layout", "texture", "layout_bits", "texture_bits", "words"} <= set(found)
    shown = pixels_of(tmp_path / "c.png")[24 : 24 + 24 * 16, 8 : 8 + 16 * 16, 0]
    assert np.array_equal(shown, pixels_of(one).repeat(16, 0).repeat(16, 1))
    code, said = vlae("compare", grid / "run", one, other, "-o", tmp_path / "c.png")
    assert code == 6 and refused(said, "exists")


def test_bad_input_is_one_sentence(vector: Path, grid: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "words.txt").write_text("no image")
    one, large = grid / "images" / "00.png", picture(tmp_path / "large.png", (32, 32))
    for run, images, code, part in (
        ("grid", (one, large), 3, "different sizes. They are compared pixel by pixel. Found: 24 x 16 and 32 x 32"),
        ("grid", (one, tmp_path / "words.txt"), 3, "not an image"),
        ("grid", (tmp_path / "gone.png", one), 3, "no such file"),
        ("vector", (vector / "images" / "00.png", large), 3, "32 x 32 pixels"),
    ):
        got, said = vlae("compare", {"grid": grid, "vector": vector}[run] / "run", *images, "-o", tmp_path / "c.png")
        assert got == code and refused(said, part) and not (tmp_path / "c.png").exists(), said
    code, said = vlae("compare", vector / "archive", one, one, "-o", tmp_path / "c.png")
    assert code == 4 and refused(said, "is not a run")
