"""Every error that a user can meet, in one tree.

    VlaeError                 exit 1   anything of ours that a user can cause
    +-- SettingError          exit 2   a setting or a command line that cannot be honoured
    +-- DataError             exit 3   images, labels or folders that cannot be used
    +-- RunError              exit 4   a run folder that is missing, damaged, foreign or newer
    +-- DeviceError           exit 5   a device or a tool that this machine does not have
    +-- DiskError             exit 6   an output that cannot be written
    +-- TrainingError         exit 7   a training that cannot go on (all its gradients are absurd)
    +-- PartialResult         exit 8   the work is done, and some of the inputs were left out
    +-- ArchiveError          exit 9   an archive that is missing, damaged, foreign or newer
    +-- ContractError         exit 10  a model whose code does not keep or ignore what a contract asks for

An interrupt by the user exits with 130. Every message is one clear sentence or two: what is wrong, the rule, what was found, what to do.
Violated assumptions of our own are assertions, never errors of this tree.
"""


class VlaeError(Exception):
    """Base of all errors that a user can cause; ``exit_code`` is what the command line ends with."""

    exit_code = 1

    def __init__(self, what: str, *, rule: str = "", found: object = None, do: str = "") -> None:
        parts = [what, rule, "" if found is None else f"Found: {found}", do]
        super().__init__(" ".join(part if part.endswith("?") else part.rstrip(".") + "." for part in parts if part))


class SettingError(VlaeError):
    """A setting or a command line that cannot be honoured."""

    exit_code = 2


class DataError(VlaeError):
    """Images, labels or folders that cannot be used."""

    exit_code = 3


class RunError(VlaeError):
    """A run folder that is missing, damaged, foreign or of a newer format."""

    exit_code = 4


class DeviceError(VlaeError):
    """A device or a tool that this machine does not have."""

    exit_code = 5


class DiskError(VlaeError):
    """An output that exists already, cannot be written, or has no room."""

    exit_code = 6


class TrainingError(VlaeError):
    """A training that cannot go on."""

    exit_code = 7


class PartialResult(VlaeError):
    """The work is done and its results are written, but some of the inputs were left out."""

    exit_code = 8


class ArchiveError(VlaeError):
    """An archive that is missing, damaged, foreign or of a newer format."""

    exit_code = 9


class ContractError(VlaeError):
    """A model whose code does not keep or ignore what a contract asks for; what was measured is written."""

    exit_code = 10
