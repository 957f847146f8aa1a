"""A codec is the same file wherever it is made, and no file makes reading it fail in another way than by saying so."""

import hashlib
import json
import math
import os
import resource
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from vlae.archive.codec import FORMAT, Codec
from vlae.archive.coder import decode, encode
from vlae.errors import ArchiveError

from .build import made, plan
from .test_twin import KINDS

PLANS = {**{kind: plan("4x2", **some) for kind, some in KINDS.items() if kind != "few levels"}, "vector": plan("all", code="vector", size=(6, 7))}
LIMIT = 2**30


def one_of(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return made(PLANS[name])


def opened(data):
    """What a file tells, and its tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["codec"]), load(data)


def closed(told, tensors):
    return save(tensors, {"codec": json.dumps(told)})


@pytest.mark.parametrize("name", PLANS)
def test_a_codec_that_was_read_writes_the_same_words_and_is_the_same_file(name):
    one = one_of(name)
    again = Codec.read(one.codec.data)
    assert again.data == one.codec.data and again.key == one.codec.key == hashlib.sha256(one.codec.data).hexdigest()
    assert again.plan == one.codec.plan and again.weights == one.codec.weights
    found, others = (encode(codec, one.index, one.x) for codec in (one.codec, again))
    assert all(np.array_equal(a.words, b.words) for a, b in zip(found, others, strict=True))
    assert torch.equal(decode(again, [e.words for e in found], (6, 7)).x, one.x)


@pytest.mark.parametrize("name", PLANS)
def test_another_model_has_another_key(name):
    one = one_of(name).codec
    told, tensors = opened(one.data)
    with torch.no_grad():
        tensors["out.b"][0] += 1
    assert Codec.read(closed(told, tensors)).key != one.key
    assert Codec.read(one.data).key == one.key


@pytest.mark.slow
def test_the_file_is_the_same_when_it_is_made_again_in_another_process():
    code = "import hashlib, torch; from tests.archive.test_codec import PLANS, one_of; print(*[one_of(n).codec.key for n in PLANS])"
    env = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [one_of(name).codec.key for name in PLANS]


def test_it_holds_whole_numbers_in_few_bytes():
    tensors = opened(one_of("grey").codec.data)[1]
    assert {t.dtype for name, t in tensors.items() if "step" not in name} <= {torch.int8, torch.int16, torch.int32}
    steps = torch.cat([t.flatten() for name, t in tensors.items() if name.endswith(("step", "steps"))])
    assert steps.dtype == torch.float64 and (steps.log2() % 1 == 0).all(), "powers of two"


def reads(data):
    """Whether it can be read; that it cannot is an ``ArchiveError``, and nothing else."""
    try:
        Codec.read(data)
    except ArchiveError:
        return False
    return True


def test_what_is_cut_short_or_has_a_tail_is_refused():
    data = one_of("grey").codec.data
    assert reads(data)
    assert not any(reads(data[:n]) for n in [*range(0, len(data), 97), len(data) - 1]) and not reads(data + b"\0")


@given(st.data())
@settings(max_examples=100)
def test_any_flipped_bits_are_refused_or_make_another_codec(data):
    good = bytearray(one_of("grey").codec.data)
    header = 8 + int.from_bytes(good[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(good) - 1)))] ^= 1 << data.draw(st.integers(0, 7))
    reads(bytes(good))


PLAN = asdict(PLANS["grey"])
LIES = {
    "newer": {"format": FORMAT + 1},
    "formatless": {"format": None},
    "format is text": {"format": "1"},
    "fraction-is-huge": {"fraction": 10**9},
    "fraction-is-infinite": {"fraction": math.inf},
    "fraction-is-negative": {"fraction": -(10**6)},
    "fraction is a list": {"fraction": [1]},
    "shift-is-huge": {"prediction_shift": 10**9},
    "shift-is-infinite": {"prediction_shift": math.inf},
    "no plan": {"plan": None},
    "plan is a list": {"plan": [1, 2]},
    "no widths": {"plan": PLAN | {"widths": (), "blocks": ()}},
    "fewer blocks than widths": {"plan": PLAN | {"blocks": (0,)}},
    "another width": {"plan": PLAN | {"width": 5}},
    "zero width": {"plan": PLAN | {"width": 0}},
    "many levels of the pyramid": {"plan": PLAN | {"widths": (3,) * 64, "blocks": (1,) * 64}},
    "wide": {"plan": PLAN | {"width": 8192, "window": "99x99"}},
    "deep": {"plan": PLAN | {"window": "stack99", "pointwise": 64}},
    "wide pyramid": {"plan": PLAN | {"widths": (8192, 8192), "blocks": (64, 64)}},
    "many components": {"plan": PLAN | {"components": 64, "width": 8192}},
    "huge-image": {"plan": PLAN | {"window": "all", "image": (8192, 8192)}},
    "huge-vector": {"plan": PLAN | {"code": "vector", "hidden": 8192, "image": (8192, 8192)}},
    "no such window": {"plan": PLAN | {"window": "heart"}},
    "too many levels": {"plan": PLAN | {"levels": 2**40}},
    "a smoothed window": {"plan": PLAN | {"context": "low"}},
    "dense blocks": {"plan": PLAN | {"block": "densenet"}},
}


@pytest.mark.parametrize("lie", [pytest.param(lie, marks=[pytest.mark.slow] if lie == "deep" else []) for lie in LIES])
def test_what_a_file_says_of_itself_is_not_believed(lie):
    told, tensors = opened(one_of("grey").codec.data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not reads(closed(told | LIES[lie], tensors))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < LIMIT / 4


def test_a_newer_format_says_what_to_do():
    told, tensors = opened(one_of("grey").codec.data)
    with pytest.raises(ArchiveError, match=rf"newer version.*format {FORMAT + 1}.*Update vlae"):
        Codec.read(closed(told | {"format": FORMAT + 1}, tensors))


def test_so_it_is_with_the_shapes_of_its_tensors():
    told, tensors = opened(one_of("grey").codec.data)
    for name, values in list(tensors.items())[::3]:
        others = {n: t for n, t in tensors.items() if n != name}
        assert not reads(closed(told, others)), "missing"
        assert not reads(closed(told, others | {name + "x": values})), "of another name"
        assert name.startswith("codebook") or not reads(closed(told, others | {name: values.flatten().repeat(2)})), "of another shape"


def test_foreign_files_are_refused():
    for data in (b"", b"\0" * 8, b"PK\3\4" + b"\0" * 100, b"[" * 10**6, save({"a": torch.zeros(3)}), save({}, {"codec": "[" * 10**5})):
        assert not reads(data)
    assert not reads((2**62).to_bytes(8, "little") + b"{}")


NUMBERS = ("out.w", "net.convs.0.0.w", "net.prediction", "code_map.first.w", "out.b", "net.gate.steps")
HOSTILE = [(name, bad) for name in NUMBERS for bad in (2**23, 2**62)]
HOSTILE += [("codebook.steps", bad) for bad in (0, -4, 3, 2**40)] + [("codebook.scales", bad) for bad in (-1, 10**6)] + [("codebook.means", 2**60)]


@pytest.mark.parametrize("name, bad", HOSTILE)
def test_numbers_beyond_the_exact_range_are_refused_or_do_no_harm(name, bad):
    """A model of ours has none, and a damaged file is found by its key. A hostile one gives other pixels, which the SHA-256 tells, or an error."""
    one = one_of("grey")
    told, tensors = opened(one.codec.data)
    streams = [e.words for e in encode(one.codec, one.index, one.x)]
    try:
        hostile = Codec.read(closed(told, tensors | {name: torch.full_like(tensors[name].long(), bad)}))
        x = decode(hostile, streams, (6, 7)).x
    except (ArchiveError, AssertionError, RuntimeError, IndexError, ValueError):
        return
    assert x.shape == one.x.shape and torch.equal(x, x.round().clamp(0, 255))
