"""What a detection found, as frozen values; its summary is kept in the run, with pictures of the images that are the most unlike good parts."""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from vlae.data.files import disk_errors
from vlae.data.read import Pixels, write_png
from vlae.data.source import LeftOut
from vlae.engine.inspection.conformal import Promise
from vlae.engine.inspection.regions import Region
from vlae.engine.results import measured
from vlae.engine.run import Run


@dataclass(frozen=True)
class Found:
    """What was found in one image."""

    name: str
    alarm: bool
    score: float
    """the strongest evidence, in units of the threshold: an alarm is above 1"""
    regions: tuple[Region, ...]
    kinds: dict[str, float]
    """the strongest of each kind, in the same units"""
    unlike: float | None
    """global evidence, in standard deviations of good parts"""
    label: str | None


@dataclass(frozen=True)
class Counted:
    """Alarms among images whose labels are known."""

    good: int
    false_alarms: tuple[float, float, float] | None
    """the share of the good ones that raised an alarm, and its exact 95% interval; None where there are none"""
    defective: int
    detected: tuple[float, float, float]
    """the share of the defective ones, and its interval"""
    image_AUROC: float | None
    """the probability that a defective image has a higher score than a good one; None where there are no good ones"""


@dataclass(frozen=True)
class Detection:
    """What was found in images."""

    weights: str
    """fingerprint of the weights that looked"""
    source: str
    """the name of the folder or file"""
    images: int
    alarms: int
    promise: Promise
    seconds: float
    """for an image, reading included"""
    highest: tuple[Found, ...]
    """the images with the strongest evidence, the strongest first; all others are in ``detections.jsonl``"""
    counted: Counted | None
    """None where no image is labelled defective, of those that the run had not seen before"""
    seen: int
    """images that the run was trained on, chosen by or calibrated with: no rate is counted from them"""
    scores: tuple[float, ...]
    """the strongest evidence of the images, in units of the threshold, in order; of very many so many, evenly spaced"""
    left_out: tuple[LeftOut, ...]

    name = "detection"

    def write(self, run: Run, drawn: Iterable[tuple[str, Pixels]] = ()) -> None:
        """Write it into the run, with the pictures of ``highest`` by their names.

        Whatever stops it, no picture stands beside what was found in another image.
        """
        folder = pictures(run)
        with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as new:
            for name, pixels in drawn:
                write_png(Path(new) / "drawn" / name, pixels, 8)
            (folder.parent / f"{self.name}.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            if (Path(new) / "drawn").is_dir():
                (Path(new) / "drawn").replace(folder)
        run.write_result(self.name, asdict(self))

    @classmethod
    def read(cls, run: Run) -> Self | None:
        """Read the last one of the run; None where there was none with its weights.

        Raises:
            RunError: the file is damaged.
        """
        return measured(cls, run, cls.name, "vlae detect")


def pictures(run: Run) -> Path:
    """The folder of the pictures of ``highest``: 00.png and so on."""
    return run.folder / "results" / "detection"
