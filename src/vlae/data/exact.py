"""One image for a lossless archive: read with its pixels exactly as they are stored, and written as a PNG that says the same.

Nothing is turned, laid over white or rounded. What is done all the same can be undone, and is said in ``Exact.notes``:

- a palette becomes the colours that it stands for, a transparent colour of a PNG becomes an alpha channel;
- values of fewer than 8 bits, other than 1-bit images without alpha, are spread over 8; those of a TIFF where zero is white are inverted;
- the alpha of a TIFF whose colours are multiplied by it is kept with the colours as they are, though a PNG cannot say so;
- of a JPEG the pixels are what Pillow decodes, of one with several pictures those of the main one;
- a BMP has alpha only where its header says so: the fourth byte of 32 bits is else filling;
- what a PNG says of its colours other than by a profile, and bytes behind a picture, are not kept.

Refused is what ``read`` refuses, and a channel of a TIFF that is not known to be alpha.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from vlae.data.files import beside
from vlae.data.read import (
    EXIF_IGNORED,
    MAIN_PICTURE,
    ORIENTATION,
    PALETTE_TO_RGB,
    Picture,
    Pixels,
    Refused,
    exif_orientation,
    from_pillow,
    one_page,
    one_picture,
    recognise,
    refusing,
    samples,
    whole_scale,
    wrongly_named,
)

PREMULTIPLIED = "colours multiplied by alpha, kept so"
LOSSY = "pixels of a JPEG as Pillow decodes them"
FILLING = "fourth bytes of a BMP dropped"
OTHER_COLOURS = "colours that the file alone explains (gAMA, cHRM, cICP)"
BEHIND = "bytes behind the picture dropped"
HOLDS_MORE = frozenset({EXIF_IGNORED, MAIN_PICTURE, PREMULTIPLIED, LOSSY, FILLING, OTHER_COLOURS, BEHIND})
"""Notes of files that held more than is kept."""

_EXIF = b"Exif\0\0"  # begins the block in a JPEG and at Pillow's, not in a PNG's chunk nor in every WebP
_GREY_ALPHA = 4  # colour type of a PNG
_HEADER = 33  # bytes of a PNG's signature and first chunk
_MOST_PROFILE = 1 << 20  # Pillow reads no PNG with a longer one
LONGEST = 1_000_000  # side of a PNG that libpng writes
_USUAL_GAMMA = 45455  # of a PNG: what viewers take for granted
_ICC_PROFILE = 34675  # the TIFF tag

# Of a TIFF's tags those that EXIF shares and that are about the picture, not about where and how the file keeps it:
# ImageDescription, Make, Model, Orientation, X- and YResolution and their unit, Software, DateTime, Artist, HostComputer, Copyright, EXIF, GPS
_DESCRIPTIVE = {270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853}


class Exact(NamedTuple):
    """An image as it is stored.

    ``pixels`` (h, w, c) as uint8 or uint16, c 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); ``depth`` 1, 8 or 16 bits; ``orientation``
    as EXIF counts it, 1 (upright) to 8, not applied to the pixels; ``icc``, the colour profile; ``exif``, the block that begins with
    ``Exif`` and two zeros; what was done.
    """

    pixels: Pixels
    depth: int
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def read_exact(path: Path, max_pixels: int = 100_000_000) -> Exact:
    """Read one PNG, JPEG, BMP, TIFF or WebP file; its content decides, never its name.

    ``max_pixels`` bounds height x width and is checked before anything is decoded. Raises ``Refused`` with the bare reason.
    """
    kind, head = recognise(path)
    with refusing():
        image = _read_tiff(path, max_pixels) if kind == "TIFF" else _read_pillow(path, kind, head, max_pixels)
    if max(image.pixels.shape[:2]) > LONGEST:
        raise Refused(f"a side of {max(image.pixels.shape[:2])} pixels, more than the {LONGEST} of the longest PNG")
    if image.icc is not None and len(image.icc) > _MOST_PROFILE:
        raise Refused(f"colour profile of {len(image.icc)} bytes, more than the {_MOST_PROFILE} that can be read from a PNG")
    return image._replace(notes=image.notes + wrongly_named(path, kind))


def write_exact(path: Path, image: Exact) -> None:
    """Write an image as a PNG with its colour profile and EXIF, its orientation in it, complete or not at all. Errors: ``DiskError``.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "deep.png"
    >>> write_exact(path, Exact(np.full((2, 3, 4), 40000, np.uint16), depth=16, orientation=6))
    >>> image = read_exact(path)
    >>> image.pixels.shape, image.depth, image.orientation, int(image.pixels[0, 0, 3])
    ((2, 3, 4), 16, 6, 40000)
    """
    data = png(image.pixels, image.depth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of EXIF that is odd but was kept
        exif = _agreeing(image.exif, image.orientation)
    with beside(path) as file:
        file.write(data[:_HEADER])
        if image.icc:
            file.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(image.icc)))
        if exif:
            file.write(_chunk(b"eXIf", exif.removeprefix(_EXIF)))
        file.write(data[_HEADER:])


def png(pixels: Pixels, depth: int, level: int = 6) -> bytes:
    """Pixels (h, w, c) as a PNG, compressed so hard (1 to 9)."""
    assert (depth, pixels.dtype.itemsize) in ((1, 1), (8, 1), (16, 2)) and 1 <= pixels.shape[2] <= (1 if depth == 1 else 4), "no form of ours"
    if depth > 1:  # Pillow writes no colours or alpha of 16 bits, imagecodecs no single bits
        return bytes(imagecodecs.png_encode(pixels.copy(), level=level))  # which minds odd strides, even of axes that are 1 long
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(bool)).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _read_pillow(path: Path, kind: str, head: bytes, max_pixels: int) -> Exact:
    with one_picture(path, kind, max_pixels) as (image, notes):
        if kind == "PNG":
            picture = _from_png(path, image, bits=head[24], colour_type=head[25])
        else:
            picture = Picture(np.asarray(image), 8) if image.mode == "RGBA" else from_pillow(image)
        found = exif_orientation(image)
        if found is None:
            notes += (EXIF_IGNORED,)
        notes += _more(path, kind, image)
        orientation = _known(found)
        exif = _agreeing(_exif_block(image, readable=found is not None), orientation)
        return Exact(picture.pixels, picture.depth, orientation, image.info.get("icc_profile") or None, exif, picture.notes + notes)


def _more(path: Path, kind: str, image: Image.Image) -> tuple[str, ...]:
    """Notes on what a file holds besides the picture that is kept."""
    if kind == "JPEG":
        return (LOSSY,)
    data = path.read_bytes()
    if kind == "PNG":
        return _more_of_png(data)
    if kind == "WEBP":
        return (BEHIND,) if len(data) > 8 + (int.from_bytes(data[4:8], "little") + 1) // 2 * 2 else ()
    begin, bits = int.from_bytes(data[10:14], "little"), int.from_bytes(data[28:30], "little")
    if bits != 32 or image.mode == "RGBA":
        return ()
    fourth = np.frombuffer(data, np.uint8)[begin + 3 : begin + 4 * image.width * image.height : 4]
    return (FILLING,) if (fourth != fourth[0]).any() else ()


def _more_of_png(data: bytes) -> tuple[str, ...]:
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at + 12 <= len(data) and b"IEND" not in chunks:
        size = int.from_bytes(data[at : at + 4], "big")
        chunks[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + min(size, 4)]
        at += 12 + size
    gamma = int.from_bytes(chunks.get(b"gAMA", _USUAL_GAMMA.to_bytes(4, "big")), "big")
    said = {b"sRGB", b"iCCP"} & chunks.keys()  # beside which the others say the same, or nothing
    other = b"cICP" in chunks or (not said and (gamma != _USUAL_GAMMA or b"cHRM" in chunks))
    return ((OTHER_COLOURS,) if other else ()) + ((BEHIND,) if at < len(data) else ())


def _from_png(path: Path, image: Image.Image, bits: int, colour_type: int) -> Picture:
    key = image.info.get("transparency")
    if image.mode == "P":
        return Picture(np.asarray(image.convert("RGB" if key is None else "RGBA")), 8, (PALETTE_TO_RGB,))
    values = _deep(path, image, colour_type) if bits == 16 else np.asarray(image)
    values = values.reshape(*values.shape[:2], -1)
    if bits == 1 and key is None:
        return Picture(values.astype(np.uint8), 1)
    notes: tuple[str, ...] = (_spread(bits),) if bits < 8 else ()
    if bits == 1:
        values = values.astype(np.uint8) * np.uint8(255)
    if key is not None:
        values = _with_key(values, np.atleast_1d(key), bits)
        notes += ("transparent colour to alpha",)
    return Picture(values, max(bits, 8), notes)


def _spread(bits: int) -> str:
    return f"{bits}-bit values spread over 8 bits"


def _deep(path: Path, image: Image.Image, colour_type: int) -> Pixels:
    """The 16-bit values of a PNG.

    Of several channels Pillow keeps the upper bytes. Asked to take the bytes for the other order it gives the lower ones, and four bytes
    are four bytes, whether they stand for RGBA or for grey and alpha. (imagecodecs would decode them all, but every damaged PNG takes
    a reference to None away, which ends the process after some thousands of them under Python 3.11.)
    """
    if image.mode == "I;16":
        return np.asarray(image).astype(np.uint16)
    if colour_type == _GREY_ALPHA:
        return _decoded_as(path, "RGBA").view(">u2").astype(np.uint16)
    return np.asarray(image).astype(np.uint16) * np.uint16(256) + _decoded_as(path, f"{image.mode};16L")


def _decoded_as(path: Path, raw_mode: str) -> Pixels:
    with Image.open(path, formats=("PNG",)) as image:
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        return np.array(image)


def _with_key(values: Pixels, key: Pixels, bits: int) -> Pixels:
    """Add the alpha channel that a PNG's one transparent colour stands for."""
    colour = (key & (2**bits - 1)) * (255 // (2**bits - 1) if bits < 8 else 1)
    alpha = np.where((values == colour).all(axis=2, keepdims=True), 0, np.iinfo(values.dtype).max)
    return np.concatenate([values, alpha.astype(values.dtype)], axis=2)


def _read_tiff(path: Path, max_pixels: int) -> Exact:
    with one_page(path, max_pixels) as page:
        values, channels = samples(page)
        picture = _from_palette(page, values) if page.photometric == tifffile.PHOTOMETRIC.PALETTE else _from_samples(page, values, channels)
        orientation = _known(page.tags.valueof(ORIENTATION, default=1))
        icc = page.tags.valueof(_ICC_PROFILE)
        exif, notes = _tiff_exif(page)
        return Exact(picture.pixels, picture.depth, orientation, bytes(icc) if icc else None, _agreeing(exif, orientation), picture.notes + notes)


def _from_palette(page: Any, values: Pixels) -> Picture:
    """The colours of a palette: 8 bits where its 16 only repeat them, or follow them with zeros, as nearly all do."""
    colours = page.colormap.T
    upper = (colours >> 8).astype(np.uint8)
    eight = any((colours == upper.astype(np.uint16) * factor).all() for factor in (256, 257))
    return Picture((upper if eight else colours.astype(np.uint16))[values[..., 0]], 8 if eight else 16, (PALETTE_TO_RGB,))


def _from_samples(page: Any, values: Pixels, channels: int) -> Picture:
    picture = whole_scale(page, values)
    notes: tuple[str, ...] = ()
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        notes += ("zero was white",)
    if page.bitspersample < 8 and picture.depth == 8:
        notes += (_spread(page.bitspersample),)
    if values.shape[2] > channels:
        if tuple(page.extrasamples) == (tifffile.EXTRASAMPLE.ASSOCALPHA,):
            notes += (PREMULTIPLIED,)
        elif tuple(page.extrasamples) != (tifffile.EXTRASAMPLE.UNASSALPHA,):
            raise Refused("a channel of unknown meaning")
    return picture._replace(notes=notes)


def _known(orientation: Any) -> int:
    """An orientation that exists: odd values of the tag mean upright, as they do to every viewer."""
    return int(orientation) if orientation in range(1, 9) else 1


def _exif_block(image: Image.Image, readable: bool) -> bytes | None:
    """The EXIF of an image as it is stored; where Pillow finds its content elsewhere (XMP, text of a PNG), a block that says the same."""
    stored = image.info.get("exif")
    if not stored and readable and image.getexif():
        stored = image.getexif().tobytes()
    return _EXIF + stored.removeprefix(_EXIF) if stored and stored != _EXIF else None


def _tiff_exif(page: Any) -> tuple[bytes | None, tuple[str, ...]]:
    """The descriptive tags of a TIFF as an EXIF block, and a note where they cannot be read."""
    exif = Image.Exif()
    try:
        exif.endian, exif.bigtiff = page.parent.byteorder, page.parent.is_bigtiff
        exif.load_from_fp(page.parent.filehandle, page.offset)
        for tag in exif.keys() - _DESCRIPTIVE:
            del exif[tag]
        if not exif:
            return None, ()
        exif.bigtiff = False  # in the block that is written
        return exif.tobytes(), ()
    except Exception:  # as for the decoders
        return None, (EXIF_IGNORED,)


def _agreeing(exif: bytes | None, orientation: int) -> bytes | None:
    """An EXIF block that says this orientation: the one given, unchanged, where it does."""
    block = Image.Exif()
    try:
        block.load(exif or b"")
        said = block.get(ORIENTATION, 1)
    except Exception:  # as for the decoders
        block, said = Image.Exif(), 1
    if _known(said) == orientation:
        return exif
    block[ORIENTATION] = orientation
    return block.tobytes()
