"""How functions are compiled for the processor that they run on (Numba), when they are first called; and what they have in common."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from threading import RLock
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, overload
from threadpoolctl import ThreadpoolController

F = TypeVar("F", bound=Callable[..., Any])
Array = np.ndarray[Any, np.dtype[Any]]


def compiled(function: F, parallel: bool = False) -> F:
    """Compile a function when it is first called; what was compiled is kept for later runs, where there is a place for it."""
    plain = inspect.unwrap(function)  # a type checker may have wrapped it
    made = numba.njit(plain, nogil=True, error_model="numpy", parallel=parallel)
    before, folder = numba.config.CACHE_DIR, _folder(inspect.getfile(plain))  # type: ignore[attr-defined]
    if folder is not None:
        numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
        try:
            made._cache = _Kept(plain)
        finally:
            numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return cast(F, made)


class _Kept(FunctionCache):
    """What was compiled, on disk: what cannot be read is compiled again, and what cannot be written is not kept."""

    def load_overload(self, *given: Any) -> Any:
        found = None
        with suppress(Exception):  # damaged files raise whatever they like
            found = super().load_overload(*given)
        if found is None:
            _tell_of_compiling()
        return found

    def save_overload(self, *given: Any) -> None:
        with suppress(Exception):  # a full disk is no reason not to draw
            super().save_overload(*given)


@cache
def _tell_of_compiling() -> None:
    """Say, once, why the first image takes so long."""
    logging.getLogger("vlae").warning("Compiling for this processor: some twenty seconds, the first time only")


@cache
def _folder(file: str) -> str | None:
    """Where the functions of a file are kept: a place for these very sources, since Numba looks at the file alone and not at what it calls,
    which is beside it or here.
    """
    here = Path(__file__).parent
    sources = (path.read_bytes() for path in sorted({*here.glob("*.py"), *Path(file).parent.glob("*.py")}))
    key, given = sha256(b"".join(sources)).hexdigest()[:16], numba.config.CACHE_DIR  # type: ignore[attr-defined]
    for parent in (Path(given),) if given else (here / "__pycache__", Path("~/.cache/vlae").expanduser()):
        with suppress(OSError):
            (parent / key).mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=parent / key):
                return str(parent / key)
    return None


def shared(function: F) -> F:
    """The same for one whose ``prange`` several threads share."""
    return compiled(function, parallel=True)


_ALONE = RLock()


@contextmanager
def sharing() -> Iterator[int]:
    """Within it as many threads as torch has (told) share the loops, each with products of its own: one product is too small for several.

    Only one thread of the process is in it at a time. Afterwards all have as many threads as before.
    """
    with _ALONE:
        torchs, numbas = torch.get_num_threads(), numba.get_num_threads()
        numba.set_num_threads(min(torchs, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        try:
            with _libraries().limit(limits=1, user_api="blas"):
                yield numba.get_num_threads()
        finally:
            numba.set_num_threads(numbas)
            torch.set_num_threads(torchs)  # the loops' threads are torch's, too, and may have become more


@cache
def _libraries() -> ThreadpoolController:
    import scipy.linalg.cython_blas  # noqa: F401  (what multiplies must be there to be found)

    return ThreadpoolController()


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))``; in single precision without branches or calls, so that many are computed at once."""
    return 1 / (1 + math.exp(-x))


def _sigmoid_of_single(x: Any) -> Any:
    # exp(-x) is a power of two, which is an exponent's bits, times a polynomial (Moshier's Cephes library, 1989).
    power = min(max(x, np.float32(-87)), np.float32(87)) * np.float32(-1.4426950408889634)
    whole = np.floor(power + np.float32(0.5))
    rest = power - whole
    series = np.float32(1.535336188319500e-4)
    series = series * rest + np.float32(1.339887440266574e-3)
    series = series * rest + np.float32(9.618437357674640e-3)
    series = series * rest + np.float32(5.550332471162809e-2)
    series = series * rest + np.float32(2.402264791363012e-1)
    series = series * rest + np.float32(6.931472028550421e-1)
    series = series * rest + np.float32(1)
    return np.float32(1) / (np.float32(1) + series * np.int32(np.int32(whole + np.float32(127)) << 23).view(np.float32))


@overload(sigmoid, inline="always")
def _sigmoid_of(x: Any) -> Any:
    return inspect.unwrap(_sigmoid_of_single if x == types.float32 else sigmoid)


def _copied(_: Any, values: Any, begin: Any, out: Any, to: Any, count: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        source, target = ((signature.args[k], given[k], given[k + 1]) for k in (0, 2))
        to, begin = (builder.gep(context.make_array(kind)(context, builder, array).data, [at]) for kind, array, at in (target, source))
        cgutils.raw_memcpy(builder, to, begin, given[4], context.get_abi_sizeof(context.get_data_type(values.dtype)))
        return context.get_dummy_value()

    return types.void(values, begin, out, to, count), inspect.unwrap(code)


copied: Callable[..., None] = intrinsic(_copied)
"""``copied(values, begin, out, to, count)`` copies a few numbers of an array into another, as they lie, without a look at each."""


@compiled
def blanked(out: Array, to: int, count: int) -> None:
    """Set a few numbers to zero. Indices are unsigned: a signed one might count from the end, and would be looked at every time."""
    begin = np.uintp(to)
    for k in range(np.uintp(count)):
        out[begin + k] = 0
