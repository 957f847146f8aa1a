"""vlae: learn a short code of images that keeps the information you choose."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlae.version import __version__ as __version__

if TYPE_CHECKING:
    import numpy as np

    from vlae.archive.archive import Archive
    from vlae.core.vlae import VLAE
    from vlae.estimators import VLAEDetector as VLAEDetector
    from vlae.estimators import VLAEEncoder as VLAEEncoder


def load(model: str | Path) -> "VLAE":
    """A trained model, ready to be used, on the CPU.

    Args:
        model: the folder of a run, or the name of a model of the zoo.

    Raises:
        RunError: it is neither, or damaged.
    """
    import torch

    from vlae.engine.run import Run

    return Run.find(model).model(torch.device("cpu"))


def compress(images: "Mapping[str, np.ndarray[Any, Any]]", model: str | Path) -> bytes:
    """Images, by their names, as an archive in memory, from which every pixel comes back on any machine.

    Args:
        images: (height, width), or with channels behind: bool, uint8 or uint16.
        model: the folder of a run, or the name of a model of the zoo.

    Raises:
        DataError: an array is no image.
        RunError: there is no such model, or it has no integer twin.
    """
    from vlae.apps.compress import compress_arrays
    from vlae.engine.run import Run

    return compress_arrays(Run.find(model), images)


def open_archive(archive: str | Path | bytes) -> "Archive":
    """An archive, from its folder or from what ``compress`` returned: ``archive[name]`` is an image, ``archive.names`` are all names.

    Raises:
        ArchiveError: it is none, damaged or of a newer format.
    """
    from vlae.archive.archive import Archive

    return Archive.of(archive) if isinstance(archive, bytes) else Archive.open(Path(archive))


def __getattr__(name: str) -> Any:
    """Estimators of scikit-learn, which bring torch and scikit-learn along, once they are asked for."""
    if name in ("VLAEDetector", "VLAEEncoder"):
        from vlae import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
