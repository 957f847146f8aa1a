"""Commands that compare images by their codes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlae.cli.archives import need_archive
from vlae.cli.options import Device, Json, RunFolder, app
from vlae.cli.say import counting, note, show
from vlae.errors import SettingError

Source = Annotated[Path, typer.Argument(metavar="RUN_OR_ARCHIVE", help="A run, made by vlae train, or an archive, made by vlae compress.")]
By = Annotated[Literal["certainty", "euclidean", "cosine"], typer.Option(help="Which distance of codes; certainty weighs by how certain they are.")]
MEANING = {
    "certainty": "by how well their codes, each as certain as it is, are told apart, in bits (0 is the same)",
    "euclidean": "by the distance of their codes (0 is the same)",
    "cosine": "by the angle between their codes (0 is the same, 1 has nothing in common)",
}
Sheet = Annotated[Path | None, typer.Option("--output", "-o", help="A new PNG file that shows them.")]


@app.command()
def search(
    source: Source,
    image: Annotated[str, typer.Argument(help="A file, or the name of one of the images.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many images.")] = 10,
    by: By = "certainty",
    where: Annotated[list[str] | None, typer.Option(help="Only images of which this is known: label=good, 'angle>0.5'; may be repeated.")] = None,
    region: Annotated[str | None, typer.Option(help="Compare this part alone: top,left,height,width in pixels (grid codes).")] = None,
    images: Annotated[Path | None, typer.Option(help="Search this folder instead of the run's own images.")] = None,
    run: Annotated[Path | None, typer.Option(help="The run that the archive was made with: it encodes a file.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="A table of what is known of an archive's images, for --where.")] = None,
    output: Sheet = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Find the images that are most like one image, by their codes."""
    _need(source)
    from vlae.apps.search import search as find
    from vlae.engine.guests import check_whole
    from vlae.engine.retrieval.contact import check_new
    from vlae.engine.retrieval.named import opened, query

    part = _region(region)
    if output:
        check_new(output)
    with counting("Encoding") as progress:
        index, encoder = opened(source, images, run, manifest, device, progress)
    asked = query(index, image, encoder)
    found = find(index, asked, count, by, where or (), part, output)
    lines = [f"Nearest of {found.among:,} images, {MEANING[by]}:", *(f"{hit.rank:4} {hit.distance:12.4g}  {hit.name}" for hit in found.hits)]
    show(found.tree() | ({"output": str(output)} if output else {}), as_json, "\n".join(lines))
    if list(asked.size) not in index.sizes.tolist():
        note(f"No image here has its size ({asked.size[1]}x{asked.size[0]} pixels): places are compared by where they lie in the whole.")
    check_whole(found.among, found.left_out)


@app.command()
def duplicates(
    source: Source,
    images: Annotated[Path | None, typer.Argument(help="A folder of images, instead of the run's own.")] = None,
    by: By = "certainty",
    within: Annotated[float | None, typer.Option(min=0, help="Largest distance of near-duplicates; found from the images by default.")] = None,
    output: Sheet = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Find images that are there more than once: with the same pixels, or with nearly the same code."""
    _need(source)
    from vlae.apps.duplicates import duplicates as find
    from vlae.engine.guests import check_whole
    from vlae.engine.retrieval.contact import check_new
    from vlae.engine.retrieval.named import opened

    if output:
        check_new(output)
    with counting("Encoding") as progress:
        index, _ = opened(source, images, device=device, progress=progress)
    with counting("Comparing") as progress:
        found = find(index, by, within, output, progress)
    drawn = output if found.exact or found.near else None
    blank = "" if drawn == output else "\nNo duplicates were found, and no sheet was written"
    told = {"output": None if drawn is None else str(drawn)} if output else {}
    show(found.tree() | told, as_json, _duplicates_text(found) + blank)
    check_whole(found.images, found.left_out)


@app.command()
def compare(
    run: RunFolder,
    one: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image.")],
    other: Annotated[Path, typer.Argument(metavar="IMAGE", help="Another, of the same size.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new PNG file that shows where they differ.")] = Path("compared.png"),
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show where two images differ in layout, which the code holds, and where in texture, which it leaves out."""
    from vlae.apps.compare import compare as look
    from vlae.engine.retrieval.contact import check_new
    from vlae.engine.retrieval.index import Encoder
    from vlae.engine.run import Run

    check_new(output)
    found = look(Encoder.of(Run.open(run), device), one, other, output)
    show(found.tree() | {"output": str(output)}, as_json, "\n".join([*found.words(), f"See {output}"]))


def _need(source: Path) -> None:
    """Tell of the extra that archives need, where the source is one."""
    if not (source / "config.yaml").exists() and (source / "parts").is_dir():
        need_archive()


def _region(written: str | None) -> Any:
    if written is None:
        return None
    from vlae.apps.search import Region

    try:
        return Region(*map(int, written.split(",")))
    except (ValueError, TypeError):
        rule = "It is top,left,height,width in pixels"
        raise SettingError(f"--region {written!r} cannot be read", rule=rule, do="Write --region 0,0,32,32") from None


def _duplicates_text(found: Any) -> str:
    lines = [f"the same pixels: {', '.join(group.names)}" for group in found.exact]
    lines += [f"nearly the same ({group.distance:.4g}): {', '.join(group.names)}" for group in found.near]
    if found.kept_once:
        lines.append(f"{found.kept_once} more have the same pixels as others, and the run kept them once: give their folder as IMAGES to see which")
    if found.threshold is None:
        lines.append(f"Near-duplicates were not looked for: {found.rule}. Give --within.")
    else:
        usual = "" if found.typical is None else f"; the nearest neighbour is usually at {found.typical:.4g}"
        lines.append(f"{found.images} images; near-duplicates are within {found.threshold:.4g}{usual}")
    return "\n".join(lines)
