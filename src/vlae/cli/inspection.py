"""Commands that tell good parts from others."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlae.cli.options import Json, RunFolder, app
from vlae.cli.say import counting, note, saying, show
from vlae.errors import SettingError

# From so many standard deviations on, the global evidence is told.
UNLIKE = 4.0
# So many of the good images that set a threshold are named.
HIGHEST = 3

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
    if labelled := [left.name for left in left_out if left.reason.startswith("it is labelled")]:
        note(f"{_number(len(labelled), 'image')} labelled otherwise than good and left out: {', '.join(labelled[:3])}")
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
    p, order = c.promise, sorted(range(len(c.scores)), key=lambda n: -c.scores[n])
    highest = ", ".join(f"{c.names[n]} ({c.scores[n]:.2f})" for n in order[:HIGHEST])
    lines = [
        f"threshold  {p.threshold:.2f}, from {_source(p)}",
        f"promised   {_promised(p)}, in expectation; a flagged region counts as one",
        *_short(p),
        f"highest    {highest}: the good images that set it, so look at them",
    ]
    moved = [f"{r['threshold']:.2f}, {r['rate']:.1%} of false alarms to expect (95% {r['low']:.1%} to {r['high']:.1%})" for r in c.rates()]
    return "\n".join([*lines, *(f"{'could be' if n == 0 else '':11}{row}" for n, row in enumerate(moved))])


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _source(p: Any) -> str:
    """What a threshold comes from."""
    return _number(p.n_images, "good image") + ("" if p.n_lots is None else f" of {_number(p.n_lots, 'lot')}")


def _promised(p: Any) -> str:
    """What is promised."""
    return f"at most {p.rate:.1%} of {'new good images' if p.n_lots is None else 'images of new lots'} raise an alarm"


def _short(p: Any) -> list[str]:
    """What it takes to promise what was asked for, where that cannot be promised."""
    needed = _number(p.needed, "good image" if p.n_lots is None else "lot")
    return [] if p.kept else [f"{100 * p.asked:.3g}% cannot be promised from so few: it takes {needed}"]


def _detection_text(d: Any, output: Path) -> str:
    lines = [f"{d.alarms} of {d.images} images raise an alarm: {output / 'detections.jsonl'}"]
    lines += [f"  {f.name}: {_words(f)}" for f in d.highest if f.alarm]
    if d.alarms > len(d.highest):
        lines.append(f"  and {d.alarms - len(d.highest)} more")
    if d.counted:
        lines += _counted(d.counted)
    if d.seen:
        lines.append(f"{_number(d.seen, 'image')} of these the run was trained on or calibrated with: no rate is counted from them")
    lines += _short(d.promise)
    return "\n".join([*lines, f"({1000 * d.seconds:.0f} ms an image; threshold from {_source(d.promise)}: {_promised(d.promise)})"])


def _counted(c: Any) -> list[str]:
    """Alarms among labelled images."""
    if not c.good:
        return [f"of {_number(c.defective, 'image')} labelled as defects, {_share(c.detected)} raise an alarm; none is labelled good"]
    return [
        f"of {c.good} images labelled good, {_share(c.false_alarms)} raise an alarm; of {c.defective} labelled otherwise, {_share(c.detected)}",
        f"image AUROC {c.image_AUROC:.3f}",
    ]


def _words(f: Any) -> str:
    """What speaks against an image, and where."""
    if not f.regions or not math.isfinite(f.score):
        return "the model finds no likelihood for it"
    first = f.regions[0]
    others = len(f.regions) - 1
    more = f", {_number(others, 'more region')}" if others else ""
    if f.unlike is not None and f.unlike > UNLIKE:
        more += f"; as a whole {f.unlike:.0f} standard deviations from good parts"
    at = f"{first.width}x{first.height} pixels at ({first.left}, {first.top})"
    return f"{f.score:.1f} times the threshold; {first.kind} at {at}, {first.bits:+.0f} bits{more}"


def _share(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.1%} ({values[1]:.1%} to {values[2]:.1%})"
