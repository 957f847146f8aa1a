"""The images that are classified, as rows of numbers: their codes, and what is set beside these."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from vlae.data.convert import resize
from vlae.data.read import Pixels
from vlae.engine.embed import Codes, Numbers
from vlae.engine.labels.classify import Indices, anywhere, standardised
from vlae.engine.labels.curve import Progress
from vlae.engine.retrieval.index import Encoder, Index, of_folder, of_run, part_of
from vlae.engine.run import Run
from vlae.errors import SettingError

# Pixels are compared at so many a side, at most; their principal components are those of so many images.
SIDE, MOST_IMAGES = 64, 5000


@dataclass(frozen=True)
class Seen:
    """Images, and their standardised codes: ``readings`` are those of the run itself, the others those of what is set beside."""

    index: Index
    codes: Mapping[str, Codes]
    readings: tuple[str, ...]


def seen(run: Run, plain: Run | None, images: Path | None, device: str = "cpu", progress: Progress | None = None) -> Seen:
    """A run's own images, or those of a folder, by its code and by that of another run, where one is given.

    Raises:
        SettingError: a run has no code, or the two are for images of different forms.
        DataError: no image can be used.
        RunError: the images of the run are gone.
    """
    encoders = {"code": Encoder.of(run, device)} | ({"plain code": _other(run, plain, device)} if plain else {})
    found = {of: of_run(one, progress) if images is None else of_folder(one, images, progress) for of, one in encoders.items()}
    both = set.intersection(*(set(index.names) for index in found.values()))
    kept = {of: part_of(index, np.flatnonzero([name in both for name in index.names])) for of, index in found.items()}
    codes = {name: codes for of, index in kept.items() for name, codes in _readings(of, index, encoders[of].run)}
    return Seen(kept["code"], codes, tuple(name for name in codes if name.startswith("code")))


def _readings(of: str, index: Index, run: Run) -> Iterator[tuple[str, Codes]]:
    """A code as it is, and that of a grid also without regard to place."""
    yield of, standardised(index.codes)
    if index.places is not None and index.places > 1:
        assert run.settings.keep.channels is not None, "a grid has channels"
        yield f"{of}, anywhere", standardised(anywhere(index.codes, run.settings.keep.channels))


def _other(run: Run, plain: Run, device: str) -> Encoder:
    """The model of another run, looking at the images of this one."""
    encoder = Encoder.of(plain, device)
    if plain.facts != run.facts:
        rule, found = "Both see the same images: of one size, depth and colour", f"{plain.facts!r} and {run.facts!r}"
        raise SettingError(f"{plain.folder} is for images of another form than {run.folder}", rule=rule, found=found, do="Give another run")
    return Encoder(replace(run, settings=run.settings.model_copy(update={"keep": plain.settings.keep})), encoder.model)


def beside(index: Index, which: Indices, components: int, rng: np.random.Generator) -> Iterator[tuple[str, Codes]]:
    """What the codes of some images are compared with: their pixels, and as many principal components of these as the code has numbers.

    The components are those of all the images, or of ``MOST_IMAGES`` of them. Both keep their proportions and have unit variance on average:
    where each pixel or component is scaled by itself, both classify worse.
    """
    pixels = _pixels(index, which)
    others = _pixels(index, rng.permutation(len(index))[:MOST_IMAGES])
    few = min(components, *others.shape)
    found = PCA(few, svd_solver="randomized", random_state=int(rng.integers(2**31))).fit(others)
    yield "pixels", _certain(pixels)
    yield f"PCA of pixels ({few})", _certain(found.transform(pixels))


def _pixels(index: Index, which: Indices) -> Numbers:
    """The pixels of images, a row each: all of one size, averaged down where they have more than ``SIDE`` a side."""
    height, width = np.minimum(index.sizes.min(0), SIDE).tolist()
    rows = np.stack([_resized(*index.picture(n), (height, width)).ravel() for n in which.tolist()])
    return rows.astype(np.float64)


def _resized(pixels: Pixels, depth: int, size: tuple[int, int]) -> Pixels:
    return pixels if pixels.shape[:2] == size else resize(pixels, size, depth)


def _certain(numbers: Numbers) -> Codes:
    centred = numbers - numbers.mean(0)
    return Codes(centred / (np.sqrt(centred.var(0).mean()) or 1.0), np.zeros_like(numbers))
