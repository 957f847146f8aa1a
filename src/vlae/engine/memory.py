"""What makes the steps of a training quick: memory that is kept, and numbers that are not too small."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one.

    By default it hands large blocks back to the system at once, and every step pays for zeroed pages again: up to a quarter of its time.
    Elsewhere than on Linux with glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, 2**30)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Within it, and in threads that begin within it, numbers below the smallest normal one are zero.

    Units that are shut leave such gradients, and processors take up to a hundred times as long for them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
