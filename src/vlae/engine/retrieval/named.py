"""What a user names: images of a run, of a folder or of an archive, and the image that others are compared with."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vlae.data.source import LeftOut
from vlae.engine.embed import Codes
from vlae.engine.guests import guests
from vlae.engine.retrieval.index import Encoder, Index, Picture, Progress, Size, of_folder, of_run
from vlae.engine.retrieval.neighbours import some_of
from vlae.engine.run import Run
from vlae.errors import DataError, RunError, SettingError


class Query(NamedTuple):
    """An image that others are compared with; ``number`` is its own in the index, where it is one of it."""

    name: str
    code: Codes
    size: Size
    picture: Callable[[], Picture]
    number: int | None = None


def opened(
    source: Path,
    images: Path | None = None,
    run: Path | None = None,
    manifest: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Index, Encoder | None]:
    """The images that a user names, and what encodes others to be compared with them: None for an archive without its run.

    Args:
        source: a run or an archive.
        images: a folder of images that the run looks at, instead of its own.
        run: the run that an archive was made with.
        manifest: what is known of the images of an archive.
        device: where to compute.
        progress: told the images done and all.

    Raises:
        SettingError: these do not go together.
        RunError, ArchiveError: the run or the archive cannot be used.
        DataError: there is no image that can be compared.
    """
    if is_archive(source):
        if images:
            raise SettingError(f"{source} is an archive", rule="A folder of images is looked at by a run", do="Give the run, or leave the images out")
        from vlae.archive.archive import Archive
        from vlae.engine.retrieval.archived import comparing, of_archive

        archive = Archive.open(source)
        index = of_archive(archive, manifest)
        return index, comparing(Encoder.of(Run.open(run), device), archive) if run else None
    if not (source / "config.yaml").is_file():
        rule = "A run is made by vlae train, an archive by vlae compress"
        raise RunError(f"{source} is neither a run nor an archive", rule=rule, do="Give the folder of one")
    if run or manifest:
        raise SettingError("--run and --manifest are for archives", rule="A run has its own model and manifest", do="Leave them out")
    encoder = Encoder.of(Run.open(source), device)
    return (of_folder(encoder, images, progress) if images else of_run(encoder, progress)), encoder


def is_archive(source: Path) -> bool:
    """Whether a folder is an archive rather than a run."""
    found = any((source / name).exists() for name in ("parts", "model.safetensors", "model.copy.safetensors"))
    return found and not (source / "config.yaml").exists()


def query(index: Index, image: str, encoder: Encoder | None) -> Query:
    """The image that a user means: one of the index, by its name, or else a file.

    Raises:
        DataError: it is neither, or cannot be used.
        SettingError: a file is to be compared with an archive, whose run is not given.
    """
    if image in index.names and not Path(image).is_file():
        number = index.names.index(image)
        height, width = index.sizes[number].tolist()
        return Query(image, some_of(index.codes, [number]), (height, width), lambda: index.picture(number), number)
    if not Path(image).is_file():
        rule = f"An image is a file, or the name of an image of {index.source}"
        raise DataError(
            f"{image} {'is a folder' if Path(image).is_dir() else 'does not exist'}",
            rule=rule,
            found=f"names such as {index.names[0]}",
            do="Check the path",
        )
    if encoder is None:
        rule = "An archive holds the decoder alone, and a file has to be encoded"
        raise SettingError(f"{image} cannot be compared with {index.source}", rule=rule, do="Give the run that it was made with by --run")
    guest = next(iter(guests(encoder.run, {image: Path(image)})))
    code = guest if isinstance(guest, LeftOut) else encoder.code(guest, index.places)
    if isinstance(guest, LeftOut) or isinstance(code, LeftOut):
        reason = code.reason if isinstance(code, LeftOut) else ""
        raise DataError(f"{image} cannot be compared", found=reason, do="Give another image, or bring it to the size of the others")
    return Query(image, code, guest.size, lambda: encoder.picture(guest))
