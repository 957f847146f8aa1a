"""Report: one page that shows what the code of a run kept and what it left to its decoder.

The page is one HTML file that needs no network and no other file. It is the same again for the same run: its random numbers come from the
run's seed.
"""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vlae.apps.report import audit, defects, fewshot, sections, similar
from vlae.apps.report.findings import STAGES, Findings, Progress, look
from vlae.apps.report.papers import papers
from vlae.apps.report.pictures import levels_shown, scale_colours
from vlae.apps.report.words import Words
from vlae.data.files import disk_errors
from vlae.engine.formats import read_json, write_text
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.errors import DiskError, RunError

FOLDER = Path(__file__).parent
# So many held-out images, or all where there are fewer, tell what a page says.
ENOUGH = 200
# What each page of ours says of itself near its beginning.
GENERATOR = b'<meta name="generator" content="vlae '


def report(run: Run, output: Path | None = None, lang: str = "en", progress: Progress | None = None) -> Path:
    """Write the page of a run.

    Args:
        run: a run that was trained and evaluated.
        output: where to write it, in place of an older page of ours if there is one; unset, ``report.html`` in the run.
        lang: en or ja.
        progress: told the stages done and all.

    Returns:
        The path of the page.

    Raises:
        SettingError: the language is another.
        RunError: the run was not evaluated on enough images, or is damaged.
        DiskError: the page cannot be written, or would replace another file.
    """
    if output:
        _check_replaceable(output)
    progress = progress or (lambda done, total: None)
    told = sections.Told(Words(lang), run, evaluation(run), run.images())
    found = look(run, told.images, told.evaluation, progress)
    path = output or run.folder / "report.html"
    write_text(path, page(told, found))
    progress(STAGES, STAGES)
    return path


def _check_replaceable(path: Path) -> None:
    """Refuse a page that would replace a file, before anything is computed, unless that is a page of ours."""
    with disk_errors(path):
        if not path.exists() or (path.is_file() and GENERATOR in _beginning(path)):
            return
    raise DiskError(f"{path} exists", rule="Nothing but an older report is overwritten", do="Choose another --output")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1000)


def evaluation(run: Run) -> Evaluation:
    """What was measured on test images, else on validation images.

    Raises:
        RunError: nothing was, or too few of them.
    """
    found = measured(run, "test") or measured(run, "validation")
    if found is None:
        rule = f"A report shows what was measured on {ENOUGH} images, or all"
        raise RunError(f"{run.folder} was not evaluated", rule=rule, do=f"Run vlae evaluate {run.folder} first")
    return found


def measured(run: Run, split: str) -> Evaluation | None:
    """What was measured on a split; None where nothing was, or on fewer images than a page needs."""
    found = Evaluation.read(run, split)
    return found if found and found.n_images >= min(ENOUGH, len(run.images().indices(split))) else None


def page(told: sections.Told, found: Findings) -> str:
    """The page as HTML."""
    levels, coded = levels_shown(told.images), told.has_code
    parts = {
        "decodings": sections.decodings(told, found, levels) if coded else None,
        "bits": sections.bits_table(told),
        "map": sections.bits_map(told, found.shown, levels),
        "code": sections.code(told, found.moved, levels) if coded else None,
        "probe": sections.probe(told, found.readouts) if coded and told.images.factors else None,
        "similar": similar.section(told) if coded else None,
        "fewshot": fewshot.section(told) if coded else None,
        "defects": defects.section(told),
        "audit": audit.section(told) if coded else None,
        "window": sections.window(told, found.site, levels) if found.site else None,
        "training": sections.training(told),
        "data": sections.data(told),
        "settings": sections.settings(told, found.weights),
    }
    head = {"answer": sections.answer(told, found), "schema": sections.schema(told, found.shown[0], levels)}
    names = [name for name, part in parts.items() if part]
    return _rendered(told, {**head, **parts, "sections": names, "papers": _papers(told, found)})


def _papers(told: sections.Told, found: Findings) -> list[str]:
    importance = told.evaluation.importance_samples > 1
    return papers(told.run.settings, depth=told.run.facts.depth, importance=importance, probed=bool(found.readouts))


def _rendered(told: sections.Told, context: dict[str, Any]) -> str:
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
        run_name=told.run.folder.resolve().name,
        source=told.run.settings.data.folder.name,
        environment=read_json(told.run.folder / "environment.json"),
    )
