"""Archives through the command line: every pixel comes back, nothing is lost, and what cannot be done is one sentence."""

import errno
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from vlae.apps import compress as compressing
from vlae.archive.archive import MODELS, Archive
from vlae.archive.parts import About, Row, names_path, write_part
from vlae.data.exact import Exact, read_exact, write_exact
from vlae.data.form import Form
from vlae.engine.verify import Verified

from ..engine.test_pool import living
from ..test_cli import TINY, good, picture, refused, vlae

GRID = [
    *("keep.window=stack1", "keep.code=grid", "keep.stride=4", "keep.channels=1", "model.width=4", "model.pointwise=0", "model.prior=gaussian"),
    *("model.widths=[4,4,4]", "model.blocks=[0,0,0]", "train.batch=4", "train.steps=4"),
]
# Of black and white noise even a model that has learned nothing needs a bit a pixel, JPEG XL and PNG more.
SIZE = (32, 32)


def random(size: tuple[int, ...], most: int = 255, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, size).astype(np.uint16 if most > 255 else np.uint8)


def noise(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random(size, 1, seed).astype(bool)).save(path)
    return path


def noises(folder: Path, count: int, size: tuple[int, int] = SIZE) -> Path:
    for n in range(count):
        noise(folder / f"{n:02d}.png", size, n)
    return folder


def alone(command: str, *words: object) -> tuple[int, str]:
    """A command in this process alone."""
    return vlae(command, *words, *(["--processes", 1] if command in ("compress", "decompress", "verify") else []))


def found(said: str) -> dict[str, Any]:
    return json.loads(said.splitlines()[0])


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_back(original: Path, back: Path) -> bool:
    """Whether all that is kept of an image came back."""
    one, other = read_exact(original), read_exact(back)
    return np.array_equal(one.pixels, other.pixels) and one._replace(pixels=0, notes=()) == other._replace(pixels=0, notes=())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of black and white images of any size, beside its images."""
    folder = tmp_path_factory.mktemp("grid")
    code, said = vlae("train", noises(folder / "images", 20), "-o", folder / "run", *GRID)
    assert code == 0, said
    return folder / "run"


@pytest.fixture(scope="module")
def vector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a vector code, of grey images of 12x12."""
    folder = tmp_path_factory.mktemp("vector")
    code, said = vlae("train", good(folder / "images"), "-o", folder / "run", *TINY)
    assert code == 0, said
    return folder / "run"


@pytest.fixture(scope="module")
def made(run: Path) -> Path:
    """An archive of five images that none may change."""
    output = run.parent / "archive"
    code, said = alone("compress", run, noises(run.parent / "five", 5), "-o", output)
    assert code == 0 and "5 by the model" in said, said
    return output


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(made, tmp_path / "archive")
    return tmp_path / "archive"


def zoo(folder: Path) -> Path:
    """Images of every format and form."""
    (folder / "sub" / "deeper").mkdir(parents=True)
    icc, exif = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), Image.Exif()
    exif[274], exif[271] = 6, "a maker"
    grey, colour, clear = (random((9, 14, c), seed=c) for c in (1, 3, 4))
    Image.fromarray(grey[..., 0]).save(folder / "grey.png")
    Image.fromarray(colour).save(folder / "sub" / "photo.jpg", exif=exif, icc_profile=icc)
    Image.fromarray(colour).save(folder / "sub" / "turned.png", exif=exif, icc_profile=icc)
    Image.fromarray(colour).save(folder / "sub" / "deeper" / "web.webp", lossless=True, exif=exif)
    Image.fromarray(colour).save(folder / "bitmap.BMP")
    Image.fromarray(clear).save(folder / "clear.PNG")
    Image.fromarray(clear[..., :2], "LA").save(folder / "grey and alpha.png")
    Image.fromarray(colour).quantize(5).save(folder / "palette.png")
    Image.fromarray(random((9, 14), 65535)).save(folder / "deep.png")
    (folder / "deep colours.png").write_bytes(imagecodecs.png_encode(random((9, 14, 4), 65535)))
    tifffile.imwrite(folder / "deep.tif", random((9, 14), 65535), photometric="minisblack")
    tifffile.imwrite(folder / "colours.tiff", colour, photometric="rgb", extratags=[(274, 3, 1, 8, True)])
    for n, size in enumerate([SIZE, (1, 1), (3, 90), (513, 7)]):
        noise(folder / f"ビット {n}.png", size, n)
    return folder


def test_every_pixel_and_all_that_is_kept_comes_back(run: Path, tmp_path: Path) -> None:
    images = zoo(tmp_path / "images")
    before = files(images)
    code, said = alone("compress", run, images, "-o", tmp_path / "archive")
    assert code == 0 and said.startswith(f"{len(before)} images: ") and "by the model" in said and "as JPEG XL" in said, said
    assert alone("verify", tmp_path / "archive") == (0, f"{len(before)} images are whole\n")
    code, said = alone("decompress", tmp_path / "archive", "-o", tmp_path / "out")
    assert code == 0 and files(images) == before, said
    kept = {name: name if name.lower().endswith(".png") else f"{name}.png" for name in before}
    assert set(files(tmp_path / "out")) == set(kept.values())
    assert all(is_back(images / name, tmp_path / "out" / other) for name, other in kept.items())
    assert all((tmp_path / "out" / other).read_bytes()[:4] == b"\x89PNG" for other in kept.values())
    turned = read_exact(tmp_path / "out" / "sub" / "photo.jpg.png")
    assert turned.orientation == 6 and turned.pixels.shape == (9, 14, 3) and turned.icc and turned.exif and b"a maker" in turned.exif


def test_names_that_become_one_are_kept_apart(run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    names = ["b.jpg", "b.jpg.png", "b.jpg.1.png", "b", "b.png", "c.bmp", "c.bmp.png/d.png"]
    for n, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random((5, 6), seed=n)).save(images / name, {".jpg": "JPEG", ".bmp": "BMP"}.get(Path(name).suffix, "PNG"))
    assert alone("compress", run, images, "-o", tmp_path / "archive")[0] == 0
    code, said = alone("decompress", tmp_path / "archive", "-o", tmp_path / "out")
    assert code == 0 and said.startswith(f"{len(names)} images"), said
    kept = {name: name if name.endswith(".png") else f"{name}.1.png" for name in names} | {"b.jpg": "b.jpg.2.png"}
    assert set(files(tmp_path / "out")) == set(kept.values())
    assert all(is_back(images / name, tmp_path / "out" / other) for name, other in kept.items())
    assert alone("preview", tmp_path / "archive", "-o", tmp_path / "drawn")[0] == 8  # grey: the model has no code for them


def test_where_a_disk_folds_names_none_is_written_over(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlae.engine.places.FOLDS", True)
    for n, name in enumerate(["A.png", "a.PNG", "\u00e9.png", "e\u0301.png"]):
        noise(tmp_path / "images" / name, seed=n)
    assert alone("compress", run, tmp_path / "images", "-o", tmp_path / "archive")[0] == 0
    assert alone("decompress", tmp_path / "archive", "-o", tmp_path / "out")[0] == 0
    assert len({name.casefold() for name in files(tmp_path / "out")}) == 4


def test_a_name_too_long_for_its_file_is_told_and_the_rest_comes_out(run: Path, tmp_path: Path) -> None:
    long = picture(noises(tmp_path / "images", 2) / ("a" * 251 + ".bmp")).name
    assert alone("compress", run, tmp_path / "images", "-o", tmp_path / "archive")[0] == 0
    for command, code in (("decompress", 8), ("preview", 8)):
        got, said = alone(command, tmp_path / "archive", "-o", tmp_path / command)
        assert got == code and long in said and "Traceback" not in said and len(files(tmp_path / command)) == 2
    assert np.array_equal(Archive.open(tmp_path / "archive")[long], read_exact(tmp_path / "images" / long).pixels)


def test_the_same_command_again_adds_nothing_and_new_files_make_a_new_part(run: Path, tmp_path: Path) -> None:
    images, output = noises(tmp_path / "images", 4), tmp_path / "archive"
    assert alone("compress", run, images, "-o", output)[0] == 0
    before = files(output)
    code, said = alone("compress", run, images, "-o", output)
    assert code == 0 and said == f"0 images: {output}\n4 were there already\n" and files(output) == before
    noise(images / "sub" / "new.png", seed=99)
    code, said = alone("compress", run, images, "-o", output, "--json")
    told, after = found(said), files(output)
    assert code == 0 and (told["images"], told["already"]) == (1, 4)
    assert before.items() < after.items() and len(after) == len(before) + 2
    code, said = alone("decompress", output, "-o", tmp_path / "out")
    assert code == 0 and set(files(tmp_path / "out")) == set(files(images))


def test_another_image_of_a_known_name_is_told_and_neither_is_lost(run: Path, tmp_path: Path) -> None:
    images, output = noises(tmp_path / "images", 3), tmp_path / "archive"
    shutil.copytree(images, tmp_path / "first")
    assert alone("compress", run, images, "-o", output)[0] == 0
    noise(images / "01.png", seed=77)
    kept = files(images)
    code, said = alone("compress", run, images, "-o", output, "--delete-originals", "--json")
    told = found(said)
    assert code == 8 and told["left_out"] == [{"name": "01.png", "reason": compressing.ANOTHER, "harmless": False}] and told["deleted"] == 2
    assert files(images) == {"01.png": kept["01.png"]}
    assert np.array_equal(Archive.open(output)["01.png"], read_exact(tmp_path / "first" / "01.png").pixels)
    code, said = alone("compress", run, images, "-o", output)
    assert code == 3 and refused(said, "01.png", "another image"), "alone it is nothing that can be used"
    assert alone("verify", output)[0] == 0


def test_an_archive_of_another_model_is_refused(vector: Path, archive: Path) -> None:
    before = files(archive)
    code, said = alone("compress", vector, vector.parent / "images", "-o", archive)
    assert code == 9 and refused(said, "another model") and files(archive) == before


def test_outputs_that_are_no_archive_are_refused(run: Path, tmp_path: Path) -> None:
    images = noises(tmp_path / "images", 2)
    busy, file, before = tmp_path / "busy", tmp_path / "file", files(images)
    busy.mkdir()
    (busy / "mine.txt").write_text("precious")
    file.write_text("precious")
    for output in (busy, file, images, images / "inside", images / "sub" / "inside", Path("/proc/archive"), Path("/dev/null/archive")):
        code, said = alone("compress", run, images, "-o", output)
        assert code == 6 and refused(said), output
    assert files(busy) == {"mine.txt": b"precious"} and file.read_text() == "precious" and files(images) == before
    for name in ("config.yaml", "weights.safetensors"):
        assert (run / name).is_file()
    code, said = alone("compress", run, images, "-o", run)
    assert code == 6 and refused(said) and not (run / "parts").exists()


def test_folders_without_an_image_leave_nothing_behind(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    for given in ("empty", "texts", "gone", "texts/a.txt"):
        code, said = alone("compress", run, tmp_path / given, "-o", tmp_path / "archive")
        assert code == 3 and refused(said) and not (tmp_path / "archive").exists(), said
    code, said = alone("compress", tmp_path / "texts", tmp_path / "texts", "-o", tmp_path / "archive")
    assert code == 4 and refused(said, "is not a run") and not (tmp_path / "archive").exists()


def test_damaged_images_beside_good_ones_are_left_out_and_told(run: Path, tmp_path: Path) -> None:
    images = noises(tmp_path / "images", 3)
    (images / "torn.png").write_bytes((images / "00.png").read_bytes()[:70])
    (images / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"0" * 9)
    (images / "zero.png").write_bytes(b"")
    (images / "notes.txt").write_text("harmless")
    Image.new("CMYK", (9, 9)).save(images / "cmyk.jpg")
    os.symlink(images / "gone.png", images / "dangling.png")
    shutil.copy(images / "notes.txt", os.fsdecode(os.fsencode(images) + b"/\xff.png"))
    code, said = alone("compress", run, images, "-o", tmp_path / "archive", "--delete-originals", "--json")
    told = found(said)
    assert code == 8 and told["images"] == told["deleted"] == 3 and "Warning: 3 images are done and 6 were left out" in said
    lost = {"torn.png", "torn.jpg", "zero.png", "cmyk.jpg", "dangling.png"}
    assert {left["name"] for left in told["left_out"] if not left["harmless"]} == {*lost, "\\udcff.png"}
    assert {path.name for path in images.iterdir()} == {*lost, "\udcff.png", "notes.txt"}


def test_one_image_is_an_archive_too(run: Path, tmp_path: Path) -> None:
    image = noise(tmp_path / "one.png")
    assert alone("compress", run, image, "-o", tmp_path / "archive")[0] == 0
    assert alone("decompress", tmp_path / "archive", "-o", tmp_path / "out")[0] == 0 and is_back(image, tmp_path / "out" / "one.png")


# What is deleted


def damaging(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """As if these images did not come out of the archive."""
    right = compressing.verify
    lost = lambda given, *more: Verified(tuple(n for n in right(given, *more).whole if n not in names), ())  # noqa: E731
    monkeypatch.setattr(compressing, "verify", lost)


def before_the_deletion(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """What somebody does to the files while the archive is verified."""
    right = compressing.verify
    monkeypatch.setattr(compressing, "verify", lambda *given: (right(*given), change())[0])


def test_only_what_comes_out_is_deleted(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noises(tmp_path / "images", 4)
    (images / "notes.txt").write_text("mine")
    damaging(monkeypatch, {"01.png", "03.png"})
    code, said = alone("compress", run, images, "-o", tmp_path / "archive", "--delete-originals")
    assert code == 0 and "2 files deleted" in said and {path.name for path in images.iterdir()} == {"01.png", "03.png", "notes.txt"}


def test_an_image_whose_stream_is_damaged_on_the_disk_is_added_again(run: Path, tmp_path: Path) -> None:
    images, output = noises(tmp_path / "images", 3), tmp_path / "archive"
    original = read_exact(images / "01.png")
    assert alone("compress", run, images, "-o", output)[0] == 0
    flip(output, "01.png")
    assert alone("verify", output)[0] == 8
    code, said = alone("compress", run, images, "-o", output, "--delete-originals")
    assert code == 0 and "1 images" in said and "2 were there" in said and "3 files deleted" in said and not any(images.iterdir()), said
    assert alone("verify", output)[0] == 0 and alone("decompress", output, "-o", tmp_path / "out")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00.png", "01.png", "02.png"}
    assert (read_exact(tmp_path / "out" / "01.png").pixels == original.pixels).all()


def test_what_was_changed_meanwhile_is_not_deleted(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noises(tmp_path / "images", 7)

    def change() -> None:
        noise(images / "00.png", seed=50)  # another image
        (images / "01.png").write_text("no image any more")
        image = read_exact(images / "02.png")
        write_exact(images / "02.png", image._replace(orientation=3))  # turned
        write_exact(images / "03.png", read_exact(images / "03.png")._replace(icc=b"a profile"))
        (images / "04.png").unlink()
        (images / "04.png").mkdir()
        (images / "05.png").unlink()

    before_the_deletion(monkeypatch, change)
    code, said = alone("compress", run, images, "-o", tmp_path / "archive", "--delete-originals")
    assert code == 0 and "1 files deleted" in said, said
    assert {path.name for path in images.iterdir()} == {f"0{n}.png" for n in range(5)} and alone("verify", tmp_path / "archive")[0] == 0


def test_a_file_that_held_more_is_not_deleted(run: Path, tmp_path: Path) -> None:
    """A JPEG's pixels are one decoder's; what stands behind a picture, and a BMP's fourth bytes, would be gone; and the last could not be named."""
    images, big = tmp_path / "images", random((40, 40, 3), seed=3) // 16
    images.mkdir()
    Image.fromarray(big).save(images / "a.jpg", quality=100)
    Image.fromarray(big).save(images / "plain.bmp")
    Image.fromarray(big).save(images / f"{'x' * 249}.bmp")
    Image.fromarray(big).save(images / "behind.png")
    with open(images / "behind.png", "ab") as file:
        file.write(bytes(20000))
    code, said = alone("compress", run, images, "-o", tmp_path / "archive", "--delete-originals")
    assert code == 0 and "1 files deleted" in said and "1 of them: bytes behind the picture dropped" in said, said
    assert {path.name for path in images.iterdir()} == {"a.jpg", f"{'x' * 249}.bmp", "behind.png"}


def test_a_damaged_image_is_lost_though_another_of_its_name_is_whole(run: Path, tmp_path: Path) -> None:
    images, output = noises(tmp_path / "images", 2), tmp_path / "archive"
    assert alone("compress", run, images, "-o", output)[0] == 0
    flip(output, "01.png")
    noise(images / "01.png", seed=99)
    assert alone("compress", run, images, "-o", output)[0] == 0
    code, said = alone("verify", output)
    assert code == 8 and "2 images are whole and 1 are not" in said and "01.png: its stream is damaged" in said


def test_what_claims_to_be_an_image_and_is_not_is_told(run: Path, tmp_path: Path) -> None:
    images = noises(tmp_path / "images", 2)
    (images / "crash.png").write_bytes(bytes(500))
    code, said = alone("compress", run, images, "-o", tmp_path / "archive")
    assert code == 8 and "crash.png: not an image" in said


def test_two_images_of_one_name_delete_neither(run: Path, tmp_path: Path) -> None:
    """Two writers had the name: which of them comes out where is not for a deletion to guess."""
    images, output = noises(tmp_path / "images", 2), tmp_path / "archive"
    assert alone("compress", run, images, "-o", output)[0] == 0
    forged(output, {"00.png": "01.png"})
    assert found(alone("compress", run, images, "-o", output, "--delete-originals", "--json")[1])["deleted"] == 1
    assert [path.name for path in images.iterdir()] == ["01.png"]


def test_nothing_is_deleted_where_nothing_was_asked(run: Path, tmp_path: Path) -> None:
    images = noises(tmp_path / "images", 2)
    before = files(images)
    assert alone("compress", run, images, "-o", tmp_path / "archive", "--no-check")[0] == 0 and files(images) == before


# Interrupts

GOES_ON = "Interrupted: what is done is in the archive, and the same command goes on.\n"


def test_an_interrupt_keeps_what_is_done_and_the_same_command_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, output = noises(tmp_path / "images", 5), tmp_path / "archive"
    monkeypatch.setattr(compressing, "PIXELS", 1)  # one image after the other
    pack, calls = compressing.pack, []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return pack(*given)

    with monkeypatch.context() as patch:
        patch.setattr(compressing, "pack", interrupted)
        code, said = alone("compress", run, images, "-o", output, "--delete-originals")
    assert (code, said) == (130, GOES_ON) and len(files(images)) == 5
    assert alone("verify", output) == (0, "2 images are whole\n") and not unfinished(output)
    code, said = alone("compress", run, images, "-o", output)
    assert code == 0 and "3 images" in said and "2 were there already" in said and alone("verify", output) == (0, "5 images are whole\n")


def test_an_interrupt_of_the_others_says_what_is_there(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    for name in ("vlae.archive.archive.unpack", "vlae.apps.preview._drawn"):
        monkeypatch.setattr(name, interrupt)
    before = files(archive)
    for command, output in (("verify", []), ("decompress", ["-o", tmp_path / "out"]), ("preview", ["-o", tmp_path / "out"])):
        code, said = alone(command, archive, *output)
        assert code == 130 and said.startswith("Interrupted: ") and said.count("\n") == 1 and not (tmp_path / "out").exists()
    assert files(archive) == before


@pytest.mark.parametrize("copies", [[], [0], [1]])
def test_an_end_before_the_first_part_is_gone_on_with(run: Path, made: Path, tmp_path: Path, copies: list[int]) -> None:
    images, output = noises(tmp_path / "images", 2), tmp_path / "archive"
    output.mkdir()
    for n in copies:
        shutil.copy(made / MODELS[n], output / MODELS[n])
    assert alone("compress", run, images, "-o", output)[0] == 0
    assert (output / MODELS[0]).read_bytes() == (output / MODELS[1]).read_bytes() == (made / MODELS[0]).read_bytes()


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".part"]


# One image after the other, in every process, and none so quickly that one process is done before the other begins.
SLOWLY = """
import time
from vlae.apps import compress
compress.PIXELS, pack = 1, compress.pack
compress.pack = lambda *of: (time.sleep(0.5), pack(*of))[1]
if __name__ == "__main__":
    from vlae.cli import main
    main()
"""


def until(true: Callable[[], object], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", ["interrupted at once", "interrupted", "killed alone", "all killed"])
def test_the_end_of_several_processes(run: Path, tmp_path: Path, how: str) -> None:
    images, output = noises(tmp_path / "images", 30, (150, 150)), tmp_path / "archive"
    (tmp_path / "slowly.py").write_text(SLOWLY)
    words = [sys.executable, "-W", "ignore", tmp_path / "slowly.py", "compress", run, images, "-o", output, "--processes", "2"]
    child = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    if how == "interrupted at once":
        assert until(lambda: len(living(child.pid)) == 4)  # with multiprocessing's own
        time.sleep(0.5)  # they import torch
    else:
        assert until(lambda: len(unfinished(output)) == 2)  # both processes have an image
    if how == "killed alone":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL if how == "all killed" else signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert until(lambda: not living(child.pid), 30), "no process stays behind"
    if "interrupted" in how:
        told = [line for line in err.splitlines(keepends=True) if not line.startswith("Compiling for this processor")]  # with sources just changed
        assert (child.returncode, out, "".join(told)) == (130, "", GOES_ON)
    assert how == "all killed" or not unfinished(output)
    before = found(alone("verify", output, "--json")[1])
    assert before["damaged"] == [] and (before["images"] >= 2 if how in ("interrupted", "killed alone") else before["images"] < 30)
    told = found(alone("compress", run, images, "-o", output, "--json")[1])
    assert (told["already"], told["images"]) == (before["images"], 30 - before["images"])
    assert alone("verify", output) == (0, "30 images are whole\n")


def test_an_archive_without_its_parts_is_not_whole(run: Path, archive: Path, tmp_path: Path) -> None:
    lost, images = Path(shutil.copytree(archive, tmp_path / "lost")), noises(tmp_path / "images", 1, (20, 20))
    shutil.rmtree(lost / "parts")
    for command in (["verify", lost], ["info", lost], ["decompress", lost, "-o", tmp_path / "out"]):
        code, said = vlae(*command)
        assert code == 9 and "has no parts" in said
    assert vlae("compress", run, images, "-o", lost)[0] == 0, "a process may have been ended before there was a place for parts"
    assert vlae("verify", lost) == (0, "1 images are whole\n")


@pytest.mark.slow
def test_several_processes_give_the_same_images(run: Path, tmp_path: Path) -> None:
    images = zoo(tmp_path / "images")
    (images / "torn.png").write_bytes((images / "grey.png").read_bytes()[:60])
    told = []
    for n in (1, 2):
        output = tmp_path / f"archive{n}"
        code, said = vlae("compress", run, images, "-o", output, "--processes", n, "--json")
        assert code == 8, said
        told.append(found(said) | {"output": ""})
        assert vlae("verify", output, "--processes", n) == (0, "16 images are whole\n")
        assert vlae("decompress", output, "-o", tmp_path / f"out{n}", "--processes", n)[0] == 0
    assert told[0] == told[1] and files(tmp_path / "out1") == files(tmp_path / "out2")
    streams = [{row.about.name: row.packed.stored for row in Archive.open(tmp_path / f"archive{n}").rows(streams=True)} for n in (1, 2)]  # type: ignore[union-attr]
    assert streams[0] == streams[1] and len(Archive.open(tmp_path / "archive2").parts) == 2


# Disks


@contextmanager
def small_disk(room: int) -> Iterator[None]:
    """A disk on which no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_nothing_half_written_counts(run: Path, archive: Path, tmp_path: Path) -> None:
    images = noises(tmp_path / "images", 12, (100, 100))
    before = files(archive)
    for output, room in ((archive, 10_000), (tmp_path / "new", 10_000), (tmp_path / "none", 2_000)):  # the model takes 4,311 bytes
        with small_disk(room):
            code, said = alone("compress", run, images, "-o", output, "--delete-originals")
        assert code == 6 and refused(said, "cannot be written") and said.count("Error: ") == 1 and len(files(images)) == 12 and not unfinished(output)
    assert files(archive) == before and alone("verify", tmp_path / "new") == (0, "0 images are whole\n") and not (tmp_path / "none").exists()
    for output, known in ((archive, 5), (tmp_path / "new", 0), (tmp_path / "none", 0)):
        code, said = alone("compress", run, images, "-o", output, "--json")
        assert found(said)["images"] == 12 - known, said
    with small_disk(100):
        code, said = alone("decompress", archive, "-o", tmp_path / "out")
    assert code == 6 and refused(said, "cannot be written") and not (tmp_path / "out").exists()


def test_a_disk_that_fills_while_images_come_out(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, calls = os.fsync, []

    def full(file: int) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    code, said = alone("decompress", archive, "-o", tmp_path / "out")
    assert code == 6 and refused(said, "No space left") and set(files(tmp_path / "out")) == {"00.png", "01.png"}
    assert all(is_back(archive.parent / "out" / name, tmp_path / "out" / name) for name in ("00.png", "01.png"))
    calls.clear()
    code, said = alone("preview", archive, "-o", tmp_path / "drawn")
    assert code == 6 and refused(said, "No space left") and len(files(tmp_path / "drawn")) == 2


def test_outputs_that_cannot_be_written(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "00.png").write_text("mine")
    for command in ("decompress", "preview"):
        for output in (tmp_path / "busy", "/proc/images", "/dev/null/images"):
            code, said = alone(command, archive, "-o", output)
            assert code == 6 and refused(said), said
    assert files(tmp_path / "busy") == {"00.png": b"mine"}


def test_a_disk_that_became_read_only(run: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere: so the system is made to say no."""
    before = files(archive)
    right = open

    def forbidden(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if "x" in mode:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return right(path, mode, *more, **named)

    monkeypatch.setattr("builtins.open", forbidden)
    code, said = alone("compress", run, noises(tmp_path / "images", 7), "-o", archive)
    assert code == 6 and refused(said, "Read-only") and files(archive) == before


# Damage


def flip(archive: Path, name: str) -> None:
    """Flip a bit in the middle of an image's stream."""
    for part in Archive.open(archive).parts:
        streams = {row.about.name: row.packed.stored.stream for row in Archive.open(archive).rows([part], streams=True) if isinstance(row, Row)}
        if name in streams:
            data = bytearray(part.read_bytes())
            data[data.find(streams[name]) + len(streams[name]) // 2] ^= 1
            part.write_bytes(data)


@pytest.mark.parametrize("command", ["decompress", "verify", "info", "preview"])
def test_what_is_no_archive_is_refused(run: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no archive")
    more = ["-o", tmp_path / "out"] if command in ("decompress", "preview") else []
    for given in (tmp_path / "gone", tmp_path / "empty", tmp_path / "file", run.parent / "images"):
        code, said = alone(command, given, *more)
        assert code == 9 and refused(said, "is not an archive") and not (tmp_path / "out").exists()


def test_a_flipped_bit_costs_one_image(archive: Path, run: Path, tmp_path: Path) -> None:
    flip(archive, "02.png")
    for command, output in (("verify", []), ("decompress", ["-o", tmp_path / "out"])):
        code, said = alone(command, archive, *output, "--json")
        assert code == 8 and [d["name"] for d in found(said)["damaged"]] == ["02.png"] and "Warning: 4 images are whole and 1 are not" in said
    assert set(files(tmp_path / "out")) == {"00.png", "01.png", "03.png", "04.png"}
    assert all(is_back(run.parent / "five" / name, tmp_path / "out" / name) for name in files(tmp_path / "out"))


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-20])


def empty(part: Path) -> None:
    part.write_bytes(b"")


def scramble(part: Path) -> None:
    part.write_bytes(random((len(part.read_bytes()),)).tobytes())


@pytest.mark.parametrize("harm", [cut, empty, scramble, Path.unlink])
@pytest.mark.parametrize("listed", [True, False])
def test_a_damaged_part_leaves_the_others_whole(run: Path, archive: Path, tmp_path: Path, harm: Callable[[Path], None], listed: bool) -> None:
    more = noises(tmp_path / "more" / "sub", 3).parent
    assert alone("compress", run, more, "-o", archive)[0] == 0
    part = Archive.open(archive).parts[0]
    harm(part)
    if not listed:
        names_path(part).unlink()
    gone = not listed and not part.exists()  # then nothing tells that there was one
    for command, output in (("verify", []), ("decompress", ["-o", tmp_path / "out"]), ("info", []), ("preview", ["-o", tmp_path / "drawn"])):
        code, said = alone(command, archive, *output, "--json")
        told = found(said)
        lost = [d["name"] for d in told["left_out" if command == "preview" else "damaged"]]
        assert code == (0 if gone else 8) and told["images"] == 3 and "Traceback" not in said
        assert lost == ([f"0{n}.png" for n in range(5)] if listed else [] if gone else [f"(all of {part.name})"])
    assert set(files(tmp_path / "out")) == {f"sub/0{n}.png" for n in range(3)}
    # Compressed again, all is there, each under its own name.
    code, said = alone("compress", run, run.parent / "five", "-o", archive)
    assert code == 0 and said.startswith("5 images"), said
    assert alone("decompress", archive, "-o", tmp_path / "again")[0] == (0 if gone or listed else 8)
    assert set(files(tmp_path / "again")) == {f"sub/0{n}.png" for n in range(3)} | {f"0{n}.png" for n in range(5)}


def test_an_archive_all_of_which_is_damaged(archive: Path, tmp_path: Path) -> None:
    scramble(Archive.open(archive).parts[0])
    code, said = alone("decompress", archive, "-o", tmp_path / "out")
    assert code == 9 and refused(said, "No image of") and not (tmp_path / "out").exists()
    assert alone("verify", archive)[0] == 8


def test_a_part_of_another_model_costs_its_own_images(vector: Path, archive: Path, tmp_path: Path) -> None:
    assert alone("compress", vector, vector.parent / "images", "-o", tmp_path / "other")[0] == 0
    (part,) = Archive.open(tmp_path / "other").parts
    for path in (part, names_path(part)):
        shutil.copy(path, archive / "parts" / path.name.replace("00000", "00001"))
    for command, output in (("verify", []), ("decompress", ["-o", tmp_path / "out"]), ("info", []), ("preview", ["-o", tmp_path / "drawn"])):
        code, said = alone(command, archive, *output)
        assert code == 8 and "another model" in said and "5 images are whole" in said, said
    assert len(files(tmp_path / "out")) == len(files(tmp_path / "drawn")) == 5


@pytest.mark.parametrize("number", [0, 1])
def test_one_damaged_copy_of_the_model_costs_no_image_is_told_and_mended(run: Path, archive: Path, number: int) -> None:
    good = (archive / MODELS[number]).read_bytes()
    for harm in (lambda path: path.write_bytes(good[:-3] + b"x" + good[-2:]), lambda path: path.unlink()):
        harm(archive / MODELS[number])
        code, said = alone("verify", archive)
        assert code == 8 and "5 images are whole" in said and f"{MODELS[number]}: this copy of the model is" in said
        assert alone("compress", run, run.parent / "five", "-o", archive)[0] == 0
        assert (archive / MODELS[number]).read_bytes() == good and alone("verify", archive) == (0, "5 images are whole\n")


@pytest.mark.parametrize("harm", ["flipped", "cut", "text"])
def test_both_models_damaged_is_told(archive: Path, tmp_path: Path, harm: str) -> None:
    for n, name in enumerate(MODELS):
        data = bytearray((archive / name).read_bytes())
        data[-3 - n] ^= 1
        (archive / name).write_bytes(b"text" if harm == "text" else data[:-9] if harm == "cut" else data)
    for command, output in (("verify", []), ("decompress", ["-o", tmp_path / "out"]), ("info", []), ("preview", ["-o", tmp_path / "drawn"])):
        code, said = alone(command, archive, *output)
        assert code == 9 and refused(said, "model") and not (tmp_path / "out").exists(), said


def forged(archive: Path, names: dict[str, str]) -> None:
    """Add a part that holds images of the archive under other names, as its program would never write it."""
    its = Archive.open(archive)
    rows = [row for row in its.rows(streams=True) if isinstance(row, Row)]
    chosen = [(new, row) for old, new in names.items() for row in rows if row.about.name == old][: len(names)]
    write_part(its.new_part(0), [Row(About(new, *row.about[1:]), row.packed) for new, row in chosen], its.codec)


HOSTILE = [
    *("../evil.png", "../../evil.png", "sub/../../evil.png", "/vlae-evil.png", "", ".", "..", "sub//../../evil.png", "a/../b.png", "./c.png"),
    *("nul\0.png", "a" * 300 + ".png", "/".join(["b" * 200] * 30) + ".png", "sub//double.png", "00.png/inside.png", "00.png"),
]


@pytest.mark.parametrize("command", ["decompress", "preview"])
def test_hostile_names_never_lead_out_of_the_folder(run: Path, archive: Path, tmp_path: Path, command: str) -> None:
    its = Archive.open(archive)
    row = next(row for row in its.rows(streams=True) if isinstance(row, Row))
    write_part(its.new_part(0), [Row(About(name, *row.about[1:]), row.packed) for name in [*HOSTILE, "last.png"]], its.codec)
    inner = tmp_path / "deep" / "inside" / "out"
    before = {path for path in tmp_path.rglob("*") if inner not in path.parents}
    code, said = alone(command, archive, "-o", inner, "--json")
    assert code == 8 and "Traceback" not in said, said
    after = {path for path in tmp_path.rglob("*") if inner not in path.parents}
    assert after - before == {inner, inner.parent, inner.parent.parent} and not Path("/vlae-evil.png").exists()
    ending = "" if command == "decompress" else ".png"
    kept = {f"0{n}.png{ending}" for n in range(1, 5)} | {f"last.png{ending}", f"00.png/inside.png{ending}"}
    written = set(files(inner))
    assert kept <= written and len(written) == found(said)["images"]
    assert len(written - kept) == (1 if command == "decompress" else 2)  # 00.png, under another name: twice the same image
    if command == "decompress":
        assert all(is_back(run.parent / "five" / (name if name[1] in "1234" else "00.png"), inner / name) for name in written)
    assert all(path.suffix == ".png" for path in inner.rglob("*") if path.is_file())


def test_a_list_of_names_that_lies_misleads_nobody(run: Path, archive: Path, tmp_path: Path) -> None:
    part = Archive.open(archive).parts[0]
    for text in ('{"names": ["../../evil", "x"]}', '{"names": 3}', "[]", "\xff{"):
        names_path(part).write_text(text, encoding="latin-1")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert alone("decompress", archive, "-o", tmp_path / "out")[0] == 0 and set(files(tmp_path / "out")) == {f"0{n}.png" for n in range(5)}
        assert alone("verify", archive)[0] == 0


# What is told


def test_numbers_are_those_of_the_files(run: Path, archive: Path) -> None:
    (archive / "parts" / ".part-00009.parquet.0.part").write_bytes(b"left by a process that was killed")
    code, said = alone("info", archive, "--json")
    told, sizes = found(said), {path.name: path.stat().st_size for path in archive.rglob("*") if path.is_file()}
    images = list((run.parent / "five").iterdir())
    assert code == 0 and (told["images"], told["parts"], told["damaged"], told["encodings"]) == (5, 1, [], {"vlae": 5})
    assert told["archive_bytes"] == sum(size for name, size in sizes.items() if name.startswith("part-"))
    assert told["model_bytes"] == sum(sizes[name] for name in MODELS) and told["file_bytes"] == sum(path.stat().st_size for path in images)
    assert told["pixels"] == 5 * 32 * 32 and told["bits_per_pixel"] == 8 * told["archive_bytes"] / told["pixels"] and told["code_bits"] > 0
    assert "5 by the model" in alone("info", archive)[1]


def test_every_command_answers_json_with_its_counts(run: Path, archive: Path, tmp_path: Path) -> None:
    images = noises(tmp_path / "images", 7)
    (images / "torn.png").write_bytes((images / "00.png").read_bytes()[:60])
    code, said = alone("compress", run, images, "-o", archive, "--json")
    told = found(said)
    assert code == 8 and [told[name] for name in ("output", "images", "already", "deleted")] == [str(archive), 2, 5, 0]
    assert told["left_out"][0]["name"] == "torn.png" and told["encodings"] == {"vlae": 2} and told["pixels"] == 2 * 32 * 32
    assert (
        told["file_bytes"] == sum((images / name).stat().st_size for name in ("05.png", "06.png")) and 0 < told["stream_bytes"] < told["other_bytes"]
    )
    flip(archive, "06.png")
    code, said = alone("decompress", archive, "-o", tmp_path / "out", "--json")
    assert code == 8 and found(said)["images"] == 6 and found(said)["damaged"] == [{"name": "06.png", "reason": "its stream is damaged"}]
    code, said = alone("preview", archive, "-o", tmp_path / "drawn", "--limit", 2, "--json")
    assert code == 0 and found(said)["images"] == 2 and found(said)["left_out"] == [] and found(said)["code_bytes"] > 0
    assert found(alone("verify", archive, "--json")[1])["images"] == 6


def test_an_archive_is_the_same_wherever_it_is_made(run: Path, made: Path, tmp_path: Path) -> None:
    assert alone("compress", run, run.parent / "five", "-o", tmp_path / "again")[0] == 0
    ours, theirs = ({p.name.split("-")[-1][8:] or p.name: p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (made, tmp_path / "again"))
    assert ours == theirs


def test_previews_are_the_same_and_have_the_names_and_sizes(run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for n, size in enumerate([SIZE, (5, 3), (520, 9)]):
        noise(images / "sub" / f"{n}.png", size, n)
    assert alone("compress", run, images, "-o", tmp_path / "archive")[0] == 0
    for output in ("one", "two"):
        code, said = alone("preview", tmp_path / "archive", "-o", tmp_path / output)
        assert code == 0 and said.startswith("3 images"), said
    assert files(tmp_path / "one") == files(tmp_path / "two") and set(files(tmp_path / "one")) == {f"sub/{n}.png.png" for n in range(3)}
    for name in ("0.png", "1.png", "2.png"):
        shown, original = (read_exact(path) for path in (tmp_path / "one" / "sub" / f"{name}.png", images / "sub" / name))
        assert (shown.pixels.shape, shown.depth) == (original.pixels.shape, original.depth)


def test_a_code_that_is_none_is_told_and_the_others_are_drawn(archive: Path, tmp_path: Path) -> None:
    its = Archive.open(archive)
    row = next(row for row in its.rows(streams=True) if isinstance(row, Row))
    packed, stored = row.packed, row.packed.stored
    odd = [
        Row(row.about._replace(name="code.png"), type(packed)(stored, packed.code[:, :3], *[1.0, 1.0, 9])),
        Row(row.about._replace(name="size.png"), type(packed)(stored._replace(size=(2**30, 2**30)), packed.code, *[1.0, 1.0, 9])),
        Row(row.about._replace(name="none.png"), type(packed)(stored._replace(size=(0, 0)), packed.code, *[1.0, 1.0, 9])),
        Row(row.about._replace(name="form.png"), type(packed)(stored._replace(form=Form(7, 3)), packed.code, *[1.0, 1.0, 9])),
        Row(row.about._replace(name="zip.png"), type(packed)(stored._replace(encoding="zip"), packed.code[:0], *[1.0, 1.0, 9])),
    ]
    write_part(its.new_part(0), odd, its.codec)
    code, said = alone("preview", archive, "-o", tmp_path / "drawn", "--json")
    assert code == 8 and found(said)["images"] == 5 and len(found(said)["left_out"]) == 5 and len(files(tmp_path / "drawn")) == 5, said
    code, said = alone("decompress", archive, "-o", tmp_path / "out", "--json")
    assert code == 8 and len(found(said)["damaged"]) == 4 and len(files(tmp_path / "out")) == 6, said
    assert alone("verify", archive)[0] == 8 and alone("info", archive)[0] == 0


def test_a_model_with_a_vector_code_codes_images_of_its_size(vector: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for n, size in enumerate([(12, 12), (12, 12), (12, 13), (24, 24)]):
        picture(images / f"{n}.png", size, seed=n)
    Image.fromarray(random((12, 12, 3))).save(images / "colours.png")
    assert alone("compress", vector, images, "-o", tmp_path / "archive")[0] == 0
    with_code = {row.about.name for row in Archive.open(tmp_path / "archive").rows() if isinstance(row, Row) and row.packed.code.size}
    assert with_code == {"0.png", "1.png"}
    code, said = alone("preview", tmp_path / "archive", "-o", tmp_path / "drawn")
    assert code == 8 and set(files(tmp_path / "drawn")) == {"0.png.png", "1.png.png"} and "no code for images of this size" in said
    assert alone("decompress", tmp_path / "archive", "-o", tmp_path / "out")[0] == 0
    assert all(is_back(path, tmp_path / "out" / path.name) for path in images.iterdir())


def test_a_model_without_a_code_has_no_preview(run: Path, tmp_path: Path) -> None:
    words = [word for word in GRID if word.startswith(("keep.window", "model.width=", "model.pointwise", "train"))]
    code, said = vlae("train", run.parent / "images", "-o", tmp_path / "run", *words, "keep.code=none")
    assert code == 0, said
    code, said = alone("compress", tmp_path / "run", run.parent / "five", "-o", tmp_path / "archive")
    assert code == 0 and "5 by the model" in said, said
    code, said = alone("preview", tmp_path / "archive", "-o", tmp_path / "drawn")
    assert code == 2 and refused(said, "no code", "vlae decompress") and not (tmp_path / "drawn").exists()
    assert alone("verify", tmp_path / "archive")[0] == 0


@pytest.mark.parametrize("missing", ["google_crc32c", "pyarrow"])
def test_the_extra_is_named_where_it_is_missing(run: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name, *more))
    commands = [["compress", run, run.parent / "five"], ["decompress", made], ["preview", made], ["verify", made], ["info", made]]
    for command in commands:
        code, said = vlae(*command, *(["-o", tmp_path / "out"] if command[0] in ("compress", "decompress", "preview") else []))
        assert code == 5 and refused(said, "vlae[archive]", missing) and not (tmp_path / "out").exists()


def test_images_that_a_model_cannot_see_come_back_too() -> None:
    """Of a file that is written and read nothing is lost: what an archive keeps is an ``Exact``."""
    assert set(Exact._fields) - {"notes", "pixels", "depth"} <= set(About._fields)
