"""The pages that people read first: their snippets run, their commands and settings exist, and they name what is really there."""

import doctest
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from PIL import Image

from vlae.cli import app
from vlae.data.manifest import read_manifest
from vlae.data.settings import DataSettings
from vlae.engine.settings import ImageFacts, Keep, Model, Settings, known_names, load_settings, resolve, validated

from .test_cli import TINY, good, vlae

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
PAGES = [*READMES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
ANY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# Written so that these lines do not find themselves.
HOSTS = r"py[p]i\.(org|python)|python[h]osted|download\.py[t]orch|index-[u]rl|ana[c]onda\.(org|com)|npm[j]s\.|crates\.[i]o"
MACHINE = r"(?<![\w.])/(?:work|root|home|tmp|Users|mnt)/\w"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def lines_of_code(text: str) -> Iterator[str]:
    """Each line of a block of commands and each span of code."""
    for block in blocks(text, "sh"):
        yield from block.splitlines()
    yield from (line.strip() for line in re.findall(r"^    .+$", text, flags=re.MULTILINE))
    yield from re.findall(r"`([^`\n]+)`", text)


def commands(page: Path) -> list[list[str]]:
    """The words of each ``vlae ...`` on a page, without ``vlae``."""
    words = [shlex.split(line, comments=True) for line in lines_of_code(page.read_text(encoding="utf-8")) if re.match(r"\S*vlae ", line)]
    return [rest for first, *rest in words if first in ("vlae", ".venv/bin/vlae")]


def table(page: Path) -> dict[str, list[str]]:
    """The cells of each row of a page's tables, without the backquotes, by the first."""
    rows = re.findall(r"^\| (.+) \|$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {cells[0]: cells[1:] for row in rows if (cells := [cell.strip().replace("`", "") for cell in row.split(" | ")])}


@ANY_PAGE
def test_snippets_of_python_run(page: Path) -> None:
    source = "\n".join(blocks(page.read_text(encoding="utf-8"), "python"))
    snippets = doctest.DocTestParser().get_doctest(source, {}, page.name, str(page), 0)
    said: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(snippets, out=said.append).failed == 0, "".join(said)
    assert bool(snippets.examples) == (page.name in ("windows.md", "wavefront.md", "audit.md", "few-labels.md", "reproduction.md"))


@ANY_PAGE
def test_commands_and_their_options_exist(page: Path) -> None:
    for name, *arguments in commands(page):
        values = COMMANDS[name].make_context(name, arguments).params
        if values.get("overrides"):
            load_settings(None, values["overrides"], {"data.folder": values["folder"]})


def test_every_command_is_shown() -> None:
    for page in (*READMES, ROOT / "docs" / "first-ten-minutes.md"):
        assert {name for name, *_ in commands(page)} >= COMMANDS.keys() - {"parts"}, page.name


@ANY_PAGE
def test_options_and_settings_named_in_passing_exist(page: Path) -> None:
    options = {option for command in COMMANDS.values() for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for line in lines_of_code(page.read_text(encoding="utf-8")):
        if line.startswith("-"):
            assert line.split()[0] in options, line
        for name in re.findall(r"\b(?:data|keep|model|objective|train)\.(?!npz\b)[a-z_]+\b(?!/)", line):
            assert name in known_names(), line


@ANY_PAGE
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_both_readmes_have_the_same_parts() -> None:
    def parts(page: Path) -> tuple[list[str], list[str], list[str]]:
        text = page.read_text(encoding="utf-8")
        headings = [line.split()[0] for line in text.splitlines() if re.match(r"#+ ", line)]
        spoken = sorted({" ".join(w for w in words if w not in ("--lang", "en", "ja")) for words in commands(page)})
        return headings, spoken, re.findall(r"^    make \w+", text, flags=re.MULTILINE)

    english, japanese = (parts(page) for page in READMES)
    assert english == japanese
    assert [line.split()[1] for line in english[2]] == ["demo", "test"]


def test_every_setting_is_explained_in_its_words() -> None:
    rows = table(ROOT / "docs" / "settings.md")
    for name in known_names():
        group, leaf = name.split(".")
        kind = DataSettings if group == "data" else type(Settings(data=DataSettings(folder=Path("x"))).__getattribute__(group))
        field = kind.model_fields[leaf]
        unset, meaning = rows[name]
        assert meaning == field.description if field.description else meaning, name
        if not field.is_required() and field.default not in (None, ()):
            assert yaml.safe_load(unset) == field.default, name


def test_presets_and_sizes_are_what_they_are_said_to_be() -> None:
    rows = table(ROOT / "docs" / "settings.md")
    for preset in ("layout", "shape", "detail", "everything"):
        vector, grid = (resolved(keep=Keep(preset=preset, code=code)).keep for code in ("vector", "grid"))
        assert rows[preset] == [str(value) for value in (vector.window, vector.dims, grid.channels, grid.stride)]
    for size in ("small", "medium", "large"):
        m = resolved(model=Model(size=size)).model
        assert rows[size] == [str(value) for value in (m.width, m.pointwise, m.hidden, m.map_channels, m.components)]


def resolved(**groups: Keep | Model) -> Settings:
    return resolve(Settings(data=DataSettings(folder=Path("x")), **groups), ImageFacts(depth=8, colours=1, size=(64, 64)))


def test_examples_of_configurations_and_manifests_are_accepted(tmp_path: Path) -> None:
    (settings,) = blocks((ROOT / "docs" / "settings.md").read_text(encoding="utf-8"), "yaml")
    assert validated(yaml.safe_load(settings)).keep.bits == 100
    (manifest,) = blocks((ROOT / "docs" / "first-ten-minutes.md").read_text(encoding="utf-8"), "csv")
    (tmp_path / "manifest.csv").write_text(manifest, encoding="utf-8")
    rows = read_manifest(tmp_path / "manifest.csv")
    assert [(row.lot, row.factors) for row in rows][:1] == [("monday", {"diameter": 12.5})]


def test_the_picture_of_the_wavefront_is_drawn_and_shows_what_the_page_says(tmp_path: Path) -> None:
    pictures = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    pictures["main"]([str(tmp_path)])
    with Image.open(tmp_path / "wavefront.png") as image:
        assert image.width >= 2 * 900 and len(image.convert("RGB").getcolors(maxcolors=2**20)) > 10
    pixel, page = pictures["PIXEL"], (ROOT / "docs" / "wavefront.md").read_text(encoding="utf-8")
    for order in ("raster", "wavefront"):
        steps = pictures[order]()
        assert all(steps[cell] < steps[pixel] for cell in pictures["window"](pixel))
        assert f"in {order} order in step {steps[pixel]} of {steps.max()}" in page


def test_the_picture_of_drawings_is_drawn_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlae.apps.inpaint.TURNS", 2)
    assert vlae("train", good(tmp_path / "images", 160), "-o", tmp_path / "run", *TINY)[0] == 0
    runpy.run_path(str(ROOT / "docs" / "drawings.py"))["main"]([str(tmp_path / "run"), str(tmp_path)])
    with Image.open(tmp_path / "drawings.png") as image:
        assert image.width >= 900 and len(image.convert("RGB").getcolors(maxcolors=2**20)) > 10


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_host_of_packages_and_no_path_of_a_machine_stands_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [ROOT / name for name in listed.split("\0") if name]
    texts = {path: path.read_bytes().decode("utf-8", "ignore") for path in {*files, *PAGES} if path.is_file()}
    found = [(path.name, match[0]) for path, text in texts.items() for match in re.finditer(f"{HOSTS}|{MACHINE}", text)]
    assert found == []
