"""What a run knows of good parts: how they usually look to its model, and the threshold that keeps a promised rate of false alarms.

calibration.safetensors      the reference: how strong each kind of evidence usually is
results/calibration.json     the scores of the good images, and what is promised from them
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlae.core.vlae import VLAE
from vlae.engine.formats import check_metadata, restored, save_tensors
from vlae.engine.inspection.conformal import Promise, promise, rate_above
from vlae.engine.inspection.places import Places
from vlae.engine.inspection.reference import Reference
from vlae.engine.run import Run
from vlae.errors import RunError, SettingError

FILE = "calibration.safetensors"
_PARTS, _CURVES = ("mean", "deviation", "unit"), ("entropy", "residual", "excess", "gain")
# No smaller share of false alarms is asked for: it would take more images than anybody has.
LEAST_RATE = 1e-6
# Positions of the threshold whose rates are told, as shares of false alarms.
POSITIONS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Calibration:
    """The scores of good images under a run, and the threshold made from them."""

    weights: str
    """fingerprint of the weights that the images were looked at with"""
    size: tuple[int, int] | None
    """height and width of the images, where places are told apart; else None"""
    names: tuple[str, ...]
    scores: tuple[float, ...]
    lots: tuple[str, ...] | None
    false_alarms: float
    """the share that was asked for"""
    suspects: tuple[str, ...]
    """good images that are so unlike the others that they may be defects"""
    seen: tuple[str, ...]
    """marks (``mark``) of all images that the model was trained on, chosen by or calibrated with: no rate is counted from these"""

    @property
    def promise(self) -> Promise:
        """The threshold, and what may be said of it."""
        return promise(np.array(self.scores), self.false_alarms, self.lots)

    @property
    def _makes_sense(self) -> bool:
        whole = len(self.scores) == len(self.names) == len(self.names if self.lots is None else self.lots) > 0
        scores = np.array(self.scores)
        return whole and bool(np.isfinite(scores).all() and (scores > 0).all()) and LEAST_RATE <= self.false_alarms < 1

    def asking(self, false_alarms: float) -> "Calibration":
        """The same with another rate of false alarms.

        Raises:
            SettingError: it is no share.
        """
        check_rate(false_alarms)
        return replace(self, false_alarms=false_alarms)

    def rates(self) -> list[dict[str, float]]:
        """Where the threshold can be moved to, and the share of false alarms to expect there, with its 95% interval."""
        scores, rows = np.array(self.scores), list[dict[str, float]]()
        for share in POSITIONS:
            threshold = promise(scores, share, self.lots).threshold
            if rows and threshold == rows[-1]["threshold"]:  # from few images the strictest cannot be told apart
                continue
            mean, low, high = rate_above(scores, threshold, self.lots)
            rows.append({"asked": share, "threshold": threshold, "rate": mean, "low": low, "high": high})
        return rows

    def write(self, run: Run, reference: Reference) -> None:
        """Write it into the run, with the reference that the scores were made with."""
        # The reference follows from the run alone: whatever stops this between the two, the scores that are there fit it, old or new.
        _write_reference(run, reference)
        run.write_result("calibration", {**asdict(self), "promise": asdict(self.promise), "rates": self.rates()})

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read it from the run.

        Raises:
            RunError: there is none, it is damaged, or it was made with weights that the run no longer has.
        """
        tree = run.result("calibration")
        if tree is None or not (run.folder / FILE).is_file():
            raise RunError(
                f"{run.folder} is not calibrated", rule="What is normal is learned from good images", do=f"Run vlae calibrate {run.folder} GOOD"
            )
        try:
            found = restored(cls, {name: value for name, value in tree.items() if name not in ("format", "promise", "rates")})
        except ValueError:
            raise _damaged(run) from None
        if not found._makes_sense:
            raise _damaged(run)
        if found.weights != run.fingerprint():
            rule = "A calibration holds for the weights it was made with"
            raise RunError(f"{run.folder} was trained on since it was calibrated", rule=rule, do=f"Run vlae calibrate {run.folder} GOOD again")
        return found


def mark(sha256: str) -> str:
    """What an image is known again by: enough digits of the hash of its pixels."""
    return sha256[:16]


def calibrated(run: Run) -> bool:
    """Whether a run was calibrated with the weights that it has."""
    tree = run.result("calibration")
    return tree is not None and (run.folder / FILE).is_file() and tree.get("weights") == run.fingerprint()


def check_rate(false_alarms: float) -> None:
    """Refuse a rate of false alarms that is none.

    Raises:
        SettingError: it is not at least ``LEAST_RATE`` and below 1.
    """
    if not LEAST_RATE <= false_alarms < 1:
        rule = "It is a share of at least one in a million and below 100%"
        raise SettingError("The rate of false alarms cannot be used", rule=rule, found=false_alarms, do="Give 5%")


def _write_reference(run: Run, reference: Reference) -> None:
    """Keep what good parts look like."""
    tables = {f"{part}/{name}": value for part in _PARTS for name, value in getattr(reference, part).items()}
    curves = {name: getattr(reference, name) for name in _CURVES}
    places = {f"places/{name}": value for name, value in reference.places._asdict().items()}
    save_tensors(run.folder / FILE, {**tables, **curves, **places}, weights=run.fingerprint())


def read_reference(run: Run, model: VLAE, size: tuple[int, int] | None) -> Reference:
    """What good parts look like to the model of a run; ``size`` is that of the calibration.

    Raises:
        RunError: the file is damaged, of other weights or of a newer format.
    """
    path = run.folder / FILE
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            check_metadata(path, told)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).float() for name in file.keys()}
        if told.get("weights") != run.fingerprint():
            raise _damaged(run)
        parts: dict[str, Any] = {name: tensors[name] for name in _CURVES}
        parts |= {part: {name.partition("/")[2]: t for name, t in tensors.items() if name.startswith(f"{part}/")} for part in _PARTS}
        places = Places(*(tensors[f"places/{name}"] for name in Places._fields))
        found = Reference(**parts, places=places)
        if not found.fits(size, model.code_shape(*(size or (1, 1)))):
            raise _damaged(run)
        return found
    except (SafetensorError, OSError, KeyError):
        raise _damaged(run) from None


def _damaged(run: Run) -> RunError:
    return RunError(f"The calibration of {run.folder} is damaged or of an earlier version", do=f"Run vlae calibrate {run.folder} GOOD again")
