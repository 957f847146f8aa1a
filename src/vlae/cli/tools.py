"""Commands that need no run: pictures to try everything on, and what this machine has."""

from pathlib import Path
from typing import Annotated

import typer

from vlae.cli.options import Json, app
from vlae.cli.say import counting, show


@app.command()
def parts(
    folder: Annotated[Path, typer.Argument(help="A new folder for the images.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many images.")] = 800,
    size: Annotated[int, typer.Option(min=16, help="Side in pixels.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other parts.")] = 0,
    colour: Annotated[bool, typer.Option(help="RGB instead of grey.")] = False,
    defects: Annotated[list[str] | None, typer.Option("--defect", help="A kind of defect to draw as well; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Draw pictures of machined parts from known factors: something to try everything on."""
    from vlae.data.parts import write

    with counting("Drawing") as progress:
        write(folder, count, size, seed, colour, tuple(defects or ()), progress)
    show({"folder": str(folder), "images": count}, as_json, f"{count} images: {folder}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has, and what is slow on it."""
    from vlae.apps.doctor import doctor as examine

    found = examine()
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in found.items() if name != "advice"]
    show(found, as_json, "\n".join(lines + [f"- {line}" for line in found["advice"]]))
