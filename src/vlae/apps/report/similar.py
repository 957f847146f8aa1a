"""Which training images are most like held-out ones, by their codes, as a section of the page."""

import numpy as np
import numpy.typing as npt
import torch
from markupsafe import Markup

from vlae.apps.report.pictures import Picture, levels_shown, thumbnail, within
from vlae.apps.report.sections import Section, Told
from vlae.apps.report.words import figure, number, short
from vlae.data.imageset import ImageSet
from vlae.engine.embed import Codes, common_places, embed
from vlae.engine.measure import chosen, load
from vlae.engine.retrieval.chance import by_chance
from vlae.engine.retrieval.index import usable
from vlae.engine.retrieval.neighbours import Nearest, Neighbours, some_of

Numbers = npt.NDArray[np.int64]

ASKED, NEAREST = 3, 5
# Images that are encoded, at most; fewer where all of them would have more pixels than this, but never fewer than ``FEWEST``.
MOST_IMAGES, MOST_PIXELS, FEWEST = 2000, 2**26, 30
# All images are compared with one another only where that takes seconds: so many differences of two numbers of a code.
MOST_DIFFERENCES = 2**32
BYTES = 300_000


def section(told: Told) -> Section | None:
    """Held-out images and the training images nearest to each; None where no code can be compared."""
    t, images, split = told.t, told.images, told.evaluation.split
    asked, among = chosen(images, split, ASKED), chosen(images, "train", _limit(images))
    numbers, codes = _codes(told, _encoded(images, asked, among))
    asked, among = (np.intersect1d(some, numbers) for some in (asked, among))
    if not len(asked) or not len(among):
        return None
    entries, queries = (some_of(codes, np.searchsorted(numbers, some)) for some in (among, asked))
    near = Neighbours(entries, "certainty")(queries, len(among))
    compared = {"n": f"{len(among):,}", "all": f"{len(images.indices('train')):,}"}
    return {
        "lead": t.join([t("similar.lead"), t("similar.all" if len(among) == len(images.indices("train")) else "similar.some", **compared)]),
        "columns": min(NEAREST, len(among)),
        "rows": _rows(told, asked, Nearest(among[near.numbers], near.distances)),
        "distance": t("similar.distance", bits=figure(float(np.median(near.distances)))),
        "near": _near_duplicates(told, numbers, codes),
    }


def _limit(images: ImageSet) -> int:
    """How many images are encoded at most, evenly spaced."""
    pixels = float(images.sizes.prod(axis=1).mean())
    return min(MOST_IMAGES, max(FEWEST, int(MOST_PIXELS / pixels)))


def _encoded(images: ImageSet, asked: Numbers, among: Numbers) -> Numbers:
    """All images where they are few enough, else those that are compared."""
    return np.arange(len(images)) if len(images) <= _limit(images) else np.union1d(asked, among)


def _codes(told: Told, numbers: Numbers) -> tuple[Numbers, Codes]:
    """The codes of images, and the numbers of those whose codes can be compared."""
    model = told.run.model(torch.device("cpu"))
    places = 1 if told.run.settings.keep.code == "vector" else common_places(model, told.images)
    codes = embed(model, told.images, numbers, places, told.run.settings.train.seed)
    whole = np.flatnonzero(usable(codes))
    return numbers[whole], some_of(codes, whole)


def _rows(told: Told, asked: Numbers, near: Nearest) -> list[list[Section]]:
    """A row for each image: itself and its neighbours."""
    levels, images = levels_shown(told.images), told.images
    found = near.numbers[:, :NEAREST]

    def seen(n: int, side: int) -> Picture:
        return thumbnail(load(images, np.array([n]), told.run.settings.train.seed)[0].numpy(), levels, side)

    def draw(side: int) -> list[list[Picture]]:
        return [[seen(n, side) for n in (one, *others)] for one, others in zip(asked.tolist(), found.tolist(), strict=True)]

    def words(n: int, distance: float | None = None) -> Section:
        said = told.t("similar.bits", bits=figure(distance)) if distance is not None else None
        return {"name": short(images.names[n], 40), "label": short(images.labels[n] or "", 40), "distance": said}

    said = [
        [words(one), *map(words, others, away)] for one, others, away in zip(asked.tolist(), found.tolist(), near.distances.tolist(), strict=True)
    ]
    return [
        [{"picture": picture, **word} for picture, word in zip(row, texts, strict=True)] for row, texts in zip(within(BYTES, draw), said, strict=True)
    ]


def _near_duplicates(told: Told, numbers: Numbers, codes: Codes) -> Markup | None:
    """How many images have nearly the code of another; None where not all images could be compared, or they are too few to tell."""
    n, wide = codes.mean.shape
    if len(numbers) < len(told.images) or n**2 * wide > MOST_DIFFERENCES:
        return None
    _, distinct = np.unique([told.images.sha256[k] for k in numbers.tolist()], return_index=True)
    first = Neighbours(some_of(codes, np.sort(distinct)), "certainty").of_each(1).distances.ravel()
    threshold, _ = by_chance(first)
    if threshold is None:
        return None
    found = int((first <= threshold).sum())
    return told.t("similar.near" if found else "similar.no_near", n=f"{found:,}", all=f"{len(first):,}", bits=number(threshold))
