"""Which evidence tells which defect, with which window: runs on the development half of the sets of benchmarks/inspection.py.

    python benchmarks/what_to_keep.py SET=RUN [SET=RUN ...] --json

SET is tiles, elpv or parts, RUN a run that was trained on it (benchmarks/inspection.py writes the sets into its folder). Each is measured on good
and spoiled images of the development half alone, so that the other half stays for reporting.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from defects import metrics
from defects.ours import Ours
from defects.sets import SETS
from inspection import Row, pixels, row
from vlae.engine.inspection.reference import KINDS
from vlae.engine.run import Run


def measure(name: str, run: Run) -> Iterator[Row]:
    """The image AUROC of each kind of evidence, of the stronger of both, and of the global one where the run has it, by kind of defect."""
    collection, ours = SETS[name](), Ours(run)
    good, spoiled = collection.good("development"), collection.spoiled("development")
    ours.fit(pixels(collection.good("train")))
    looks = list(ours.looks(pixels([*good, *spoiled])))
    found = np.array([one.kinds for one in looks])
    whole = None if looks[0].unlike is None else np.array([one.unlike for one in looks])
    keep, labels = run.settings.keep, np.array([e.label for e in spoiled])
    seen = f"{keep.window} of {keep.context}" if keep.window != "none" else "none"
    seen += f" with noise {keep.noise:g}" if keep.noise else ""
    case = f"{name}, window {seen}, {keep.code} of {keep.channels or keep.dims} numbers" + (f" each {keep.stride} pixels" if keep.stride else "")
    for kind in ("all", *sorted(set(labels))):
        these = (labels == kind) | (kind == "all")
        of = found[len(good) :][these]
        scores = dict(zip(KINDS, zip(found[: len(good)].T, of.T, strict=True), strict=False))
        scores["both"] = (found[: len(good)].max(1), of.max(1))
        if whole is not None:
            scores["global"] = (whole[: len(good)], whole[len(good) :][these])
        for evidence, (fine, bad) in scores.items():
            yield row(case, f"{evidence}: image AUROC of {kind}", metrics.auroc(fine, bad), "of 1", spread=f"{len(fine)} good, {len(bad)} spoiled")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="SET=RUN")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [one for name, _, folder in (pair.partition("=") for pair in options.runs) for one in measure(name, Run.open(Path(folder)))]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for one in rows:
        print(f"{one['case']} | {one['metric']} | {one['value']:.3f} | {one['spread']}")


if __name__ == "__main__":
    main()
