"""A sheet for the site: printed pairs of images and decodings, of which nobody who judges them is told which is which."""

from pathlib import Path
from typing import NamedTuple

import jinja2

from vlae.apps.report.pictures import Picture, levels_shown, picture
from vlae.apps.report.words import Words
from vlae.data.source import LeftOut
from vlae.engine.batches import random
from vlae.engine.device import find_device
from vlae.engine.folders import check_outside, output_folder
from vlae.engine.formats import write_text
from vlae.engine.kept.blind import ANSWERS, QUESTIONS, pairs, write_key
from vlae.engine.kept.subjects import Progress, decode_all, subjects
from vlae.engine.run import Run
from vlae.errors import DataError

# The stream of random numbers of the pairs, and which decodings they show: none that is shown elsewhere.
PAIRED, SAMPLE = 302, 50


class Printed(NamedTuple):
    """A pair as it is printed."""

    number: int
    left: Picture
    right: Picture


class Sheet(NamedTuple):
    """Where the sheet is, its pairs, and which images were left out."""

    path: Path
    images: int
    left_out: tuple[LeftOut, ...]


def sheet(
    run: Run, output: Path, count: int = 20, images: Path | None = None, lang: str = "en", device: str = "cpu", progress: Progress | None = None
) -> Sheet:
    """Write ``sheet.html`` to print, ``answers.csv`` to fill in, and ``key.json``, which tells what is what.

    Args:
        run: the run; its averaged weights are used.
        output: a new folder, not among the images.
        count: pairs, each of another image.
        images: an image or a folder of images; None for the run's own held-out ones.
        lang: en or ja.
        device: where to compute.
        progress: told the steps done and all.

    Raises:
        SettingError: the model has no code, or the language is another.
        DataError: there are fewer images than pairs.
        DiskError: the folder cannot be used, or is full.
    """
    words, weights, model, seed = Words(lang), run.fingerprint(), run.model(find_device(device)), run.settings.train.seed
    if images is not None:
        check_outside(output, images)
    with output_folder(output):
        seen = subjects(run, model, images, count)
        if len(seen.names) < count:
            found = f"{len(seen.names)} images"
            raise DataError("There are fewer images than pairs", rule="Each pair is of another image", found=found, do=f"--pairs {len(seen.names)}")
        made, levels = pairs(count, count, random(seed, PAIRED, 0)), levels_shown(run.images())
        decoded = decode_all(model, seen.group, seed, SAMPLE)
        printed = list[Printed]()
        for number, pair in enumerate(made, start=1):
            image, decoding = (picture(x.numpy(), levels) for x in (seen.group.x[pair.image], decoded[pair.decoded]))
            printed.append(Printed(number, *((image, decoding) if pair.left == "image" else (decoding, image))))
            if progress:
                progress(number, count)
        write_text(output / "sheet.html", _page(words, printed))
        write_text(output / ANSWERS, "\n".join([",".join(("pair", *QUESTIONS)), *(f"{n},," for n in range(1, count + 1))]) + "\n")
        write_key(output, made, seen.names, weights)
    return Sheet(output / "sheet.html", count, seen.left_out)


def _page(t: Words, printed: list[Printed]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("site.html.j2").render(t=t, lang=t.lang, shown=printed, questions=QUESTIONS)
