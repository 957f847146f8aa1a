"""How long it takes to look for defects: an image of 256x256 against passes of its decoder, one of 8000x2000 in tiles and its memory.

    python benchmarks/detection_speed.py RUN --json [--quick]

RUN is one with a grid code for grey images (recipes/inspection.yaml). Both are timed in turns in one process; a pass is the decoder's log probability
of the image given its code.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from vlae.engine.inspection.evidence import evidence
from vlae.engine.inspection.look import look
from vlae.engine.inspection.reference import fitted
from vlae.engine.measure import load
from vlae.engine.memory import keep_freed_memory
from vlae.engine.run import Run

AIM = 5.0
REPEATS = 15


def laid_out(run: Run, height: int, width: int) -> torch.Tensor:
    """A large image made of those of the run, side by side."""
    images = run.images()
    one = load(images, images.indices("test")[:1], 0)
    times = [-(-wanted // had) for wanted, had in zip((height, width), one.shape[2:], strict=True)]
    return one.repeat(1, 1, *times)[:, :, :height, :width].contiguous()


@torch.no_grad()
def measure(run: Run, large: tuple[int, int]) -> Iterator[dict[str, object]]:
    """The rows."""
    keep_freed_memory()
    model = run.model(torch.device("cpu"))
    x = laid_out(run, 256, 256)
    reference = fitted([evidence(model, x)], by_place=False)
    z = None if model.encoder is None else model.posterior(x).centre
    ours, theirs = in_turns(lambda: list(look(model, reference, x)), lambda: model.decoder(z, x).log_prob(x))
    ratio = float(np.median(ours / theirs))
    low, high = np.percentile(ours / theirs, [25, 75])
    compared = {"against": "pass of the decoder", "ratio": ratio, "aim": f"<= {AIM:g}", "met": ratio <= AIM}
    yield row(
        "256x256", "time an image, map included", 1000 * float(np.median(ours)), "ms", f"quartiles of the ratio {low:.2f} to {high:.2f}", **compared
    )
    before, start = peak(), time.perf_counter()
    list(look(model, reference, laid_out(run, *large)))
    case = f"{large[1]}x{large[0]}, in tiles"
    yield row(case, "time", time.perf_counter() - start, "s")
    yield row(case, "peak memory beyond what the program takes", (peak() - before) / 1e6, "MB")


def in_turns(one: Callable[[], object], other: Callable[[], object]) -> tuple[np.ndarray, np.ndarray]:
    """The seconds of each of two pieces of work, done in turns."""
    found = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        one()
        between = time.perf_counter()
        other()
        found.append((between - start, time.perf_counter() - between))
    ours, theirs = np.array(found[2:]).T
    return ours, theirs


def peak() -> float:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def row(case: str, metric: str, value: float, unit: str, spread: str | None = None, **compared: object) -> dict[str, object]:
    """One row of the list that is printed."""
    nothing = {"against": "", "ratio": None, "aim": None, "met": None}
    return {"case": case, "metric": metric, "value": value, "unit": unit, "spread": spread, **nothing, **compared}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a large image of 1000x800")
    options = parser.parse_args()
    rows = list(measure(Run.open(options.run), (800, 1000) if options.quick else (2000, 8000)))
    print(json.dumps(rows, indent=1) if options.json else "\n".join(" | ".join(map(str, r.values())) for r in rows))


if __name__ == "__main__":
    main()
