import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from vlae.data.read import read_image, sniff, write_png
from vlae.errors import DataError, DiskError

from .samples import noise, save

GREY, RGB, BITS, DEEP = noise(7, 5), noise(7, 5, 3), noise(7, 5) > 127, noise(7, 5, dtype=np.uint16)

EXACT = {
    "grey png": (GREY, "a.png", {}, 8),
    "grey bmp": (GREY, "a.bmp", {}, 8),
    "grey tiff": (GREY, "a.tif", {}, 8),
    "rgb png": (RGB, "a.png", {}, 8),
    "rgb bmp": (RGB, "a.bmp", {}, 8),
    "rgb tiff": (RGB, "a.tiff", {}, 8),
    "rgb webp": (RGB, "a.webp", {"lossless": True}, 8),
    "1-bit png": (BITS, "a.png", {}, 1),
    "1-bit bmp": (BITS, "a.bmp", {}, 1),
    "1-bit tiff": (BITS, "a.tif", {}, 1),
    "1-bit fax tiff": (BITS, "a.tif", {"compression": "group4"}, 1),
    "16-bit png": (DEEP, "a.png", {}, 16),
    "16-bit tiff": (DEEP, "a.tif", {}, 16),
    "16-bit lzw tiff": (DEEP, "a.tif", {"compression": "tiff_lzw"}, 16),
}


@pytest.mark.parametrize("pixels, name, options, depth", EXACT.values(), ids=EXACT)
def test_every_lossless_format_is_read_exactly(tmp_path, pixels, name, options, depth):
    picture = read_image(save(tmp_path / name, pixels, **options))
    assert picture.depth == depth and picture.notes == ()
    assert picture.pixels.dtype == (np.uint16 if depth == 16 else np.uint8)
    assert picture.pixels.shape == (7, 5, 3 if pixels.ndim == 3 else 1)
    assert np.array_equal(picture.pixels.squeeze(), pixels)


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_jpeg_is_read_as_pillow_shows_it(tmp_path, pixels):
    path = save(tmp_path / "a.JPEG", pixels, quality=90)
    assert np.array_equal(read_image(path).pixels.squeeze(), np.asarray(Image.open(path)))


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    depth=st.sampled_from([1, 8, 16]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.sampled_from([1, 3]),
)
def test_what_is_written_as_png_is_read_back(tmp_path_factory, data, depth, size, channels):
    shape = (*size, channels if depth == 8 else 1)
    dtype = np.uint16 if depth == 16 else np.uint8
    pixels = data.draw(hnp.arrays(dtype, shape, elements=st.integers(0, 2**depth - 1)))
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_png(path, pixels, depth)
    picture = read_image(path)
    assert picture.depth == depth and np.array_equal(picture.pixels, pixels)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_png_that_cannot_be_written_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="cannot be written"):
        write_png(tmp_path / "file" / "a.png", GREY[..., None], 8)


@settings(max_examples=25, deadline=None)
@given(pixels=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)), big=st.booleans(), zipped=st.booleans())
def test_16_bit_tiff_is_exact_in_both_byte_orders(tmp_path_factory, pixels, big, zipped):
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    options = {"photometric": "minisblack", "byteorder": ">" if big else "<", "compression": "zlib" if zipped else None}
    tifffile.imwrite(path, pixels, **options)
    assert np.array_equal(read_image(path).pixels[..., 0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_images_are_turned_as_exif_says(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / name, RGB, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_image(path)
    assert np.array_equal(picture.pixels, expected)
    assert ("turned as EXIF says" in picture.notes) == (orientation > 1)


@pytest.mark.parametrize("orientation", [None, 6])
def test_a_tiff_of_tifffile_is_turned_too(tmp_path, orientation):
    path = tmp_path / "a.tif"
    tags = [] if orientation is None else [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, DEEP, photometric="minisblack", extratags=tags)
    expected = DEEP if orientation is None else np.rot90(DEEP, -1)
    assert np.array_equal(read_image(path).pixels[..., 0], expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path, name, mode):
    image = Image.fromarray(noise(7, 5, 4)).convert(mode)
    image.save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")).astype(int)
    picture = read_image(tmp_path / name)
    assert np.abs(picture.pixels - expected).max() <= 1  # Pillow composites with another rounding
    assert picture.notes == ("transparency laid over white",)
    assert picture.pixels.shape[2] == (1 if mode == "LA" and name != "a.webp" else 3)


def test_an_opaque_alpha_is_dropped(tmp_path):
    rgba = np.dstack([RGB, np.full((7, 5), 255, np.uint8)])
    picture = read_image(save(tmp_path / "a.png", rgba))
    assert np.array_equal(picture.pixels, RGB) and picture.notes == ("opaque alpha dropped",)


def test_premultiplied_and_unknown_extra_channels_of_tiff(tmp_path):
    half = np.dstack([RGB // 2, np.full((7, 5), 128, np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", half, photometric="rgb", extrasamples=["assocalpha"])
    assert np.array_equal(read_image(tmp_path / "a.tif").pixels, RGB // 2 + 127)
    tifffile.imwrite(tmp_path / "b.tif", half, photometric="rgb", extrasamples=["unspecified"])
    picture = read_image(tmp_path / "b.tif")
    assert np.array_equal(picture.pixels, RGB // 2) and picture.notes == ("channel of unknown meaning dropped",)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_palettes_become_rgb(tmp_path, name):
    colours = noise(4, 3, seed=3)
    index = noise(7, 5) % 4
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert np.array_equal(picture.pixels, colours[index]) and picture.notes == ("palette to RGB",)


def test_a_palette_with_a_transparent_colour_lies_over_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette(bytes([10, 20, 30, 40, 50, 60]))
    image.save(tmp_path / "a.png", transparency=1)
    picture = read_image(tmp_path / "a.png")
    assert picture.pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert picture.notes == ("palette to RGB", "transparency laid over white")


def png_16(colour_type: int, values: np.ndarray) -> bytes:
    """A 16-bit PNG of any colour type, put together chunk by chunk."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_16_bit_grey_png_keeps_every_bit(tmp_path):
    (tmp_path / "a.png").write_bytes(png_16(0, DEEP[..., None]))
    assert np.array_equal(read_image(tmp_path / "a.png").pixels[..., 0], DEEP)


def test_16_bit_rgb_keeps_the_upper_byte_and_says_so(tmp_path):
    deep = noise(7, 5, 3, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_16(2, deep))
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    for name in ("a.png", "a.tif"):
        picture = read_image(tmp_path / name)
        assert np.array_equal(picture.pixels, deep // 256) and picture.depth == 8
        assert picture.notes == ("16-bit values to 8 bits",)


def test_channels_in_separate_planes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(tmp_path / "a.tif").pixels, RGB)


def test_a_tiff_where_zero_is_white(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "b.tif", BITS, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "a.tif").pixels[..., 0], 255 - GREY)
    assert np.array_equal(read_image(tmp_path / "b.tif").pixels[..., 0], ~BITS)


def test_greys_of_four_bits_fill_the_scale(tmp_path):
    values = noise(7, 6) % 16
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", bitspersample=4)
    picture = read_image(tmp_path / "a.tif")
    assert picture.depth == 8 and np.array_equal(picture.pixels[..., 0], values * 17)


def test_a_jpeg_inside_a_tiff(tmp_path):
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, photometric="rgb", compression="jpeg")
    picture = read_image(tmp_path / "a.tif")
    assert picture.pixels.shape == (32, 32, 3) and np.abs(picture.pixels.astype(int) - smooth).mean() < 8


def test_the_content_decides_and_a_wrong_name_is_noted(tmp_path):
    save(tmp_path / "a.png", GREY).rename(tmp_path / "a.jpg")
    picture = read_image(tmp_path / "a.jpg")
    assert np.array_equal(picture.pixels[..., 0], GREY) and picture.notes == ("named .jpg but is PNG",)
    assert read_image(save(tmp_path / "b.png", GREY).rename(tmp_path / "b.dat")).notes == ()


def test_the_main_picture_of_a_phone_jpeg(tmp_path):
    images = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in (0, 1)]
    images[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=images[1:], quality=95)
    images[0].save(tmp_path / "b.jpg", quality=95)
    picture = read_image(tmp_path / "a.jpg")
    assert picture.notes == ("main picture of several in a JPEG",)
    assert np.array_equal(picture.pixels, read_image(tmp_path / "b.jpg").pixels)


def test_unreadable_exif_does_not_lose_the_image(tmp_path):
    picture = read_image(save(tmp_path / "a.png", RGB, exif=b"Exif\0\0garbage"))
    assert np.array_equal(picture.pixels, RGB) and picture.notes == ("unreadable EXIF ignored",)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT" + b"\0" * 8


def bytes_of(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in (0, 1)]
    return bytes_of(frames[0], kind, save_all=True, append_images=frames[1:])


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def camera() -> bytes:
    """As cameras keep their own pictures: a preview first, the picture below it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(noise(4, 6), subifds=1, subfiletype=1)
        writer.write(noise(8, 12))
    return buffer.getvalue()


CMYK = Image.new("CMYK", (5, 7), (10, 20, 30, 40))
PLAIN = Image.fromarray(RGB)

WIDTH_2 = struct.pack("<HHII", 256, 4, 1, 2)  # the entry of a TIFF that gives its width

REFUSED = {
    "empty": (b"", "0 bytes"),
    "text": (b"BMW, Mercedes and the like: a text that begins with BM", "not an image"),
    "gif": (bytes_of(PLAIN, "GIF"), "GIF"),
    "animated png": (animated("PNG"), "animated .2 frames"),
    "animated webp": (animated("WEBP"), "animated .2 frames"),
    "pages": (tiff(noise(3, 7, 5), photometric="minisblack"), "3 pages"),
    "planes": (tiff(noise(3, 7, 5), photometric="minisblack", truncate=True), "3 planes behind one page"),
    "preview": (camera(), "a preview"),
    "cmyk jpeg": (bytes_of(CMYK, "JPEG"), "CMYK"),
    "cmyk tiff": (bytes_of(CMYK, "TIFF"), "CMYK"),
    "lab tiff": (bytes_of(Image.new("LAB", (5, 7)), "TIFF"), "CIELAB"),
    "float tiff": (tiff(np.zeros((7, 5), np.float32), photometric="minisblack"), "float32"),
    "signed tiff": (tiff(np.zeros((7, 5), np.int16), photometric="minisblack"), "int16"),
    "32-bit tiff": (tiff(np.zeros((7, 5), np.uint32), photometric="minisblack"), "uint32"),
    "many channels": (tiff(noise(7, 5, 6), photometric="minisblack", planarconfig="contig"), "6 channels"),
    "20,000 x 20,000": (png_header(20_000, 20_000), "400000000 pixels"),
    "12,000 x 10,000": (png_header(12_000, 10_000), "10000 x 12000 pixels, more than data.max_pixels 100000000"),
    "huge tiff": (tiff(noise(3, 2), photometric="minisblack").replace(WIDTH_2, WIDTH_2[:-2] + b"\xff\xff"), "3 x 4294901762 pixels"),
}


@pytest.mark.parametrize("content, reason", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


LARGER = Image.fromarray(noise(40, 40, 3))
WHOLE = {
    "png": bytes_of(LARGER, "PNG"),
    "16-bit png": png_16(0, noise(40, 40, 1, dtype=np.uint16)),
    "jpeg": bytes_of(LARGER, "JPEG"),
    "bmp": bytes_of(LARGER, "BMP"),
    "webp": bytes_of(LARGER, "WEBP", lossless=True),
    "tiff": tiff(noise(40, 40), photometric="minisblack"),
    "zipped tiff": tiff(noise(40, 40), photometric="minisblack", compression="zlib"),
    "jpeg in a tiff": tiff(noise(40, 40), photometric="minisblack", compression="jpeg"),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_files_that_are_cut_short_are_refused(tmp_path, content, share):
    path = tmp_path / "a.img"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError):
        read_image(path)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_end_in_an_image_or_a_data_error(tmp_path_factory, kind, changes):
    content = bytearray(WHOLE[kind])
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.img"
    path.write_bytes(content)
    try:
        pixels, depth, _ = read_image(path, max_pixels=1_000_000)
    except DataError:
        return
    assert pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.max() < 2**depth


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "absent.png")


def test_a_damaged_tiff_prints_nothing(tmp_path, capfd):
    (tmp_path / "a.tif").write_bytes(WHOLE["tiff"][:60])
    with pytest.raises(DataError):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("tifffile").level == logging.NOTSET


@given(st.binary(max_size=40))
def test_sniffing_takes_any_bytes(head):
    assert sniff(head) in (None, "PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")


def test_max_pixels_counts_height_times_width(tmp_path):
    path: Path = save(tmp_path / "a.png", RGB)
    assert read_image(path, max_pixels=35).pixels.shape == (7, 5, 3)
    with pytest.raises(DataError, match="max_pixels 34"):
        read_image(path, max_pixels=34)
