"""A folder of images that a trained run is shown, with all that their manifest tells, decoded for a while."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unicodedata import normalize

from vlae.data import cache
from vlae.data.files import disk_errors
from vlae.data.foreign import files_of
from vlae.data.imageset import ImageSet
from vlae.data.read import Refused, decode
from vlae.data.settings import DataSettings
from vlae.data.spool import Progress
from vlae.engine.run import Run
from vlae.errors import DataError

GOOD = ("good", "ok", "normal", "free", "良品", "良", "正常", "合格")
"""labels that say that an image is good, in whatever case and width"""


@contextmanager
def visitors(run: Run, images: Path, progress: Progress | None = None) -> Iterator[ImageSet]:
    """The images of a file, a folder (with its manifest, labels, masks and lots) or an .npz file, in the form that the run was trained on.

    They are decoded into a temporary folder, which is gone afterwards.

    Raises:
        DataError: there are none that can be used.
        DiskError: there is no room to decode them.
    """
    files_of(images)  # tells whether there are any, in words of this command
    with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="vlae-") as held:
        folder = images
        if images.is_file() and images.suffix.lower() != ".npz":
            _readable(images, run.settings.data.max_pixels)
            folder = Path(held) / "image"
            folder.mkdir()
            shutil.copy(images, folder / images.name)
        yield cache.load_whole(_settings(run, folder), Path(held) / "cache", progress)


def _readable(image: Path, max_pixels: int) -> None:
    """Tell of one image by its own path, before it is copied."""
    try:
        decode(image, max_pixels)
    except Refused as refused:
        raise DataError(f"{image} cannot be used", found=refused, do="Give another image, or a folder of images") from None


def _settings(run: Run, folder: Path) -> DataSettings:
    own = run.settings.data
    form = {"colour": "rgb" if run.facts.colours == 3 else "grey", "depth": run.facts.depth if own.binarise == "none" else own.depth}
    return own.model_copy(update={"folder": folder, "manifest": None, "lot_block": None, "only_label": None, "minimum": 1, **form})


def used_in_training(own: ImageSet) -> set[str]:
    """The hashes of a run's own images that it was trained on, or that its weights were chosen by."""
    return {own.sha256[n] for split in ("train", "validation") for n in own.indices(split)}


def lots_of_training(own: ImageSet) -> set[str]:
    """The lots of those images; other images of them resemble what the model has seen."""
    lots = (own.lots[n] for split in ("train", "validation") for n in own.indices(split))
    return {lot for lot in lots if lot is not None}


def good(run: Run, label: str | None) -> bool:
    """Whether a label says that an image is good: none, the one that was trained on, or a word that is used for it."""
    return label is None or label == run.settings.data.only_label or normalize("NFKC", label).strip().lower() in GOOD
