"""Commands that make a model, measure it and draw from it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlae.cli.options import Device, Json, Language, Output, RunFolder, Split, app
from vlae.cli.say import INTERRUPTED, Bar, counting, note, show, show_made

UNFINISHED = ("interrupted", "minutes")


@app.command()
def train(
    folder: Annotated[Path | None, typer.Argument(help="A folder of images, or an .npz file of arrays.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, as group.name=value.")] = None,
    output: Output = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings as YAML.")] = None,
    keep: Annotated[str | None, typer.Option(help="What the code keeps: layout, shape, detail or everything.")] = None,
    keep_above: Annotated[str | None, typer.Option(help="Structures of so many pixels and more should be kept (8px): chooses a window.")] = None,
    size: Annotated[str | None, typer.Option(help="Size of the networks: small, medium or large.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the weights.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes; --resume goes on.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run.")] = None,
    as_json: Json = False,
) -> None:
    """Train on a folder of images (or go on with a run): leaves a run folder."""
    from vlae.apps import train as trainer
    from vlae.engine.settings import load_settings
    from vlae.errors import SettingError

    overrides = list(overrides or [])
    if folder is not None and "=" in str(folder) and not folder.exists():
        folder, overrides = None, [str(folder), *overrides]
    if resume is not None:
        if any(given is not None for given in (folder, output, config, keep, keep_above, size, steps)):
            raise SettingError(
                "--resume goes on with a run as it is",
                rule="It takes only --max-minutes and train.max_minutes or train.device",
                do="Leave the rest out",
            )
        run = trainer.resume(resume, overrides + ([f"train.max_minutes={max_minutes}"] if max_minutes is not None else []))
    else:
        flags = {
            "data.folder": folder,
            "keep.preset": keep,
            "keep.above": keep_above,
            "model.size": size,
            "train.steps": steps,
            "train.max_minutes": max_minutes,
        }
        settings = load_settings(config, overrides, flags)
        with counting("Decoding") as decoding:
            run = trainer.prepare(settings, output or trainer.default_folder(settings.data.folder), decoding)
        if trainer.process() == 0:
            _say_left_out(run.folder)
    with Bar() as bar:
        why = trainer.train(run, bar.show)
    if trainer.process() == 0:
        told = {"run": str(run.folder), "ended": why, **bar.last, "left_out": _left_out(run.folder)}
        show(told, as_json, _after_training(run.folder, why))
    if why == "interrupted":
        raise typer.Exit(INTERRUPTED)


@app.command()
def evaluate(
    run: RunFolder,
    split: Split = "test",
    samples: Annotated[
        int | None, typer.Option(help="Importance samples for the likelihood (vector codes); 1 gives the bound. As its own figure for a zoo model.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images, evenly spaced.")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Measure what held-out images cost: bits of code, bits of pixels, and how alike decodings are."""
    from vlae.apps.evaluate import evaluate as measure
    from vlae.engine.run import Run

    with counting("Measuring") as progress:
        result = measure(Run.open(run), split, samples, limit, device, progress)
    show(asdict(result), as_json, _evaluation_text(result))


@app.command()
def reconstruct(
    run: RunFolder,
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("reconstructed"),
    decodings: Annotated[int, typer.Option(min=1, help="Decodings of each image's code.")] = 3,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Decode the code of each image several times: what agrees was kept, what differs was left to the decoder."""
    from vlae.apps.reconstruct import reconstruct as decode
    from vlae.engine.run import Run

    with counting("Decoding") as progress:
        result = decode(Run.open(run), images, output, decodings, device, progress)
    show_made(result, output, as_json, f"{result.images} images, {decodings} decodings each: {output}")


@app.command()
def inpaint(
    run: RunFolder,
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    mask: Annotated[Path, typer.Option(help="An image of their size: what is white is drawn anew, the rest is kept as the model sees it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("inpainted"),
    drawings: Annotated[int, typer.Option(min=1, help="Drawings of each image.")] = 3,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Draw a marked region of each image anew, given the rest of it."""
    from vlae.apps.inpaint import inpaint as draw
    from vlae.engine.run import Run

    with counting("Drawing") as progress:
        result = draw(Run.open(run), images, mask, output, drawings, device, progress)
    show_made(result, output, as_json, f"{result.images} images, {drawings} drawings each of the {result.marked:.1%} marked: {output}")


@app.command()
def sample(
    run: RunFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("samples"),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many images.")] = 16,
    size: Annotated[tuple[int, int] | None, typer.Option(help="Height and width (grid codes).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other images.")] = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Draw new images from the model."""
    from vlae.apps.sample import sample as draw
    from vlae.apps.sample import sample_size
    from vlae.engine.run import Run

    opened = Run.open(run)
    with counting("Drawing") as progress:
        sheet = draw(opened, output, count, sample_size(opened, size), seed, device, progress)
    show({"output": str(output), "sheet": str(sheet), "images": count}, as_json, f"{count} images: {sheet}")


@app.command()
def report(
    run: RunFolder,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page; report.html in the run by default.")] = None,
    lang: Language = "en",
    as_json: Json = False,
) -> None:
    """Write one page for a person in a hurry: what the code kept, and what it left to the decoder."""
    from vlae.apps.evaluate import evaluate as measure
    from vlae.apps.report import ENOUGH, measured
    from vlae.apps.report import report as write
    from vlae.engine.run import Run

    opened = Run.open(run)
    split = "test" if len(opened.images().indices("test")) else "validation"
    if measured(opened, split) is None:
        with counting("Measuring") as progress:
            measure(opened, split, limit=ENOUGH, progress=progress)
    with counting("Drawing the page") as progress:
        page = write(opened, output, lang, progress)
    show({"report": str(page)}, as_json, f"Open {page}")


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="A row of the paper's tables; --table names them.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Print all rows beside the paper's.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another model.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run; gone on with where it was begun.")] = None,
    zoo: Annotated[Path | None, typer.Option(help="A new folder for the model, in half precision; its figure is that of these weights.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop training after so many minutes; the same command goes on.")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Train and measure a row of the paper's tables from its recipe. VLAE_DATA names the folder of the images."""
    from vlae.apps import reproduce as rows
    from vlae.apps import train as trainer

    if table:
        lines = rows.table()
        show({"rows": lines}, as_json, rows.as_text(lines))
        return
    row, folder = rows.row(name or ""), output or Path("runs") / "reproduce" / f"{name}-{seed}"
    settings = rows.settings_of(str(name), {"train.seed": seed, "train.device": device, "train.max_minutes": max_minutes})
    rows.check_folders(zoo)
    run = _begun_or_gone_on(folder, settings)
    rows.check_same(run, settings)
    before = len(run.metrics())
    with Bar() as bar:
        why = trainer.train(run, bar.show)
    if len(run.metrics()) > before:
        rows.note_run(str(name), run, why)
    if why in UNFINISHED:
        show({"run": str(folder), "ended": why}, as_json, f"Stopped ({why}); nothing is lost. The same command goes on with {folder}")
        raise typer.Exit(INTERRUPTED if why == "interrupted" else 0)
    from vlae.apps.evaluate import evaluate as measure

    measured = rows.hand_on(run, zoo) if zoo else run
    with counting("Measuring") as progress:
        found = rows.record(str(name), run, measured, measure(measured, "test", row.samples, None, device, progress))
    show(found, as_json, f"{name}: {rows.figure(found | {'unit': row.unit})} {row.unit} ({found['protocol']})")


def _begun_or_gone_on(folder: Path, settings: Any) -> Any:
    """A run of these settings in a folder, or the one that is there, to be gone on with."""
    from vlae.apps import train as trainer

    if (folder / "config.yaml").is_file():
        return trainer.resume(folder, [f"train.max_minutes={settings.train.max_minutes or 'null'}", f"train.device={settings.train.device}"])
    with counting("Decoding") as decoding:
        return trainer.prepare(settings, folder, decoding)


def _left_out(folder: Path) -> list[dict[str, Any]]:
    """The images of a run that were left out, by reason."""
    found: list[dict[str, Any]] = json.loads((folder / "images.json").read_text(encoding="utf-8"))["summary"]["left_out"]
    return found


def _say_left_out(folder: Path) -> None:
    for left in (left for left in _left_out(folder) if not left.get("harmless")):
        note(f"Left out, {left['count']} files: {left['reason']} ({', '.join(left['names'][:3])}). See {folder / 'images.json'}.")


def _after_training(folder: Path, why: str) -> str:
    if why in UNFINISHED:
        return f"Stopped ({why}); nothing is lost. Go on: vlae train --resume {folder}"
    return f"Done. Next: vlae report {folder}"


def _evaluation_text(e: Any) -> str:
    lines = [
        f"{e.bits_per_dim:.4f} +- {e.bits_per_dim_se:.4f} bits for each pixel value, code included",
        f"code   {e.rate_bits:10.1f} +- {e.rate_bits_se:.1f} bits an image",
        f"pixels {e.distortion_bits:10.1f} +- {e.distortion_bits_se:.1f} bits an image",
        f"total  {e.nll_nats:10.2f} +- {e.nll_nats_se:.2f} nats an image",
    ]
    if e.psnr is not None:
        lines.append(f"decodings: PSNR {e.psnr:.1f} dB, SSIM {e.ssim:.3f}")
    if e.effective_samples is not None:
        lines.append(f"effective samples: {e.effective_samples:.1f} of {e.importance_samples}")
    return "\n".join([*lines, f"({e.protocol})"])
