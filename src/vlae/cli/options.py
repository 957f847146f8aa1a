"""The application, and the options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlae.version import __version__

app = typer.Typer(
    help="Learn a short code of your images that keeps what you choose.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(help="A run, made by vlae train.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A new folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Language = Annotated[Literal["en", "ja"], typer.Option("--lang", help="Language of the page.")]
ArchiveFolder = Annotated[Path, typer.Argument(help="An archive, made by vlae compress.")]
Processes = Annotated[int | None, typer.Option(min=1, help="How many; one for each core by default.")]
Split = Annotated[Literal["train", "validation", "test"], typer.Option(help="Which of the run's images.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vlae {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass
