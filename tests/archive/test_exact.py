"""The proof: what was written here is read, to the last integer of every layer, on other instruction sets, threads, batches and precisions.

Run as a program it is the other machine: it reads what the test wrote, in the way that it is told to, and says what it found.
"""

import copy
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vlae.archive.codec import Codec
from vlae.archive.coder import decode, encode

from .build import made, plan, tensors

COUNT = 17  # from 16 images on, and without oneDNN, torch would hand convolutions to NNPACK, whose transforms are not exact
PLANS = {
    "grey": plan("stack2"),
    "rgb": plan("4x2", colours=3),
    "seen as grey": plan("stack2", "grey", colours=3),
    "bits": plan("stack2", levels=2),
    "16 bits": plan("stack2", levels=65536),
    "vector": plan("none", code="vector", size=(12, 12)),
}
HERE = {"capability": "", "mkldnn": True, "threads": 1, "batch": 7, "double": False, "device": "cpu"}
OTHERS = {
    "no oneDNN": {"mkldnn": False, "batch": COUNT},
    "default": {"capability": "default", "batch": COUNT},
    "avx2": {"capability": "avx2", "batch": 1, "threads": 2},
    "default without oneDNN": {"capability": "default", "mkldnn": False, "threads": 2, "batch": 4},
    "double": {"double": True, "batch": 5},
    "double, default, without oneDNN": {"double": True, "capability": "default", "mkldnn": False, "batch": COUNT},
    "GPU": {"device": "cuda", "batch": COUNT},
    "GPU, double": {"device": "cuda", "double": True, "batch": 5},
}


def digest(values):
    """Of whole numbers, whatever holds them."""
    assert all(torch.equal(v, v.round()) for v in values)
    return hashlib.sha256(b"".join(v.long().cpu().contiguous().numpy().tobytes() for v in values)).hexdigest()


def read(folder, way):
    """What the streams of a folder give when they are read so: digests of the codes, the images and the integers of every layer."""
    torch.set_num_threads(way["threads"])
    if not way["mkldnn"]:
        torch.backends.mkldnn.enabled = False
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        codec, stored = Codec.read(path.read_bytes()), np.load(path.with_suffix(".npz"))
        if way["double"]:
            codec = Codec(codec.plan, copy.deepcopy(codec.twin).double(), codec.codebook, codec.weights)
        words = [stored[f"arr_{n}"] for n in range(COUNT)]
        parts = [slice(n, n + way["batch"]) for n in range(0, COUNT, way["batch"])]
        batches = [decode(codec, words[part], (12, 12)) for part in parts]
        code, x = torch.cat([b.code for b in batches]), torch.cat([b.x for b in batches])
        z = codec.codebook.whole(code).to(codec.twin.dtype)
        there = copy.deepcopy(codec.twin).to(way["device"])
        layers = [tensors(there, z[part].to(way["device"]), x[part].to(way["device"])) for part in parts]
        found[path.stem] = [digest([code]), digest([x]), *(digest([torch.cat(some)]) for some in zip(*layers, strict=True))]
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of codecs and streams, and what they hold."""
    torch.set_default_dtype(torch.float32)  # a fixture of a module comes before those of its tests
    folder = tmp_path_factory.mktemp("exact")
    for name, wanted in PLANS.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            one = made(wanted, COUNT, (12, 12))
        words = [e.words for n in range(0, COUNT, 7) for e in encode(one.codec, one.index[n : n + 7], one.x[n : n + 7])]
        (folder / f"{name}.safetensors").write_bytes(one.codec.data)
        np.savez(folder / f"{name}.npz", *words)
        (folder / f"{name}.json").write_text(json.dumps([digest([one.index]), digest([one.x])]))
    found = read(folder, HERE)
    assert all(found[name][:2] == json.loads((folder / f"{name}.json").read_text()) for name in PLANS)
    return folder, found


@pytest.mark.parametrize("way", [pytest.param(name, marks=[pytest.mark.slow] if name != "no oneDNN" else []) for name in OTHERS])
def test_every_integer_is_the_same_elsewhere(written, way):
    folder, found = written
    wanted = OTHERS[way]
    if wanted.get("capability") == "avx2" and "AVX" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("this processor has no AVX2")
    if wanted.get("device") == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    env = os.environ | {"OMP_WAIT_POLICY": "passive"} | ({"ATEN_CPU_CAPABILITY": wanted["capability"]} if "capability" in wanted else {})
    done = subprocess.run([sys.executable, "-m", __name__, folder, json.dumps(HERE | wanted)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    if "capability" in wanted:
        assert there.pop("capability").lower() == wanted["capability"]
    there.pop("capability", None)
    assert there == found


def test_a_digest_tells_one_integer_from_another(written):
    """Else the same digests would prove nothing."""
    found = written[1]
    assert len({d for some in found.values() for d in some}) > 0.8 * sum(len(some) for some in found.values())
    assert all(len(some) > 8 for name, some in found.items() if name != "vector")
    assert digest([torch.tensor([1.0, 2.0])]) != digest([torch.tensor([1.0, 3.0])])


def test_the_archive_does_not_care_for_the_floats_that_it_was_made_from(monkeypatch):
    """Neither for the decoder's weights, once there is a codec, nor for what a float exponential or sigmoid is on this machine."""
    one = made(plan("stack2"))
    streams, data = [e.words for e in encode(one.codec, one.index, one.x)], one.codec.data
    told = one.real(one.codes, one.x).log_prob(one.x)
    with torch.no_grad():
        for weights in one.real.parameters():
            weights.add_(1e-3 * torch.randn_like(weights))
    for function in ("exp", "sigmoid", "softplus", "tanh", "log"):
        for owner in (torch, torch.Tensor, torch.nn.functional):
            if (real := getattr(owner, function, None)) is not None:
                monkeypatch.setattr(owner, function, lambda *given, real=real, **named: real(*given, **named) * (1 + 1e-6))
    monkeypatch.setattr(math, "exp", lambda x: float(np.exp(x)) * (1 + 1e-12))
    assert not torch.equal(one.real(one.codes, one.x).log_prob(one.x), told), "the floats are others"
    codec = Codec.read(data)
    found = decode(codec, streams, one.x.shape[2:])
    assert torch.equal(found.x, one.x) and torch.equal(found.code, one.index)
    assert all(np.array_equal(a.words, b) for a, b in zip(encode(codec, one.index, one.x), streams, strict=True))


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]), json.loads(sys.argv[2])) | {"capability": torch.backends.cpu.get_cpu_capability()}))
