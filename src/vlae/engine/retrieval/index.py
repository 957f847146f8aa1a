"""Images by their codes: those of a run, or of a folder that a run's model looks at; ``engine.retrieval.archived`` has those of an archive.

n images, D numbers of a code.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vlae.core.codes import Posterior
from vlae.core.vlae import VLAE
from vlae.data.foreign import files_of
from vlae.data.imageset import ImageSet
from vlae.data.listing import list_files
from vlae.data.read import Pixels
from vlae.data.scan import scan_folder
from vlae.data.settings import DataSettings
from vlae.data.source import Item, LeftOut
from vlae.data.spool import identity
from vlae.engine.device import find_device
from vlae.engine.embed import Codes, common_places, embed, summary
from vlae.engine.formats import load_tensors, save_tensors
from vlae.engine.guests import Guest, guests
from vlae.engine.measure import placed
from vlae.engine.retrieval.columns import Column, columns_of
from vlae.engine.retrieval.neighbours import some_of
from vlae.engine.run import Run
from vlae.errors import DataError, DiskError, RunError, SettingError

Progress = Callable[[int, int], None]
Size = tuple[int, int]

# A number of a code that is larger than this is none: its square has no place in float32.
LARGEST = 1e15


class Picture(NamedTuple):
    """An image to be shown: pixels (h, w, c) of so many bits a value."""

    pixels: Pixels
    depth: int


@dataclass(frozen=True, eq=False)
class Index:
    """Images by their codes."""

    source: Path
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    """of the pixels of each, as ``spool.identity`` has it"""
    sizes: npt.NDArray[np.int64]
    """heights and widths, (n, 2)"""
    codes: Codes
    columns: Mapping[str, Column]
    """what else is known of each"""
    places: int | None
    """so many places a side have the grids that codes are averaged down to; None where codes are vectors"""
    left_out: tuple[LeftOut, ...]
    picture: Callable[[int], Picture]
    """an image by its number"""
    kept_once: int = 0
    """so many images had the same pixels as another, and a run has not kept them"""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Encoder:
    """A run whose model has a code, ready to look at images."""

    run: Run
    model: VLAE
    kept: Callable[[Posterior], Posterior] | None = None
    """what an archive keeps of a posterior, where images are compared with those of one"""
    own: bool = False
    """whether the model is that of the run, so that the codes of its images are kept beside it"""

    @classmethod
    def of(cls, run: Run, device: str = "cpu") -> "Encoder":
        """The encoder of a run.

        Raises:
            SettingError: its model has no code.
        """
        if run.settings.keep.code == "none":
            rule = "Images are compared by their codes: keep.code is vector or grid"
            raise SettingError(f"The model of {run.folder} has no code", rule=rule, do="Use another run")
        return cls(run, run.model(find_device(device)), own=True)

    @property
    def vector(self) -> bool:
        """Whether an image has one code, and not one for each place."""
        return self.run.settings.keep.code == "vector"

    def places(self) -> int | None:
        """So many places a side can the grids of all the run's own images be averaged down to; None for vectors."""
        return None if self.vector else common_places(self.model, self.run.images())

    @torch.no_grad()
    def code(self, guest: Guest, places: int | None) -> Codes | LeftOut:
        """The code of an image, (1, D), or why it has none that can be compared."""
        wanted = self.run.facts.size
        if self.vector and self.run.settings.data.size is None and wanted and guest.size != wanted:
            return LeftOut(guest.name, f"it has {_size(guest.size)} pixels, and images of this model have {_size(wanted)}")
        grid = self.model.code_shape(*guest.group.x.shape[2:])[1:]
        if places is not None and min(grid) < places:
            found = f"it has {_size(guest.size)} pixels: its code has {_size(grid)} places, and {places} x {places} are compared"
            return LeftOut(guest.name, found)
        posterior = self.model.posterior(placed(guest.group.x, self.model))
        code = summary(self.kept(posterior) if self.kept else posterior, places or 1)
        return code if usable(code).all() else LeftOut(guest.name, "its code is not finite")

    def picture(self, guest: Guest) -> Picture:
        """An image as the model sees it."""
        return Picture(guest.pixels, self.run.facts.depth)


def of_run(encoder: Encoder, progress: Progress | None = None) -> Index:
    """The images that a run was made of, of every split.

    Raises:
        DataError: none has a code that can be used.
        RunError: the images are gone.
    """
    run, images, places = encoder.run, encoder.run.images(), encoder.places()
    codes = _codes(encoder, images, places, progress)
    text = {"split": images.split.tolist(), "label": images.labels, "lot": images.lots}
    columns = {name: np.array(values, object) for name, values in text.items()} | dict(images.factors)
    depth = 8 if images.dynamic else images.depth
    dropped = images.duplicates - (len(images) - len(set(images.sha256)))
    about = (run.folder, images.names, images.sha256, images.sizes, codes, columns, places, ())
    return checked(Index(*about, picture=lambda n: Picture(images.pixels(n), depth), kept_once=dropped))


AVERAGED = 2
"""How grids are averaged: 1 told other widths where places do not divide them."""


def _codes(encoder: Encoder, images: ImageSet, places: int | None, progress: Progress | None) -> Codes:
    """The codes of all images of a run: those that are kept from the last time, where they are of the same weights, or else new ones."""
    run, path = encoder.run, encoder.run.folder / "results" / "codes.safetensors"
    if not encoder.own:
        return embed(encoder.model, images, np.arange(len(images)), places or 1, run.settings.train.seed, progress)
    weights = f"{run.fingerprint()}, {AVERAGED}"
    channels, *grid = encoder.model.code_shape(*images.sizes[0].tolist())
    shape = len(images), channels * (places or 1) ** len(grid)
    kept = {"mean": torch.empty(shape), "std": torch.empty(shape)}
    try:
        if load_tensors(path, kept).get("weights") == weights:
            return Codes(kept["mean"].double().numpy(), kept["std"].double().numpy())
    except RunError:  # not there, or damaged
        pass
    codes = embed(encoder.model, images, np.arange(len(images)), places or 1, run.settings.train.seed, progress)
    with suppress(DiskError):  # a search must not fail because its codes cannot be kept
        run.check_results()
        save_tensors(path, {name: torch.from_numpy(values).float() for name, values in codes._asdict().items()}, weights=weights)
    return codes


def of_folder(encoder: Encoder, folder: Path, progress: Progress | None = None) -> Index:
    """An image or the images of a folder as a run's model sees them, with what a manifest in the folder tells.

    Raises:
        DataError: the folder is missing, or none of its images can be used.
        RunError: the run's own images are gone, by which grids are averaged.
    """
    (files, passed), items, places = files_of(folder), dict[str, Item](), encoder.places()
    if folder.is_dir():
        settings = DataSettings(folder=folder, max_pixels=encoder.run.settings.data.max_pixels)
        items = {item.name: item for item in scan_folder(settings, list_files(folder, skip=folder / ".cache")).items}
        files = {name: path for name, path in files.items() if name in items}
    seen, left_out = list[_Seen](), list(passed)
    for number, guest in enumerate(guests(encoder.run, files), start=1):
        one = guest if isinstance(guest, LeftOut) else _seen(encoder, guest, places)
        left_out.append(one) if isinstance(one, LeftOut) else seen.append(one)
        if progress:
            progress(number, len(files))
    if not seen:
        raise _nothing(folder, left_out)
    names, sha256, sizes, codes = zip(*seen, strict=True)
    stacked = Codes(np.concatenate([code.mean for code in codes]), np.concatenate([code.std for code in codes]))
    columns = columns_of([items.get(name) for name in names])
    about = (folder, names, sha256, np.array(sizes), stacked, columns, places, tuple(left_out))
    return checked(Index(*about, picture=lambda n: _picture(encoder, names[n], files[names[n]])))


class _Seen(NamedTuple):
    name: str
    sha256: str
    size: Size
    code: Codes


def _seen(encoder: Encoder, guest: Guest, places: int | None) -> _Seen | LeftOut:
    code = encoder.code(guest, places)
    depth = encoder.run.facts.depth
    return code if isinstance(code, LeftOut) else _Seen(guest.name, identity(guest.pixels, depth), guest.size, code)


def _picture(encoder: Encoder, name: str, path: Path) -> Picture:
    guest = next(iter(guests(encoder.run, {name: path})))
    if isinstance(guest, LeftOut):
        raise DataError(f"{path} cannot be shown", found=guest.reason, do="Leave the folder as it is meanwhile")
    return encoder.picture(guest)


def usable(codes: Codes) -> npt.NDArray[np.bool_]:
    """Which codes can be compared: they are finite, (n,)."""
    whole = (np.abs(codes.mean) < LARGEST) & (codes.std > 0) & (codes.std < LARGEST)
    return np.all(whole, axis=1)


def checked(index: Index) -> Index:
    """The images whose codes are finite.

    Raises:
        DataError: there is none.
    """
    whole = usable(index.codes)
    if whole.all():
        return index
    lost = tuple(LeftOut(index.names[n], "its code is not finite") for n in np.flatnonzero(~whole).tolist())
    if not whole.any():
        raise _nothing(index.source, lost)
    return replace(part_of(index, np.flatnonzero(whole)), left_out=(*index.left_out, *lost))


def part_of(index: Index, numbers: npt.NDArray[np.int64]) -> Index:
    """Some images of an index."""
    kept = numbers.tolist()
    return replace(
        index,
        names=tuple(index.names[n] for n in kept),
        sha256=tuple(index.sha256[n] for n in kept),
        sizes=index.sizes[numbers],
        codes=some_of(index.codes, numbers),
        columns={name: values[numbers] for name, values in index.columns.items()},
        picture=lambda n: index.picture(kept[n]),
    )


def _nothing(source: Path, left_out: Iterable[LeftOut]) -> DataError:
    found = "; ".join(f"{left.name}: {left.reason}" for left in list(left_out)[:3])
    return DataError(f"{source} holds no image that can be compared", rule="At least one has a code", found=found or "no image", do="Give another")


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
