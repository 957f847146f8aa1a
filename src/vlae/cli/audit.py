"""The command that tells what a code keeps."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlae.cli.options import Device, Json, Language, RunFolder, app
from vlae.cli.say import counting, show, show_made


@app.command()
def audit(
    run: RunFolder,
    images: Annotated[Path | None, typer.Option(help="An image or a folder of images, instead of the run's held-out ones.")] = None,
    limit: Annotated[int, typer.Option(min=8, help="So many images at most.")] = 64,
    contract: Annotated[Path | None, typer.Option(help="What should be kept and ignored, as YAML or JSON: checked.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="A new folder for a sheet of pairs to be judged on site, instead of an audit.")] = None,
    pairs: Annotated[int, typer.Option(min=8, help="Pairs on the sheet.")] = 20,
    answers: Annotated[Path | None, typer.Option(help="The answers to a sheet, to be read back, instead of an audit.")] = None,
    lang: Language = "en",
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Measure what the code keeps: which changes of an image it tells, how fine a structure, which known factors, what people see."""
    from vlae.engine.run import Run
    from vlae.errors import SettingError

    opened = Run.open(run)
    if sum(given is not None for given in (contract, sheet, answers)) > 1:
        raise SettingError("--contract, --sheet and --answers are for one thing each", rule="Give one of them at a time")
    if answers is not None:
        from vlae.apps.audit import confirm

        site = confirm(opened, answers)
        show(asdict(site), as_json, _site_text(site))
    elif sheet is not None:
        from vlae.apps.report.site import sheet as draw

        with counting("Drawing") as progress:
            made = draw(opened, sheet, pairs, images, lang, device, progress)
        show_made(made, sheet, as_json, f"{pairs} pairs to be judged: {made.path}")
    else:
        _measure(opened, images, limit, contract, lang, device, as_json)


def _measure(run: Any, images: Path | None, limit: int, contract: Path | None, lang: str, device: str, as_json: bool) -> None:
    """Audit and show; only then, where the contract is broken or images were left out, end with that."""
    from vlae.apps.audit import audit as measure
    from vlae.apps.report.audit import write_picture
    from vlae.engine.guests import check_whole
    from vlae.engine.kept.contract import Contract, check

    asked = Contract.read(contract) if contract else None
    with counting("Auditing") as progress:
        found = measure(run, images, limit, asked, device, progress)
    picture = write_picture(run, found.audit, found.originals, found.decodings, lang)
    told = {**asdict(found.audit), "picture": str(picture), "left_out": [left._asdict() for left in found.left_out]}
    show(told, as_json, f"{_text(found.audit)}\n{picture}")
    check(found.audit.terms)
    check_whole(found.audit.images, found.left_out)


def _text(a: Any) -> str:
    from vlae.engine.kept.contract import said

    swaps = sorted(a.swaps, key=lambda swap: -swap.share)
    whole = f"{a.other_bits:.1f} bits ({a.other_low:.1f} to {a.other_high:.1f}); {a.images} images ({a.source})"
    if a.apart:
        lines = [f"{s.verdict:8} {s.change:17} {s.share:7.1%}  ({s.low:.1%} to {s.high:.1%})" for s in swaps]
        lines.append(f"of what another image's code costs: {whole}")
        lines += [
            f"{r.factor} is read off the code with R2 {r.r2:.2f} ({r.low:.2f} to {r.high:.2f})" for r in sorted(a.readouts, key=lambda r: -r.r2)
        ]
    else:
        lines = [f"The code does not tell these images apart for certain: another image's costs {whole}"]
    lines.append(_structures(a.spectrum))
    lines += [f"{'held' if term.held else 'broken'} ({term.source}): {said(term)}" for term in a.terms]
    return "\n".join(lines)


def _structures(s: Any) -> str:
    """Which structures are kept, in a sentence."""
    if s.shape == "border":
        border = f"border {s.border:.2g} px, {s.border_low:.2g} to {s.border_high:.2g}"
        return f"Structures above {s.above:.2g} px are kept, below {s.below:.2g} px are not ({border})"
    if s.shape == "several":
        return "Structures kept: " + ", ".join(f"{coarse:.2g} to {fine:.2g} px" for coarse, fine in s.ranges)
    told = {
        "all": "Structures of every size are kept",
        "none": "No structures survive in decodings",
        "unclear": "Which structures are kept is unclear",
    }
    sure = [f"above {s.above:.2g} px they are"] if s.above else [f"below {s.below:.2g} px they are not"] if s.below else []
    return ": ".join([told[s.shape], *(sure if s.shape == "unclear" else [])])


def _site_text(s: Any) -> str:
    def told(rate: Any) -> str:
        return f"{rate.yes} of {rate.answers} ({rate.low:.1%} to {rate.high:.1%})"

    lines = [
        f"an image and its decoding:  same part {told(s.same_part)}, same defect {told(s.same_defect)}",
        f"an image and another's:     same part {told(s.catch_part)}, same defect {told(s.catch_defect)}",
    ]
    return "\n".join([*lines, f"{s.unanswered} of {s.pairs} pairs are not answered in full"])
