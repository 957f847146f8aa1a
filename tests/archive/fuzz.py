"""Damage an archive at random, thousands of times: each image comes out right, or is named, or the archive is refused; nothing else happens.

``python -m tests.archive.fuzz --count 10000 --seed 0`` prints a JSON of counts. Each case has a number and can be repeated by it:
``--seed N --count 1``. Cases run in children: one that crashes, hangs or wants too much memory ends a child, and is told by its number.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from functools import cache
from pathlib import Path

import google_crc32c
import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vlae.archive.archive import Archive, Image
from vlae.errors import ArchiveError

from .build import archive, expected, made, plan

EACH, SECONDS, MEMORY = 250, 20, 2**30
BAD = ("wrong pixels", "lost without a word", "should not hurt", "exception", "crash", "hang")
FORMS = [(8, 1), (8, 1), (8, 3), (8, 1), (1, 1), (16, 1), (8, 1)]
IMAGES = {f"{n}.png": expected(form, (6, 9), n) for n, form in enumerate(FORMS)}
Files = dict[str, bytes]
NUMBERS = (0, -1, 1, 2, 3, 255, 2**15, 2**31 - 1, -(2**31), 20_000, 8)


def files_of(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def whole() -> Files:
    """The archive that is damaged: seven images in three parts, in all encodings."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        return files_of(archive(Path(folder), made(plan("stack2"), coarseness=4.0, tame=True).codec, IMAGES, 3).folder)


def pick(files: Files, rng: random.Random, end: str) -> str:
    return rng.choice([name for name in files if name.endswith(end)])


def noise(data: bytes, rng: random.Random) -> bytes:
    """Bits, runs, zeros, blocks or the length of some bytes are others."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not found:
            return b""
        at, length = rng.randrange(len(found)), rng.choice((1, 4, 16, 200))
        kind = rng.choice(("bit", "bit", "bit", "run", "zeros", "ones", "cut", "tail", "drop", "double", "swap"))
        if kind == "bit":
            found[at] ^= 1 << rng.randrange(8)
        elif kind in ("run", "zeros", "ones"):
            some = {"run": rng.randbytes(length), "zeros": bytes(length), "ones": b"\xff" * length}[kind]
            found[at : at + length] = some[: len(found) - at]
        elif kind == "cut":
            del found[at:]
        elif kind == "tail":
            found += rng.randbytes(length)
        elif kind == "drop":
            del found[at : at + length]
        elif kind == "double":
            found[at:at] = found[at : at + length]
        else:
            to = rng.randrange(len(found))
            found[at : at + length], found[to : to + length] = found[to : to + length], found[at : at + length]
    return bytes(found)


def rewritten(data: bytes, column: str, row: int, value: object, metadata: dict | None = None) -> bytes:
    """A part with another value in one row, its checksums right."""
    table = pq.read_table(io.BytesIO(data))
    values = table[column].to_pylist()
    values[row] = value
    table = table.set_column(table.column_names.index(column), table.schema.field(column), [pa.array(values, table.schema.field(column).type)])
    if column == "stream" and value is not None:
        return rewritten(written(table), "crc32c", row, google_crc32c.value(value))
    return written(table.replace_schema_metadata(metadata) if metadata else table)


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


@cache
def bombs() -> list[bytes]:
    """Small streams of large images."""
    large = np.zeros((4000, 4000), np.uint8)
    return [bytes(imagecodecs.png_encode(large)), bytes(imagecodecs.jpegxl_encode(large, lossless=True, effort=1))]


def hostile(data: bytes, rng: random.Random) -> bytes:
    """A part whose checksums are right, with a value that is not."""
    table = pq.read_table(io.BytesIO(data))
    row = rng.randrange(table.num_rows)
    values, others = table.slice(row, 1).to_pylist()[0], table.to_pylist()
    other = rng.choice(others)
    column = rng.choice(
        ("height", "width", "channels", "depth", "encoding", "code_shape", "code", "sha256", "name", "stream", "stream", "stream", "size")
    )
    if column in ("height", "width"):
        value: object = rng.choice((*NUMBERS, None))
    elif column in ("channels", "depth"):
        value = rng.choice((0, -1, 1, 2, 3, 4, 8, 16, 127, None))
    elif column == "encoding":
        value = rng.choice(("vlae", "png", "jxl", "", "exe", None))
    elif column == "code_shape":
        value = rng.choice(([2, 3, 4], [0, 0, 0], [-1, -1, -1], [32767, 32767, 32767], None))
    elif column == "code":
        value = rng.choice(([], [1] * 10_000, None, [-32768] * 6))
    elif column == "sha256":
        value = rng.choice((bytes(32), other["sha256"], None))
    elif column == "name":
        value = rng.choice(("", other["name"], "x" * 10**5, "../../etc/passwd", "\0", None))
    elif column == "stream":
        value = rng.choice(
            (
                other["stream"],
                rng.randbytes(rng.choice((0, 1, 4, 8, 400))),
                noise(values["stream"], rng),
                noise(values["stream"], rng),
                *bombs(),
                None,
            )
        )
    else:
        huge = rng.choice((100, 1000, 4000, 30_000, 10**6))
        return rewritten(rewritten(data, "height", row, huge), "width", row, rng.choice((1, huge)))
    return rewritten(data, column, row, value)


def bits(files: Files, rng: random.Random) -> None:
    name = pick(files, rng, ".parquet")
    files[name] = noise(files[name], rng)


def rows(files: Files, rng: random.Random) -> None:
    name = pick(files, rng, ".parquet")
    files[name] = hostile(files[name], rng)


def one_model(files: Files, rng: random.Random) -> None:
    name = pick(files, rng, ".safetensors")
    files[name] = noise(files[name], rng)
    if rng.random() < 0.2:
        del files[name]


def both_models(files: Files, rng: random.Random) -> None:
    names, alike = ("model.safetensors", "model.copy.safetensors"), rng.random() < 0.5
    first = noise(files[names[0]], rng)
    files[names[0]], files[names[1]] = first, first if alike else noise(files[names[1]], rng)


def another_model(files: Files, rng: random.Random) -> None:
    """A hostile model that the parts know: its numbers are others."""
    import hashlib

    good = files["model.safetensors"]
    start = 8 + int.from_bytes(good[:8], "little") if rng.random() < 0.8 else 0
    data = good[:start] + noise(good[start:], rng)[: len(good) - start]
    data += bytes(len(good) - len(data))
    files["model.safetensors"] = files["model.copy.safetensors"] = data
    for name in [name for name in files if name.endswith(".parquet")]:
        told = json.loads(pq.read_schema(io.BytesIO(files[name])).metadata[b"vlae"]) | {"codec": hashlib.sha256(data).hexdigest()}
        files[name] = written(pq.read_table(io.BytesIO(files[name])).replace_schema_metadata({"vlae": json.dumps(told)}))


def lists(files: Files, rng: random.Random) -> None:
    name = pick(files, rng, ".names.json")
    files[name] = noise(files[name], rng)
    if rng.random() < 0.2:
        del files[name]


def gone(files: Files, rng: random.Random) -> None:
    del files[pick(files, rng, ".parquet")]


def doubled(files: Files, rng: random.Random) -> None:
    name = pick(files, rng, ".parquet")
    other = rng.choice(
        ("parts/part-00009-00000000.parquet", "parts/part-x.parquet", "parts/part-00000.parquet", "parts/part-99999999999-00000000.parquet")
    )
    files[other] = rng.choice((files[name], files[pick(files, rng, ".safetensors")], b""))


def swapped(files: Files, rng: random.Random) -> None:
    one, other = pick(files, rng, ""), pick(files, rng, "")
    files[one], files[other] = files[other], files[one]


def metadata(files: Files, rng: random.Random) -> None:
    name = pick(files, rng, ".parquet")
    told = pq.read_schema(io.BytesIO(files[name])).metadata[b"vlae"]
    new = rng.choice((noise(told, rng), b"", b"[" * 10**5, b"{}", told.replace(b'"format": 1', b'"format": 1e999'), told.replace(b"1", b"null", 1)))
    files[name] = written(pq.read_table(io.BytesIO(files[name])).replace_schema_metadata({"vlae": new}))


KINDS = {f.__name__: f for f in (bits, rows, one_model, both_models, another_model, lists, gone, doubled, swapped, metadata)}
ORDER = ["bits"] * 6 + ["rows"] * 5 + [name for name in KINDS if name not in ("bits", "rows")]
HARMLESS = ("one_model", "lists")


def case(good: Files, seed: int, folder: Path) -> tuple[str, str]:
    """Damage of this number: its kind and what came of it."""
    rng, files = random.Random(seed), dict(good)
    kind = rng.choice(ORDER)
    KINDS[kind](files, rng)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "parts").mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        outcome = seen(folder, kind)
    except ArchiveError:
        outcome = "refused"
    except Exception:
        print(seed, kind, traceback.format_exc(), file=sys.stderr)
        outcome = "exception"
    if kind in HARMLESS and outcome != "right":
        return kind, "should not hurt"
    return kind, outcome


def seen(folder: Path, kind: str) -> str:
    right: set[str] = set()
    damaged: dict[str, str] = {}
    shas = {name: (image.pixels.tobytes(), image.pixels.shape) for name, image in IMAGES.items()}
    for found in Archive.open(folder).images():
        if isinstance(found, Image):
            right.add(found.row.about.name)
            if (found.pixels.tobytes(), found.pixels.shape) not in shas.values():
                return "wrong pixels"
            if kind != "rows" and (found.pixels.tobytes(), found.pixels.shape) != shas.get(found.row.about.name):
                return "wrong pixels"
        else:
            damaged[str(found.name)] = found.reason
    part_named = any(name.startswith("(all of") for name in damaged)
    renamed = kind == "rows" and len(right | damaged.keys()) >= len(IMAGES) - 1  # a hostile row may bear any name, one that is there too
    if not (right | damaged.keys() >= IMAGES.keys() or part_named or renamed):
        return "lost without a word"
    if any("llocat" in reason or "memory" in reason.lower() for reason in damaged.values()):
        return "no memory"
    return "damage named" if damaged else "right"


def child(good: Files, seeds: range, log: Path, folder: Path) -> None:
    """Run some cases; each is told before it begins, and what came of it after."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("a", buffering=1) as file:
        for seed in seeds:
            file.write(f"{seed}\n")
            signal.alarm(SECONDS)
            kind, outcome = case(good, seed, folder)
            signal.alarm(0)
            file.write(f"{seed} {kind} {outcome}\n")


def run(count: int, seed: int) -> dict:
    """The counts of so many cases, by kind and outcome, and the numbers of those that should not be."""
    torch.set_num_threads(1)
    good, began = whole(), time.monotonic()
    bombs()
    counts: Counter[str] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        log, left = Path(folder) / "log", range(seed, seed + count)
        while left:
            log.write_text("")
            if (pid := os.fork()) == 0:
                try:
                    child(good, left[:EACH], log, Path(folder) / "archive")
                finally:
                    sys.stderr.flush()
                    os._exit(0)
            _, status = os.waitpid(pid, 0)
            lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
            done = [line for line in lines if len(line) == 3]
            if len(done) < len(left[:EACH]):
                last = lines[-1][0] if lines else str(left[0])
                done.append([last, "?", "hang" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "crash"])
            counts.update(f"{kind}: {outcome}" for _, kind, outcome in done)
            bad += [" ".join(line) for line in done if line[2] in BAD]
            left = left[len(done) :]
    outcomes: Counter[str] = Counter()
    for name, n in counts.items():
        outcomes[name.split(": ")[1]] += n
    return {
        "cases": count,
        "seconds": round(time.monotonic() - began, 1),
        "outcomes": dict(outcomes.most_common()),
        "by kind": dict(sorted(counts.items())),
        "bad": bad,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(run(args.count, args.seed), indent=1))


if __name__ == "__main__":
    main()
