"""The command line: parse, call one app, show its result. torch is loaded only by the commands that need it."""

from vlae.cli.options import app
from vlae.cli.say import INTERRUPTED, note
from vlae.errors import DiskError, PartialResult, VlaeError

# isort: off
from vlae.cli import models, inspection, search, fewshot, audit, archives, tools  # in the order of vlae --help

__all__ = ["app", "archives", "audit", "fewshot", "inspection", "main", "models", "search", "tools"]


def main() -> None:
    """Run the command line; every error of ours is one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except PartialResult as error:
        note(f"Warning: {error}")
        raise SystemExit(error.exit_code) from None
    except VlaeError as error:
        note(f"Error: {error}")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        note(f"Error: {error.filename or 'A file'} cannot be used: {error.strerror or error}. Check the path, the rights and the room on the disk.")
        raise SystemExit(DiskError.exit_code) from None
    except MemoryError:
        note("Error: There is not enough memory. Choose smaller images (data.size), a smaller train.batch or model.size=small.")
        raise SystemExit(VlaeError.exit_code) from None
    except KeyboardInterrupt:
        note("Interrupted.")
        raise SystemExit(INTERRUPTED) from None
