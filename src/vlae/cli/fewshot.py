"""The command that classifies from a few labels."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlae.cli.options import Device, Json, Output, RunFolder, app
from vlae.cli.say import counting, show


@app.command()
def fewshot(
    run: RunFolder,
    labels: Annotated[Path, typer.Argument(help="A CSV table with the columns name and label, of some of the images.")],
    images: Annotated[Path | None, typer.Option(help="A folder of images; the run's own by default.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Another run, a plain VAE say, to compare with.")] = None,
    ask: Annotated[int, typer.Option("--next", min=0, help="Choose so many images to label next.")] = 0,
    sure: Annotated[float, typer.Option(min=0.0, max=1.0, help="The probability from which a prediction counts as certain.")] = 0.9,
    draws: Annotated[int, typer.Option(min=2, help="Draws of the labels for the curve.")] = 10,
    output: Output = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Classify images from a few labels: how often that is right, what more labels would bring, and which to add next."""
    from vlae.apps.fewshot import Wanted
    from vlae.apps.fewshot import fewshot as classify
    from vlae.engine.guests import check_whole
    from vlae.engine.run import Run

    opened, other = Run.open(run), Run.open(beside) if beside else None
    with counting("Classifying") as progress:
        result = classify(opened, labels, images, other, Wanted(ask, sure, draws), output, device, progress)
    folder = output or run / "results"
    told = {"output": str(folder), **asdict(result), "left_out": [left._asdict() for left in result.left_out]}
    show(told, as_json, _text(result, folder))
    check_whole(result.images, result.left_out)


def _text(result: Any, folder: Path) -> str:
    from vlae.engine.labels.ask import LEAST_KINSHIP

    classes = ", ".join(f"{count} of {name}" for name, count in result.labels.items())
    lines = [f"{sum(result.labels.values())} labels: {classes}", "Right about labelled images that were held back (95% interval):"]
    for a in result.accuracies:
        certain = f"; certain of {a.certain}, {a.certain_right} of them right" if a.certain else "; certain of none"
        lines.append(f"  {a.classifier:10} {a.of:22} {a.accuracy:6.1%} ({a.low:.1%} to {a.high:.1%}){certain}")
    guess = max(result.labels.values()) / sum(result.labels.values())
    lines.append(f"  {'always the most frequent label':33} {guess:6.1%}")
    if all(a.low <= guess for a in result.accuracies):
        lines.append("  None is better than that for certain: do not rely on these predictions; give more labels, or another model.")
    lines += _curve(result) if result.curve else ["No curve: with lots whole, no draw of half of the labels has two classes to learn"]
    lines.append(f"{result.unlabelled} images without a label, classified by {result.best} on {result.read}: certain of {result.certain}")
    if result.next:
        lines += ["Neighbours are seldom of one class, and so these are drawn at random:"] if result.kinship < LEAST_KINSHIP else []
        lines.append(f"Label next: {', '.join(result.next[:5])}{', ...' if len(result.next) > 5 else ''} ({folder / 'fewshot-next.csv'})")
    return "\n".join([*lines, f"{folder / 'fewshot-predictions.csv'}, {folder / 'fewshot.png'}"])


def _curve(result: Any) -> list[str]:
    """Accuracy for growing numbers of labels, a column for each number."""
    counts = sorted({point.labels for point in result.curve})
    lines = [f"Right, mean over classes, with so many labels a class ({result.draws} draws):", " " * 36 + "".join(f"{n:>7}" for n in counts)]
    for kind, of in dict.fromkeys((point.classifier, point.of) for point in result.curve):
        values = [point.accuracy for point in result.curve if (point.classifier, point.of) == (kind, of)]
        lines.append(f"  {kind:10} {of:22} " + "".join(f"{value:>7.1%}" for value in values))
    return lines
