"""The run folder: what is newer, foreign, torn or missing is refused in one sentence, and nothing is half written."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from vlae.engine.formats import save_tensors, write_json
from vlae.engine.results import Evaluation
from vlae.engine.run import Run, environment
from vlae.engine.settings import ImageFacts, load_settings, resolve
from vlae.errors import RunError

FACTS = ImageFacts(depth=8, colours=1, size=(12, 12))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run without images: its description alone."""
    folder = tmp_path / "run"
    settings = resolve(load_settings(None, [], {"data.folder": "images"}), FACTS)
    write_json(folder / "images.json", {"format": 1, "facts": FACTS.model_dump(mode="json"), "summary": {}})
    write_json(folder / "config.yaml", settings.model_dump(mode="json"))  # JSON is YAML
    return Run(folder, settings, FACTS)


def test_a_run_is_read_as_it_was_written(run: Run) -> None:
    assert Run.open(run.folder) == run


@pytest.mark.parametrize("name", ["config.yaml", "images.json"])
def test_a_newer_format_is_refused(run: Run, name: str) -> None:
    tree = json.loads((run.folder / name).read_text())
    write_json(run.folder / name, tree | {"format": 7})
    with pytest.raises(RunError, match=r"newer version.*format 7.*Update"):
        Run.open(run.folder)


@pytest.mark.parametrize("name", ["config.yaml", "images.json"])
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"format": "x"}', '{"format": 1}', "\x00\x01"])
def test_a_damaged_description_is_refused(run: Run, name: str, content: str) -> None:
    (run.folder / name).write_text(content)
    with pytest.raises(RunError):
        Run.open(run.folder)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match="is not a run"):
            Run.open(folder)


def test_a_misspelt_key_in_a_run_is_told(run: Run) -> None:
    text = (run.folder / "config.yaml").read_text()
    (run.folder / "config.yaml").write_text(text.replace('"batch"', '"bach"'))
    with pytest.raises(RunError, match=r"train.bach is not a setting.*train.batch"):
        Run.open(run.folder)


HARMED = [b"{}", b"{garbage}", b"[1]", b"null", b"\xff\x00\xfe}", b'{"step": 9}', b"[" * 100_000]
HARMED += [b'{"step": "x", "skipped": 0, "seconds": 1.0}', b'{"step": 9, "skipped": 0, "seconds": 1.0, "rate_bits": "x"}', b'{"step": 3, "be']


@pytest.mark.parametrize("harmed", HARMED)
def test_torn_and_damaged_lines_of_metrics_are_passed_over(run: Run, harmed: bytes) -> None:
    lines = [json.dumps({"step": step, "skipped": 0, "seconds": 1.5, "rate_bits": 2}).encode() for step in (1, 2)]
    (run.folder / "metrics.jsonl").write_bytes(b"\n".join([lines[0], harmed, lines[1], harmed]))
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_results_have_a_format_and_newer_ones_are_refused(run: Run) -> None:
    assert run.result("none") is None
    path = run.write_result("some", {"bits": 2.0})
    assert run.result("some") == {"format": 1, "bits": 2.0}
    write_json(path, {"format": 2, "bits": 2.0})
    with pytest.raises(RunError, match="newer"):
        run.result("some")


def test_what_belongs_to_weights_needs_weights(run: Run) -> None:
    run.write_result("evaluation-test", {"weights": "0"})
    for needs in (run.fingerprint, lambda: Evaluation.read(run, "test")):
        with pytest.raises(RunError, match=r"weights.safetensors is missing.*--resume"):
            needs()
    save_tensors(run.weights, {"a": torch.zeros(2)})
    assert Evaluation.read(run, "test") is None


def test_a_result_with_other_fields_is_damaged(run: Run) -> None:
    save_tensors(run.weights, {"a": torch.zeros(2)})
    run.write_result("evaluation-test", {"weights": run.fingerprint()})
    with pytest.raises(RunError, match="is damaged"):
        Evaluation.read(run, "test")


def evaluation(**changes: object) -> Evaluation:
    """Some result."""
    numbers = dict.fromkeys((name for name, kind in Evaluation.__annotations__.items() if kind is float), 1.5)
    rest = {"split": "test", "n_images": 1, "limit": None, "pixels": 9, "dims": 9, "rate_bits_by_group": (1.0, 2.0), "psnr": None, "ssim": None}
    more = {"importance_samples": 1, "effective_samples": None, "protocol": "bound", "weights": "0"}
    return Evaluation(**{**numbers, **rest, **more, **changes})  # type: ignore[arg-type]


def test_a_result_is_json_and_what_json_does_not_have_comes_back_as_no_number(run: Run) -> None:
    save_tensors(run.weights, {"a": torch.zeros(2)})
    evaluation(nll_nats_se=math.nan, weights=run.fingerprint()).write(run)
    text = (run.folder / "results" / "evaluation-test.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["nll_nats_se"] is None
    found = Evaluation.read(run, "test")
    assert found is not None and math.isnan(found.nll_nats_se)
    assert dataclasses.replace(found, nll_nats_se=1.5) == evaluation(weights=run.fingerprint())


@pytest.mark.parametrize("change", [{"nll_nats": "x"}, {"n_images": None}, {"n_images": True}, {"rate_bits_by_group": 1.0}, {"more": 1}])
def test_a_result_with_values_of_other_types_is_damaged(run: Run, change: dict[str, object]) -> None:
    save_tensors(run.weights, {"a": torch.zeros(2)})
    run.write_result("evaluation-test", {**dataclasses.asdict(evaluation(weights=run.fingerprint())), **change})
    with pytest.raises(RunError, match="is damaged"):
        Evaluation.read(run, "test")


def test_a_run_that_does_not_tell_its_images_says_why(run: Run) -> None:
    with pytest.raises(RunError, match=r"It was made before runs kept their images, or is damaged\. Train again"):
        run.images()


def test_the_environment_tells_what_bit_identity_depends_on() -> None:
    found = environment()
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("change", [{"window": None}, {"code": "auto"}])
def test_a_run_whose_settings_are_not_resolved_is_damaged(run: Run, change: dict[str, object]) -> None:
    tree = json.loads((run.folder / "config.yaml").read_text())
    write_json(run.folder / "config.yaml", tree | {"keep": tree["keep"] | change})
    with pytest.raises(RunError, match=r"is damaged.*keep\.window"):
        Run.open(run.folder)
