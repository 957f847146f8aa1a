"""The command line: parse, call one app, show its result. torch is loaded only by the commands that need it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlae.errors import DiskError, PartialResult, VlaeError
from vlae.version import __version__

INTERRUPTED = 130
UNFINISHED = ("interrupted", "minutes")

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


@app.command()
def train(
    folder: Annotated[Path | None, typer.Argument(help="A folder of images, or an .npz file of arrays.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, as group.name=value.")] = None,
    output: Output = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings as YAML.")] = None,
    keep: Annotated[str | None, typer.Option(help="What the code keeps: layout, shape, detail or everything.")] = None,
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
        if any(given is not None for given in (folder, output, config, keep, size, steps)):
            raise SettingError(
                "--resume goes on with a run as it is",
                rule="It takes only --max-minutes and train.max_minutes or train.device",
                do="Leave the rest out",
            )
        run = trainer.resume(resume, overrides + ([f"train.max_minutes={max_minutes}"] if max_minutes is not None else []))
    else:
        flags = {"data.folder": folder, "keep.preset": keep, "model.size": size, "train.steps": steps, "train.max_minutes": max_minutes}
        settings = load_settings(config, overrides, flags)
        with counting("Decoding") as decoding:
            run = trainer.prepare(settings, output or trainer.default_folder(settings.data.folder), decoding)
        if trainer.process() == 0:
            _say_left_out(run.folder)
    with _Bar() as bar:
        why = trainer.train(run, bar.show)
    if trainer.process() == 0:
        show({"run": str(run.folder), "ended": why, **bar.last}, as_json, _after_training(run.folder, why))
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
    _show_made(result, output, as_json, f"{result.images} images, {decodings} decodings each: {output}")


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
    _show_made(result, output, as_json, f"{result.images} images, {drawings} drawings each of the {result.marked:.1%} marked: {output}")


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
    with _Bar() as bar:
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
    show(found, as_json, f"{name}: {found['nll_nats']:.2f} +- {found['nll_nats_se']:.2f} nats ({found['protocol']})")


def _begun_or_gone_on(folder: Path, settings: Any) -> Any:
    """A run of these settings in a folder, or the one that is there, to be gone on with."""
    from vlae.apps import train as trainer

    if (folder / "config.yaml").is_file():
        return trainer.resume(folder, [f"train.max_minutes={settings.train.max_minutes or 'null'}", f"train.device={settings.train.device}"])
    with counting("Decoding") as decoding:
        return trainer.prepare(settings, folder, decoding)


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
    _need_archive()
    from vlae.apps.compress import compress as write
    from vlae.engine.guests import check_whole
    from vlae.engine.run import Run

    with _saying("what is done is in the archive, and the same command goes on"), counting("Compressing") as progress:
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
    _need_archive()
    from vlae.apps.decompress import decompress as give_back
    from vlae.archive.archive import Archive

    with _saying(f"what is in {output} is whole, but not all"), counting("Decoding") as progress:
        result = give_back(Archive.open(archive), output, processes, progress)
    told = {"output": str(output), **asdict(result), "damaged": [d._asdict() for d in result.damaged]}
    show(told, as_json, f"{result.images} images: {output}")
    _check_undamaged(result.images, result.damaged)


@app.command()
def verify(archive: ArchiveFolder, processes: Processes = None, as_json: Json = False) -> None:
    """Decode every image of an archive and compare its pixels with what was stored."""
    _need_archive()
    from vlae.archive.archive import Archive
    from vlae.engine.verify import verify as check

    with _saying("nothing was found out"), counting("Verifying") as progress:
        result = check(Archive.open(archive), processes, progress)
    whole = len(result.whole)
    show({"images": whole, "damaged": [d._asdict() for d in result.damaged]}, as_json, f"{whole} images are whole")
    _check_undamaged(whole, result.damaged)


@app.command()
def preview(
    archive: ArchiveFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("preview"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    as_json: Json = False,
) -> None:
    """Draw the images of an archive from their codes alone: what the code keeps is right, the rest is made up."""
    _need_archive()
    from vlae.apps.preview import preview as draw
    from vlae.archive.archive import Archive

    with _saying(f"what is in {output} is not all"), counting("Drawing") as progress:
        result = draw(Archive.open(archive), output, limit, progress)
    each = result.code_bytes / max(1, result.images)
    told = {"output": str(output), **asdict(result), "left_out": [left._asdict() for left in result.left_out]}
    show(told, as_json, f"{result.images} images, {each:.0f} bytes of code each: {output}")
    _check_undamaged(result.images, result.left_out)


@app.command()
def info(archive: ArchiveFolder, as_json: Json = False) -> None:
    """Tell what an archive holds, and what it saves."""
    _need_archive()
    from vlae.apps.info import info as examine
    from vlae.archive.archive import Archive

    found = examine(Archive.open(archive))
    told = {**asdict(found), "damaged": [d._asdict() for d in found.damaged]}
    show({**told, "bits_per_pixel": found.bits_per_pixel, "pays_from": found.pays_from}, as_json, _info_text(found))
    _check_undamaged(found.images, found.damaged)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has, and what is slow on it."""
    from vlae.apps.doctor import doctor as examine

    found = examine()
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in found.items() if name != "advice"]
    show(found, as_json, "\n".join(lines + [f"- {line}" for line in found["advice"]]))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vlae {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result for a program or for a person."""
    if as_json:
        from vlae.engine.run import finite

        text = json.dumps(finite(result), ensure_ascii=False, default=str, allow_nan=False)
    typer.echo(text)


def _show_made(result: Any, output: Path, as_json: bool, text: str) -> None:
    """Print what was made of images; only then, where some were left out, end as a partial result."""
    from vlae.engine.guests import check_whole

    show({"output": str(output), **result._asdict(), "left_out": [left._asdict() for left in result.left_out]}, as_json, text)
    check_whole(result.images, result.left_out)


@contextmanager
def _saying(state: str) -> Iterator[None]:
    """Tell what an interrupt leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"Interrupted: {state}.")
        raise typer.Exit(INTERRUPTED) from None


def _need_archive() -> None:
    """Tell of the extra that archives need, where it is missing."""
    from importlib.util import find_spec

    from vlae.errors import DeviceError

    if missing := [name for name in ("constriction", "google_crc32c", "pyarrow") if find_spec(name) is None]:
        found = f"{', '.join(missing)} not installed"
        raise DeviceError("Archives need the extra vlae[archive]", found=found, do="pip install 'vlae[archive]'")


def _check_undamaged(whole: int, damaged: Any) -> None:
    """Tell of images that are damaged, after the others are done."""
    if damaged:
        found = "; ".join(f"{d.name}: {d.reason}" for d in damaged[:5])
        raise PartialResult(
            f"{whole} images are whole and {len(damaged)} are not", found=found, do="Compress their images again, or restore them from elsewhere"
        )


def _compressed_text(c: Any, output: Path, deleting: bool) -> str:
    lines = [f"{c.images} images: {output}"] + ([f"{c.already} were there already"] if c.already else [])
    if c.images:
        kinds = ", ".join(f"{n} {_ENCODINGS[name]}" for name, n in c.encodings.items())
        lines.append(f"{8 * c.stream_bytes / c.pixels:.3f} bits a pixel: {_share(c.stream_bytes, c.other_bytes)} of JPEG XL ({kinds})")
        lines.append(f"{_size(c.stream_bytes)}; their files have {_size(c.file_bytes)}")
    if deleting:
        lines.append(f"{c.deleted} files deleted, after the archive gave their pixels back; {c.images + c.already - c.deleted} stay")
    return "\n".join(lines)


def _info_text(i: Any) -> str:
    kinds = ", ".join(f"{n} {_ENCODINGS.get(name, name)}" for name, n in i.encodings.items())
    lines = [
        f"images   {i.images} in {i.parts} parts ({kinds})",
        f"archive  {_size(i.archive_bytes)}, {i.bits_per_pixel:.3f} bits a pixel, {_share(i.archive_bytes, i.other_bytes)} of JPEG XL",
        f"model    {_size(i.model_bytes)}, stored twice",
        f"codes    {i.code_bits / 8 / max(1, i.images):.0f} bytes an image",
        f"files    {_size(i.file_bytes)}, from which the images came",
    ]
    pays = f"from {i.pays_from} such images on" if i.pays_from else "never: the images are no smaller than as JPEG XL"
    return "\n".join([*lines, f"pays     {pays}, model included"])


_ENCODINGS = {"vlae": "by the model", "jxl": "as JPEG XL", "png": "as PNG"}


def _share(ours: int, theirs: int) -> str:
    return f"{ours / theirs:.1%}" if theirs else "-"


def _size(number: float) -> str:
    """A number of bytes, as a person says it."""
    power = min(3, (len(str(int(number))) - 1) // 3)
    return f"{number / 1000**power:.{2 if power else 0}f} {('bytes', 'kB', 'MB', 'GB')[power]}"


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


class _Bar:
    """The progress of a training: a bar where a person is watching, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self.counter = _Count("Training") if sys.stderr.isatty() else None
        self.next_line = 0.0

    def __enter__(self) -> "_Bar":
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


def _say_left_out(folder: Path) -> None:
    summary = json.loads((folder / "images.json").read_text(encoding="utf-8"))["summary"]
    lost = [left for left in summary["left_out"] if not left.get("harmless")]
    for left in lost:
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


if __name__ == "__main__":
    main()
