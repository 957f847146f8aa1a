"""What a code keeps against what its decoder may see: windows of 0 to 13 columns, the same settings otherwise.

Each window's model is trained with the same seed, steps and widths, and audited on the same test images: the border of the structures
that are kept, in pixels, the cost of each change as a share of what another image's code costs, and how well known factors are read off.
Runs that are there already are gone on with. docs/kept.py draws the figure from the rows of several sources; what is kept for certain of
the parts is the table of vlae.engine.kept.guide.

    python benchmarks/guide.py SOURCE [group.name=value ...] --output FOLDER --json [--quick] [--windows none r1 stack6] [--limit 64] [--name WORDS]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from runs import trained
from vlae.apps.audit import audit
from vlae.core.window import Window
from vlae.engine.kept.audit import Audit
from vlae.engine.run import Run

WINDOWS = ("none", "1x1", "r1", "4x2", "stack2", "stack3", "stack4", "stack5", "stack6")


def columns(window: str) -> int:
    """How many columns a window is wide; 0 where it is none."""
    seen = [dj for _, dj in Window.of(window).offsets]
    return max([0, *seen]) - min([0, *seen]) + 1 if seen else 0


def rows_of(run: Run, case: dict[str, object], limit: int) -> Iterator[dict[str, object]]:
    """What the code of a run keeps: its border, then its changes."""
    found: Audit = audit(run, limit=limit).audit
    common = {**case, "against": "", "ratio": None, "aim": None, "met": None}
    s = found.spectrum
    spread = f"95% {s.border_low:.2f} to {s.border_high:.2f}" if s.border_low and s.border_high else s.shape
    yield {**common, "metric": "border of the structures kept", "value": s.border, "unit": "pixels", "spread": spread}
    yield {**common, "metric": "finest structures kept for certain", "value": s.above, "unit": "pixels", "spread": s.shape}
    yield {
        **common,
        "metric": "another image's code",
        "value": found.other_bits,
        "unit": "bits an image",
        "spread": f"95% {found.other_low:.1f} to {found.other_high:.1f}",
    }
    for swap in found.swaps:
        spread = f"95% {swap.low:.4f} to {swap.high:.4f}, {swap.verdict}"
        share = swap.share if found.apart else None  # of nothing there are no shares
        yield {**common, "metric": f"swap cost of {swap.change}", "value": share, "unit": "of another image's", "spread": spread}
    for one in found.readouts if found.apart else ():
        yield {
            **common,
            "metric": f"{one.factor}, read off the code",
            "value": one.r2,
            "unit": "R2",
            "spread": f"95% {one.low:.3f} to {one.high:.3f}",
        }


def measure(source: Path, name: str, output: Path, windows: list[str], limit: int, overrides: list[str]) -> list[dict[str, object]]:
    """The rows of all windows; ``name`` is what the figure calls the source."""
    rows = []
    for window in windows:
        run = trained(source, output / window, [f"keep.window={window}", *overrides])
        case = {"case": f"{name}, window {window}", "source": name, "window": window, "columns": columns(window)}
        rows += rows_of(run, case, limit)
    return rows


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of images, or an .npz file")
    parser.add_argument("overrides", nargs="*", help="settings of all models")
    parser.add_argument("--name", help="what the figure calls the source; its own name unless given")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--windows", nargs="+", default=list(WINDOWS))
    parser.add_argument("--limit", type=int, default=64, help="test images, at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20 steps: shows that it works")
    options = parser.parse_intermixed_args()
    more = ["train.steps=20", "train.validate_every=20"] if options.quick else []
    rows = measure(options.source, options.name or options.source.name, options.output, options.windows, options.limit, [*options.overrides, *more])
    print(
        json.dumps(rows, indent=1) if options.json else "\n".join(f"{row['case']}: {row['metric']} {row['value']} ({row['spread']})" for row in rows)
    )


if __name__ == "__main__":
    main()
