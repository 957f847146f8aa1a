"""Detect: which images are unlike good parts, where, by how many bits and in what."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn import metrics

from vlae.data.imageset import ImageSet
from vlae.data.read import write_png
from vlae.data.source import LeftOut
from vlae.engine.folders import check_outside, output_folder
from vlae.engine.formats import finite, write_text
from vlae.engine.inspection.calibration import Calibration, mark, read_reference
from vlae.engine.inspection.conformal import share
from vlae.engine.inspection.detection import Counted, Detection, Found
from vlae.engine.inspection.heat import RGB, heat, marked, side_by_side
from vlae.engine.inspection.inspect import Numbers, inspect, unusable
from vlae.engine.inspection.look import Look
from vlae.engine.inspection.reference import KINDS
from vlae.engine.inspection.regions import MOST, regions
from vlae.engine.inspection.visitors import good, visitors
from vlae.engine.memory import keep_freed_memory
from vlae.engine.places import places
from vlae.engine.run import Run
from vlae.errors import DataError

Progress = Callable[[int, int], None]

# So many images, those with the strongest evidence, are kept in the run with their pictures.
HIGHEST = 8
# The scores of so many images are kept for the report's figure.
SCORES = 2000


def detect(
    run: Run, images: Path, output: Path, false_alarms: float | None = None, all_maps: bool = False, progress: Progress | None = None
) -> Detection:
    """Look at images with a calibrated run: ``detections.jsonl`` has a line for each, and ``maps`` a picture of each that raises an alarm.

    Args:
        run: a calibrated run.
        images: an image, a folder or an .npz file.
        output: a new folder.
        false_alarms: another rate than the run was calibrated to.
        all_maps: whether images without an alarm get a picture as well.
        progress: told the images done and all.

    Raises:
        RunError: the run is not calibrated, or was trained on since.
        DataError: no image could be used.
        SettingError: the rate is no share.
        DiskError: the output is not new, or cannot be written.
    """
    keep_freed_memory()
    calibration = Calibration.read(run)
    calibration = calibration if false_alarms is None else calibration.asking(false_alarms)
    check_outside(output, images)
    run.check_results()
    model, promised = run.model(torch.device("cpu")), calibration.promise
    reference = read_reference(run, model, calibration.size)
    with output_folder(output), visitors(run, images) as shown:
        numbers, lost = _comparable(run, calibration, shown, images)
        paths = dict(zip(numbers.tolist(), places([shown.names[n] for n in numbers]), strict=True))
        began, found = time.monotonic(), {}
        for number, look in inspect(run, model, reference, shown, numbers, progress):
            one = _found(shown, number, look, promised.threshold)
            found[number] = one
            if (one.alarm or all_maps) and (place := paths[number]) is not None:
                write_png(output / "maps" / place, _picture(shown, number, look, one, promised.threshold), 8)
        seconds = (time.monotonic() - began) / len(numbers)
        _write_lines(output / "detections.jsonl", [found[n] for n in numbers.tolist()])
        highest = sorted(found, key=lambda n: -_ranked(found[n].score))[:HIGHEST]
        drawn = [
            (f"{highest.index(number):02d}.png", _picture(shown, number, look, found[number], promised.threshold))
            for number, look in inspect(run, model, reference, shown, np.array(highest))
        ]
        new = [f for n, f in found.items() if mark(shown.sha256[n]) not in calibration.seen]
    result = Detection(
        weights=calibration.weights,
        source=images.name,
        images=len(found),
        alarms=sum(f.alarm for f in found.values()),
        promise=promised,
        seconds=seconds,
        highest=tuple(found[n] for n in highest),
        counted=_counted(run, new),
        seen=len(found) - len(new),
        scores=_scores([f.score for f in found.values()]),
        left_out=lost,
    )
    result.write(run, drawn)
    return result


def _comparable(run: Run, calibration: Calibration, shown: ImageSet, images: Path) -> tuple[Numbers, tuple[LeftOut, ...]]:
    """The numbers of the images that can be compared with good parts, and what is left out.

    Raises:
        DataError: none can.
    """
    left_out = unusable(run, calibration.size, shown)
    numbers, lost = np.array([n for n in range(len(shown)) if n not in left_out], np.int64), (*shown.left_out, *left_out.values())
    if not len(numbers):
        what, rule = f"No image of {images} can be compared with good parts", "They have the size of the good parts"
        raise DataError(what, rule=rule, found=lost[0].reason, do="Give others")
    return numbers, lost


def _found(shown: ImageSet, number: int, look: Look, threshold: float) -> Found:
    kinds = {kind: value / threshold for kind, value in zip(KINDS, look.kinds, strict=False)}
    alarm = not look.score <= threshold  # what is no number is no good part either
    parts = tuple(regions(look, threshold)[:MOST]) if alarm else ()
    return Found(shown.names[number], alarm, look.score / threshold, parts, kinds, look.unlike, shown.labels[number])


def _ranked(score: float) -> float:
    """A score to compare by: what is no number is unlike all good parts."""
    return np.inf if np.isnan(score) else score


def _picture(shown: ImageSet, number: int, look: Look, found: Found, threshold: float) -> RGB:
    strength = np.where(np.isnan(look.map), np.float32(np.inf), look.map)
    return side_by_side([marked(shown.pixels(number), shown.depth, found.regions), heat(strength, threshold)])


def _scores(scores: Sequence[float]) -> tuple[float, ...]:
    """Those that are numbers, in order; of more than ``SCORES`` so many, evenly spaced."""
    known = np.sort([score for score in scores if np.isfinite(score)])
    few = np.linspace(0, len(known) - 1, min(SCORES, len(known))).round().astype(int)
    return tuple(known[few].tolist())


def _write_lines(path: Path, found: Sequence[Found]) -> None:
    write_text(path, "".join(json.dumps(finite({"format": 1, **asdict(f)}), ensure_ascii=False) + "\n" for f in found))


def _counted(run: Run, found: Sequence[Found]) -> Counted | None:
    """Alarms among the images that are labelled, where some are labelled as defects."""
    known = [f for f in found if f.label is not None]
    fine = [good(run, f.label) for f in known]
    if all(fine):
        return None
    alarms = [sum(f.alarm for f, is_good in zip(known, fine, strict=True) if is_good == wanted) for wanted in (True, False)]
    count = sum(fine)
    detected = len(fine) - count, share(alarms[1], len(fine) - count)
    if not count:
        return Counted(0, None, *detected, None)
    ranks = rankdata([_ranked(f.score) for f in known])
    return Counted(count, share(alarms[0], count), *detected, float(metrics.roc_auc_score([not is_good for is_good in fine], ranks)))
