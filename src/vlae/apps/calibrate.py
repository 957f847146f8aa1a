"""Calibrate: learn what good parts look like, and set a threshold that keeps a stated rate of false alarms, from good images alone."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from vlae.data.imageset import ImageSet
from vlae.data.source import LeftOut
from vlae.engine.inspection.calibration import Calibration, check_rate, mark
from vlae.engine.inspection.conformal import outliers
from vlae.engine.inspection.inspect import Numbers, inspect, reference_of, unusable
from vlae.engine.inspection.visitors import good, lots_of_training, used_in_training, visitors
from vlae.engine.memory import keep_freed_memory
from vlae.engine.run import Run
from vlae.errors import DataError

Progress = Callable[[int, int], None]

# From fewer good images no rate below a quarter could be promised.
LEAST = 3


def calibrate(
    run: Run, images: Path | None = None, false_alarms: float | None = None, progress: Progress | None = None
) -> tuple[Calibration, tuple[LeftOut, ...]]:
    """Calibrate a run on good images that it was not trained on; the result is kept in the run. Beside it, which images were left out.

    Left out are also images of lots that the run was trained on: they resemble what it has seen, and a promise about new lots would not hold.

    Args:
        run: a trained run.
        images: good images, as a file, a folder (by lot where its manifest has lots or days) or an .npz file; unset, the run's own test
            images that are not labelled as defects.
        false_alarms: the share of new good images that may raise an alarm; 5% where it is unset.
        progress: told the images done and all.

    Raises:
        DataError: there are too few images, some of them were trained on, or some have no lot where others have one.
        SettingError: the rate is no share.
        DiskError: nothing can be written into the run.
    """
    keep_freed_memory()
    false_alarms = 0.05 if false_alarms is None else false_alarms
    check_rate(false_alarms)
    run.check_results()
    weights, model, own = run.fingerprint(), run.model(torch.device("cpu")), run.images()
    with nullcontext(own) if images is None else visitors(run, images) as shown:
        numbers = own.indices("test") if images is None else np.arange(len(shown))
        others = [LeftOut(shown.names[n], f"it is labelled {shown.labels[n]}", harmless=True) for n in numbers if not good(run, shown.labels[n])]
        numbers = numbers[[good(run, shown.labels[n]) for n in numbers]]
        if images is not None:
            _check_unseen(own, shown, images)
        reference, size = reference_of(run, model, own, progress)
        unlike = unusable(run, size, shown) | _of_known_lots(own, shown)
        left_out = (*others, *(unlike[n] for n in numbers.tolist() if n in unlike), *(shown.left_out if images else ()))
        numbers = numbers[[n not in unlike for n in numbers.tolist()]]
        _check_enough(len(numbers), left_out, images or run.folder)
        found = {n: look.score for n, look in inspect(run, model, reference, shown, numbers, progress)}
        scores = [found[n] for n in numbers.tolist()]
        names = tuple(shown.names[n] for n in numbers)
        suspects = tuple(names[n] for n in outliers(np.array(scores)))
        seen = {*used_in_training(own), *(shown.sha256[n] for n in numbers)}
        marks = tuple(sorted(map(mark, seen)))
        result = Calibration(weights, size, names, tuple(scores), _lots(shown, numbers), false_alarms, suspects, marks)
    result.write(run, reference)
    return result, left_out


def _check_unseen(own: ImageSet, shown: ImageSet, images: Path) -> None:
    known = used_in_training(own)
    if used := [name for name, sha256 in zip(shown.names, shown.sha256, strict=True) if sha256 in known]:
        raise DataError(
            f"{len(used)} of the {len(shown)} images of {images} were used in training",
            rule="A threshold holds for new images only if it is made from images that the model has not seen",
            found=", ".join(used[:3]),
            do="Give other good images, or none: then the run's own test images are taken",
        )


def _of_known_lots(own: ImageSet, shown: ImageSet) -> dict[int, LeftOut]:
    """The images of lots that the model was trained on or chosen by, by their numbers."""
    known = lots_of_training(own)
    return {n: LeftOut(shown.names[n], f"the run was trained on its lot, {lot}") for n, lot in enumerate(shown.lots) if lot in known}


def _check_enough(count: int, left_out: Sequence[LeftOut], images: Path) -> None:
    if count < LEAST:
        rule = f"It takes at least {LEAST} good images, and 19 to promise 5% of false alarms"
        lost = "; ".join(f"{left.name}: {left.reason}" for left in left_out[:3])
        found = f"{count}, and {len(left_out)} left out ({lost})" if left_out else count
        raise DataError(f"There are too few good images in {images}", rule=rule, found=found, do="Give more")


def _lots(shown: ImageSet, numbers: Numbers) -> tuple[str, ...] | None:
    lots = [shown.lots[n] for n in numbers]
    if all(lot is None for lot in lots):
        return None
    if missing := [shown.names[n] for n, lot in zip(numbers, lots, strict=True) if lot is None]:
        rule = "A promise about new lots needs the lot of every image"
        raise DataError(f"{len(missing)} images have no lot", rule=rule, found=missing[0], do="Fill the column lot of the manifest, or leave it out")
    return tuple(str(lot) for lot in lots)
