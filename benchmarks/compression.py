"""Size and speed of our archive on a run's held-out images, or on those of any folder, against PNG, WebP, JPEG-LS and JPEG XL (efforts 7 and
9) on the same images.

Sizes are real bytes: ours those of the archive's files without the model, and on a line of its own with both copies of it; the others' those
of lossless files. Speeds are of pixels in memory, in one run, one thread, the codecs taking turns, without verification: of 48 images, each
codec's fastest of three rounds over every 16; ours tries JPEG XL and PNG as well, as an archive does. Memory is the peak of ``vlae compress``
as a process of its own, for half the images and for all.

    python benchmarks/compression.py RUN [RUN ...] [--fast RUN] [--images FOLDER] --json [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import imagecodecs
import numpy as np
import torch

from vlae.apps.info import info
from vlae.archive.archive import Archive
from vlae.archive.codec import Codec
from vlae.archive.pack import Encoder, Packed, Plain, pack, unpack
from vlae.archive.parts import About, Row, write_part
from vlae.data.exact import Exact, png, read_exact, write_exact
from vlae.data.foreign import files_of
from vlae.data.form import Form
from vlae.data.read import Refused
from vlae.data.spool import identity
from vlae.engine.codec import codec_of, encoder_of
from vlae.engine.measure import chosen
from vlae.engine.run import Run
from vlae.errors import VlaeError

TOGETHER = 16
"""images that a codec takes before it is the next one's turn; ours codes so many at once"""
WAYS = "encoding", "decoding"
TIMED, ROUNDS = 48, 3
"""images of which speeds are taken, at most, and how often each codec takes them: what disturbs the machine for a moment counts for no codec"""


def plane(image: Plain) -> np.ndarray:
    """The pixels as codecs take them."""
    return np.ascontiguousarray(image.pixels[..., 0] if image.pixels.shape[2] == 1 else image.pixels)


def in_colour(image: Plain) -> np.ndarray:
    """As WebP takes them, which has no grey."""
    return np.ascontiguousarray(np.broadcast_to(image.pixels, (*image.pixels.shape[:2], 3)))


def jpeg_xl(effort: int) -> Callable[[Plain], bytes]:
    """A lossless encoder of one thread."""
    return lambda image: imagecodecs.jpegxl_encode(plane(image), lossless=True, effort=effort, numthreads=1)


OTHERS: dict[str, tuple[Callable[[Plain], bytes], Callable[[bytes], np.ndarray]]] = {
    "PNG": (lambda image: png(*image), imagecodecs.png_decode),
    "WebP": (lambda image: imagecodecs.webp_encode(in_colour(image), lossless=True, level=6), imagecodecs.webp_decode),
    "JPEG-LS": (lambda image: imagecodecs.jpegls_encode(plane(image)), imagecodecs.jpegls_decode),
    "JPEG XL 7": (jpeg_xl(7), lambda data: imagecodecs.jpegxl_decode(data, numthreads=1)),
    "JPEG XL 9": (jpeg_xl(9), lambda data: imagecodecs.jpegxl_decode(data, numthreads=1)),
}


class Clock:
    """Seconds of each codec in each direction: the least of the rounds over the same images."""

    def __init__(self) -> None:
        self.rounds: dict[tuple[str, str, int], list[float]] = defaultdict(list)

    def time(self, name: str, way: str, images: int, work: Callable, *given: object) -> list:
        start = time.perf_counter()
        result = list(work(*given))
        self.rounds[name, way, images].append(time.perf_counter() - start)
        return result

    def seconds(self, name: str, way: str) -> float:
        return sum(min(found) for (of, there, _), found in self.rounds.items() if (of, there) == (name, way))


def held_out(run: Run, limit: int | None) -> list[Plain]:
    """The test images of a run."""
    images = run.images()
    return [Plain(images.pixels(n), run.facts.depth) for n in chosen(images, "test", limit).tolist()]


def those_of(folder: Path, run: Run, limit: int | None) -> list[Plain]:
    """The images of a folder that are of the kind that a run codes."""
    read = (plain for path in files_of(folder).paths.values() if (plain := one_of(path)))
    fitting = list(islice((image for image in read if image.form == Form(run.facts.depth, run.facts.colours)), limit))
    if len(fitting) < 2:
        sys.exit(f"{folder} holds fewer than 2 images of the kind that {run.folder} codes")
    return fitting


def one_of(path: Path) -> Plain | None:
    """The image of a file, where it is one."""
    try:
        return Plain(*read_exact(path)[:2])
    except Refused:
        return None


def measure(run: Run, plain: list[Plain], case: str, fast: bool) -> Iterator[dict[str, object]]:
    """The rows of a run."""
    model, codec = run.model(torch.device("cpu")), codec_of(run)
    encoder = encoder_of(model)
    sizes = {name: sum(len(encode(image)) for image in plain) for name, (encode, _) in OTHERS.items()}
    packed = [one for some in groups(plain) for one in pack(codec, encoder, some)]
    yield from size_rows(case, sizes, archived(codec, plain, packed), plain, fast)
    yield from twin_rows(case, model, codec, plain, packed)
    yield from speed_rows(case, speeds(codec, encoder, plain[:TIMED]), fast)
    yield from memory_rows(case, run, plain)


def pixels_of(plain: list[Plain]) -> int:
    """How many pixels images have."""
    return sum(image.pixels[..., 0].size for image in plain)


def groups(plain: list[Plain]) -> Iterator[list[Plain]]:
    """Images as codecs take them."""
    return (plain[first : first + TOGETHER] for first in range(0, len(plain), TOGETHER))


def speeds(codec: Codec, encoder: Encoder | None, plain: list[Plain]) -> dict[tuple[str, str], float]:
    """Megapixels a second of each codec in each direction."""
    clock = Clock()
    for number, some in enumerate(groups(plain)):
        for _ in range(ROUNDS):
            for name, (encode, decode) in OTHERS.items():
                files = clock.time(name, "encoding", number, map, encode, some)
                clock.time(name, "decoding", number, map, decode, files)
            ours = clock.time("vlae", "encoding", number, pack, codec, encoder, some, False)
            back = clock.time("vlae", "decoding", number, unpack, codec, [one.stored for one in ours])
            assert all(np.array_equal(one, image.pixels) for one, image in zip(back, some, strict=True))
    return {(name, way): pixels_of(plain) / clock.seconds(name, way) / 1e6 for name in (*OTHERS, "vlae") for way in WAYS}


def row(case: str, metric: str, value: float | None, unit: str, against: str = "", theirs: float | None = None, aim: str = "") -> dict[str, object]:
    """One row of the list that is printed."""
    ratio = None if theirs is None or value is None else value / theirs
    limit = float(aim.split()[1]) if aim else None
    met = None if limit is None or ratio is None else bool(ratio <= limit if aim.startswith("<=") else ratio >= limit)
    return {"case": case, "metric": metric, "value": value, "unit": unit, "spread": None, "against": against, "ratio": ratio, "aim": aim, "met": met}


def archived(codec: Codec, plain: list[Plain], packed: list[Packed]) -> tuple[int, int]:
    """Bytes of the archive without its model, and of the model."""
    rows = []
    for number, (image, one) in enumerate(zip(plain, packed, strict=True)):
        sha = bytes.fromhex(identity(image.pixels, image.depth))
        rows.append(Row(About(f"{number:06d}.png", sha, 1, None, None, image.pixels.nbytes), one))
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive.create(Path(folder), codec)
        write_part(archive.new_part(0), rows, codec)
        found = info(archive)
        return found.archive_bytes, found.model_bytes


def size_rows(case: str, sizes: dict[str, int], ours: tuple[int, int], plain: list[Plain], fast: bool) -> Iterator[dict[str, object]]:
    """Bits for each pixel."""
    best, (archive, model), images, pixels = sizes["JPEG XL 9"], ours, len(plain), pixels_of(plain)
    yield row(case, "size", 8 * archive / pixels, "bits/pixel", "JPEG XL 9", 8 * best / pixels, "<= 0.97" if fast else "<= 0.92")
    yield row(case, "size, model included", 8 * (archive + model) / pixels, "bits/pixel", "JPEG XL 9", 8 * best / pixels)
    for name, size in sizes.items():
        yield row(case, f"size of {name}", 8 * size / pixels, "bits/pixel", "JPEG XL 9", 8 * best / pixels)
    yield row(case, "the model pays from", model * images / (best - archive) if best > archive else None, "images", "JPEG XL 9")


def twin_rows(case: str, model: torch.nn.Module, codec: Codec, plain: list[Plain], packed: list[Packed]) -> Iterator[dict[str, object]]:
    """What whole numbers cost: pixels by the twin against pixels by the decoder in float, given the same code."""
    ours = theirs = 0.0
    for image, one in zip(plain, packed, strict=True):
        if one.code.size or codec.codebook is None:
            x = torch.from_numpy(image.pixels.transpose(2, 0, 1)[None].astype(np.float32))
            z = None
            if codec.codebook is not None:
                index = torch.from_numpy(one.code.astype(np.int64)).view(1, *codec.code_shape((x.shape[2], x.shape[3])))
                z = codec.codebook.code(index).float()
            with torch.no_grad():
                theirs -= model.decoder(z, x).log_prob(x).double().sum().item() / np.log(2)
            ours += one.pixel_bits
    yield row(case, "bits of pixels by the twin", ours, "bits", "the decoder in float", theirs, "<= 1.01")


def speed_rows(case: str, speeds: dict[tuple[str, str], float], fast: bool) -> Iterator[dict[str, object]]:
    """Megapixels a second."""
    best = speeds["JPEG XL 9", "encoding"]
    yield row(case, "decoding", speeds["vlae", "decoding"], "MP/s", "JPEG XL 9, encoding", best, ">= 1" if fast else ">= 0.4")
    yield row(case, "encoding", speeds["vlae", "encoding"], "MP/s", "vlae, decoding", speeds["vlae", "decoding"], ">= 1")
    for name in OTHERS:
        for way in WAYS:
            yield row(case, f"{way} of {name}", speeds[name, way], "MP/s", "JPEG XL 9, encoding", best)


def memory_rows(case: str, run: Run, plain: list[Plain]) -> Iterator[dict[str, object]]:
    """Peak memory of a compressing process: the second row's ratio tells whether it grows with the number of images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, image in enumerate(plain):
            write_exact(folder / ("half" if number < len(plain) // 2 else "rest") / f"{number}.png", Exact(image.pixels, image.depth))
        half = peak(run, folder / "half", folder / "archive")
        (folder / "half").rename(folder / "rest" / "half")
        whole = peak(run, folder / "rest", folder / "archive of all")
    yield row(case, "peak memory, half the images", half / 1e6, "MB")
    yield row(case, "peak memory", whole / 1e6, "MB", "half the images", half / 1e6, "<= 1.1")


COMPRESS_AND_TELL = """
import sys
from pathlib import Path
from vlae.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")))
"""


def peak(run: Run, images: Path, archive: Path) -> int:
    """Bytes at most, told by the process itself: what the system tells of a child that has ended counts its parent too."""
    command = [sys.executable, "-c", COMPRESS_AND_TELL, "compress", run.folder, images, "-o", archive, "--processes", "1", "--no-check"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return 1024 * int(done.stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--fast", type=Path, action="append", default=[], help="a run of the fast preset")
    parser.add_argument("--images", type=Path, help="a folder of images, instead of those that each run has held out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="8 images of each: shows that it works")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for folder in [*options.runs, *options.fast]:
        run, limit, fast = Run.open(folder), 8 if options.quick else None, folder in options.fast
        plain = those_of(options.images, run, limit) if options.images else held_out(run, limit)
        of = f"{options.images.name}, {len(plain)}" if options.images else f"{run.settings.data.folder.name}, {len(plain)} test"
        for one in measure(run, plain, f"{of} images{', fast preset' if fast else ''}", fast):
            rows.append(one)
            if not options.json:
                print(*(f"{value:.4g}" if isinstance(value, float) else value for value in one.values()), sep=" | ")
    if options.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    try:
        main()
    except VlaeError as error:
        sys.exit(str(error))
