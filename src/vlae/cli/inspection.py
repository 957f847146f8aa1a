"""Commands that tell good parts from others."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlae.cli.options import Json, RunFolder, app
from vlae.cli.say import counting, note, saying, show
from vlae.errors import SettingError

# From so many standard deviations on, the global evidence is told.
UNLIKE = 4.0

FalseAlarms = Annotated[str | None, typer.Option(help="The share of good images that may raise an alarm, such as 5%.")]


@app.command()
def calibrate(
    run: RunFolder,
    images: Annotated[
        Path | None, typer.Argument(metavar="[GOOD]", help="Good images that were not trained on; the run's own test images by default.")
    ] = None,
    false_alarms: FalseAlarms = None,
    as_json: Json = False,
) -> None:
    """Learn what good parts look like, and set a threshold that keeps a rate of false alarms."""
    from vlae.apps.calibrate import calibrate as learn
    from vlae.engine.guests import check_whole
    from vlae.engine.run import Run

    with saying("the run is as it was"), counting("Looking") as progress:
        found, left_out = learn(Run.open(run), images, _rate(false_alarms), progress)
    told = {"run": str(run), **asdict(found), "promise": asdict(found.promise), "rates": found.rates()}
    show({**told, "left_out": [left._asdict() for left in left_out]}, as_json, _card(found))
    if found.suspects:
        note(f"Look at {', '.join(found.suspects[:5])}: unlike the other good images, so perhaps a defect. If it is one, calibrate without it.")
    check_whole(len(found.names), left_out)


@app.command()
def detect(
    run: RunFolder,
    images: Annotated[Path, typer.Argument(help="An image, a folder of images or an .npz file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("detected"),
    false_alarms: FalseAlarms = None,
    all_maps: Annotated[bool, typer.Option("--all-maps", help="A picture of each image, not only of those that raise an alarm.")] = False,
    as_json: Json = False,
) -> None:
    """Find what is unlike good parts: which images, where, by how many bits, in texture or in layout."""
    from vlae.apps.detect import detect as find
    from vlae.engine.guests import check_whole
    from vlae.engine.run import Run

    with saying(f"what is in {output} is not all"), counting("Looking") as progress:
        result = find(Run.open(run), images, output, _rate(false_alarms), all_maps, progress)
    told = {"output": str(output), **asdict(result), "left_out": [left._asdict() for left in result.left_out]}
    show(told, as_json, _detection_text(result, output))
    check_whole(result.images, result.left_out)


def _rate(text: str | None) -> float | None:
    """A share as a person writes it: 5%, or 0.05."""
    if text is None:
        return None
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise SettingError("--false-alarms cannot be read", rule="It is a share such as 5% or 0.05", found=text) from None


def _card(c: Any) -> str:
    p = c.promise
    of = f"{p.n_images} good images" + (f" of {p.n_lots} lots" if p.n_lots is not None else "")
    what = "images of new lots" if p.n_lots is not None else "new good images"
    promised = f"promised   at most {p.rate:.1%} of {what} raise an alarm, in expectation; a flagged region counts as one"
    short = f"{p.asked:.1%} cannot be promised from so few: it takes {p.needed} {'lots' if p.n_lots is not None else 'good images'}"
    moved = [f"{r['threshold']:.2f} ({r['rate']:.1%}, {r['low']:.1%} to {r['high']:.1%})" for r in c.rates()]
    return "\n".join([f"threshold  {p.threshold:.2f}, from {of}", promised, *([] if p.kept else [short]), f"elsewhere  {'; '.join(moved)}"])


def _detection_text(d: Any, output: Path) -> str:
    lines = [f"{d.alarms} of {d.images} images raise an alarm: {output / 'detections.jsonl'}"]
    lines += [f"  {f.name}: {_words(f)}" for f in d.highest if f.alarm]
    if d.alarms > len(d.highest):
        lines.append(f"  and {d.alarms - len(d.highest)} more")
    if d.counted:
        c = d.counted
        lines += [
            f"of {c.good} images labelled good, {_share(c.false_alarms)} raise an alarm; of {c.defective} labelled otherwise, {_share(c.detected)}",
            f"image AUROC {c.image_AUROC:.3f}",
        ]
    p = d.promise
    return "\n".join([*lines, f"({1000 * d.seconds:.0f} ms an image; threshold from {p.n_images} good images, promised false alarms {p.rate:.1%})"])


def _words(f: Any) -> str:
    """What speaks against an image, and where."""
    if not f.regions:
        return "the model finds no likelihood for it"
    first = f.regions[0]
    others = len(f.regions) - 1
    more = f", {others} more region{'s' * (others > 1)}" if others else ""
    if f.unlike is not None and f.unlike > UNLIKE:
        more += f"; as a whole {f.unlike:.0f} standard deviations from good parts"
    at = f"{first.width}x{first.height} pixels at ({first.left}, {first.top})"
    return f"{f.score:.1f} times the threshold; {first.kind} at {at}, {first.bits:+.0f} bits{more}"


def _share(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.1%} ({values[1]:.1%} to {values[2]:.1%})"
