"""One image: read by its content whatever its name says, and written as PNG.

What becomes of unusual images is said in ``Picture.notes``:

- palettes become RGB; transparent images are laid over white, as on paper; an alpha that is opaque everywhere is dropped;
- images are turned as their EXIF orientation says, as every viewer shows them;
- 16-bit grey is read exactly; 16-bit RGB, and 16-bit grey with alpha, keep the upper byte of every value;
- of a JPEG with several pictures (phones add a preview or a depth map) the main one is read.

Refused with the reason: animations and files of several pages (which of the images is meant?), CMYK and Lab (their colours need a
profile), floating-point and 32-bit values, GIF, and whatever is damaged, cut short or larger than allowed.
"""

import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from vlae.data.files import beside
from vlae.errors import DataError

Pixels = npt.NDArray[np.unsignedinteger[Any]]

IMAGE_SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".gif": "GIF",
}
NOT_AN_IMAGE = "not an image (PNG, JPEG, BMP, TIFF or WebP)"
OVER_WHITE = "transparency laid over white"
PALETTE_TO_RGB = "palette to RGB"
EXIF_IGNORED = "unreadable EXIF ignored"
MAIN_PICTURE = "main picture of several in a JPEG"
ORIENTATION = 274  # the EXIF and TIFF tag

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
)
_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)

# tifffile logs what it also raises; without a handler of its own that would be printed beside our one sentence
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class Picture(NamedTuple):
    """A decoded image: ``pixels`` (h, w, c) as uint8 or uint16, c 1 (grey) or 3 (RGB); ``depth`` 1, 8 or 16 bits; what was converted."""

    pixels: Pixels
    depth: int
    notes: tuple[str, ...] = ()


class Refused(Exception):
    """An image that cannot be used; the message is the reason, without the file's name."""


def read_image(path: Path, max_pixels: int = 100_000_000) -> Picture:
    """Read one PNG, JPEG, BMP, TIFF or WebP file; its content decides, never its name.

    ``max_pixels`` bounds height x width and is checked before anything is decoded. (Pillow's own guard, about 179 million, stays.)
    Errors: ``DataError`` with the reason where the file is no image, damaged, too large, animated or of a kind that is refused.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grey.png"
    >>> write_png(path, np.full((2, 3, 1), 40000, np.uint16), depth=16)
    >>> picture = read_image(path)
    >>> picture.pixels.shape, picture.depth, int(picture.pixels[0, 0, 0])
    ((2, 3, 1), 16, 40000)
    """
    try:
        return decode(path, max_pixels)
    except Refused as refused:
        raise DataError(
            f"{path} cannot be used",
            rule="An image is one whole PNG, JPEG, BMP, TIFF or WebP picture, grey or RGB",
            found=refused,
            do="Convert it, to PNG say, or leave it out",
        ) from refused


def decode(path: Path, max_pixels: int) -> Picture:
    """As ``read_image``, but raises ``Refused`` with the bare reason: for those who leave an image out and go on."""
    kind, head = recognise(path)
    with refusing():
        picture = _decode_tiff(path, max_pixels) if kind == "TIFF" else _decode_pillow(path, kind, head, max_pixels)
    return picture._replace(notes=picture.notes + wrongly_named(path, kind))


def recognise(path: Path) -> tuple[str, bytes]:
    """The format of a file and its first 26 bytes; ``Refused`` where it is none that we read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise Refused("not a regular file")
        with open(path, "rb") as file:
            head = file.read(26)
    except OSError as error:
        raise Refused(f"cannot be opened ({error.strerror})") from error
    if not head:
        raise Refused("empty file (0 bytes)")
    kind = sniff(head)
    if kind is None:
        raise Refused(NOT_AN_IMAGE)
    if kind == "GIF":
        raise Refused("GIF, mostly used for animations, is not read")
    return kind, head


def claims_nothing(path: Path, refused: Refused) -> bool:
    """Whether a file that was refused claims to be an image neither by its name nor by its content: what does is a loss, and told as one."""
    return str(refused) == NOT_AN_IMAGE and path.suffix.lower() not in IMAGE_SUFFIXES


def wrongly_named(path: Path, kind: str) -> tuple[str, ...]:
    """The note on a file whose name says another format than its content."""
    named = IMAGE_SUFFIXES.get(path.suffix.lower())
    return () if named in (None, kind) else (f"named {path.suffix.lower()} but is {kind}",)


def sniff(head: bytes) -> str | None:
    """Tell the format of an image from the first 26 bytes of its file; None where it is none that we know.

    >>> sniff(b"RIFF....WEBPVP8L"), sniff(b"BMW: a list of parts")
    ('WEBP', None)
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone begins too many texts: the size of the header must be one that exists
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def write_png(path: Path, pixels: Pixels, depth: int) -> None:
    """Write ``pixels`` (h, w, c) exactly as a PNG, complete or not at all.

    ``depth`` 1 (grey values 0 and 1), 8 (grey or RGB, uint8) or 16 (grey, uint16). Errors: ``DiskError``.
    """
    grey = pixels.shape[2] == 1
    assert (depth, pixels.dtype.itemsize) in ((1, 1), (8, 1), (16, 2)) and (grey or depth == 8), "no PNG of ours has this form"
    plane = np.ascontiguousarray(pixels[..., 0] if grey else pixels)
    with beside(path) as file:
        Image.fromarray(plane.astype(bool) if depth == 1 else plane).save(file, "PNG")


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever a decoder raises in the body into ``Refused``, and silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of a decoder's worries is an error or a note here
            yield
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        raise Refused(f"too large: {str(error).split(',')[0]}") from error
    except Exception as error:  # decoders raise anything on hostile bytes: struct.error, KeyError, SyntaxError, their own
        raise Refused(f"damaged or cut short ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise Refused(f"{height} x {width} pixels, more than data.max_pixels {max_pixels}")


@contextmanager
def one_picture(path: Path, kind: str, max_pixels: int) -> Iterator[tuple[Image.Image, tuple[str, ...]]]:
    """The one picture, decoded, of a file that Pillow reads, with notes; ``Refused`` where it moves or is larger than ``max_pixels``."""
    with Image.open(path, formats=(kind,)) as image:
        _check_size(image.height, image.width, max_pixels)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and kind != "JPEG":
            raise Refused(f"animated ({frames} frames)")
        image.load()
        yield image, (MAIN_PICTURE,) if frames > 1 else ()


def _decode_pillow(path: Path, kind: str, head: bytes, max_pixels: int) -> Picture:
    with one_picture(path, kind, max_pixels) as (image, notes):
        orientation = exif_orientation(image)
        picture = from_pillow(image)
    if orientation is None:
        notes += (EXIF_IGNORED,)
    if kind == "PNG" and head[24] == 16 and picture.depth == 8:  # the bit depth in a PNG's first chunk; Pillow keeps the upper byte
        notes += ("16-bit values to 8 bits",)
    return _turned(picture._replace(notes=picture.notes + notes), orientation)


def exif_orientation(image: Image.Image) -> object:
    """The orientation tag, 1 (upright) where there is none, None where the EXIF cannot be read: the pixels are whole all the same."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # as for the decoders
        return None


def from_pillow(image: Image.Image) -> Picture:
    """The pixels of a decoded image: exactly, but for transparency, which is laid over white."""
    if image.mode in ("RGBA", "LA", "PA") or (image.mode in ("P", "L", "RGB") and image.has_transparency_data):
        palette = image.mode in ("P", "PA")
        picture = _over_white(np.asarray(image.convert("LA" if image.mode in ("L", "LA") else "RGBA")))
        return picture._replace(notes=(PALETTE_TO_RGB, *picture.notes)) if palette else picture
    if image.mode == "1":
        return Picture(np.asarray(image).astype(np.uint8)[..., None], 1)
    if image.mode in ("I;16", "I;16B", "I;16L"):
        return Picture(np.asarray(image).astype(np.uint16)[..., None], 16)
    if image.mode == "P":
        return Picture(np.asarray(image.convert("RGB")), 8, (PALETTE_TO_RGB,))
    if image.mode in ("L", "RGB"):
        pixels = np.asarray(image)
        return Picture(pixels if image.mode == "RGB" else pixels[..., None], 8)
    raise Refused(_colours(image.mode))


def _colours(mode: str) -> str:
    if mode == "CMYK":
        return "CMYK, whose colours have no one meaning on a screen"
    return f"colours of the kind {mode}"


def _over_white(pixels: Pixels, premultiplied: bool = False) -> Picture:
    """Lay 8-bit grey or RGB with alpha (h, w, 2 or 4) over white."""
    colour, alpha = pixels[..., :-1].astype(np.uint32), pixels[..., -1:].astype(np.uint32)
    if alpha.min() == 255:
        return Picture(pixels[..., :-1], 8, ("opaque alpha dropped",))
    shown = colour * 255 if premultiplied else colour * alpha
    blended = np.minimum((shown + 255 * (255 - alpha) + 127) // 255, 255)
    return Picture(blended.astype(np.uint8), 8, (OVER_WHITE,))


def _turned(picture: Picture, orientation: object) -> Picture:
    """Turn an image upright: EXIF orientations 2 to 8 mirror it, rotate it, or both."""
    if orientation not in range(2, 9):
        return picture
    pixels = picture.pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return picture._replace(pixels=np.ascontiguousarray(pixels), notes=(*picture.notes, "turned as EXIF says"))


@contextmanager
def one_page(path: Path, max_pixels: int) -> Iterator[Any]:
    """The page of a TIFF that has one only, of at most ``max_pixels`` and whole numbers; ``Refused`` for any other."""
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) > 1:
            raise Refused(f"{len(tiff.pages)} pages in one file")
        page = tiff.pages.first
        _check_size(page.imagelength, page.imagewidth, max_pixels)
        if (planes := tiff.series[0].size // max(1, page.size)) > 1:
            raise Refused(f"{planes} planes behind one page")
        if any(other.size > page.size for other in page.pages or ()):
            raise Refused("a preview of a larger picture behind it, as in the raw files of cameras")
        if any(begin + count > tiff.filehandle.size for begin, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise ValueError("its pixels end behind the file")
        if page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "ub" or page.dtype.itemsize > 2:
            raise Refused(f"values of the kind {page.dtype}, not whole numbers of up to 16 bits")
        yield page


def samples(page: Any) -> tuple[Pixels, int]:
    """The values of a TIFF's page (h, w, c), and how many of the c channels are colours: one more is what TIFF calls an extra sample.

    ``Refused`` for any other number of channels, and for colours that are neither grey, RGB nor a palette.
    """
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    jpeg = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    greys = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.PALETTE)
    if photometric == tifffile.PHOTOMETRIC.RGB or (photometric == tifffile.PHOTOMETRIC.YCBCR and jpeg):  # imagecodecs turns it into RGB
        channels = 3
    elif photometric in greys:
        channels = 1
    else:
        raise Refused(_colours("CMYK" if photometric == tifffile.PHOTOMETRIC.SEPARATED else photometric.name))
    values = np.asarray(page.asarray())
    values = np.moveaxis(values, page.axes.index("S"), -1) if "S" in page.axes else values[..., None]
    if values.shape[2] - channels not in (0, 1) or (photometric == tifffile.PHOTOMETRIC.PALETTE and values.shape[2] > 1):
        raise Refused(f"{values.shape[2]} channels")
    return values.astype(np.uint8) if values.dtype == bool else values, channels


def whole_scale(page: Any, values: Pixels) -> Picture:
    """Values as depth 1, 8 or 16, black 0: those of fewer than 8 bits are spread over 8, the 10 to 14 bits of cameras stay as they are."""
    bits = page.bitspersample
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = values.copy()
        values[..., 0] = 2**bits - 1 - values[..., 0]
    if bits == 1 and values.shape[2] == 1:
        return Picture(values, 1)
    if bits < 8:
        return Picture((values.astype(np.uint32) * 255 // (2**bits - 1)).astype(np.uint8), 8)
    return Picture(values, 8 * values.dtype.itemsize)


def _decode_tiff(path: Path, max_pixels: int) -> Picture:
    with one_page(path, max_pixels) as page:
        values, channels = samples(page)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            picture = Picture((page.colormap >> 8).astype(np.uint8).T[values[..., 0]], 8, (PALETTE_TO_RGB,))
        else:
            picture = _settled(page, whole_scale(page, values), channels)
        return _turned(picture, page.tags.valueof(ORIENTATION, default=1))


def _settled(page: Any, picture: Picture, channels: int) -> Picture:
    """Settle what TIFF calls an extra sample (alpha, or of unknown meaning), and bring colours to 8 bits."""
    extra = picture.pixels.shape[2] > channels
    if picture.depth == 16 and (channels == 3 or extra):
        picture = Picture((picture.pixels >> 8).astype(np.uint8), 8, ("16-bit values to 8 bits",))
    if not extra:
        return picture
    if page.extrasamples[0] == tifffile.EXTRASAMPLE.UNSPECIFIED:
        return picture._replace(pixels=picture.pixels[..., :-1], notes=(*picture.notes, "channel of unknown meaning dropped"))
    blended = _over_white(picture.pixels, premultiplied=page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA)
    return blended._replace(notes=picture.notes + blended.notes)
