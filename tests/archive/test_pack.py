"""Every image comes back from its stream, whatever it is and in whatever encoding; the smallest encoding is the one that is used."""

from functools import cache

import imagecodecs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlae.archive import coder
from vlae.archive import pack as module
from vlae.archive.coder import Decoded, decode
from vlae.archive.pack import Plain, pack, unpack
from vlae.data.exact import png
from vlae.data.parts import draw

from .build import encoder, expected, made, plan

PLANS = {
    "grey": plan("stack2"),
    "rgb": plan("stack2", colours=3),
    "bits": plan("stack2", levels=2, code="none"),
    "16 bits": plan("stack2", levels=65536),
    "codeless": plan("stack2", code="none"),
    "vector": plan("stack2", code="vector", size=(6, 7)),
    "all": plan("all", size=(6, 7)),
}
FORMS = [(1, 1), *((depth, channels) for depth in (8, 16) for channels in (1, 2, 3, 4))]
MODEL_FORM = {"rgb": (8, 3), "bits": (1, 1), "16 bits": (16, 1)}


@pytest.fixture(autouse=True)
def tiles(monkeypatch):
    """So small that small images have many."""
    monkeypatch.setattr(module, "TILE", 8)
    monkeypatch.setattr(module, "EFFORT", 1)


@cache
def codec(name):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return made(PLANS[name], size=(6, 7), tame=True).codec


def packed(name, images, check=True):
    return pack(codec(name), encoder(codec(name)), images, check)


def back(name, found):
    return unpack(codec(name), [p.stored for p in found])


def same(image, pixels):
    return pixels.dtype == image.pixels.dtype and np.array_equal(pixels, image.pixels)


@st.composite
def images(draw, size=None):
    """An image of any form and kind, ragged at the tiles' edges or not."""
    form = draw(st.sampled_from(FORMS))
    size = size or draw(st.sampled_from([(6, 7), (1, 1), (1, 17), (19, 1), (8, 8), (16, 8), (9, 21), (5, 30)]))
    seed, top = draw(st.integers(0, 99)), 2 ** form[0] - 1
    random = np.random.default_rng(seed)
    image = expected(form, size, seed)
    kind = draw(st.sampled_from(["expected", "noise", "constant", "contrast", "greys", "two values"]))
    if kind == "noise":
        image.pixels[:] = random.integers(0, top + 1, image.pixels.shape)
    elif kind == "constant":
        image.pixels[:] = random.integers(0, top + 1)
    elif kind == "contrast":
        image.pixels[:] = (random.integers(0, 2, image.pixels.shape) * top).astype(image.pixels.dtype)
    elif kind == "greys":
        image.pixels[:] = image.pixels[..., :1]
    elif kind == "two values":
        image.pixels[:] = np.where(image.pixels[..., :1] > top // 2, top, 0)
    return image


@given(st.sampled_from(list(PLANS)), st.data())
def test_every_image_comes_back_alone_and_among_others(name, data):
    some = data.draw(st.lists(images(), min_size=1, max_size=4))
    found = packed(name, some)
    assert all(same(image, pixels) for image, pixels in zip(some, back(name, found), strict=True))
    for image, one in zip(some, found, strict=True):
        assert [alone.stored for alone in packed(name, [image])] == [one.stored]
        assert one.stored.size == image.pixels.shape[:2] and one.stored.form == image.form


@given(st.sampled_from(list(PLANS)), images())
def test_the_smallest_encoding_is_used(name, image):
    plane = np.ascontiguousarray(image.pixels[..., 0] if image.form.channels == 1 else image.pixels)
    other = min(len(png(*image)), len(imagecodecs.jpegxl_encode(plane, lossless=True, effort=1, numthreads=1)))
    (found,) = packed(name, [image])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "png", lambda pixels, depth, level: bytes(10**6))
        patched.setattr(module, "_jpeg_xl", lambda image, effort: None)
        (forced,) = packed(name, [image])
    ours = len(forced.stored.stream) if forced.stored.encoding == "vlae" else np.inf
    assert found.other_bytes == other and len(found.stored.stream) == min(ours, other)
    assert (found.stored.encoding == "vlae") == (ours <= other)
    assert np.isnan(found.pixel_bits) == np.isnan(found.code_bits) == (ours == np.inf)
    if ours < np.inf:
        assert same(image, back(name, [forced])[0])
        words = 4 * -(-image.pixels.shape[0] // 8) * -(-image.pixels.shape[1] // 8)
        assert (found.pixel_bits + found.code_bits) / 8 - 1 <= ours <= (found.pixel_bits + found.code_bits) / 8 + 4 * words


def pictures():
    """Of many kinds, large enough for an estimate."""
    random, size = np.random.default_rng(0), (200, 200)
    rows, columns = np.mgrid[: size[0], : size[1]]
    known = expected((8, 1), size, 5).pixels[..., 0]
    return {
        "known": known,
        "known, with a flat border": np.pad(known[:150, :150], 25, constant_values=128),
        "known, repeated": np.tile(known[:25, :20], (8, 10)),
        "noise": random.integers(0, 256, size),
        "flat, with few words": np.where(random.integers(0, 60, size) == 0, 20, 128),
        "gradient": rows // 2 + columns // 3,
        "dithered": 127 + (rows + columns + random.integers(0, 380, size) > 380).astype(int),
        "drawn part": draw(3, 200).image,
    }


@pytest.mark.parametrize("name", pictures())
def test_an_estimate_of_the_other_encodings_misses_nothing_smaller(name, monkeypatch):
    monkeypatch.setattr(module, "EFFORT", 7)
    image = Plain(pictures()[name].astype(np.uint8)[..., None], 8)
    estimate, other = module._estimated(image), len(module._other(image)[1])
    assert module.CLEARLY * estimate <= other
    assert estimate == 0 or estimate >= 0.95 * other
    assert (estimate > 0) == (name in {"known", "known, with a flat border", "noise", "drawn part"})


def test_other_encodings_are_tried_in_full_only_where_the_estimate_asks_for_it(monkeypatch):
    image = expected((8, 1), (20, 29))
    monkeypatch.setattr(module, "_other", lambda image: ("png", bytes(10)))
    (found,) = packed("grey", [image])
    assert (found.stored.encoding, found.other_bytes) == ("png", 10)
    monkeypatch.setattr(module, "_estimated", lambda image: 10**6)
    (found,) = packed("grey", [image])
    assert (found.stored.encoding, found.other_bytes) == ("vlae", 10**6)


@pytest.mark.parametrize("name", PLANS)
def test_a_model_codes_images_of_its_own_in_its_own_encoding(name):
    """Else these tests would be of JPEG XL."""
    form = MODEL_FORM.get(name, (8, 1))
    size = (6, 7) if name in ("vector", "all") else (20, 29)
    (found,) = packed(name, [expected(form, size)])
    assert found.stored.encoding == "vlae" and len(found.stored.stream) < found.other_bytes


def test_greys_in_rgb_and_two_values_in_8_bits_are_coded_by_the_models_of_less():
    grey, bits = expected((8, 1), (20, 9)), expected((1, 1), (20, 9))
    cases = {
        "grey": Plain(grey.pixels.repeat(3, axis=2), 8),
        "bits": Plain(bits.pixels * np.uint8(255), 8),
        "16 bits": Plain(grey.pixels * np.uint16(257), 16),
    }
    for name, image in cases.items():
        found = packed(name, [image])
        assert not np.isnan(found[0].pixel_bits) and same(image, back(name, found)[0])
    cases["grey"].pixels[3, 3, 1] ^= 1
    cases["bits"].pixels[3, 3, 0] = 254
    for name in ("grey", "bits"):
        found = packed(name, [cases[name]])
        assert found[0].stored.encoding != "vlae" and same(cases[name], back(name, found)[0])


@pytest.mark.parametrize("name", ["grey", "vector"])
def test_the_code_is_that_of_the_whole_image_tile_by_tile(name):
    image = expected((8, 1), (6, 7) if name == "vector" else (20, 29))
    (found,) = packed(name, [image])
    whole = codec(name).codebook.index(encoder(codec(name))(torch.from_numpy(image.pixels).float().permute(2, 0, 1)[None]))[0].numpy()
    assert np.array_equal(found.code, whole[:, None, None] if name == "vector" else whole) and found.code.dtype == np.int16


@pytest.mark.parametrize("name, size", [("grey", (20, 29)), ("vector", (6, 7))])
def test_a_code_that_was_dropped_is_not_worked_out(name, size):
    """Where its steps are larger than every code."""
    some, there = [expected((8, 1), size, seed) for seed in range(3)], made(PLANS[name], coarseness=1e9, tame=True).codec

    def unasked(x):
        raise AssertionError("the encoder was run")

    assert there.codebook.only.tolist() == [0] * there.plan.dims and codec("grey").codebook.only is None
    found, wanted = pack(there, unasked, some), pack(there, encoder(there), some)
    assert [p.stored for p in found] == [p.stored for p in wanted] and {p.stored.encoding for p in found} == {"vlae"}
    assert all(np.array_equal(p.code, w.code) and not p.code.any() and p.code.size for p, w in zip(found, wanted, strict=True))
    assert all(same(image, pixels) for image, pixels in zip(some, unpack(there, [p.stored for p in found]), strict=True))


def test_how_many_are_worked_on_at_once_does_not_matter(monkeypatch):
    some = [expected((8, 1), size, seed) for seed, size in enumerate([(20, 9), (8, 16), (20, 9), (1, 1)])]
    found = [p.stored for p in packed("grey", some)]
    for at_once in (1, 100):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        assert [p.stored for p in packed("grey", some)] == found
        assert all(same(image, pixels) for image, pixels in zip(some, unpack(codec("grey"), found), strict=True))


def test_a_stream_that_does_not_give_the_image_back_is_never_used(monkeypatch):
    some = [expected((8, 1), (20, 29), seed) for seed in range(3)]

    def wrong(codec, words, size):
        code, x = decode(codec, words, size)
        if size == (8, 8):
            x[5, 0, 7, 7] = (x[5, 0, 7, 7] + 1) % 256  # one pixel of one tile: of the first image, which has six of this size
        return Decoded(code, x)

    with monkeypatch.context() as patched:
        patched.setattr(coder, "decode", wrong)
        found = packed("grey", some)
        assert [p.stored.encoding for p in packed("grey", some, check=False)] == ["vlae"] * 3, "unless nobody looks"
    assert [p.stored.encoding == "vlae" for p in found] == [False, True, True]
    assert np.isnan(found[0].pixel_bits) and not found[0].code.size
    assert all(same(image, pixels) for image, pixels in zip(some, back("grey", found), strict=True))


def test_so_it_is_with_jpeg_xl(monkeypatch):
    image = expected((8, 3), (40, 50))
    monkeypatch.setattr(module, "EFFORT", 7)
    assert packed("grey", [image])[0].stored.encoding == "jxl"
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", lambda data: np.zeros((40, 50, 3), np.uint8))
    assert packed("grey", [image])[0].stored.encoding == "png"
