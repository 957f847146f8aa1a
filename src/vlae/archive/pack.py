"""Images as streams of bytes, each in the smallest of three encodings, and back.

``vlae`` is ours: tiles of at most 512x512 pixels, each the words of its own code and pixels, so that memory does not grow with an image.
Where JPEG XL or PNG is smaller, or the model codes no images of this kind, ``jxl`` or ``png`` holds the pixels instead.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vlae.archive.codec import Codec, Words
from vlae.data.exact import png
from vlae.data.form import Form, convert
from vlae.data.read import Pixels

TILE = 512
AT_ONCE = 2**20
"""pixels of a batch of tiles, at most, unless one has more: many are coded in the time of one"""
EFFORT, NEARLY, QUICK, PNG_LEVEL = 7, 5, 2, 6
"""of JPEG XL, where it is tried, where nearly the same is enough and where it is tried quickly, and of PNG"""
CROP, PART = 40, 6
"""By how much more effort pays is seen in the middle of an image: in a part so many pixels wide, or this fraction of the image if that is more."""
NEAR = 1.1
"""An encoding that is so much larger than the other there is not the smaller of the whole image."""
CLEARLY = 0.93
"""Of an image that is smaller than this share of what other encodings seem to need, these are not tried in full."""

Encoder = Callable[[Float[Tensor, "B C H W"]], Tensor]
"""codes of images, as levels"""
Code = npt.NDArray[np.int16]


class Plain(NamedTuple):
    """An image's pixels (h, w, c) and the bits of a value."""

    pixels: Pixels
    depth: int

    @property
    def form(self) -> Form:
        """Depth and channels."""
        return Form(self.depth, self.pixels.shape[2])


class Stored(NamedTuple):
    """What an image is unpacked from."""

    encoding: str
    stream: bytes
    size: tuple[int, int]
    form: Form


@dataclass(frozen=True)
class Packed:
    """An image as a stream, and what is known of it without decoding."""

    stored: Stored
    code: Code
    """the indices of its code, (channels, rows, columns), whatever the encoding; of no channels where the model has none for it"""
    code_bits: float
    pixel_bits: float
    """what the model needs, whatever the encoding; NaN where it codes no such images"""
    other_bytes: int
    """what JPEG XL or PNG needs, whichever is smaller: estimated where the model's stream is clearly the smallest"""


class _Tile(NamedTuple):
    image: int
    top: int
    left: int
    size: tuple[int, int]

    def of(self, pixels: Pixels) -> Pixels:
        """Its pixels in the image."""
        height, width = self.size
        return pixels[self.top : self.top + height, self.left : self.left + width]


class _Piece(NamedTuple):
    """A tile when it is coded."""

    words: Words
    code: Code
    code_bits: float
    pixel_bits: float


def pack(codec: Codec, encoder: Encoder | None, images: Sequence[Plain], check: bool = True) -> list[Packed]:
    """Images as streams; with ``check`` each is decoded again, and a stream that does not give the image back is not used."""
    seen = [_seen(codec, image) for image in images]
    tiles = [tile for n, pixels in enumerate(seen) if pixels is not None for tile in _tiles(codec, n, pixels.shape[:2])]
    pieces: dict[_Tile, _Piece | None] = {}
    for batch in _batches(tiles):
        cut = [tile.of(pixels) for tile in batch if (pixels := seen[tile.image]) is not None]
        x = torch.from_numpy(np.stack(cut).astype(np.float32)).permute(0, 3, 1, 2)
        pieces |= zip(batch, _coded(codec, encoder, x, check), strict=True)
    return [_smallest(image, {tile: pieces[tile] for tile in tiles if tile.image == n}) for n, image in enumerate(images)]


def unpack(codec: Codec, images: Sequence[Stored]) -> list[Pixels]:
    """The pixels of images, each from its stream.

    Raises:
        ValueError: a stream does not fit its image: which can only be where it is damaged.
    """
    from vlae.archive.coder import decode  # the compiler of its loops takes a while to load, and not every command codes

    model = codec.form
    found = [_blank(image, model) for image in images]
    words: dict[_Tile, Words] = {}
    for n, image in enumerate(images):
        if image.encoding == "vlae":
            tiles = list(_tiles(codec, n, image.size))
            words |= zip(tiles, _parted(image.stream, len(tiles)), strict=True)
    for batch in _batches(list(words)):
        for tile, x in zip(batch, decode(codec, [words[tile] for tile in batch], batch[0].size).x, strict=True):
            tile.of(found[tile.image])[:] = x.permute(1, 2, 0).numpy().astype(found[tile.image].dtype)
    return [
        convert(pixels, model, image.form)[0] if image.encoding == "vlae" and image.form != model else pixels
        for pixels, image in zip(found, images, strict=True)
    ]


def _seen(codec: Codec, image: Plain) -> Pixels | None:
    """The image in the model's form, where that is the same image: greys in RGB for a model of greys, black and white in 8 bits for one of 1."""
    model = codec.form
    if image.form.channels not in (1, 3) or not codec.fits(image.pixels.shape[:2]):
        return None
    if image.form == model:
        return image.pixels
    there = convert(image.pixels, image.form, model)[0]
    return there if np.array_equal(convert(there, model, image.form)[0], image.pixels) else None


def _tiles(codec: Codec, image: int, size: tuple[int, ...]) -> Iterator[_Tile]:
    """The parts of an image that are coded each for itself, row by row."""
    most = TILE if codec.any_size else max(size)
    for top, left in itertools.product(range(0, size[0], most), range(0, size[1], most)):
        yield _Tile(image, top, left, (min(most, size[0] - top), min(most, size[1] - left)))


def _batches(tiles: Sequence[_Tile]) -> Iterator[list[_Tile]]:
    """Tiles of one size, so many at once that they fit into memory."""
    by_size: dict[tuple[int, int], list[_Tile]] = {}
    for tile in tiles:
        by_size.setdefault(tile.size, []).append(tile)
    for (height, width), some in by_size.items():
        each = max(1, AT_ONCE // (height * width))
        yield from (some[first : first + each] for first in range(0, len(some), each))


@torch.no_grad()
def _coded(codec: Codec, encoder: Encoder | None, x: Float[Tensor, "B C H W"], check: bool) -> list[_Piece | None]:
    from vlae.archive.coder import decode, encode

    index = _index(codec, encoder, x)
    levels = x.to(codec.twin.dtype)
    found = encode(codec, index, levels)
    grids = torch.zeros(len(x), 0, 1, 1) if index is None else index.view(*index.shape[:2], *(index.shape[2:] or (1, 1)))
    pieces: list[_Piece | None] = [
        _Piece(image.words, code.astype(np.int16), image.code_bits, image.pixel_bits) for image, code in zip(found, grids.numpy(), strict=True)
    ]
    if check:
        back = decode(codec, [image.words for image in found], (x.shape[2], x.shape[3])).x
        pieces = [piece if torch.equal(one, other) else None for piece, one, other in zip(pieces, back, levels, strict=True)]
    return pieces


def _index(codec: Codec, encoder: Encoder | None, x: Float[Tensor, "B C H W"]) -> Tensor | None:
    """The indices of the codes of images, which need not be encoded where all have the same; None without a code."""
    if codec.codebook is None or encoder is None:
        return None
    if (only := codec.codebook.only) is None:
        return codec.codebook.index(encoder(x))
    shape = codec.code_shape((x.shape[2], x.shape[3]))
    return only.view(-1, *[1] * (len(shape) - 1)).expand(len(x), *shape)


def _smallest(image: Plain, pieces: dict[_Tile, _Piece | None]) -> Packed:
    """The image in its smallest encoding."""
    whole = {tile: piece for tile, piece in pieces.items() if piece is not None}
    if not whole or len(whole) < len(pieces):
        encoding, other = _other(image)
        return Packed(_stored(image, encoding, other), np.zeros((0, 1, 1), np.int16), np.nan, np.nan, len(other))
    encoding, stream = "vlae", _joined([piece.words for piece in whole.values()])
    if len(stream) > CLEARLY * (other_bytes := _estimated(image)):
        name, other = _other(image)
        other_bytes = len(other)
        if other_bytes < len(stream):
            encoding, stream = name, other
    bits = (sum(piece.code_bits for piece in whole.values()), sum(piece.pixel_bits for piece in whole.values()))
    return Packed(_stored(image, encoding, stream), _code_of(whole), *bits, other_bytes)


def _other(image: Plain) -> tuple[str, bytes]:
    """The image as PNG or as JPEG XL, whichever is smaller; as PNG where the other does not give it back."""
    tried = _others(image, PNG_LEVEL, EFFORT)
    name, data = min(tried.items(), key=lambda item: len(item[1]))
    return (name, data) if name == "png" or _gives_back(_stored(image, name, data), image) else ("png", tried["png"])


def _gives_back(stored: Stored, image: Plain) -> bool:
    """Whether the image comes out of an encoding again."""
    try:
        return np.array_equal(_decoded(stored), image.pixels)
    except (imagecodecs.JpegxlError, ValueError):
        return False


def _others(image: Plain, level: int, effort: int, names: Sequence[str] = ("png", "jxl")) -> dict[str, bytes]:
    """The image in each of these encodings that can hold it."""
    tried = ((name, png(*image, level) if name == "png" else _jpeg_xl(image, effort)) for name in names)
    return {name: data for name, data in tried if data is not None}


def _estimated(image: Plain) -> int:
    """About how many bytes ``_other`` comes to, in a fraction of the time: of quick encodings, and of what more effort saves in the middle of the
    image. Nothing where the image is so small or so simple, of less than a bit a value, that it is soon tried in full.
    """
    height, width = image.pixels.shape[:2]
    side = max(CROP, min(height, width) // PART)
    if height * width <= 2 * side**2:
        return 0
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    middle = Plain(image.pixels[top : top + side, left : left + side], image.depth)
    in_full = _others(middle, PNG_LEVEL, NEARLY)
    near = [name for name, data in in_full.items() if len(data) < NEAR * min(map(len, in_full.values()))]
    quick, part = (_others(some, 1, QUICK, near) for some in (image, middle))
    found = min((len(quick[name]) * len(in_full[name]) // len(part[name]) for name in near if name in quick and name in part), default=0)
    return found if 8 * found >= image.pixels.size else 0


def _stored(image: Plain, encoding: str, stream: bytes) -> Stored:
    return Stored(encoding, stream, (image.pixels.shape[0], image.pixels.shape[1]), image.form)


def _code_of(pieces: dict[_Tile, _Piece]) -> Code:
    """The codes of an image's tiles as one."""
    by_row: dict[int, list[Code]] = {}
    for tile, piece in pieces.items():
        by_row.setdefault(tile.top, []).append(piece.code)
    return np.concatenate([np.concatenate(codes, axis=2) for codes in by_row.values()], axis=1)


def _jpeg_xl(image: Plain, effort: int) -> bytes | None:
    """The image as JPEG XL, where that can be."""
    plane = np.ascontiguousarray(image.pixels[..., 0] if image.form.channels == 1 else image.pixels)
    try:
        return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort, numthreads=1))
    except imagecodecs.JpegxlError:
        return None


def _joined(words: Sequence[Words]) -> bytes:
    """The words of all tiles; before them, but for the last, how many each has."""
    lengths = np.array([len(some) for some in words[:-1]], "<u4")
    return b"".join(array.astype("<u4").tobytes() for array in (lengths, *words))


def _parted(stream: bytes, tiles: int) -> list[Words]:
    if len(stream) % 4 or len(stream) < 4 * (tiles - 1):
        raise ValueError("the stream is cut short")
    numbers = np.frombuffer(stream, "<u4").astype(np.uint32)
    lengths, words = numbers[: tiles - 1].astype(np.int64), numbers[tiles - 1 :]
    if lengths.sum() > len(words):
        raise ValueError("the stream is cut short")
    return np.split(words, np.cumsum(lengths))


def _blank(image: Stored, model: Form) -> Pixels:
    """An image whose tiles are still to come, or, in another encoding, the image."""
    if image.encoding == "vlae":
        return np.zeros((*image.size, model.channels), np.uint16 if model.depth == 16 else np.uint8)
    return _decoded(image)


def _decoded(image: Stored) -> Pixels:
    decoders = {"jxl": imagecodecs.jpegxl_decode, "png": imagecodecs.png_decode}
    if image.encoding not in decoders:
        raise ValueError(f"the encoding {image.encoding!r} is unknown")
    pixels = np.asarray(decoders[image.encoding](image.stream))
    if image.form.depth == 1:  # whichever value the decoder has for white
        pixels = pixels > 0
    return pixels.reshape(*image.size, image.form.channels).astype(np.uint16 if image.form.depth == 16 else np.uint8)
