"""The models that are handed on: they load by their names, are small, and give their figures again from the images."""

import shutil
from pathlib import Path

import pytest
import torch

import vlae
from tests.data.samples import SHARED, shared
from vlae.apps import reproduce
from vlae.apps.evaluate import evaluate
from vlae.engine.formats import read_json
from vlae.engine.run import OWN_FIGURE, ZOO, Run
from vlae.units import nats

MODELS = sorted(path.name for path in ZOO.iterdir() if path.is_dir()) if ZOO.is_dir() else []
MEASURED = [name for name in MODELS if (ZOO / name / OWN_FIGURE).is_file()]
MEGABYTE = 10**6


@pytest.mark.parametrize("name", MODELS)
def test_a_model_loads_by_its_name_and_draws(name: str) -> None:
    model = vlae.load(name)
    assert (ZOO / name / "weights.safetensors").stat().st_size <= 6 * MEGABYTE
    image = model.sample(torch.zeros(1, *model.code_shape(28, 28)), torch.full((1, model.decoder.head.uniforms, 28, 28), 0.5))
    assert image.shape == (1, 1, 28, 28) and set(image.unique().tolist()) <= {0.0, 1.0}


def test_all_models_together_are_small() -> None:
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if "cache" not in path.parts) <= 30 * MEGABYTE


@pytest.mark.parametrize("name", MEASURED)
def test_the_table_tells_the_figure_of_the_model(name: str) -> None:
    (line,) = [line for line in reproduce.table() if line["row"] == name and line.get("seed") == read_json(ZOO / name / OWN_FIGURE)["seed"]]
    figure = read_json(ZOO / name / OWN_FIGURE)
    assert all(line[key] == figure[key] for key in ("nll_nats", "nll_nats_se", "kl_nats", "n_images", "importance_samples", "config"))


@pytest.mark.parametrize("name", sorted({*MODELS} - {*MEASURED}))
def test_of_a_model_that_is_not_measured_the_table_tells_nothing(name: str) -> None:
    assert not [line for line in reproduce.table() if line["row"] == name and "nll_nats" in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_the_images_cost_what_they_cost_then(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLAE_DATA", str(SHARED))
    shutil.copytree(ZOO / name, tmp_path / name, ignore=shutil.ignore_patterns("cache", "results"))
    run = Run.open(tmp_path / name)
    shared(run.settings.data.folder.name)
    figure, found = read_json(ZOO / name / OWN_FIGURE), evaluate(run, "test", samples=1)
    assert nats(found.rate_bits) == pytest.approx(figure["kl_nats"], rel=1e-3) and found.n_images == figure["n_images"]
    # The bound lies above what many samples come to, and not far above.
    assert figure["nll_nats"] < found.nll_nats < figure["nll_nats"] + 5
