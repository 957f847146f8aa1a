"""Runs that benchmarks train, begun or gone on with."""

import json
from collections.abc import Sequence
from pathlib import Path

from vlae.apps import train as trainer
from vlae.cli.say import INTERRUPTED, Bar, note
from vlae.engine.run import Run
from vlae.engine.settings import load_settings


def trained(source: Path, folder: Path, overrides: Sequence[str], config: Path | None = None) -> Run:
    """A run that is trained to its end; one that is there already must have been begun with the same overrides.

    An interrupt ends the benchmark: the same command goes on with it.
    """
    asked = folder.with_name(f"{folder.name}.overrides.json")
    if not (folder / "config.yaml").is_file():
        trainer.prepare(load_settings(config, overrides, {"data.folder": source}), folder)
        asked.write_text(json.dumps([str(source), *overrides]), encoding="utf-8")
    elif asked.is_file() and json.loads(asked.read_text(encoding="utf-8")) != [str(source), *overrides]:
        raise SystemExit(f"{folder} was trained with other settings: {asked.read_text(encoding='utf-8')}. Choose another --output.")
    run = Run.open(folder)
    note(f"Training {folder}")
    with Bar() as bar:
        ended = trainer.train(run, bar.show)
    if ended == "interrupted":
        raise SystemExit(INTERRUPTED)
    return run
