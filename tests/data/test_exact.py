import io
import os
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vlae.data.exact import BEHIND, FILLING, HOLDS_MORE, LOSSY, OTHER_COLOURS, Exact, read_exact, write_exact
from vlae.data.read import Refused, read_image
from vlae.errors import DiskError

from .samples import noise, save

GREY, RGB, LA, RGBA = noise(7, 5), noise(7, 5, 3), noise(7, 5, 2), noise(7, 5, 4)
BITS, CLEAR = GREY > 127, np.dstack([RGB, np.zeros_like(GREY)])
DEEP = {channels: noise(7, 5, channels, dtype=np.uint16) for channels in (1, 2, 3, 4)}
PROFILE = noise(500).tobytes()


def png(colour_type: int, bits: int, values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any colour type and depth, put together chunk by chunk."""
    height, width, _ = values.shape
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:  # the highest of each value's ``bits`` bits first
        rows = [np.packbits(np.unpackbits(row.reshape(-1, 1), axis=1)[:, 8 - bits :]).tobytes() for row in values]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    every = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b""))
    return png_of(every)


def png_of(chunks: tuple[tuple[bytes, bytes], ...]) -> bytes:
    body = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def bmp(rgba: np.ndarray) -> bytes:
    """A BMP with masks for red, green, blue and alpha, its lowest row first."""
    masks = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII4I", 56, rgba.shape[1], rgba.shape[0], 1, 32, 3, rgba.size, 0, 0, 0, 0, *masks)
    return b"BM" + struct.pack("<IHHI", 70 + rgba.size, 0, 0, 70) + header + rgba[::-1].tobytes()


def bytes_of(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def pillow(values: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    image = Image.merge("LA", [Image.fromarray(values[..., i]) for i in (0, 1)]) if mode == "LA" else Image.fromarray(values)
    return bytes_of(image, kind, **options)


def assert_same(one: Exact, other: Exact) -> None:
    assert np.array_equal(one.pixels, other.pixels) and one.pixels.dtype == other.pixels.dtype
    assert one[1:5] == other[1:5]


UNASSOCIATED = {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
EXACT = {
    "1-bit png": (pillow(BITS, "PNG"), BITS, 1),
    "1-bit bmp": (pillow(BITS, "BMP"), BITS, 1),
    "1-bit tiff": (pillow(BITS, "TIFF"), BITS, 1),
    "1-bit fax tiff": (pillow(BITS, "TIFF", compression="group4"), BITS, 1),
    "grey png": (pillow(GREY, "PNG"), GREY, 8),
    "grey bmp": (pillow(GREY, "BMP"), GREY, 8),
    "grey tiff": (pillow(GREY, "TIFF"), GREY, 8),
    "rgb png": (pillow(RGB, "PNG"), RGB, 8),
    "rgb bmp": (pillow(RGB, "BMP"), RGB, 8),
    "rgb tiff": (pillow(RGB, "TIFF", compression="tiff_lzw"), RGB, 8),
    "rgb tiff in planes": (tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"), RGB, 8),
    "rgb webp": (pillow(RGB, "WEBP", lossless=True), RGB, 8),
    "grey and alpha png": (pillow(LA, "PNG", "LA"), LA, 8),
    "grey and alpha tiff": (tiff(LA, photometric="minisblack", **UNASSOCIATED), LA, 8),
    "rgba png": (pillow(RGBA, "PNG"), RGBA, 8),
    "rgba bmp": (bmp(RGBA), RGBA, 8),
    "rgba tiff": (tiff(RGBA, photometric="rgb", **UNASSOCIATED), RGBA, 8),
    "rgba webp": (pillow(RGBA, "WEBP", lossless=True, exact=True), RGBA, 8),
    "16-bit png": (pillow(DEEP[1][..., 0], "PNG"), DEEP[1], 16),
    "16-bit grey and alpha png": (imagecodecs.png_encode(DEEP[2]), DEEP[2], 16),
    "16-bit rgb png": (imagecodecs.png_encode(DEEP[3]), DEEP[3], 16),
    "16-bit rgba png": (imagecodecs.png_encode(DEEP[4]), DEEP[4], 16),
    "16-bit rgb png by hand": (png(2, 16, DEEP[3]), DEEP[3], 16),
    "16-bit tiff": (tiff(DEEP[1][..., 0], photometric="minisblack", byteorder=">"), DEEP[1], 16),
    "16-bit grey and alpha tiff": (tiff(DEEP[2], photometric="minisblack", **UNASSOCIATED), DEEP[2], 16),
    "16-bit rgb tiff": (tiff(DEEP[3], photometric="rgb", compression="zlib"), DEEP[3], 16),
    "16-bit rgba tiff": (tiff(DEEP[4], photometric="rgb", byteorder=">", **UNASSOCIATED), DEEP[4], 16),
    "colours under full transparency": (pillow(CLEAR, "PNG"), CLEAR, 8),
}


@pytest.mark.parametrize("content, pixels, depth", EXACT.values(), ids=EXACT)
def test_every_kind_is_read_and_written_exactly(tmp_path, content, pixels, depth):
    (tmp_path / "a").write_bytes(content)
    image = read_exact(tmp_path / "a")
    assert np.array_equal(image.pixels, pixels.reshape(7, 5, -1)) and image.depth == depth
    assert image.pixels.dtype == (np.uint16 if depth == 16 else np.uint8)
    assert image.orientation == 1 and image.icc is None and image.notes == ()
    write_exact(tmp_path / "b.png", image)
    assert_same(read_exact(tmp_path / "b.png"), image)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@pytest.mark.parametrize("colour_type, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_interlaced_16_bits(tmp_path, colour_type, channels):
    pixels = noise(13, 11, channels, dtype=np.uint16)
    rows = [row for x, y, dx, dy in ADAM7 for row in pixels[y::dy, x::dx]]
    packed = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 11, 13, 16, colour_type, 0, 0, 1)), (b"IDAT", packed), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(png_of(chunks))
    assert np.array_equal(read_exact(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("pixels", [noise(16, 16), noise(16, 16, 3)], ids=["grey", "rgb"])
def test_of_a_jpeg_the_pixels_are_kept(tmp_path, pixels):
    path = save(tmp_path / "a.jpg", pixels)
    assert np.array_equal(read_exact(path).pixels.squeeze(), np.asarray(Image.open(path)))


def test_the_main_picture_of_a_phone_jpeg(tmp_path):
    images = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in (0, 1)]
    images[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=images[1:])
    image = read_exact(tmp_path / "a.jpg")
    assert image.notes == ("main picture of several in a JPEG", LOSSY)
    assert np.array_equal(image.pixels, read_exact(save(tmp_path / "b.jpg", noise(16, 16, 3))).pixels)


FEW = noise(7, 5) % 4
COLOURS = noise(4, 3, seed=3)
ALPHAS = np.array([[0], [100], [255], [255]], np.uint8)
PLTE, TRNS = (b"PLTE", COLOURS.tobytes()), (b"tRNS", ALPHAS[:2].tobytes())
DEEP_COLOURS = noise(4, 3, dtype=np.uint16)


def palette_tiff(colours: np.ndarray) -> bytes:
    return tiff(FEW, photometric="palette", colormap=np.vstack([colours, np.zeros((252, 3), np.uint16)]).T)


def alpha_where(pixels: np.ndarray, key: list[int], top: int) -> np.ndarray:
    return np.dstack([pixels, np.where((pixels == key).all(axis=2), 0, top).astype(pixels.dtype)])


SPREAD = FEW[..., None] * np.uint8(85)
UNDONE = {
    "palette": (png(3, 8, FEW[..., None], PLTE), COLOURS[FEW], "palette to RGB"),
    "palette of 2 bits": (png(3, 2, FEW[..., None], PLTE), COLOURS[FEW], "palette to RGB"),
    "palette with alpha": (png(3, 2, FEW[..., None], PLTE, TRNS), np.hstack([COLOURS, ALPHAS])[FEW], "palette to RGB"),
    "palette with one transparent": (
        png(3, 8, FEW[..., None], PLTE, (b"tRNS", b"\xff\0")),
        np.hstack([COLOURS, [[255], [0], [255], [255]]])[FEW],
        "palette to RGB",
    ),
    "palette tiff": (palette_tiff(COLOURS.astype(np.uint16) * 257), COLOURS[FEW], "palette to RGB"),
    "palette tiff with zeros below": (palette_tiff(COLOURS.astype(np.uint16) * 256), COLOURS[FEW], "palette to RGB"),
    "palette tiff of 16 bits": (palette_tiff(DEEP_COLOURS), DEEP_COLOURS[FEW], "palette to RGB"),
    "2-bit png": (png(0, 2, FEW[..., None]), SPREAD, "2-bit values spread over 8 bits"),
    "4-bit png": (png(0, 4, FEW[..., None]), FEW[..., None] * 17, "4-bit values spread over 8 bits"),
    "2-bit tiff": (tiff(FEW, photometric="minisblack", bitspersample=2), SPREAD, "2-bit values spread over 8 bits"),
    "4-bit tiff": (tiff(FEW, photometric="minisblack", bitspersample=4), FEW[..., None] * 17, "4-bit values spread over 8 bits"),
    "1-bit png with a key": (
        png(0, 1, FEW[..., None] % 2, (b"tRNS", b"\0\1")),
        alpha_where(FEW[..., None] % 2 * np.uint8(255), [255], 255),
        "transparent colour to alpha",
    ),
    "2-bit png with a key": (png(0, 2, FEW[..., None], (b"tRNS", b"\0\2")), alpha_where(SPREAD, [170], 255), "transparent colour to alpha"),
    "grey png with a key": (png(0, 8, FEW[..., None], (b"tRNS", b"\0\3")), alpha_where(FEW[..., None], [3], 255), "transparent colour to alpha"),
    "rgb png with a key": (
        png(2, 8, RGB, (b"tRNS", RGB[2, 3].astype(">u2").tobytes())),
        alpha_where(RGB, RGB[2, 3], 255),
        "transparent colour to alpha",
    ),
    "16-bit png with a key": (
        png(0, 16, DEEP[1], (b"tRNS", DEEP[1][4, 4].astype(">u2").tobytes())),
        alpha_where(DEEP[1], DEEP[1][4, 4], 65535),
        "transparent colour to alpha",
    ),
    "16-bit rgb png with a key": (
        png(2, 16, DEEP[3], (b"tRNS", DEEP[3][4, 4].astype(">u2").tobytes())),
        alpha_where(DEEP[3], DEEP[3][4, 4], 65535),
        "transparent colour to alpha",
    ),
    "white is zero": (tiff(GREY, photometric="miniswhite"), 255 - GREY, "zero was white"),
    "white is zero, with alpha": (
        tiff(LA, photometric="miniswhite", **UNASSOCIATED),
        np.dstack([255 - LA[..., 0], LA[..., 1]]),
        "zero was white",
    ),
    "premultiplied": (
        tiff(RGBA, photometric="rgb", extrasamples=["assocalpha"]),
        RGBA,
        "colours multiplied by alpha, kept so",
    ),
}


@pytest.mark.parametrize("content, pixels, note", UNDONE.values(), ids=UNDONE)
def test_what_can_be_undone_is_done_and_noted(tmp_path, content, pixels, note):
    (tmp_path / "a").write_bytes(content)
    image = read_exact(tmp_path / "a")
    assert np.array_equal(image.pixels, pixels.reshape(7, 5, -1)) and note in image.notes
    write_exact(tmp_path / "b.png", image)
    assert_same(read_exact(tmp_path / "b.png"), image)


def test_one_bit_where_zero_is_white_stays_one_bit(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(BITS, photometric="miniswhite"))
    image = read_exact(tmp_path / "a.tif")
    assert image.depth == 1 and np.array_equal(image.pixels[..., 0], ~BITS)


def test_colours_of_one_bit_are_spread(tmp_path):
    bits = RGB > 127
    strip = np.packbits(bits.reshape(7, -1), axis=1).tobytes()
    tags = [(256, 5), (257, 7), (258, 1), (259, 1), (262, 2), (273, 8 + 2 + 9 * 12 + 4), (277, 3), (278, 7), (279, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 9) + entries + b"\0\0\0\0" + strip)
    image = read_exact(tmp_path / "a.tif")
    assert image.depth == 8 and np.array_equal(image.pixels, bits * 255)
    assert image.notes == ("1-bit values spread over 8 bits",)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_orientation_profile_and_exif_are_kept_and_nothing_is_turned(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "a maker"
    exif[34665] = {36867: "2020:01:01 00:00:00"}
    options = {"lossless": True} if name == "a.webp" else {}
    path = save(tmp_path / name, RGB, exif=exif.tobytes(), icc_profile=PROFILE, **options)
    image = read_exact(path)
    assert np.array_equal(image.pixels, np.asarray(Image.open(path)) if name == "a.jpg" else RGB)
    assert image.orientation == orientation and image.icc == PROFILE and image.exif.startswith(b"Exif\0\0")
    write_exact(tmp_path / "b.png", image)
    assert_same(read_exact(tmp_path / "b.png"), image)
    with Image.open(tmp_path / "b.png") as written:
        found = written.getexif()
        assert found[274] == orientation and found[271] == "a maker" and 273 not in found
        assert found.get_ifd(34665)[36867] == "2020:01:01 00:00:00"
        assert written.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("name", ["1-bit png", "grey png", "grey and alpha png", "rgba png", "16-bit png", "16-bit rgb png", "16-bit rgba png"])
def test_every_form_carries_profile_and_orientation(tmp_path, name):
    _, pixels, depth = EXACT[name]
    image = Exact(pixels.reshape(7, 5, -1).astype(np.uint16 if depth == 16 else np.uint8), depth, orientation=3, icc=PROFILE)
    write_exact(tmp_path / "a.png", image)
    back = read_exact(tmp_path / "a.png")
    assert np.array_equal(back.pixels, image.pixels) and back[1:4] == image[1:4]
    with Image.open(tmp_path / "a.png") as written:
        assert written.getexif()[274] == 3 and written.info["icc_profile"] == PROFILE
    assert np.array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), np.squeeze(pixels) * (255 if depth == 1 else 1))


def test_an_orientation_that_only_xmp_tells_gets_into_the_exif(tmp_path):
    path = save(tmp_path / "a.jpg", RGB, xmp=b'<x tiff:Orientation="6"/>')
    image = read_exact(path)
    assert image.orientation == 6
    write_exact(tmp_path / "b.png", image)
    assert_same(read_exact(tmp_path / "b.png"), image)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = read_exact(save(tmp_path / "a.png", RGB, exif=exif))
    assert image.orientation == 1 and image.exif == exif.tobytes()
    write_exact(tmp_path / "b.png", image)
    assert_same(read_exact(tmp_path / "b.png"), image)


def test_unreadable_exif_is_kept_as_it_is(tmp_path):
    image = read_exact(save(tmp_path / "a.png", RGB, exif=b"Exif\0\0garbage"))
    assert image.exif == b"Exif\0\0garbage" and image.notes == ("unreadable EXIF ignored",)
    write_exact(tmp_path / "b.png", image)
    assert_same(read_exact(tmp_path / "b.png"), image)


def test_a_wrong_name_is_noted(tmp_path):
    save(tmp_path / "a.png", GREY).rename(tmp_path / "a.jpg")
    assert read_exact(tmp_path / "a.jpg").notes == ("named .jpg but is PNG",)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    form=st.sampled_from([(1, 1), *((depth, channels) for depth in (8, 16) for channels in (1, 2, 3, 4))]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    orientation=st.integers(1, 8),
    icc=st.none() | st.binary(min_size=1, max_size=300),
)
def test_what_is_written_is_read_back(tmp_path_factory, data, form, size, orientation, icc):
    depth, channels = form
    dtype = np.uint16 if depth == 16 else np.uint8
    pixels = data.draw(hnp.arrays(dtype, (*size, channels), elements=st.integers(0, 2**depth - 1)))
    path = tmp_path_factory.mktemp("exact") / "a.png"
    write_exact(path, Exact(pixels, depth, orientation, icc))
    image = read_exact(path)
    assert np.array_equal(image.pixels, pixels) and image[1:4] == (depth, orientation, icc) and image.pixels.dtype == dtype
    assert (image.exif is None) == (orientation == 1)
    write_exact(path, image)
    assert_same(read_exact(path), image)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_a_file_that_cannot_be_written_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="cannot be written"):
        write_exact(tmp_path / "file" / "a.png", Exact(GREY[..., None], 8))


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in (0, 1)]
    return bytes_of(frames[0], kind, save_all=True, append_images=frames[1:])


PLAIN, CMYK = Image.fromarray(RGB), Image.new("CMYK", (5, 7), (10, 20, 30, 40))
REFUSED = {
    "empty": (b"", "empty file"),
    "text": (b"a text that is no image", "not an image"),
    "gif": (bytes_of(PLAIN, "GIF"), "GIF"),
    "animated png": (animated("PNG"), "animated .2 frames"),
    "animated webp": (animated("WEBP"), "animated .2 frames"),
    "pages": (tiff(noise(3, 7, 5), photometric="minisblack"), "3 pages"),
    "cmyk jpeg": (bytes_of(CMYK, "JPEG"), "CMYK"),
    "cmyk tiff": (bytes_of(CMYK, "TIFF"), "CMYK"),
    "lab tiff": (bytes_of(Image.new("LAB", (5, 7)), "TIFF"), "CIELAB"),
    "ycbcr tiff": (bytes_of(Image.new("YCbCr", (5, 7)), "TIFF"), "YCBCR"),
    "float tiff": (tiff(np.zeros((7, 5), np.float32), photometric="minisblack"), "float32"),
    "signed tiff": (tiff(np.zeros((7, 5), np.int16), photometric="minisblack"), "int16"),
    "32-bit tiff": (tiff(np.zeros((7, 5), np.uint32), photometric="minisblack"), "uint32"),
    "many channels": (tiff(noise(7, 5, 6), photometric="minisblack", planarconfig="contig"), "6 channels"),
    "unknown channel": (tiff(RGBA, photometric="rgb", extrasamples=["unspecified"]), "a channel of unknown meaning"),
    "too large": (png(0, 8, noise(200, 300, 1)), "200 x 300 pixels, more than data.max_pixels 50000"),
    "long profile": (bytes_of(PLAIN, "JPEG", icc_profile=b"\0" * 1_100_000), "colour profile of 1100000 bytes"),
}


@pytest.mark.parametrize("content, reason", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(Refused, match=reason):
        read_exact(path, max_pixels=50_000)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("absent", "No such file"), (".", "not a regular file"), ("pipe", "not a regular file")):
        with pytest.raises(Refused, match=reason):
            read_exact(tmp_path / name)


LARGER = noise(40, 40, 3)
WHOLE = {
    "png": pillow(LARGER, "PNG"),
    "16-bit rgb png": png(2, 16, noise(40, 40, 3, dtype=np.uint16)),
    "16-bit grey and alpha png": png(4, 16, noise(40, 40, 2, dtype=np.uint16)),
    "keyed png": png(0, 4, noise(40, 40, 1) % 16, (b"tRNS", b"\0\5")),
    "palette png": png(3, 8, noise(40, 40, 1) % 4, PLTE, TRNS),
    "jpeg": pillow(LARGER, "JPEG", icc_profile=PROFILE),
    "bmp": pillow(LARGER, "BMP"),
    "webp": pillow(LARGER, "WEBP", lossless=True),
    "tiff": tiff(LARGER, photometric="rgb"),
    "zipped tiff": tiff(noise(40, 40, dtype=np.uint16), photometric="minisblack", compression="zlib"),
    "palette tiff": palette_tiff(DEEP_COLOURS),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
def test_files_that_are_cut_short_are_refused(tmp_path, content, share):
    (tmp_path / "a").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(Refused):
        read_exact(tmp_path / "a")


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans()), min_size=1, max_size=8),
)
def test_damaged_files_end_in_an_image_or_are_refused(tmp_path_factory, kind, changes):
    content = bytearray(WHOLE[kind])
    for place, value, early in changes:  # most of what decides lies near the beginning
        content[int(place * (min(200, len(content)) if early else len(content)))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        image = read_exact(path, max_pixels=1_000_000)
    except Refused:
        return
    assert image.pixels.ndim == 3 and 1 <= image.pixels.shape[2] <= 4 and image.pixels.max() < 2**image.depth
    write_exact(path, image)
    assert_same(read_exact(path), image)


def test_a_damaged_png_prints_nothing_and_can_be_met_without_end(tmp_path, capfd):
    (tmp_path / "a.png").write_bytes(WHOLE["16-bit rgb png"][:3000])
    for _ in range(50):
        with pytest.raises(Refused):
            read_exact(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


def test_read_image_shows_what_is_exact(tmp_path):
    """Both readers agree where nothing has to be turned, blended or rounded."""
    for name, (content, _, depth) in EXACT.items():
        (tmp_path / "a").write_bytes(content)
        image = read_exact(tmp_path / "a")
        if image.pixels.shape[2] == 1 or (image.pixels.shape[2] == 3 and depth == 8):
            assert np.array_equal(read_image(tmp_path / "a").pixels, image.pixels), name


def bmp(fourth):
    """A BMP of 3x2 pixels of 32 bits whose header says nothing of alpha."""
    pixels = b"".join(bytes([n, n, n, value]) for n, value in enumerate(fourth))
    return (
        b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 3, 2, 1, 32, 0, len(pixels), 0, 0, 0, 0) + pixels
    )


def png_with(*chunks, behind=b""):
    whole = save_png(noise(4, 5))
    at = whole.index(b"IDAT") - 4
    more = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return whole[:at] + more + whole[at:] + behind


def save_png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


GAMMA = b"gAMA", struct.pack(">I", 100000)


@pytest.mark.parametrize(
    "data, note",
    [
        (bmp([7] * 6), None),
        (bmp([0, 1, 2, 3, 4, 5]), FILLING),
        (png_with(), None),
        (png_with((b"gAMA", struct.pack(">I", 45455))), None),
        (png_with(GAMMA), OTHER_COLOURS),
        (png_with((b"sRGB", b"\0"), GAMMA), None),
        (png_with((b"cICP", bytes([9, 16, 0, 1]))), OTHER_COLOURS),
        (png_with(behind=b"a film"), BEHIND),
    ],
)
def test_what_a_file_holds_besides_its_picture_is_noted(tmp_path, data, note):
    path = tmp_path / "a"
    path.write_bytes(data)
    notes = read_exact(path).notes
    assert notes == ((note,) if note else ()) and HOLDS_MORE.isdisjoint(notes) == (note is None)


def test_an_image_longer_than_any_png_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "line.tif", np.zeros((1, 1_000_001), np.uint8))
    with pytest.raises(Refused, match="a side of 1000001 pixels"):
        read_exact(tmp_path / "line.tif")
