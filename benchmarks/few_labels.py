"""What few labels are worth: accuracy for 1 to 100 labels a class by the code, beside pixels, PCA of pixels and a plain VAE; and labelling next.

Images are the run's test images, on which neither model was trained, the same for all; labels, and the images that are tested on, are drawn anew
in each draw, lots (the exposures of one tile) never divided. Differences are taken draw by draw. Of OMNIGLOT each draw takes 20 characters that
have at least 10 test images. Labelling next starts from two labels a class and asks for one more a class, five times over: by
``vlae.engine.labels.ask`` or at random, on the same halves.

    python benchmarks/few_labels.py --mnist RUN [PLAIN] --omniglot RUN [PLAIN] --tiles RUN [PLAIN] --parts RUN [PLAIN] --json [--quick]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlae.apps.fewshot.images import Seen, beside, seen
from vlae.apps.fewshot.picture import draw
from vlae.engine.batches import random
from vlae.engine.embed import Codes
from vlae.engine.labels.ask import ask, doubts
from vlae.engine.labels.classify import Labelled, fit_linear, parts, predicted
from vlae.engine.labels.curve import COUNTS, MOST_TESTED, Point, balanced, curve, first, interval
from vlae.engine.retrieval.neighbours import some_of
from vlae.engine.run import Run

# The column that tells the class in each set, and the sets in which labelling next is tried.
COLUMNS = {"mnist": "label", "omniglot": "char", "tiles": "label", "parts": "holes"}
ASKED = ("mnist", "tiles", "parts")
WAYS, LEAST = 20, 10
START, ROUNDS = 2, 5
# Streams of random numbers.
COMPARING, WAY, HALVING, ASKING = range(320, 324)


@dataclass(frozen=True)
class Case:
    """The test images of a run: what is read, the class and the lot of each."""

    name: str
    read: dict[str, Codes]
    classes: np.ndarray
    lots: np.ndarray
    ours: tuple[str, ...]
    """which of what is read is the code: of a grid also without regard to place"""

    def part(self, which: np.ndarray) -> "Case":
        """Some of the images."""
        read = {of: some_of(codes, which) for of, codes in self.read.items()}
        return Case(self.name, read, self.classes[which], self.lots[which], self.ours)


def case_of(name: str, folders: list[Path], most: int | None) -> Case:
    """The case of a set; ``most`` images are taken, where it is given."""
    run, plain = Run.open(folders[0]), Run.open(folders[1]) if len(folders) > 1 else None
    found: Seen = seen(run, plain, None)
    columns = found.index.columns
    which = random(0, COMPARING, 0).permutation(np.flatnonzero(columns["split"] == "test"))[:most]
    read = {of: some_of(codes, which) for of, codes in found.codes.items()}
    read |= beside(found.index, which, found.codes["code"].mean.shape[1], random(0, COMPARING, 1))
    lots = np.array([n if lot is None else lot for n, lot in enumerate(columns["lot"][which])], str)
    classes, lots = columns[COLUMNS[name]][which].astype(str), np.unique(lots, return_inverse=True)[1]
    return Case(f"{name}, {len(which)} test images", read, classes, lots, found.readings)


def points_of_ways(case: Case, draws: int, counts: tuple[int, ...]) -> tuple[Point, ...]:
    """The curve where each draw has ``WAYS`` classes of its own."""
    names, frequent = np.unique(case.classes, return_counts=True)
    found: dict[tuple[str, str, int], list[float]] = {}
    for number in range(draws):
        drawn = random(0, WAY, number).choice(names[frequent >= LEAST], WAYS, replace=False)
        some = case.part(np.flatnonzero(np.isin(case.classes, drawn)))
        for point in curve(some.read, some.classes, some.lots, 1, number, counts):
            found.setdefault((point.of, point.classifier, point.labels), []).append(point.accuracy)
    return tuple(Point(*name, *interval(np.array(values)), tuple(values)) for name, values in found.items())


def curve_rows(case: Case, points: tuple[Point, ...]) -> Iterator[dict[str, object]]:
    """The code against each of the others."""
    by_name = {(point.of, point.classifier, point.labels): point for point in points}
    others = [name for name in by_name if name[0] not in case.ours]
    for ours, theirs in ((by_name[of, *name[1:]], by_name[name]) for of in case.ours for name in others):
        gain, low, high = interval(np.array(ours.by_draw) - np.array(theirs.by_draw))
        yield {
            "case": case.name,
            "metric": f"accuracy of {ours.of}, {ours.classifier}, {ours.labels} labels a class",
            "value": ours.accuracy,
            "unit": "share, mean over classes",
            "spread": f"95% {ours.low:.3f} to {ours.high:.3f}; difference {gain:+.3f}, 95% {low:+.3f} to {high:+.3f}; {len(ours.by_draw)} draws",
            "against": f"{theirs.of}: {theirs.accuracy:.3f}, 95% {theirs.low:.3f} to {theirs.high:.3f}",
            "ratio": ours.accuracy / theirs.accuracy,
            "aim": None,
            "met": None,
        }


def labelled_next(case: Case, of: str, number: int, asked: bool) -> list[float]:
    """The accuracy of the linear classifier after each round of labelling in one draw."""
    half = parts(case.classes, case.lots, 2, random(0, HALVING, number))
    pool, tested = (random(0, HALVING, number).permutation(np.flatnonzero(half == n)) for n in (0, 1))
    labelled, rng = Labelled(case.read[of], case.classes, case.lots), random(0, ASKING, number)
    known, test = first(START, pool, case.classes), labelled.take(tested[:MOST_TESTED])
    each, accuracies = len(np.unique(case.classes)), list[float]()
    for _ in range(ROUNDS):
        rest = np.setdiff1d(pool, known)
        unknown, have = some_of(labelled.codes, rest), labelled.take(known)
        chosen = ask(unknown, have, doubts(fit_linear(have, rng), unknown), each, rng) if asked else rng.permutation(len(rest))[:each]
        known = np.concatenate([known, rest[chosen]])
        told, _ = predicted(fit_linear(labelled.take(known), rng), test.codes)
        accuracies.append(balanced(told, test.classes))
    return accuracies


def asked_rows(case: Case, of: str, draws: int) -> Iterator[dict[str, object]]:
    """Labelling what is asked for against labelling at random."""
    ours, theirs = (np.array([labelled_next(case, of, number, asked) for number in range(draws)]) for asked in (True, False))
    for place, (mine, random_ones) in enumerate(zip(ours.T, theirs.T, strict=True), start=START + 1):
        gain, low, high = interval(mine - random_ones)
        yield {
            "case": case.name,
            "metric": f"accuracy of {of}, linear, {place} labels a class on average, asked for",
            "value": float(mine.mean()),
            "unit": "share, mean over classes",
            "spread": f"gain {gain:+.3f}, 95% {low:+.3f} to {high:+.3f}; {draws} draws",
            "against": f"labels at random: {random_ones.mean():.3f}",
            "ratio": float(mine.mean() / random_ones.mean()),
            "aim": "> 1 with 95%",
            "met": bool(low > 0),
        }


def measure(name: str, folders: list[Path], draws: int, quick: bool, pictures: Path | None) -> list[dict[str, object]]:
    """The rows of a set."""
    case = case_of(name, folders, 600 if quick and name != "omniglot" else None)
    counts = COUNTS[:3] if quick else COUNTS
    points = points_of_ways(case, draws, counts) if name == "omniglot" else curve(case.read, case.classes, case.lots, draws, 0, counts)
    if pictures:
        draw(points, pictures / f"{name}.png")
    return [*curve_rows(case, points), *(row for of in case.ours if name in ASKED for row in asked_rows(case, of, draws))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in COLUMNS:
        parser.add_argument(f"--{name}", type=Path, nargs="+", metavar=("RUN", "PLAIN"), help="a run, and one of a plain VAE to compare with")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--pictures", type=Path, help="a folder for the curves")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="3 draws of few images: shows that it works")
    options = parser.parse_args()
    draws = 3 if options.quick else options.draws
    given = {name: folders for name in COLUMNS if (folders := getattr(options, name))}
    rows = [row for name, folders in given.items() for row in measure(name, folders, draws, options.quick, options.pictures)]
    print(json.dumps(rows, indent=1) if options.json else "\n".join(str(row) for row in rows))


if __name__ == "__main__":
    main()
