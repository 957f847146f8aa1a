"""Search: how long it takes, and how often what it finds is of the same class.

Speed: the 10 nearest of 1,000,000 codes of 64 numbers, against reading these numbers once (their sum) and against scikit-learn's brute force,
in one run, taking turns, medians over queries; and, of fewer codes, the 10 nearest of each by usearch against the exact ones.

Retrieval: test images of two runs, with a window and without (the plain VAE), and the components of a PCA of the pixels of training images,
as many as the code has numbers. For each query of the test images all others are ranked; relevant are those of its class (the label, or else
the column ``char``). Precision at 10, and mean average precision (Manning, Raghavan and Schuetze 2008, section 8.4), with standard errors
over queries, and those of the difference over pairs.

    OMP_NUM_THREADS=2 python benchmarks/search.py --json [--quick] [--mnist RUN PLAIN] [--omniglot RUN PLAIN]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from vlae.data.imageset import ImageSet
from vlae.engine.batches import random
from vlae.engine.embed import Codes, embed
from vlae.engine.measure import chosen
from vlae.engine.retrieval import neighbours
from vlae.engine.retrieval.index import Encoder
from vlae.engine.retrieval.neighbours import BYS, By, Neighbours, some_of
from vlae.engine.run import Run

COUNT, DIMS, TURNS = 10, 64, 9
QUERIES, STREAM = 1000, 300
Row = dict[str, object]


def row(case: str, metric: str, value: float, unit: str, spread: str, against: str = "", theirs: float | None = None) -> Row:
    """One row of the list that is printed; the issue sets no aims here."""
    ratio = None if theirs is None else value / theirs
    return {
        "case": case,
        "metric": metric,
        "value": value,
        "unit": unit,
        "spread": spread,
        "against": against,
        "ratio": ratio,
        "aim": "",
        "met": None,
    }


def codes(n: int) -> Codes:
    """Codes as of a model: numbers as wide as the standard normal, known to a quarter of that or so."""
    draw = random(0, STREAM, n)
    mean, known = (draw.standard_normal((n, DIMS), dtype=np.float32), draw.random((n, DIMS), dtype=np.float32))
    return Codes(mean, np.float32(0.2) + np.float32(0.15) * known)


def seconds(work: Callable[[], object]) -> float:
    """Of the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(n: int) -> Iterator[Row]:
    """One query after another, all opponents in turns."""
    entries, queries = codes(n), codes(TURNS + 1)
    matrix = torch.from_numpy(entries.mean)
    searches = {by: Neighbours(entries, by) for by in BYS}
    theirs = NearestNeighbors(n_neighbors=COUNT, algorithm="brute").fit(entries.mean)
    taken: dict[str, list[float]] = {name: [] for name in ("reading", "scikit-learn", *BYS)}
    for turn in range(TURNS + 1):  # the first is not counted
        one = some_of(queries, [turn])
        taken["reading"].append(seconds(matrix.sum))
        taken["scikit-learn"].append(seconds(lambda one=one: theirs.kneighbors(one.mean)))
        for by, search in searches.items():
            taken[by].append(seconds(lambda search=search, one=one: search(one, COUNT)))
    usual = {name: statistics.median(times[1:]) for name, times in taken.items()}
    case = f"{COUNT} nearest of {n:,} codes of {DIMS} numbers, {torch.get_num_threads()} threads"
    for by in BYS:
        low, high = min(taken[by][1:]), max(taken[by][1:])
        spread = f"{low:.4f} to {high:.4f} over {TURNS} queries"
        yield row(case, f"one query by {by}", usual[by], "s", spread, f"reading the matrix once, {usual['reading']:.4f} s", usual["reading"])
    yield row(case, "one query by euclidean", usual["euclidean"], "s", "", f"scikit-learn, {usual['scikit-learn']:.4f} s", usual["scikit-learn"])


def approximate(n: int) -> Iterator[Row]:
    """The neighbours of each, exact and as usearch proposes them."""
    for by in BYS:
        search, found = Neighbours(codes(n), by), []
        exact = seconds(lambda search=search, found=found: found.append(search.of_each(COUNT).numbers))
        limit, neighbours.EXACT = neighbours.EXACT, 1
        ours = seconds(lambda search=search, found=found: found.append(search.of_each(COUNT).numbers))
        neighbours.EXACT = limit
        shares = np.array([len(set(a) & set(b)) / COUNT for a, b in zip(*(numbers.tolist() for numbers in found), strict=True)])
        case = f"{COUNT} nearest of each of {n:,} codes of {DIMS} numbers by {by}, {torch.get_num_threads()} threads"
        yield row(case, "usearch", ours, "s", "", f"exact, {exact:.1f} s", exact)
        yield row(case, "recall of usearch", float(shares.mean()), "share", f"se {shares.std() / len(shares) ** 0.5:.4f}", "exact", 1.0)


class Ranking(NamedTuple):
    """What each query got: average precision, and precision at 10."""

    average: np.ndarray
    at_ten: np.ndarray


def ranking(entries: Codes, classes: np.ndarray, queries: np.ndarray, by: By) -> Ranking:
    """Rank all entries but itself for each query; queries without a relevant entry do not count."""
    found = Neighbours(entries, by)(some_of(entries, queries), len(classes)).numbers
    others = found[found != queries[:, None]].reshape(len(queries), -1)
    relevant = classes[others] == classes[queries][:, None]
    whole = relevant.any(1)
    relevant = relevant[whole]
    precision = relevant.cumsum(1) / np.arange(1, relevant.shape[1] + 1)
    return Ranking((precision * relevant).sum(1) / relevant.sum(1), relevant[:, :COUNT].mean(1))


def tested(run: Run) -> Codes:
    """The codes of a run's test images."""
    encoder, images = Encoder.of(run), run.images()
    return embed(encoder.model, images, images.indices("test"), encoder.places() or 1, run.settings.train.seed)


def pixels_of(images: ImageSet, split: str, most: int | None = None) -> np.ndarray:
    """The pixels of a split's images, a row each."""
    return np.stack([images.pixels(n).ravel() for n in chosen(images, split, most).tolist()]).astype(np.float64)


def retrieval(name: str, runs: list[Path], quick: bool) -> Iterator[Row]:
    """The rows of a data set."""
    ours, plain = (Run.open(run) for run in runs)
    images, test = ours.images(), ours.images().indices("test")
    assert [images.sha256[n] for n in test] == [plain.images().sha256[n] for n in plain.images().indices("test")], "they have other test images"
    labels = images.factors["char"][test] if name == "OMNIGLOT" else np.array(images.labels, str)[test]
    classes, queries = np.unique(labels, return_inverse=True)[1], np.sort(random(0, STREAM, 0).permutation(len(test))[: 200 if quick else QUERIES])
    codes, theirs, pixels = tested(ours), tested(plain), pixels_of(images, "test")
    pca = PCA(codes.mean.shape[1], random_state=0).fit(pixels_of(images, "train", 20_000))
    components = Codes(pca.transform(pixels), np.ones_like(codes.std))
    pool = {
        **{("ours", by): codes for by in BYS},
        **{("plain VAE", by): theirs for by in BYS},
        **{("PCA of pixels", by): components for by in ("euclidean", "cosine")},
        ("pixels", "euclidean"): Codes(pixels, np.ones_like(pixels)),
    }
    found = {key: ranking(entries, classes, queries, key[1]) for key, entries in pool.items()}
    case = f"{name}, {len(test)} test images, {len(next(iter(found.values())).average)} queries, {len(np.unique(classes))} classes"
    for metric, of in (("mean average precision", 0), ("precision at 10", 1)):
        best = max((key for key in found if key[0] in ("plain VAE", "PCA of pixels")), key=lambda key: found[key][of].mean())
        for (who, by), values in ((key, ranked[of]) for key, ranked in found.items()):
            apart = values - found[best][of]
            spread = f"se {error(values):.4f}" + (f"; difference {apart.mean():+.4f}, se {error(apart):.4f}" if who == "ours" else "")
            against = f"{best[0]} by {best[1]}, {found[best][of].mean():.4f}" if who == "ours" else ""
            yield row(case, f"{metric}, {who} by {by}", float(values.mean()), "share", spread, against, found[best][of].mean() if against else None)


def error(values: np.ndarray) -> float:
    """The standard error of a mean."""
    return float(values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, nargs=2, metavar=("RUN", "PLAIN"))
    parser.add_argument("--omniglot", type=Path, nargs=2, metavar=("RUN", "PLAIN"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer codes and queries: shows that it works")
    options = parser.parse_args()
    rows = [*speed(50_000 if options.quick else 1_000_000), *approximate(2000 if options.quick else 10_000)]
    for name, runs in (("MNIST", options.mnist), ("OMNIGLOT", options.omniglot)):
        rows += retrieval(name, runs, options.quick) if runs else []
    print(json.dumps(rows, indent=1) if options.json else "\n".join(f"{r['metric']}: {r['value']:.4g} {r['unit']} ({r['spread']})" for r in rows))


if __name__ == "__main__":
    main()
