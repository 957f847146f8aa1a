"""Work on many things in several processes: with its progress told, and an end at any moment that loses nothing finished."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from ctypes import c_byte
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

from vlae.errors import DeviceError

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[int, int], None]
Work = Callable[[T, Callable[[int], None]], R]
"""What is done with each thing; it calls ``step(n)`` whenever n more images are done."""


class Stopped(Exception):
    """The user has interrupted the work: the process ends after the images at hand."""


def spread(work: Work[T, R], things: Sequence[T], images: int, processes: int | None, progress: Progress | None = None) -> Iterator[R]:
    """The results of all things, in the order in which they end.

    Args:
        work: made once in each process; it is sent there.
        things: what to work on.
        images: of all things together, for ``progress``.
        processes: how many; one for each core by default.
        progress: told the images done and all.

    Raises:
        DeviceError: a process was ended from outside, as a system does that has no memory left.
    """
    count = min(len(things), processes or os.cpu_count() or 1)
    if count <= 1:
        done = 0

        def step(more: int) -> None:
            nonlocal done
            done += more
            if progress:
                progress(done, images)

        yield from (work(thing, step) for thing in things)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch, which it does not survive
    # The first process takes no lock: one that is ended from outside may hold it for ever.
    told, stop = context.Value("q", 0), context.RawValue("b", 0)
    with ProcessPoolExecutor(count, context, _begin, (work, told, stop, max(1, (os.cpu_count() or 1) // count))) as pool:
        waiting: set[Future[Any]] = set()
        try:
            with _uninterrupted():
                waiting |= {pool.submit(_do, thing) for thing in things}
            while waiting:
                ended, waiting = wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED")
                if progress:
                    progress(told.get_obj().value, images)
                yield from (future.result() for future in ended)
        except BrokenProcessPool:
            raise DeviceError(
                "A process was ended from outside", rule="Every process needs memory for its images", do="Give fewer --processes"
            ) from None
        finally:
            stop.value = 1
            for future in waiting:
                future.cancel()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt waits for the end of the body; processes that begin in it never have one, not even before ``_begin``."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: tuple[Any, "Synchronized[int]", c_byte]
_busy = threading.Lock()


def _begin(work: Any, told: "Synchronized[int]", stop: c_byte, threads: int) -> None:
    global _worker
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells when to stop
    torch.set_num_threads(threads)
    _worker = work, told, stop
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    """Nobody gives work to a process, or ends it, once the first was killed."""
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    _worker[2].value = 1
    with _busy:
        os._exit(1)


def _do(thing: Any) -> Any:
    work, told, stop = _worker

    def step(more: int) -> None:
        with told.get_lock():
            told.value += more
        if stop.value:
            raise Stopped

    with _busy, suppress(Stopped):
        return work(thing, step)
