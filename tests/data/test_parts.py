"""The embedded images: their bytes, their looks as far as a number can say, their defects and their folder."""

import ast
import csv
import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vlae.data import parts
from vlae.data.parts import DEFECTS, Part, draw, rows, write
from vlae.data.parts.defects import no_damage
from vlae.data.parts.exact import normal, scramble, subkey, turn, value_noise
from vlae.data.parts.render import camera, radiance
from vlae.data.parts.scene import scene
from vlae.errors import DataError, DiskError, SettingError

GOLDEN = "1ef1c21c9f8e8183087e44955f1f571551bfa73cf37ab3a545633909572e1e5e"
DRILLED = [index for index in range(30) if draw(index, 16).factors.holes]


def picture(factors: parts.Factors, size: int = 64, key: int = 7) -> np.ndarray:
    """The good grey picture of chosen factors, as floats."""
    place = scene(factors, size, size)
    light, metal = radiance(factors, place, no_damage(factors, place), key)
    return camera(light, metal, factors, False, key).astype(float)


def count_holes(image: np.ndarray) -> int:
    """Dark regions that metal surrounds."""
    within = ndimage.binary_fill_holes(image > 92)
    return ndimage.label(ndimage.binary_opening(within & (image < 45)))[1]


def area_average(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = image.shape
    return image.reshape(height // factor, factor, width // factor, factor).mean((1, 3))


# --- the same bytes everywhere


def test_the_bytes_never_change():
    """Changed output is a breaking release: figures that were measured on the parts would no longer be comparable."""
    digest = hashlib.sha256()
    shown = [draw(i, 64) for i in range(12)] + [draw(i, (40, 100), seed=3, colour=True) for i in range(4)]
    shown += [draw(5, side, seed=2**40 + 1, colour=side % 2 == 0) for side in (28, 65, 256)]
    shown += [draw(DRILLED[k], 96, colour=k % 2 == 0, defect=defect) for k, defect in enumerate(DEFECTS)]
    for part in shown:
        digest.update(repr((part.image.shape, part.factors, part.defect)).encode() + part.image.tobytes() + part.mask.tobytes())
    assert digest.hexdigest() == GOLDEN


EXACT = {
    *("arange", "argmax", "any", "array", "astype", "broadcast_arrays", "clip", "floor", "full", "inf", "max", "maximum", "min"),
    *("minimum", "ones", "ravel", "reshape", "shape", "sqrt", "stack", "where", "zeros", "bool_", "float64", "int64", "uint8", "uint64"),
    "integer",
}


@pytest.mark.parametrize("path", sorted(Path(parts.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_only_exact_operations_make_pixels(path):
    """No sine, power, sum, matrix product or library's random number: their last bits differ between machines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy"):
            assert node.attr in EXACT, f"{path.name}:{node.lineno}: np.{node.attr}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math":
            assert node.attr in {"sqrt", "floor", "pi"}, f"{path.name}:{node.lineno}: math.{node.attr}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"sum", "mean", "std", "var", "dot", "prod", "cumsum"}, f"{path.name}:{node.lineno}: {node.attr}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            assert isinstance(node.left, ast.Constant) and node.left.value == 2, f"{path.name}:{node.lineno}: a power of floats"
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), f"{path.name}:{node.lineno}: a matrix product"


def test_splitmix_is_the_published_one():
    def reference(counter: int, seed: int) -> int:
        z = (seed + counter * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    counters = [0, 1, 2, 1000, 2**62, -1, -(2**40)]
    seed = 0xDEADBEEFCAFEF00D
    assert scramble(np.array(counters), seed).tolist() == [reference(counter, seed) for counter in counters]


def test_normal_is_standard_and_uncorrelated():
    field = normal(np.arange(-200, 200)[:, None], np.arange(-300, 300), subkey(1, "test"))
    assert abs(field.mean()) < 0.01 and abs(field.std() - 1.0) < 0.01
    assert abs(((field - field.mean()) ** 4).mean() - (3.0 - 1.2 / 8)) < 0.05  # kurtosis of a sum of eight uniforms
    for shifted in (field[1:, :-1] * field[:-1, :-1], field[:-1, 1:] * field[:-1, :-1], field[1:, 1:] * field[:-1, :-1]):
        assert abs(shifted.mean()) < 0.01


def test_value_noise_meets_its_lattice_and_is_smooth():
    a = np.linspace(-3.0, 5.0, 2001)
    noise = value_noise(a, np.full(2001, 2.25), 9)
    assert np.abs(np.diff(noise)).max() < 0.05
    lattice = value_noise(np.array([-2.0, 4.0]), np.array([7.0, -5.0]), 9)
    assert lattice.tolist() == normal(np.array([-2, 4]), np.array([7, -5]), 9).tolist()


@pytest.mark.parametrize("degrees", [-720.0, -180.0, -90.0, -33.3, 0.0, 1e-9, 45.0, 179.999, 180.0, 271.5, 359.0, 1234.5])
def test_turn_against_the_mathematical_library(degrees):
    cos, sin = turn(degrees)
    assert cos == pytest.approx(math.cos(math.radians(degrees)), abs=1e-13)
    assert sin == pytest.approx(math.sin(math.radians(degrees)), abs=1e-13)


def test_an_image_depends_on_seed_and_index_alone():
    first = draw(4, 48, seed=11).image.tobytes()
    draw(9, 32, seed=2, colour=True)
    assert draw(4, 48, seed=11).image.tobytes() == first
    others = {draw(i, 48, seed=s).image.tobytes() for i in range(5) for s in (11, 12)}
    assert len(others) == 10 and first in others


# --- what is seen is what the factors say


def test_the_middle_of_the_metal_is_at_x_and_y():
    for index in range(12):
        part = draw(index, (96, 128))
        metal = ndimage.binary_fill_holes(ndimage.binary_opening(part.image > 92))
        y, x = ndimage.center_of_mass(metal)
        assert ((x + 0.5) / 128, (y + 0.5) / 96) == pytest.approx((part.factors.x, part.factors.y), abs=0.02)


@pytest.mark.parametrize("side", [64, 128])
def test_the_holes_can_be_counted(side):
    for index in range(30):
        part = draw(index, side)
        assert count_holes(part.image) == part.factors.holes


def test_factors_are_spread_and_independent():
    columns = [rows(draw(index, 16)) for index in range(400)]
    numbers = np.array([[c[name] for name in ("x", "y", "angle", "size", "holes", "texture", "grain", "light", "noise")] for c in columns])
    assert np.abs(np.corrcoef(numbers.T) - np.eye(9)).max() < 0.2
    assert {c["holes"] for c in columns} == set(range(7))
    assert len({c["outline"] for c in columns}) == 4 and len({c["metal"] for c in columns}) == 3
    assert np.ptp(numbers[:, :2], axis=0).min() > 0.19


def test_the_area_of_the_holes_follows_their_number():
    """A probe must be able to read the number: each hole darkens about as much of the picture as any other."""
    dark = np.array([[part.factors.holes, (part.image < 40).mean()] for part in map(draw, range(150))])
    assert np.corrcoef(dark.T)[0, 1] ** 2 > 0.85


@pytest.mark.parametrize("texture", ["brushed", "cast"])
def test_grain_is_seen_but_leaves_the_large_scale_alone(texture):
    fine, coarse, brightness = [], [], []
    for index in range(20):
        factors = replace(draw(index).factors, texture=texture)
        weak, strong = (picture(replace(factors, grain=grain), key=index) for grain in (0.07, 0.12))
        ripple = [np.abs(image - ndimage.uniform_filter(image, 3))[28:36, 28:36].mean() for image in (weak, strong)]
        fine.append(ripple[1] / ripple[0])
        coarse.append(np.abs(area_average(strong - weak, 16)).mean())
        brightness.append((strong - weak).mean())
    assert np.mean(fine) > 1.25
    assert np.mean(coarse) < 2.0  # levels
    assert abs(np.mean(brightness)) < 0.3


def test_light_and_noise_do_what_they_say():
    factors = replace(draw(3).factors, light_angle=180.0, gradient=0.4)
    still = picture(replace(factors, noise=0.0))
    assert still[:, :16].mean() > 1.1 * still[:, 48:].mean()
    assert picture(replace(factors, noise=0.0, light=1.06)).mean() > 1.08 * picture(replace(factors, noise=0.0, light=0.94)).mean()
    corner = (picture(replace(factors, noise=3.0)) - still)[:12, :12]
    assert corner.std() == pytest.approx(3.0 * math.sqrt((still[:12, :12].mean() + 20.0) / 148.0), rel=0.2)


def test_texture_and_noise_need_most_of_the_bits():
    """The entropy of what is left of a pixel after its left neighbour, on the face."""

    def bits(factors: parts.Factors) -> float:
        change = np.diff(picture(factors, 256)[96:160, 96:160], axis=1)
        share = np.unique(change, return_counts=True)[1] / change.size
        return float(-(share * np.log2(share)).sum())

    for index in range(6):
        factors = replace(draw(index).factors, holes=0, places=(), x=0.5, y=0.5)
        assert bits(factors) > 3.0 and bits(factors) > 2.0 * bits(replace(factors, grain=0.0, noise=0.0))


# --- any size


@pytest.mark.parametrize("index", range(6))
def test_a_part_looks_the_same_at_every_size(index):
    small, double, fourfold = (draw(index, side).image.astype(float) for side in (64, 128, 256))
    for larger in (area_average(double, 2), area_average(fourfold, 4)):
        assert np.abs(small - larger).mean() < 7.0
        assert np.corrcoef(small.ravel(), larger.ravel())[0, 1] > 0.97
    assert draw(index, 64).factors == draw(index, (28, 256), colour=True).factors


def test_colour_shows_the_same_part():
    for index in range(4):
        grey, colour = draw(index, 64), draw(index, 64, colour=True)
        luminance = colour.image @ np.array([0.299, 0.587, 0.114])
        assert grey.factors == colour.factors and colour.image.shape == (64, 64, 3)
        assert np.corrcoef(grey.image.ravel(), luminance.ravel())[0, 1] > 0.99
        assert abs(grey.image.mean() - luminance.mean()) < 4.0


@pytest.mark.parametrize("size", [16, 28, (16, 300), (300, 16), (31, 77)])
def test_any_size_works(size):
    shape = size if isinstance(size, tuple) else (size, size)
    part = draw(DRILLED[0], size, defect="scratch")
    assert part.image.shape == part.mask.shape == shape and part.image.std() > 10


@pytest.mark.parametrize("size", [0, -3, 15, (1, 40), (40, 1), 4097, 64.0, True, (64, 64, 3), [64, 64], None])
def test_a_size_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(SettingError, match="from 16 to 4096"):
        draw(0, size)


@pytest.mark.parametrize("setting", [{"index": -1}, {"index": 1.5}, {"index": 0, "seed": -1}, {"index": 0, "seed": 2**63}])
def test_an_index_or_seed_that_cannot_be_drawn_is_refused(setting):
    with pytest.raises(SettingError, match="whole number"):
        draw(**setting)


# --- defects


@pytest.mark.parametrize("size", [28, 64, 128])
@pytest.mark.parametrize("defect", DEFECTS)
def test_the_mask_is_where_the_picture_changes(defect, size):
    found, right = [], []
    for index in DRILLED[:12]:
        good, bad = draw(index, size), draw(index, size, defect=defect)
        change = np.abs(good.image.astype(int) - bad.image)
        near = ndimage.binary_dilation(bad.mask, iterations=max(2, size // 50))
        assert bad.factors == good.factors and bad.defect == defect and bad.mask.any() and not good.mask.any()
        assert bad.mask.mean() < 0.1
        assert change[bad.mask].mean() > 10
        found.append((near & (change > 8)).sum() / (change > 8).sum())
        right.append((bad.mask & (change > 3)).sum() / bad.mask.sum())
    assert min(found) > 0.8 and np.mean(found) > 0.93
    assert min(right) > 0.6 and np.mean(right) > 0.9


def test_hole_defects_change_the_count_as_named():
    for index in DRILLED[:8]:
        for defect, change in (("missing_hole", -1), ("shifted_hole", 0)):
            part = draw(index, 128, defect=defect)
            assert count_holes(part.image) == part.factors.holes + change


@pytest.mark.parametrize("defect", ["missing_hole", "shifted_hole"])
def test_a_part_without_holes_cannot_miss_one(defect):
    without = next(index for index in range(50) if index not in DRILLED)
    with pytest.raises(DataError, match="needs a hole"):
        draw(without, defect=defect)


def test_an_unknown_defect_is_refused():
    with pytest.raises(SettingError, match="scratch, dent"):
        draw(0, defect="rust")


# --- columns and folder


def test_rows_are_flat_and_symmetric():
    plain = draw(1, 16).factors
    columns = rows(Part(np.zeros((16, 16), np.uint8), replace(plain, outline="hexagon", angle=10.0), np.zeros((16, 16), bool), None))
    turned = rows(Part(np.zeros((16, 16), np.uint8), replace(plain, outline="hexagon", angle=70.0), np.zeros((16, 16), bool), None))
    assert all(isinstance(value, float | str) for value in columns.values())
    assert columns["angle_sin"] == pytest.approx(turned["angle_sin"]) and columns["angle_cos"] == pytest.approx(turned["angle_cos"])
    assert len(str(columns["places"]).split(";")) == columns["holes"]


def test_a_written_folder_is_what_was_drawn(tmp_path):
    calls = []
    write(tmp_path / "out", 9, size=(24, 32), seed=5, colour=True, defects=("dent", "missing_hole"), progress=lambda *at: calls.append(at))
    with open(tmp_path / "out" / "manifest.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert calls == [(k + 1, 9) for k in range(9)]
    assert [row["name"] for row in table] == [f"part-{k:05d}.png" for k in range(9)]
    for index, row in enumerate(table):
        wanted = (None, "dent", "missing_hole")[index % 3]
        part = draw(index, (24, 32), seed=5, colour=True)
        if wanted and (part.factors.holes or wanted == "dent"):
            part = draw(index, (24, 32), seed=5, colour=True, defect=wanted)
            assert (np.asarray(Image.open(tmp_path / "out" / row["mask"])) == part.mask).all()
        else:
            assert row["mask"] == ""
        assert row["label"] == (part.defect or "good")
        assert (np.asarray(Image.open(tmp_path / "out" / row["name"])) == part.image).all()
        assert float(row["grain"]) == part.factors.grain and float(row["holes"]) == part.factors.holes


def test_the_same_call_writes_the_same_files(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, 4, size=24, defects=["stain"])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 7
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DiskError, match="in use"):
        write(tmp_path, 2)
    with pytest.raises(DiskError, match="in use"):
        write(tmp_path / "mine.txt", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 3, "defects": ["dent", "rust"]}, {"count": 3, "size": 4}])
def test_nothing_is_written_for_a_wrong_setting(tmp_path, wrong):
    with pytest.raises(SettingError):
        write(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
