"""Batches follow from the seed and the step alone, and processes share one global batch."""

import numpy as np
import pytest
import torch
from scipy import stats

from vlae.data import cache
from vlae.data.imageset import ImageSet
from vlae.data.read import write_png
from vlae.data.settings import DataSettings
from vlae.engine.batches import Batches, normal, uniform
from vlae.engine.build import build
from vlae.engine.settings import ImageFacts, load_settings, resolve
from vlae.errors import DataError, SettingError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("images")
    for n in range(30):
        write_png(folder / f"{n}.png", np.random.default_rng(n).integers(0, 256, (20, 24, 1), dtype=np.uint8), 8)
    return cache.load(DataSettings(folder=folder), tmp_path_factory.mktemp("cache"))


def batches(images: ImageSet, rank: int = 0, processes: int = 1, *overrides: str) -> Batches:
    facts = ImageFacts(depth=images.depth, colours=images.channels, size=(20, 24))
    few = ["keep.dims=3", "model.width=4", "model.hidden=8", "model.prior=gaussian", "model.widths=[4,4]", "model.blocks=[0,0]"]
    grid = ["model.width=4", "model.prior=gaussian", "keep.code=grid", "keep.stride=4", "train.crop=16", "keep.noise=51"]
    more = [word for word in overrides if "=" in word]
    settings = resolve(load_settings(None, [*(grid if "grid" in overrides else few), "train.batch=6", *more], {"data.folder": "images"}), facts)
    return Batches(images, settings, build(settings, facts), rank, processes)


@pytest.mark.parametrize("kind", ["vector", "grid"])
def test_a_step_has_its_batch_in_whatever_order_it_is_asked_for(images: ImageSet, kind: str) -> None:
    one, other = batches(images, 0, 1, kind), batches(images, 0, 1, kind)
    forwards, backwards = [one(step) for step in range(9)], [other(step) for step in reversed(range(9))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.noise, b.noise)
        assert a.shown is b.shown is None or torch.equal(a.shown, b.shown)
    assert not torch.equal(forwards[0].noise, forwards[1].noise)


@pytest.mark.parametrize("kind", ["vector", "grid"])
@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_of_processes_are_the_whole(images: ImageSet, kind: str, processes: int) -> None:
    whole = batches(images, 0, 1, kind)(5)
    shares = [batches(images, rank, processes, kind)(5) for rank in range(processes)]
    for parts, all_of_it in zip(zip(*shares, strict=True), whole, strict=True):
        assert all_of_it is parts[0] is None or torch.equal(torch.cat(parts), all_of_it)


def test_what_is_shown_has_noise_of_so_many_levels_on_it(images: ImageSet) -> None:
    found = batches(images, 0, 1, "grid")
    x, _, shown = found(0)
    assert shown is not None and stats.kstest((shown - x).flatten().numpy() / 51, "norm").pvalue > 0.001
    assert not torch.equal(shown - x, (again := found(1)).shown - again.x) and batches(images, 0, 1, "vector")(0).shown is None


def test_images_are_moved_until_a_share_of_the_steps(images: ImageSet) -> None:
    still, moved = batches(images), batches(images, 0, 1, "train.shift=2", "train.shift_until=0.7", "train.steps=9")
    ever = batches(images, 0, 1, "train.shift=2", "train.steps=9")
    for step in range(9):
        assert torch.equal(moved(step).x, (ever if step < 6.3 else still)(step).x)
        assert not torch.equal(ever(step).x, still(step).x)


def test_every_epoch_shows_every_training_image_once(images: ImageSet) -> None:
    found = batches(images)
    count = len(images.indices("train"))
    seen = [found._image(position) for position in range(2 * count)]
    assert sorted(seen[:count]) == sorted(seen[count:]) == sorted(images.indices("train").tolist())
    assert seen[:count] != seen[count:]


def test_a_batch_that_cannot_be_shared_or_filled_is_refused(images: ImageSet) -> None:
    with pytest.raises(SettingError, match=r"multiple.*Set train.batch=4"):
        batches(images, 0, 4)
    found = batches(images)
    found.settings = found.settings.model_copy(update={"train": found.settings.train.model_copy(update={"batch": 1000})})
    with pytest.raises(DataError, match=r"train\.batch=1000"):
        found.__post_init__()


def test_noise_is_drawn_by_index_and_as_it_is_named() -> None:
    assert torch.equal(normal((5,), 1, 2, 3), normal((5,), 1, 2, 3))
    assert len({normal((5,), *key).sum().item() for key in ((1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1))}) == 4
    assert stats.kstest(normal((20_000,), 0, 0, 0).numpy(), "norm").pvalue > 0.001
    drawn = uniform((20_000,), 0, 0)
    assert 0 < drawn.min() and drawn.max() < 1 and stats.kstest(drawn.numpy(), "uniform").pvalue > 0.001
