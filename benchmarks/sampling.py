"""Seconds to draw images, code and pixels: in wavefront order, against one pass over a given batch, raster order with caches, and naively.

Taken in turns in one run, medians. One pass is teacher-forced: all pixels are given, which is what training does; the faster of eager and
compiled (where there is a compiler). Raster order (``raster.py``) draws the same code first. What would take too long is taken from a part
of the image and says so. ``differing pixels`` counts where wavefront and raster order disagree for the same random numbers, and images drawn
together and alone: float32 adds up in another order. Peak memory is the growth of a process of its own while it draws one image.

    python benchmarks/sampling.py --json [--quick]
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from raster import naive, raster
from vlae.core.vlae import VLAE
from vlae.engine.build import build
from vlae.engine.memory import keep_freed_memory
from vlae.engine.settings import ImageFacts, load_settings, resolve

NET = ["keep.window=stack6", "model.width=32", "model.pointwise=0", "train.device=cpu"]
VECTOR = ([*NET, "keep.code=vector", "keep.dims=64"], ImageFacts(depth=1, colours=1, size=(28, 28)))
GRID = ([*NET, "keep.code=grid"], ImageFacts(depth=8, colours=1, size=None))
CASES = {(28, 1): VECTOR, (28, 64): VECTOR, (64, 1): GRID, (64, 16): GRID, (256, 1): GRID, (1024, 1): GRID}
AIMS = {(28, 1): 3.0, (28, 64): 1.2, (256, 1): 2.0}
# Seconds that an opponent may take; beyond them it is measured on a part.
PATIENCE = 8.0


class Subject:
    """A model of a case with its random numbers."""

    def __init__(self, side: int, batch: int) -> None:
        overrides, facts = CASES[side, batch]
        torch.manual_seed(0)
        self.side, self.batch = side, batch
        self.model: VLAE = build(resolve(load_settings(None, overrides, {"data.folder": "."}), facts), facts).eval()
        shape = self.model.code_shape(side, side)
        x = torch.randint(0, 2**facts.depth, (8, facts.colours, min(side, 64), min(side, 64))).float()
        self.model.initialise(x, torch.randn(8, *self.model.code_shape(*x.shape[2:])))
        self.noise, self.uniforms = torch.randn(batch, *shape), torch.rand(batch, self.model.decoder.head.uniforms, side, side)
        self.x = torch.randint(0, 2**facts.depth, (batch, facts.colours, side, side)).float().contiguous(memory_format=torch.channels_last)

    def wavefront(self) -> torch.Tensor:
        """The images of the noise."""
        return self.model.sample(self.noise, self.uniforms)

    @torch.no_grad()
    def one_pass(self, decoder: Callable | None = None) -> torch.Tensor:
        """The log probabilities of given images, with a given code."""
        return (self.model.decoder if decoder is None else decoder)(self.z, self.x).log_prob(self.x)

    def raster(self, rows: int) -> torch.Tensor:
        """The first rows of the images of the noise, in raster order with caches."""
        return raster(self.model.decoder, self.model.prior.sample(self.noise), self.uniforms, rows)

    def naive(self, pixels: int) -> torch.Tensor:
        """The first pixels of the images of the noise, each by a pass over all."""
        return naive(self.model.decoder, self.model.prior.sample(self.noise), self.uniforms, pixels)

    @property
    def z(self) -> torch.Tensor:
        """A code of the batch."""
        return torch.zeros(self.batch, *self.model.code_shape(self.side, self.side))


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fastest_pass(subject: Subject, compiled: bool) -> tuple[str, Callable[[], object]]:
    """One pass, eager or compiled, whichever is faster."""
    subject.one_pass()
    if not compiled:
        return "eager", subject.one_pass
    network = torch.compile(subject.model.decoder, dynamic=False)
    subject.one_pass(network)
    eager, other = (min(seconds(work) for _ in range(3)) for work in (subject.one_pass, lambda: subject.one_pass(network)))
    return ("eager", subject.one_pass) if eager <= other else ("compiled", lambda: subject.one_pass(network))


def part(whole: int, once: float, quick: bool) -> int:
    """How many of ``whole`` pieces fit the patience, where one takes ``once`` seconds."""
    return max(1, min(whole, int((PATIENCE / 10 if quick else PATIENCE) / once)))


def measure(side: int, batch: int, rounds: int, compiled: bool, quick: bool) -> list[dict[str, object]]:
    """The rows of a case."""
    subject = Subject(side, batch)
    drawn = subject.wavefront()
    kind, one_pass = fastest_pass(subject, compiled)
    rows = part(side, seconds(lambda: subject.raster(1)), quick)
    pixels = part(side * side, seconds(lambda: subject.naive(1)), quick)
    works = {
        "wavefront": (subject.wavefront, 1.0),
        "one pass": (one_pass, 1.0),
        "raster with caches": (lambda: subject.raster(rows), side / rows),
        "naive": (lambda: subject.naive(pixels), side * side / pixels),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds):
        for name, (work, scale) in works.items():
            if name in ("wavefront", "one pass") or turn < 2:
                times[name].append(seconds(work) * scale)
    took = {name: statistics.median(t) for name, t in times.items()}
    case = f"{side}x{side}, batch {batch}"
    told = {
        "one pass": f"{kind}, {took['one pass'] * 1e3:.1f} ms",
        "raster with caches": f"{took['raster with caches'] * 1e3:.0f} ms" + (f", estimated from {rows} rows" if rows < side else ""),
        "naive": f"{took['naive']:.2f} s" + (f", estimated from {pixels} pixels" if pixels < side * side else ""),
    }
    found = []
    for against, words in told.items():
        ratio = took["wavefront"] / took[against]
        aim, met = aimed(side, batch, against, ratio)
        found.append(row(case, "drawing", took["wavefront"] * 1e3, "ms", words, against, ratio, aim, met))
    if batch > 1:
        found.append(alone(case, subject, drawn))
    same = rows * side
    apart = int((drawn.flatten(2)[:, :, :same] != subject.raster(rows).flatten(2)[:, :, :same]).any(1).sum())
    return [*found, row(case, "differing pixels", apart, f"of {batch * same}", "", "raster with caches", None, None, None)]


def alone(case: str, subject: Subject, drawn: torch.Tensor, images: int = 4) -> dict[str, object]:
    """How many pixels of a few images differ when each is drawn by itself: float32 may add up in another order."""
    apart = 0
    for n in range(images):
        image = subject.model.sample(subject.noise[n : n + 1], subject.uniforms[n : n + 1])
        apart += int((image != drawn[n : n + 1]).any(1).sum())
    return row(case, "differing pixels", apart, f"of {images * subject.side**2}", "", "drawn alone", None, None, None)


def aimed(side: int, batch: int, against: str, ratio: float) -> tuple[str | None, bool | None]:
    """The issue's aim for a comparison, and whether it is reached."""
    if against == "one pass" and (side, batch) in AIMS:
        return f"<= {AIMS[side, batch]:g}", ratio <= AIMS[side, batch]
    if (side, batch) == (64, 1) and against != "one pass":
        most = {"raster with caches": 1 / 10, "naive": 1 / 500}[against]
        return f"<= {most:g}", ratio <= most
    return None, None


def row(
    case: str, metric: str, value: float, unit: str, spread: str, against: str, ratio: float | None, aim: str | None, met: bool | None
) -> dict[str, object]:
    """A line of the result; a ratio is of our time over theirs."""
    measured = {"case": case, "metric": metric, "value": value, "unit": unit, "spread": spread}
    return measured | {"against": against, "ratio": ratio, "aim": aim, "met": met}


def growth(rows: list[dict[str, object]], sides: list[int]) -> dict[str, object]:
    """How the time of one image grows with its side."""
    times = [next(float(str(r["value"])) for r in rows if r["case"] == f"{s}x{s}, batch 1" and r["metric"] == "drawing") for s in sides]
    power = math.log(times[-1] / times[0]) / math.log(sides[-1] / sides[0])
    return row(
        f"{sides[0]} to {sides[-1]} a side, batch 1", "time grows as side to the power of", power, "", "raster order has 2", "", None, None, None
    )


def peak(side: int) -> int:
    """Bytes by which this process grows at most while it draws one image, the image and the code's map included (Linux)."""
    subject, small = Subject(side, 1), Subject(28, 1)
    small.wavefront()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _kilobytes("VmRSS")
    subject.wavefront()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")))


def memory(side: int) -> dict[str, object]:
    """The peak of an image, measured in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--peak", str(side)], check=True, capture_output=True, text=True)
    return row(
        f"{side}x{side}, batch 1", "peak memory of drawing", int(done.stdout) / 2**20, "MiB", "image and code map included", "", None, None, None
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small images and few rounds: shows that it works")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return
    keep_freed_memory()
    cases = [case for case in CASES if case[0] <= (64 if options.quick else 1024)]
    compiled = not options.quick and shutil.which("g++") is not None
    rows = [r for side, batch in cases for r in measure(side, batch, 3 if options.quick else 9 if side < 256 else 3, compiled, options.quick)]
    sides = sorted({side for side, batch in cases if batch == 1})
    rows += [growth(rows, sides), *(memory(side) for side in sides)]
    print(json.dumps(rows, indent=1) if options.json else "\n".join(str(r) for r in rows))


if __name__ == "__main__":
    main()
