"""Report: one page that shows what the code of a run kept and what it left to its decoder.

The page is one HTML file that needs no network and no other file. It is the same again for the same run: its random numbers come from the
run's seed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup

from vlae.apps.report import sections
from vlae.apps.report.findings import moved, shown, site
from vlae.apps.report.papers import papers
from vlae.apps.report.pictures import levels_shown, scale_colours
from vlae.apps.report.words import Words
from vlae.core.vlae import VLAE
from vlae.engine.probe import read_off
from vlae.engine.results import Evaluation
from vlae.engine.run import Run, read_json, write_text
from vlae.errors import RunError

Progress = Callable[[int, int], None]

FOLDER = Path(__file__).parent
STAGES = 4


def report(run: Run, output: Path | None = None, lang: str = "en", progress: Progress | None = None) -> Path:
    """Write the page of a run.

    Args:
        run: a run that was trained and evaluated.
        output: where to write it; unset, ``report.html`` in the run.
        lang: en or ja.
        progress: told the stages done and all.

    Returns:
        The path of the page.

    Raises:
        SettingError: the language is another.
        RunError: the run was not evaluated, or is damaged.
        DiskError: the page cannot be written.
    """
    words, evaluation = Words(lang), _evaluation(run)
    path = output or run.folder / "report.html"
    write_text(path, _page(sections.Told(words, run, evaluation, run.images()), progress or (lambda done, all_: None)))
    return path


def _evaluation(run: Run) -> Evaluation:
    """What was measured on test images, else on validation images."""
    found = Evaluation.read(run, "test") or Evaluation.read(run, "validation")
    if found is None:
        raise RunError(f"{run.folder} was not evaluated", rule="A report shows what was measured", do=f"Run vlae evaluate {run.folder} first")
    return found


def _page(told: sections.Told, progress: Progress) -> str:
    run, images, e = told.run, told.images, told.evaluation
    model, levels = run.model(torch.device("cpu")), levels_shown(images)
    few = shown(run, images, model, e.split)
    progress(1, STAGES)
    strongest = moved(run, images, model, e.split, e.rate_bits_by_group) if told.has_code else []
    progress(2, STAGES)
    testable = told.has_code and bool(images.factors) and bool(len(images.indices("test")))
    found = read_off(run, images, model) if testable else ()
    progress(3, STAGES)
    place = site(model, few[0])
    parts = {
        "decodings": sections.decodings(told, few, levels) if told.has_code else None,
        "bits": sections.bits_table(told),
        "map": sections.bits_map(few, levels),
        "code": sections.code(told, strongest, levels) if told.has_code else None,
        "probe": sections.probe(told, found) if told.has_code and images.factors else None,
        "window": sections.window(told, place, levels) if place else None,
        "training": sections.training(told),
        "data": sections.data(told),
    }
    context = {"answer": sections.answer(told, found), "schema": sections.schema(told, few[0], levels), **parts}
    text = _rendered(told, context, model, probed=bool(found))
    progress(STAGES, STAGES)
    return text


def _rendered(told: sections.Told, context: dict[str, Any], model: VLAE, *, probed: bool) -> str:
    run, settings = told.run, told.run.settings
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        context,
        t=told.t,
        lang=told.t.lang,
        count=lambda n: f"{n:,}",
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        colours=scale_colours(),
        images=len(told.images),
        run_name=run.folder.resolve().name,
        source=settings.data.folder.name,
        sections=[name for name, part in context.items() if part and name in sections.NAMED] + ["settings"],
        environment=read_json(run.folder / "environment.json"),
        weights=sum(p.numel() for p in model.parameters()),
        commands=sections.commands(told),
        settings=sections.settings(told),
        papers=papers(settings, depth=run.facts.depth, importance=told.evaluation.importance_samples > 1, probed=probed),
    )
