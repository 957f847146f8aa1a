"""Train: from a folder of images to a run folder."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vlae.data import cache
from vlae.data.imageset import ImageSet
from vlae.engine.batches import check_batch
from vlae.engine.build import build
from vlae.engine.device import find_device
from vlae.engine.fit import Trainer, Watch
from vlae.engine.folders import check_outside, new_folder
from vlae.engine.memory import without_denormals
from vlae.engine.run import Run
from vlae.engine.settings import ImageFacts, Settings, load_settings, resolve
from vlae.engine.start import check_alike, check_untested, started
from vlae.engine.track import check_trackers
from vlae.errors import DiskError, RunError, SettingError

VECTOR_SIZE = (64, 64)

Decoding = Callable[[int, int], None]


def prepare(settings: Settings, folder: Path, decoding: Decoding | None = None) -> Run:
    """Decode the images and make the run folder; nothing is left behind where that fails.

    Of several processes the first does so, and the others wait for it.
    """
    if process() > 0:
        return _await(folder)
    find_device(settings.train.device)
    check_trackers(settings.train.track)
    check_outside(folder, settings.data.found.folder)
    settings, before = started(settings)
    existed = folder.exists()
    new_folder(folder)
    try:
        images, settings = _decode(settings, folder, decoding)
        facts = facts_of(images)
        if before:
            check_alike(facts, before)
            check_untested(images, before)
        resolved = resolve(settings, facts)
        with without_denormals():  # torch's threads begin here, and keep what they begin with
            build(resolved, facts)
        check_batch(resolved, len(images.indices("train")))
        return Run.create(folder, resolved, facts, images)
    except BaseException:
        shutil.rmtree(folder if not existed else folder / "cache", ignore_errors=True)
        raise


def _decode(settings: Settings, folder: Path, decoding: Decoding | None) -> tuple[ImageSet, Settings]:
    """The images, at the size that the code needs: a vector needs one size, a grid at least that of a crop."""
    images = cache.load(settings.data, folder / "cache", decoding)
    facts = facts_of(images)
    if settings.keep.code == "vector" and facts.size is None:
        settings = _with_data(settings, size=VECTOR_SIZE)
    elif (crop := resolve(settings, facts).train.crop) is not None:
        if crop > (largest := int(images.sizes.min(axis=1).max())):
            crop, settings = _smaller_crop(settings, crop, largest)
        if settings.data.size is None:  # else small images were made larger
            settings = _with_data(settings, minimum=max(crop, settings.data.minimum))
    return cache.load(settings.data, folder / "cache", decoding), settings


def _smaller_crop(settings: Settings, crop: int, largest: int) -> tuple[int, Settings]:
    """Crops that fit into the largest of the images, where none were asked for; images that are smaller than others may be left out.

    Raises:
        SettingError: crops that fit into no image were asked for.
    """
    if settings.train.crop is None:
        return largest, settings.model_copy(update={"train": settings.train.model_copy(update={"crop": largest})})
    raise SettingError(
        f"train.crop is {crop}",
        rule="At least one image must be as large as the squares that are trained on",
        found=f"no image with a shorter side above {largest}",
        do=f"Set train.crop={largest} or lower",
    )


def _with_data(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"data": settings.data.model_copy(update=changes)})


def facts_of(images: ImageSet) -> ImageFacts:
    """What the model must know of the images."""
    sizes = {images.shape(i)[:2] for i in range(len(images))}
    depth, colours = images.depth, images.channels
    return ImageFacts.model_validate(
        {"depth": depth, "colours": colours, "size": sizes.pop() if len(sizes) == 1 else None, "dynamic": images.dynamic}
    )


def process() -> int:
    """The number of this process among those that torchrun started, 0 where there is one alone."""
    return int(os.environ.get("RANK", "0"))


def _await(folder: Path) -> Run:
    """The run that the first process makes; where that fails, torchrun ends this process too."""
    while not (folder / "config.yaml").is_file():
        time.sleep(0.1)
    return Run.open(folder)


def train(run: Run, watch: Watch) -> str:
    """Train, or go on training, until it is done, stopped or out of time; why it ended is returned."""
    images = run.images()
    with without_denormals():  # in a run that goes on, torch's threads begin with its model
        trainer = Trainer(run, images, watch)
        trainer.start()
        with stop_signal() as stopped:
            why = trainer.train(stopped)
    trainer.leave()
    return why


def resume(folder: Path, overrides: Sequence[str]) -> Run:
    """The run of a folder, to go on with; only how long it may take can be changed.

    Raises:
        RunError: the folder is no run, or something else is to be changed.
    """
    run = Run.open(folder)
    if run.handed_on:
        rule, do = "It was handed on without what is needed to go on", "Train a new run, or resume the one that it was made of"
        raise RunError(f"{folder} cannot be gone on with", rule=rule, do=do)
    for override in overrides:
        if override.partition("=")[0] not in ("train.max_minutes", "train.device"):
            raise RunError(f"{override} cannot be changed in a resumed run", rule="Only train.max_minutes and train.device can", do="Train a new run")
    changed = load_settings(run.folder / "config.yaml", overrides, {})
    return Run(folder, changed, run.facts)


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Within it, the first interrupt asks the work to stop after its step; the second ends it at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def default_folder(source: Path) -> Path:
    """A new folder ``runs/NAME-N`` for the run of a folder of images.

    Raises:
        DiskError: the folder's name cannot be used.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise DiskError("Several processes need one run folder", rule="They must agree on its name", do="Name it with --output")
    source = source.resolve()
    name = (source.stem if source.is_file() else source.name) or "images"
    for number in range(1, 10_000):
        folder = Path("runs") / f"{name}-{number}"
        if not folder.exists():
            return folder
    raise DiskError("There are too many runs of this folder", do="Name one with --output")
