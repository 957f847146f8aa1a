"""What the command line says: results for a person or a program, notes beside them, and how far the work is."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import typer

INTERRUPTED = 130


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result for a program or for a person."""
    if as_json:
        from vlae.engine.formats import finite

        text = json.dumps(finite(result), ensure_ascii=False, default=str, allow_nan=False)
    typer.echo(text)


def show_made(result: Any, output: Path, as_json: bool, text: str) -> None:
    """Print what was made of images; only then, where some were left out, end as a partial result."""
    from vlae.engine.guests import check_whole

    show({"output": str(output), **result._asdict(), "left_out": [left._asdict() for left in result.left_out]}, as_json, text)
    check_whole(result.images, result.left_out)


@contextmanager
def saying(state: str) -> Iterator[None]:
    """Tell what an interrupt leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"Interrupted: {state}.")
        raise typer.Exit(INTERRUPTED) from None


def note(line: str) -> None:
    """Say something beside the result."""
    typer.echo(line, err=True)


def counting(what: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
    """A progress bar of images with the time left, where a person is watching."""
    return _Count(what) if sys.stderr.isatty() else nullcontext(None)


class _Count:
    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # The time left is told from the last hour: a large image may take minutes.
        self.bar = Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600)
        self.task = self.bar.add_task(what, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        return lambda done, total: self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


class Bar:
    """The progress of a training: a bar where a person is watching, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self.counter = _Count("Training") if sys.stderr.isatty() else None
        self.next_line = 0.0

    def __enter__(self) -> "Bar":
        if self.counter:
            self.counter.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.counter:
            self.counter.__exit__()

    def show(self, told: Any) -> None:
        p = told.progress
        self.last = {
            "step": p.step,
            "rate_bits": p.rate_bits,
            "distortion_bits": p.distortion_bits,
            "skipped": p.skipped,
            "minutes": p.seconds / 60,
        }
        words = f"code {p.rate_bits:.1f} bits, pixels {p.distortion_bits:.0f} bits, skipped {p.skipped}"
        if self.counter:
            self.counter.bar.update(self.counter.task, completed=p.step, total=told.steps, description=words)
        elif told.event == "validation" or p.seconds >= self.next_line:
            self.next_line = p.seconds + 15
            note(f"step {p.step} of {told.steps}, {told.seconds_left / 60:.1f} minutes left: {words}")


def share(ours: int, theirs: int) -> str:
    """A number as a share of another, for a person."""
    return f"{ours / theirs:.1%}" if theirs else "-"


def size(number: float) -> str:
    """A number of bytes, as a person says it."""
    power = min(3, (len(str(int(number))) - 1) // 3)
    return f"{number / 1000**power:.{2 if power else 0}f} {('bytes', 'kB', 'MB', 'GB')[power]}"
