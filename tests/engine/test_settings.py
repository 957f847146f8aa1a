"""Settings: every one is used or refused, a run keeps what it was resolved to, and the nearest name is told."""

from pathlib import Path

import pytest
import yaml

from vlae.engine.settings import ImageFacts, Settings, known_names, load_settings, resolve, validated
from vlae.errors import SettingError

SMALL = ImageFacts(depth=8, colours=1, size=(28, 28))
LARGE = ImageFacts(depth=8, colours=3, size=(300, 300))
MIXED = ImageFacts(depth=8, colours=1, size=None)
BINARY = ImageFacts(depth=1, colours=1, size=(28, 28))


def given(*overrides: str) -> Settings:
    return load_settings(None, overrides, {"data.folder": "images"})


@pytest.mark.parametrize(
    "facts, overrides, expected",
    [
        (SMALL, [], {"keep.code": "vector", "keep.dims": 32, "keep.stride": None, "train.crop": None, "model.components": 3}),
        (BINARY, [], {"keep.code": "vector", "model.components": None}),
        (LARGE, [], {"keep.code": "grid", "keep.dims": None, "keep.stride": 16, "train.crop": 64}),
        (MIXED, [], {"keep.code": "grid", "train.crop": 64}),
        (SMALL, ["keep.preset=shape"], {"keep.window": "4x2", "keep.dims": 64}),
        (SMALL, ["keep.preset=everything"], {"keep.window": "none", "keep.context": None, "model.width": None, "keep.dims": 256}),
        (SMALL, ["keep.code=none"], {"keep.window": "all", "objective.kind": "elbo", "model.prior": None, "model.encoder": None}),
        (SMALL, ["keep.bits=40"], {"objective.kind": "rate", "objective.floor": None}),
        (SMALL, ["objective.kind=elbo"], {"objective.floor": None, "objective.plain_after": None}),
        (SMALL, ["model.posterior=iaf"], {"model.posterior_steps": 2}),
        (SMALL, ["model.size=large"], {"model.width": 64, "model.components": 10}),
        (SMALL, ["keep.code=grid"], {"train.crop": 28}),
    ],
)
def test_what_images_and_presets_imply(facts: ImageFacts, overrides: list[str], expected: dict[str, object]) -> None:
    tree = resolve(given(*overrides), facts).model_dump()
    for name, value in expected.items():
        group, _, leaf = name.partition(".")
        assert tree[group][leaf] == value, name


@pytest.mark.parametrize("facts", [SMALL, LARGE, MIXED, BINARY])
@pytest.mark.parametrize(
    "overrides", [(), ("keep.preset=everything",), ("keep.bits=9",), ("model.posterior=iaf", "train.patience=3"), ("keep.code=grid",)]
)
def test_resolving_twice_is_resolving_once_also_through_a_file(facts: ImageFacts, overrides: tuple[str, ...]) -> None:
    once = resolve(given(*overrides), facts)
    assert resolve(once, facts) == once
    assert validated(yaml.safe_load(yaml.safe_dump(once.model_dump(mode="json")))) == once


@pytest.mark.parametrize(
    "facts, override",
    [
        (SMALL, "keep.channels=3"),
        (SMALL, "keep.stride=8"),
        (SMALL, "train.crop=16"),
        (SMALL, "train.crop_step=4"),
        (LARGE, "keep.dims=3"),
        (LARGE, "model.hidden=3"),
        (BINARY, "model.components=3"),
        (SMALL, "keep.window=none keep.noise=6"),
        (SMALL, "model.posterior_steps=2"),
        (SMALL, "model.prior=gaussian model.prior_steps=2"),
        (SMALL, "keep.window=none model.width=3"),
        (BINARY, "keep.window=none model.members=2"),
        (SMALL, "keep.window=none keep.context=low"),
        (SMALL, "keep.code=none keep.bits=3"),
        (SMALL, "keep.code=none model.encoder=resnet"),
        (SMALL, "objective.kind=elbo objective.floor=0.5"),
        (SMALL, "keep.bits=3 objective.floor=0.5"),
    ],
)
def test_a_setting_without_effect_is_refused_by_name(facts: ImageFacts, override: str) -> None:
    idle = override.split()[-1].partition("=")[0]
    with pytest.raises(SettingError, match=rf"^{idle} would have no effect"):
        resolve(given(*override.split()), facts)


@pytest.mark.parametrize(
    "facts, overrides, told",
    [
        (SMALL, "objective.kind=rate", "keep.bits"),
        (LARGE, "objective.kind=rate", "keep.bits"),
        (SMALL, "keep.bits=9 objective.kind=elbo", "keep.bits is 9"),
        (SMALL, "keep.bits=9 objective.kind=free_bits", "keep.bits is 9"),
        (LARGE, "keep.bits=9 objective.kind=soft_free_bits", "keep.bits is 9"),
        (SMALL, "keep.code=none objective.kind=rate", "keep.code none"),
        (SMALL, "keep.code=none objective.kind=free_bits", "keep.code none"),
        (SMALL, "keep.code=none objective.warmup=5", "objective.warmup is 5"),
        (SMALL, "keep.context=grey", "images in grey"),
        (SMALL, "model.encoder=densenet model.widths=[4,4]", "model.blocks"),
        (SMALL, "train.shift_until=0.6", "train.shift_until is 0.6"),
        (SMALL, "model.members=2", "images of 8 bits"),
        (SMALL, "train.patience=3 train.steps=40 train.validate_every=10", "train.patience is 3"),
    ],
)
def test_settings_that_leave_one_another_idle_are_refused(facts: ImageFacts, overrides: str, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        resolve(given(*overrides.split()), facts)


@pytest.mark.parametrize(
    "facts, overrides",
    [
        (SMALL, "keep.bits=9 objective.kind=rate"),
        (SMALL, "keep.code=none objective.kind=elbo"),
        (LARGE, "keep.context=grey"),
        (BINARY, "keep.noise=6"),
        (BINARY, "model.members=2"),
        (SMALL, "model.encoder=densenet"),
        (SMALL, "train.shift=2 train.shift_until=0.6"),
        (SMALL, "train.patience=3 train.steps=41 train.validate_every=10"),
        (SMALL, "train.steps=9"),
    ],
)
def test_and_what_has_an_effect_is_not(facts: ImageFacts, overrides: str) -> None:
    resolve(given(*overrides.split()), facts)


@pytest.mark.parametrize("override", ["keep.bits=.inf", "objective.floor=.inf", "objective.plain_after=0", f"train.seed={2**63}"])
def test_numbers_that_mean_nothing_are_refused(override: str) -> None:
    with pytest.raises(SettingError, match="is not allowed"):
        given(override)


@pytest.mark.parametrize(
    "override, told",
    [
        ("train.stepps=3", "train.steps"),
        ("keep.windows=3x2", "keep.window"),
        ("modle.width=3", "mean model?"),
        ("train.batch=none", "train.batch"),
        ("train.steps=-1", "train.steps"),
        ("train.track=[a", "cannot be read"),
        ("train.steps", "group.name=value"),
        ("steps=3", "group.name"),
    ],
)
def test_what_cannot_be_understood_is_told_with_the_nearest_name(override: str, told: str) -> None:
    with pytest.raises(SettingError) as refused:
        given(override)
    assert told in str(refused.value)


def test_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train: {steps: 1, batch: 2, seed: 3}\n")
    found = load_settings(tmp_path / "c.yaml", ["train.batch=20", "train.seed=30"], {"train.seed": 300, "data.folder": "images", "keep.preset": None})
    assert (found.train.steps, found.train.batch, found.train.seed) == (1, 20, 300)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SettingError, match="configuration"):
        load_settings(tmp_path / "c.yaml", [], {})


def test_every_setting_is_described_or_named_by_itself() -> None:
    assert {"data.folder", "keep.bits", "model.prior", "objective.floor", "train.ema"} <= set(known_names())
    assert len(known_names()) == len(set(known_names()))
