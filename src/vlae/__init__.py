"""vlae: learn a short code of images that keeps the information you choose."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlae.core.vlae import VLAE

__version__ = "0.1.0"


def load(model: str | Path) -> "VLAE":
    """A trained model, ready to be used, on the CPU.

    Args:
        model: the folder of a run, or the name of a model of the zoo.

    Raises:
        RunError: it is neither, or damaged.
    """
    import torch

    from vlae.engine.run import Run

    zoo = Path(__file__).parents[2] / "zoo" / model
    return Run.open(zoo if not Path(model).is_dir() and zoo.is_dir() else Path(model)).model(torch.device("cpu"))
