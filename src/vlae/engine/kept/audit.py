"""What an audit finds, as frozen values that go to and from JSON."""

from dataclasses import asdict, dataclass
from typing import Literal, Self

from vlae.engine.kept.changes import CHANGES
from vlae.engine.kept.spectrum import Spectrum
from vlae.engine.kept.swap import LEAST_BITS, Swap
from vlae.engine.probe import Readout
from vlae.engine.results import measured
from vlae.engine.run import Run

WANTED = ("kept", "partly", "ignored")


@dataclass(frozen=True)
class Term:
    """Something that the code should keep or ignore, and whether it does."""

    source: Literal["contract", "training"]
    """who wants it: a contract, or keep.above of the run"""
    name: str
    """a change, or above: structures of so many pixels and more"""
    wanted: str
    """a verdict; of above, the pixels"""
    found: Literal["kept", "partly", "ignored", "not kept", "unclear"]
    held: bool
    figures: str
    """what it was judged by, in a few words"""


@dataclass(frozen=True)
class Audit:
    """What the code of a run keeps, measured."""

    images: int
    source: str
    """test, validation, or the folder that they were given in, with a slash"""
    height: int
    width: int
    cut: bool
    """whether they are the middles of larger images"""
    other_bits: float
    """bits that an image costs more with another image's code: the whole of which shares are taken"""
    other_low: float
    other_high: float
    swaps: tuple[Swap, ...]
    idle: tuple[str, ...]
    """changes that leave these images as they are: hue of grey ones, brightness of black and white"""
    spectrum: Spectrum
    readouts: tuple[Readout, ...]
    """of the factors that are known of the run's own images"""
    terms: tuple[Term, ...]
    weights: str
    """fingerprint of the weights that were measured"""

    @property
    def apart(self) -> bool:
        """Whether the code tells these images apart for certain: only then are there shares of what another image's code costs."""
        return self.other_low >= LEAST_BITS

    def __post_init__(self) -> None:
        """Raises ValueError for names that there are not: a file is anybody's."""
        asked = [term for term in self.terms if term.name != "above"]
        named = {*(swap.change for swap in self.swaps), *self.idle, *(term.name for term in asked)}
        if not (named <= CHANGES.keys() and {term.wanted for term in asked} <= {*WANTED}):
            raise ValueError("it names changes or verdicts that there are not")

    def write(self, run: Run) -> None:
        """Write it into the run."""
        run.write_result("audit", asdict(self))

    @classmethod
    def read(cls, run: Run) -> Self | None:
        """Read it from the run; None where it was not made, or with weights that the run no longer has.

        Raises:
            RunError: the file holds something else, or the run has no weights.
        """
        return measured(cls, run, "audit", "vlae audit")


@dataclass(frozen=True)
class Rate:
    """How many of so many answers were yes."""

    yes: int
    answers: int
    low: float
    high: float
    """bounds of the exact 95% interval (Clopper and Pearson 1934)"""


@dataclass(frozen=True)
class Site:
    """What people answered to pairs of an image and a decoding, without knowing which is which."""

    pairs: int
    unanswered: int
    """pairs to which a question has no answer"""
    same_part: Rate
    same_defect: Rate
    """of pairs of an image and its own decoding"""
    catch_part: Rate
    catch_defect: Rate
    """of pairs of an image and another's decoding, of which few should seem the same"""
    weights: str

    def write(self, run: Run) -> None:
        """Write it into the run."""
        run.write_result("audit-site", asdict(self))

    @classmethod
    def read(cls, run: Run) -> Self | None:
        """Read it from the run; None where nobody was asked, or about weights that the run no longer has.

        Raises:
            RunError: the file holds something else, or the run has no weights.
        """
        return measured(cls, run, "audit-site", "vlae audit --answers")
