"""The first archive: it is decoded for ever, and what is written today is the same to the last byte.

``python -m tests.archive.test_golden`` made it, and makes the next one where a format has changed: then ``VERSION`` grows, the older
folders stay, and so does the test that they can be read.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vlae.archive import codec as codec_module
from vlae.archive import pack as pack_module
from vlae.archive import parts as parts_module
from vlae.archive.archive import Archive, Image
from vlae.archive.codec import Codec
from vlae.archive.pack import Plain, pack
from vlae.archive.parts import SCHEMA, write_part

from .build import archive, encoder, made, plan, row

GOLDEN, VERSION = Path(__file__).parent / "golden", 2
HERE = GOLDEN / f"v{VERSION}"


def pictures():
    """By integer arithmetic: the same wherever they are made."""
    y, x = np.mgrid[0:13, 0:520].astype(np.int64)
    noise = (x**3 * 7919 + y * 104729 + x * x * y * 31337) % 9973
    grey = (110 + noise % 11 + noise % 13 + noise % 17)[..., None].astype(np.uint8)
    rgb = np.stack([noise % 256, (noise * 3 + x) % 256, (noise * 5 + y) % 256], axis=-1).astype(np.uint8)
    return {
        "grey.png": Plain(grey[:, :18], 8),
        "two tiles.png": Plain(grey[:3], 8),
        "grey in rgb.png": Plain(grey[:9, :5].repeat(3, axis=2), 8),
        "rgb.png": Plain(rgb[:, :18], 8),
        "bits.png": Plain(((noise % 3 + x) % 2)[:, :18, None].astype(np.uint8), 1),
        "deep.png": Plain((noise * 6)[:4, :5, None].astype(np.uint16), 16),
        "one.png": Plain(grey[:1, :1], 8),
    }


def sums(streams):
    return {name: hashlib.sha256(data).hexdigest() for name, data in streams.items()}


def make(folder):
    """A new golden archive, of a decoder of 4 channels with a grid code, and what it holds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    new = archive(folder / "archive", made(plan("stack2"), coarseness=4.0, tame=True).codec, pictures())
    told = {name: {"pixels": value} for name, value in sums({name: image.pixels.tobytes() for name, image in pictures().items()}).items()}
    for one in new.rows(streams=True):
        told[one.about.name] |= {"encoding": one.packed.stored.encoding, "stream": hashlib.sha256(one.packed.stored.stream).hexdigest()}
    (folder / "expected.json").write_text(json.dumps(told, indent=1) + "\n")


def versions():
    return sorted(GOLDEN.glob("v*"))


@pytest.mark.parametrize("folder", versions(), ids=lambda folder: folder.name)
def test_every_golden_archive_is_decoded(folder):
    told = json.loads((folder / "expected.json").read_text())
    found = {i.row.about.name: i for i in Archive.open(folder / "archive").images()}
    assert found.keys() == told.keys() and all(isinstance(i, Image) for i in found.values())
    assert sums({n: i.pixels.tobytes() for n, i in found.items()}) == {n: t["pixels"] for n, t in told.items()}
    assert sums({n: i.row.packed.stored.stream for n, i in found.items()}) == {n: t["stream"] for n, t in told.items()}
    assert {i.row.packed.stored.encoding for i in found.values()} > {"vlae"}


@pytest.mark.parametrize("folder", versions(), ids=lambda folder: folder.name)
def test_every_golden_archive_is_added_to(folder, tmp_path):
    there = Archive.open(Path(shutil.copytree(folder / "archive", tmp_path / "archive")))
    names, image = [one.about.name for one in there.rows()], Plain(pictures()["grey.png"].pixels[::-1].copy(), 8)
    write_part(there.new_part(0), [row("new.png", image, pack(there.codec, encoder(there.codec), [image])[0])], there.codec)
    again = Archive.open(there.folder)
    assert [one.about.name for one in again.rows()] == again.dataset().to_table()["name"].to_pylist() == [*names, "new.png"]
    (new,) = again.images(names=frozenset(["new.png"]))
    assert again.dataset().schema == SCHEMA and new.pixels.tobytes() == image.pixels.tobytes()


def test_todays_streams_are_those_of_the_golden_archive(monkeypatch):
    """Those of ours: how small JPEG XL and PNG are is a matter of their libraries."""
    monkeypatch.setattr(pack_module, "_jpeg_xl", lambda image, effort: None)
    monkeypatch.setattr(pack_module, "png", lambda pixels, depth, level: bytes(10**6))
    told, codec = json.loads((HERE / "expected.json").read_text()), Archive.open(HERE / "archive").codec
    ours = [name for name, t in told.items() if t["encoding"] == "vlae"]
    found = pack(codec, encoder(codec), [pictures()[name] for name in ours])
    assert ours == ["grey.png", "two tiles.png", "grey in rgb.png", "one.png"]
    assert sums({n: p.stored.stream for n, p in zip(ours, found, strict=True)}) == {n: told[n]["stream"] for n in ours}


def test_its_model_is_the_same_file_when_it_is_written_again():
    data = (HERE / "archive" / "model.safetensors").read_bytes()
    codec = Codec.read(data)
    again = Codec(codec.plan, codec.twin, codec.codebook, codec.weights)
    assert again.data == data and again.key == hashlib.sha256(data).hexdigest()


def test_there_is_one_for_every_format():
    assert max(codec_module.FORMAT, parts_module.FORMAT) == VERSION and [f.name for f in versions()] == [f"v{n}" for n in range(1, VERSION + 1)]


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    make(HERE)
