"""What the commands find, as frozen values that go to and from JSON with a format version."""

from dataclasses import asdict, dataclass
from typing import Self, TypeVar

from vlae.engine.formats import restored
from vlae.engine.run import Run
from vlae.errors import RunError

T = TypeVar("T")


def measured(kind: type[T], run: Run, name: str, command: str) -> T | None:
    """The result ``name`` of a run; None where it was not measured, or with weights that the run no longer has.

    Args:
        kind: a dataclass whose ``weights`` is the fingerprint of those that were measured.
        run: the run.
        name: of ``results/name.json``.
        command: what measures it again.

    Raises:
        RunError: the file holds something else, or the run has no weights.
    """
    tree = run.result(name)
    if tree is None or tree.get("weights") != run.fingerprint():
        return None
    try:
        return restored(kind, {field: value for field, value in tree.items() if field != "format"})
    except ValueError:
        rule = f"results/{name}.json has the fields of its kind"
        raise RunError(f"A result of {run.folder} is damaged", rule=rule, do=f"Run {command} again") from None


@dataclass(frozen=True)
class Evaluation:
    """The cost of a split's images under a model; every ``_se`` is a standard error over images."""

    split: str
    n_images: int
    limit: int | None
    """so many images at most were asked for; None for all"""
    pixels: int
    """pixels of all the images together"""
    dims: int
    """pixel values of all of them: pixels times colours"""
    nll_nats: float
    """nats an image: the importance-sampled negative log likelihood, or the negative bound where ``importance_samples`` is 1"""
    nll_nats_se: float
    bits_per_dim: float
    """bits for each pixel value, code included"""
    bits_per_dim_se: float
    rate_bits: float
    """bits of code an image"""
    rate_bits_se: float
    distortion_bits: float
    """bits of pixels an image, given the code"""
    distortion_bits_se: float
    rate_bits_by_group: tuple[float, ...]
    """bits of code an image by dimension (vector) or channel (grid)"""
    psnr: float | None
    """peak signal to noise of decodings of the code, dB; None without a code"""
    ssim: float | None
    """structural similarity of decodings; None without a code"""
    importance_samples: int
    effective_samples: float | None
    """mean effective sample size of the importance weights; None for the bound"""
    protocol: str
    """how the figures came about, in a sentence"""
    weights: str
    """fingerprint of the weights that were measured"""

    name = "evaluation"

    def write(self, run: Run) -> None:
        """Write it into the run."""
        run.write_result(f"{self.name}-{self.split}", asdict(self))

    @classmethod
    def read(cls, run: Run, split: str) -> Self | None:
        """Read it from the run; None where it was not measured, or with weights that the run no longer has.

        Raises:
            RunError: the file holds something else, or the run has no weights.
        """
        return measured(cls, run, f"{cls.name}-{split}", "vlae evaluate")
