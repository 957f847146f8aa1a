"""Training on from the weights of another run: for more images, for longer, or for images that are only a little different."""

import torch

from vlae.data.imageset import ImageSet
from vlae.engine.run import Run
from vlae.engine.settings import ImageFacts, Settings
from vlae.errors import RunError, SettingError


def started(settings: Settings) -> tuple[Settings, Run | None]:
    """The settings with what is kept and the model of the run that they start from, and that run.

    Raises:
        RunError: it is no run, or its weights are missing or damaged.
        SettingError: another model is asked for.
    """
    if settings.train.start is None:
        return settings, None
    start, before = settings.train.start, Run.find(settings.train.start)
    before.model(torch.device("cpu"))  # told before anything is made: its weights are there, and whole
    _check_model(settings, before)
    train = settings.train.model_copy(update={"start": start.resolve() if start.is_dir() else start})
    data = settings.data if settings.data.size else settings.data.model_copy(update={"size": before.settings.data.size})
    return settings.model_copy(update={"keep": before.settings.keep, "model": before.settings.model, "train": train, "data": data}), before


def _check_model(settings: Settings, before: Run) -> None:
    for group in ("keep", "model"):
        asked, theirs = getattr(settings, group).model_dump(exclude_unset=True), getattr(before.settings, group).model_dump()
        for name in asked:
            if asked[name] != theirs[name]:
                rule, do = "keep and model are those of the run that a training starts from", "Leave it out, or train from the beginning"
                raise SettingError(f"{group}.{name} is {asked[name]}", rule=rule, found=f"{theirs[name]} in {before.folder}", do=do)


def check_alike(facts: ImageFacts, before: Run) -> None:
    """Refuse to start from a run of another kind of images.

    Raises:
        SettingError: it is one.
    """
    fixed = before.settings.keep.code != "grid"
    of = ("depth", "colours", "size") if fixed else ("depth", "colours")
    new, old = ({name: getattr(f, name) for name in of} for f in (facts, before.facts))
    if new != old:
        what, rule = f"train.start is {before.folder}", "A training starts from a run of images of the same kind"
        raise SettingError(what, rule=rule, found=f"{new} here, {old} there", do="Choose other images, or train from the beginning")


def check_untested(images: ImageSet, before: Run) -> None:
    """Refuse to train on what the run was tested on, as far as it still has its images: counted lots move when images are added.

    Raises:
        SettingError: some of them would be trained on.
    """
    try:
        own = None if before.handed_on else before.images()
    except RunError:
        own = None
    tested = {own.sha256[n] for n in own.indices("test")} if own else set()
    if moved := sum(images.sha256[n] in tested for n in images.indices("train")):
        rule = "What a run was tested on is not trained on; images that are added must not move others to another lot"
        do = "Name the lots in a manifest, or train from the beginning"
        raise SettingError(f"{moved} test images of {before.folder} would be trained on", rule=rule, found="another split", do=do)
