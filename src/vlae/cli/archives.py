"""Commands for archives."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlae.cli.options import ArchiveFolder, Json, Processes, RunFolder, app
from vlae.cli.say import counting, saying, share, show, size
from vlae.errors import PartialResult

_ENCODINGS = {"vlae": "by the model", "jxl": "as JPEG XL", "png": "as PNG"}


@app.command()
def compress(
    run: RunFolder,
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive: a new folder, or one made with the same run, to be added to.")],
    check: Annotated[bool, typer.Option("--check/--no-check", help="Decode every image again before it counts as written.")] = True,
    delete_originals: Annotated[
        bool, typer.Option("--delete-originals", help="Then verify the archive, and delete the files that it can stand for.")
    ] = False,
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Write images into an archive, from which every pixel comes back on any machine. The same command goes on with what was interrupted."""
    need_archive()
    from vlae.apps.compress import compress as write
    from vlae.engine.guests import check_whole
    from vlae.engine.run import Run

    with saying("what is done is in the archive, and the same command goes on"), counting("Compressing") as progress:
        result = write(Run.open(run), images, output, check, delete_originals, processes, progress)
    told = {"output": str(output), **asdict(result), "left_out": [left._asdict() for left in result.left_out]}
    show(told, as_json, _compressed_text(result, output, delete_originals))
    check_whole(result.images + result.already, result.left_out)


@app.command()
def decompress(
    archive: ArchiveFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Give every image of an archive back, bit for bit, as PNG."""
    need_archive()
    from vlae.apps.decompress import decompress as give_back
    from vlae.archive.archive import Archive

    with saying(f"what is in {output} is whole, but not all"), counting("Decoding") as progress:
        result = give_back(Archive.open(archive), output, processes, progress)
    told = {"output": str(output), **asdict(result), "damaged": _named(result.damaged)}
    show(told, as_json, f"{result.images} images: {output}")
    _check_undamaged(result.images, result.damaged)


@app.command()
def verify(archive: ArchiveFolder, processes: Processes = None, as_json: Json = False) -> None:
    """Decode every image of an archive and compare its pixels with what was stored."""
    need_archive()
    from vlae.archive.archive import Archive
    from vlae.engine.verify import verify as check

    with saying("nothing was found out"), counting("Verifying") as progress:
        result = check(Archive.open(archive), processes, progress)
    whole = len(result.whole)
    show({"images": whole, "damaged": _named(result.damaged)}, as_json, f"{whole} images are whole")
    _check_undamaged(whole, result.damaged)


@app.command()
def preview(
    archive: ArchiveFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("preview"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    as_json: Json = False,
) -> None:
    """Draw the images of an archive from their codes alone: what the code keeps is right, the rest is made up."""
    need_archive()
    from vlae.apps.preview import preview as draw
    from vlae.archive.archive import Archive

    with saying(f"what is in {output} is not all"), counting("Drawing") as progress:
        result = draw(Archive.open(archive), output, limit, progress)
    each = result.code_bytes / max(1, result.images)
    told = {"output": str(output), **asdict(result), "left_out": _named(result.left_out)}
    show(told, as_json, f"{result.images} images, {each:.0f} bytes of code each: {output}")
    _check_undamaged(result.images, result.left_out)


@app.command()
def info(archive: ArchiveFolder, as_json: Json = False) -> None:
    """Tell what an archive holds, and what it saves."""
    need_archive()
    from vlae.apps.info import info as examine
    from vlae.archive.archive import Archive

    found = examine(Archive.open(archive))
    told = {**asdict(found), "damaged": _named(found.damaged)}
    show({**told, "bits_per_pixel": found.bits_per_pixel, "pays_from": found.pays_from}, as_json, _info_text(found))
    _check_undamaged(found.images, found.damaged)


def need_archive() -> None:
    """Tell of the extra that archives need, where it is missing."""
    from importlib.util import find_spec

    from vlae.errors import DeviceError

    if missing := [name for name in ("google_crc32c", "pyarrow") if find_spec(name) is None]:
        found = f"{', '.join(missing)} not installed"
        raise DeviceError("Archives need the extra vlae[archive]", found=found, do="pip install 'vlae[archive]'")


def _named(damaged: Sequence[Any]) -> list[dict[str, str]]:
    """What a program is told of images that are damaged."""
    return [{"name": d.name, "reason": d.reason} for d in damaged]


def _check_undamaged(whole: int, damaged: Sequence[Any]) -> None:
    """Tell of images that are damaged, after the others are done."""
    if damaged:
        more = f"; {len(damaged) - 5} more, which --json names" if len(damaged) > 5 else ""
        found = "; ".join(f"{d.name}: {d.reason}" for d in damaged[:5]) + more
        raise PartialResult(
            f"{whole} images are whole and {len(damaged)} are not", found=found, do="Compress their images again, or restore them from elsewhere"
        )


def _compressed_text(c: Any, output: Path, deleting: bool) -> str:
    lines = [f"{c.images} images: {output}"] + ([f"{c.already} were there already"] if c.already else [])
    if c.images:
        kinds = ", ".join(f"{n} {_ENCODINGS[name]}" for name, n in c.encodings.items())
        lines.append(f"{8 * c.stream_bytes / c.pixels:.3f} bits a pixel: about {share(c.stream_bytes, c.other_bytes)} of JPEG XL ({kinds})")
        lines.append(f"{size(c.stream_bytes)}; their files have {size(c.file_bytes)}")
        lines += [f"{n} of them: {note}" for note, n in sorted(c.notes.items())]
    if deleting:
        lines.append(f"{c.deleted} files deleted, after the archive gave their pixels back; {c.images + c.already - c.deleted} stay")
    return "\n".join(lines)


def _info_text(i: Any) -> str:
    kinds = ", ".join(f"{n} {_ENCODINGS.get(name, name)}" for name, n in i.encodings.items())
    lines = [
        f"images   {i.images} in {i.parts} parts ({kinds})",
        f"archive  {size(i.archive_bytes)}, {i.bits_per_pixel:.3f} bits a pixel, about {share(i.archive_bytes, i.other_bytes)} of JPEG XL",
        f"model    {size(i.model_bytes)}, stored twice",
        f"codes    {i.code_bits / 8 / max(1, i.images):.0f} bytes an image",
        f"files    {size(i.file_bytes)}, from which the images came",
    ]
    pays = f"from {i.pays_from} such images on" if i.pays_from else "never: the images are no smaller than as JPEG XL"
    return "\n".join([*lines, f"pays     {pays}, model included"])
