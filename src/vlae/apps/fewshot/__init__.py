"""Few labels: a classifier on the code from a table of labels, how good it is, what more labels would bring, and which to add next."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from vlae.apps.fewshot.images import Seen, beside, seen
from vlae.apps.fewshot.labels import Known, check_enough, known
from vlae.apps.fewshot.picture import draw
from vlae.data.foreign import files_of
from vlae.data.manifest import read_manifest
from vlae.data.source import LeftOut
from vlae.engine.batches import random
from vlae.engine.embed import Codes
from vlae.engine.folders import check_outside, output_folder
from vlae.engine.formats import write_json, write_text
from vlae.engine.labels.ask import ask, doubts, kinship
from vlae.engine.labels.classify import FITS, Classifier, HeldOut, Indices, Labelled, Labels, cross_validated, predicted
from vlae.engine.labels.curve import Progress, curve
from vlae.engine.labels.fewshot import PREDICTIONS, Accuracy, Fewshot
from vlae.engine.retrieval.index import Index
from vlae.engine.retrieval.neighbours import some_of
from vlae.engine.run import Run
from vlae.engine.settings import FORMAT
from vlae.errors import DiskError

# Into how many parts the labelled images are divided, each to be tested on, and the streams of random numbers.
PARTS = 5
TESTING, FITTING, ASKING, COMPARING = range(310, 314)
NEXT = "fewshot-next.csv"


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside predictions: how many images to label next, from which probability on to be certain, how many draws of the curve."""

    next: int = 0
    sure: float = 0.9
    draws: int = 10


def fewshot(
    run: Run,
    table: Path,
    images: Path | None = None,
    plain: Run | None = None,
    wanted: Wanted = Wanted(),
    output: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Fewshot:
    """Classify images from a table of labels.

    Leaves ``fewshot.json``, ``fewshot-predictions.csv``, ``fewshot.png`` and, where images to label next are asked for, ``fewshot-next.csv``, which
    waits for their labels.

    Args:
        run: the run; its averaged weights are used.
        table: a CSV or JSONL file with the columns name and label; lots that it tells (lot or day) go before those of the run.
        images: an image or a folder of images; None for all of the run's own.
        plain: another run for images of the same form, whose code is set beside in the curve.
        wanted: what is asked for beside predictions.
        output: a new folder for the files; None for ``results`` of the run.
        device: where to compute.
        progress: told the images done and all, and then the fits.

    Raises:
        SettingError: a model has no code, or the two are for images of different forms.
        DataError: the labels or the images cannot be used.
        RunError: the run's weights or images are gone or damaged.
        DiskError: nothing can be written, or images to label next are asked for and the list of the last time has labels.
    """
    weights = run.fingerprint()
    with _folder(run, output, images) as folder:
        if wanted.next:
            _check_unfilled(folder / NEXT)
        task = _task(run, plain, table, images, device, progress)
        seed, tried = run.settings.train.seed, [(of, kind) for of in task.seen.readings for kind in FITS]
        held = {(of, kind): cross_validated(FITS[kind], task.labelled(of), task.parts, random(seed, TESTING, 0)) for of, kind in tried}
        read, best = max(tried, key=lambda one: float(held[one].right.mean()))
        labelled, unknown = task.labelled(read), task.codes(read, task.rest)
        fitted = {kind: fit(labelled, random(seed, FITTING, 0)) for kind, fit in FITS.items()}
        asked = task.rest[ask(unknown, labelled, doubts(fitted[best], unknown), wanted.next, random(seed, ASKING, 0))]
        compared = {of: task.codes(of, task.which) for of in task.seen.codes}
        compared |= beside(task.seen.index, task.which, task.seen.codes["code"].mean.shape[1], random(seed, COMPARING, 0))
        points = curve(compared, labelled.classes, labelled.lots, wanted.draws, seed, progress=progress)
        result = Fewshot(
            source=None if images is None else f"{images.name}/",
            images=len(task.seen.index),
            labels=dict(sorted(Counter(labelled.classes.tolist()).items())),
            lots=len(np.unique(labelled.lots)),
            accuracies=tuple(_accuracy(*name, found, wanted.sure) for name, found in held.items()),
            read=read,
            best=best,
            sure=wanted.sure,
            unlabelled=len(task.rest),
            certain=int((predicted(fitted[best], unknown)[1] >= wanted.sure).sum()),
            draws=len(points[0].by_draw) if points else 0,
            curve=points,
            kinship=kinship(labelled),
            next=task.names(asked),
            left_out=task.left_out,
            weights=weights,
        )
        _write(folder, result, _predictions(task.names(task.rest), unknown, fitted, best, wanted.sure))
    return result


@dataclass(frozen=True)
class _Task:
    """Images, and which of them have labels."""

    seen: Seen
    which: Indices
    classes: Labels
    lots: Indices
    left_out: tuple[LeftOut, ...]

    @property
    def rest(self) -> Indices:
        return np.setdiff1d(np.arange(len(self.seen.index)), self.which)

    @property
    def parts(self) -> int:
        """As many parts as the second most frequent class has labels for, but not more than ``PARTS``."""
        return min(PARTS, sorted(Counter(self.classes.tolist()).values())[-2])

    def labelled(self, of: str) -> Labelled:
        return Labelled(self.codes(of, self.which), self.classes, self.lots)

    def codes(self, of: str, which: Indices) -> Codes:
        return some_of(self.seen.codes[of], which)

    def names(self, which: Indices) -> tuple[str, ...]:
        return tuple(self.seen.index.names[n] for n in which.tolist())


def _folder(run: Run, output: Path | None, images: Path | None) -> AbstractContextManager[Path]:
    if output is None:
        run.check_results()
        return nullcontext(run.folder / "results")
    check_outside(output, images or run.settings.data.found.folder)
    return output_folder(output)


def _check_unfilled(path: Path) -> None:
    """Refuse to replace a list of images to label next into which somebody has written labels."""
    filled = [row.image for row in read_manifest(path) if row.label] if path.exists() else []
    if filled:
        raise DiskError(
            f"{path} has labels in it",
            rule="A list of images to label next is replaced only while it is blank",
            found=f"{len(filled)} labelled, {filled[0]} first",
            do="Copy its rows into another table of labels and remove it, or choose a new folder with --output",
        )


def _task(run: Run, plain: Run | None, table: Path, images: Path | None, device: str, progress: Progress | None) -> _Task:
    """Read the labels, before anything is computed, and then the images."""
    if images is None:
        told = known(table, run.settings.data.found.folder, run.images().names)
    else:
        told = known(table, images if images.is_dir() else images.parent, files_of(images).paths)
    found = seen(run, plain, images, device, progress)
    which = np.array([n for n, name in enumerate(found.index.names) if name in told.labels], np.int64)
    classes, lots = np.array([told.labels[found.index.names[n]] for n in which]), _lots(found.index, told, which)
    check_enough(classes.tolist(), lots.tolist())
    return _Task(found, which, classes, lots, (*told.left_out, *found.index.left_out))


def _lots(index: Index, told: Known, which: Indices) -> Indices:
    """The lot of each labelled image as a number."""
    column = index.columns.get("lot", np.full(len(index), None))
    named = [told.lots.get(index.names[n], column[n]) for n in which.tolist()]
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(n if lot is None else str(lot), len(numbers)) for n, lot in enumerate(named)], np.int64)


def _accuracy(of: str, kind: str, held: HeldOut, sure: float) -> Accuracy:
    right, n, certain = int(held.right.sum()), len(held.right), held.probability >= sure
    low, high = binomtest(right, n).proportion_ci(method="wilson")
    return Accuracy(of, kind, n, right, right / n, low, high, int(certain.sum()), int((certain & held.right).sum()))


def _predictions(names: tuple[str, ...], codes: Codes, fitted: Mapping[str, Classifier], best: str, sure: float) -> list[dict[str, str]]:
    """A row an image: the best classifier's label, whether it is certain, and what each says."""
    told = {kind: predicted(classifier, codes) for kind, classifier in fitted.items()}
    rows = []
    for n, name in enumerate(names):
        label, probability = told[best][0][n], told[best][1][n]
        row = {"name": name, "label": label, "probability": f"{probability:.4f}", "certain": "yes" if probability >= sure else "no"}
        for kind, (labels, probabilities) in told.items():
            row |= {kind: labels[n], f"{kind} probability": f"{probabilities[n]:.4f}"}
        rows.append(row)
    return rows


def _write(folder: Path, result: Fewshot, predictions: list[dict[str, str]]) -> None:
    draw(result.curve, folder / "fewshot.png")
    _write_table(folder / PREDICTIONS, list(predictions[0]) if predictions else ["name", "label", "probability"], predictions)
    if result.next:
        _write_table(folder / NEXT, ["name", "label"], [{"name": name, "label": ""} for name in result.next])
    left_out = [left._asdict() for left in result.left_out]
    write_json(folder / "fewshot.json", {"format": FORMAT, **asdict(result), "left_out": left_out})


def _write_table(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "\ufeff" + text.getvalue())  # by the mark, spreadsheets know that it is UTF-8
