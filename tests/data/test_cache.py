import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from vlae.data import cache as cache_module
from vlae.data.cache import fingerprint, load, reopen
from vlae.data.settings import DataSettings
from vlae.errors import DataError, DiskError, SettingError

from .samples import fill, noise, save
from .test_read import REFUSED


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def open_set(folder: Path, **options: object):
    return load(DataSettings(folder=folder, **options), folder.parent / "cache")


def test_every_image_is_what_was_saved(folder):
    saved = [save(folder / f"{i}.png", noise(5 + i % 3, 7, seed=i)) for i in range(30)]
    images = open_set(folder)
    assert len(images) == 30 and images.names == tuple(path.name for path in saved)
    for i, path in enumerate(saved):
        assert np.array_equal(images.pixels(i)[..., 0], np.asarray(Image.open(path))) and images.shape(i) == images.pixels(i).shape
    assert sorted(np.concatenate([images.indices(name) for name in ("train", "validation", "test")])) == list(range(30))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_pixels_are_a_read_only_view_of_the_map(folder, dtype):
    for i in range(4):
        save(folder / f"{i}.png", noise(5, 7, seed=i, dtype=np.uint16 if dtype is np.uint16 else np.uint8) if dtype is not bool else bits(i))
    pixels = open_set(folder).pixels(2)
    assert not pixels.flags.writeable and pixels.base is not None and pixels.dtype == (np.uint16 if dtype == np.uint16 else np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_a_second_load_decodes_nothing(folder, monkeypatch):
    first = open_set(fill(folder, 10))
    monkeypatch.setattr(cache_module, "_build", lambda *_: pytest.fail("decoded again"))
    second = open_set(folder, validation=0.1)
    assert second.names == first.names and second.sha256 == first.sha256 and second.summary() == first.summary()
    assert open_set(folder, validation=0.5).split.tolist() != first.split.tolist()


@pytest.mark.parametrize("change", ["new image", "gone image", "touched", "setting", "index", "older format", "pixels", "a pixel", "manifest"])
def test_a_cache_that_does_not_fit_is_rebuilt(folder, change):
    cache = folder.parent / "cache"
    fill(folder, 10)
    open_set(folder)
    index = json.loads((cache / "index.json").read_text())
    (pixels,) = cache.glob("pixels-*.bin")
    options = {}
    match change:
        case "new image":
            fill(folder, 1, start=10)
        case "gone image":
            (folder / "img3.png").unlink()
        case "touched":
            save(folder / "img3.png", noise(8, 9, seed=77))
            os.utime(folder / "img3.png", ns=(1, 1))
        case "setting":
            options = {"size": (4, 4)}
        case "index":
            (cache / "index.json").write_text(json.dumps(index)[:-20])
        case "older format":
            (cache / "index.json").write_text(json.dumps(index | {"format": 0}))
        case "pixels":
            pixels.write_bytes(b"cut short")
        case "a pixel":
            change_one_byte(pixels)
        case "manifest":
            (folder / "manifest.csv").write_text("name\n" + "\n".join(f"img{i}.png" for i in range(8)))
    calls = []
    images = load(DataSettings(folder=folder, **options), cache, progress=lambda *done: calls.append(done))
    count = {"new image": 11, "gone image": 9, "manifest": 8}.get(change, 10)
    assert len(images) == count and calls[-1] == (count, count)
    assert sorted(path.suffix for path in cache.iterdir()) == [".bin", ".json"]
    if change == "touched":
        assert np.array_equal(images.pixels(3)[..., 0], noise(8, 9, seed=77))


def change_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_cache_is_reopened_without_the_files(folder):
    made = open_set(fill(folder, 10), validation=0.3)
    told, settings = fingerprint(folder.parent / "cache", made), DataSettings(folder=folder, validation=0.3)
    folder.rename(folder.parent / "elsewhere")
    again = reopen(settings, folder.parent / "cache", told)
    assert again is not None and again.summary() == made.summary() and again.split.tolist() == made.split.tolist()
    assert all(np.array_equal(again.pixels(i), made.pixels(i)) for i in range(10))


@pytest.mark.parametrize("name", ["index.json", "pixels-*.bin"])
@pytest.mark.parametrize("harm", [change_one_byte, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_cache_that_is_not_what_it_was_is_not_reopened(folder, name, harm):
    cache = folder.parent / "cache"
    told = fingerprint(cache, open_set(fill(folder, 10)))
    (path,) = cache.glob(name)
    harm(path)
    assert reopen(DataSettings(folder=folder), cache, told) is None


def test_the_cache_of_other_images_is_not_taken_for_this_one(folder):
    told = fingerprint(folder.parent / "cache", open_set(fill(folder, 10)))
    open_set(fill(folder, 1, start=10))
    assert reopen(DataSettings(folder=folder), folder.parent / "cache", told) is None


@pytest.mark.parametrize("change", [{"test": 0.6}, {"validation": 0.5}, {"only_label": "good"}, {"split_by": "lot"}])
def test_images_that_are_now_split_otherwise_are_not_reopened(folder, change):
    told = fingerprint(folder.parent / "cache", open_set(fill(folder, 20)))
    assert reopen(DataSettings(folder=folder), folder.parent / "cache", told) is not None
    assert reopen(DataSettings(folder=folder, **change), folder.parent / "cache", told) is None


def test_an_image_set_stays_readable_when_its_cache_is_replaced(folder):
    images = open_set(fill(folder, 5))
    before = images.pixels(4).copy()
    open_set(folder, size=(4, 4))
    assert np.array_equal(images.pixels(4), before)


class Stop(Exception):
    pass


def test_an_interrupted_build_leaves_nothing(folder):
    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        load(DataSettings(folder=fill(folder, 5)), folder.parent / "cache", progress=stop)
    assert list((folder.parent / "cache").iterdir()) == []


def test_a_killed_build_leaves_nothing_that_is_opened(folder):
    fill(folder, 5)
    body = f"""
import os, signal
from pathlib import Path
from vlae.data import cache
from vlae.data.settings import DataSettings
sync = os.fsync
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
cache.load(DataSettings(folder={str(folder)!r}), Path({str(folder.parent / "cache")!r}))
"""
    assert subprocess.run([sys.executable, "-c", body]).returncode == -signal.SIGKILL
    (part,) = (folder.parent / "cache").iterdir()
    os.utime(part, (0, 0))
    assert len(open_set(folder)) == 5 and not part.exists()


def test_a_disk_that_fills_up_is_a_disk_error(folder, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    fill(folder, 5)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        open_set(folder)
    assert list((folder.parent / "cache").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can make a folder")
def test_a_place_that_cannot_be_written_is_a_disk_error(folder):
    with pytest.raises(DiskError, match="cannot be written"):
        load(DataSettings(folder=fill(folder, 5)), Path("/proc/vlae"))


def test_what_cannot_be_used_is_left_out_with_the_reason_and_the_rest_goes_on(folder):
    fill(folder, 10)
    for i, (content, _) in enumerate(REFUSED.values()):
        (folder / f"wrong{i}.png").write_bytes(content)
    images = open_set(folder)
    assert len(images) == 10 and len(images.left_out) == len(REFUSED)
    for entry, (_, reason) in zip(images.left_out, REFUSED.values(), strict=True):
        assert not entry.harmless and entry.name.startswith("wrong")
        assert re.search(reason, entry.reason)


def test_small_images_are_left_out_on_demand_and_one_pixel_is_an_image(folder):
    fill(folder, 3)
    save(folder / "one.png", noise(1, 1))
    save(folder / "flat.png", noise(7, 30))
    assert len(open_set(folder)) == 5
    images = open_set(folder, minimum=8)
    assert len(images) == 3 and {entry.reason for entry in images.left_out} == {
        "1 x 1 pixels, smaller than data.minimum 8",
        "7 x 30 pixels, smaller than data.minimum 8",
    }


def test_duplicates_are_counted_and_kept_once(folder):
    fill(folder, 6)
    save(folder / "again.bmp", noise(8, 9, seed=1000))
    save(folder / "sub" / "once_more.png", noise(8, 9, seed=1000).repeat(3).reshape(8, 9, 3))
    images = open_set(folder)
    assert (len(images), images.duplicates) == (6, 2)


def test_a_published_test_set_stays_whole(folder):
    pixels = noise(30, 6, 6)
    np.savez(folder / "a.npz", train=pixels, test=pixels[:10])
    images = open_set(folder / "a.npz")
    assert (len(images), images.duplicates, len(images.indices("test"))) == (40, 10, 10)


def grey(i: int) -> np.ndarray:
    return noise(8, 9, seed=i)


def rgb(i: int) -> np.ndarray:
    return noise(8, 9, 3, seed=i)


def shows_grey(i: int) -> np.ndarray:
    return np.dstack([grey(i)] * 3)


def deep(i: int) -> np.ndarray:
    return noise(8, 9, seed=i, dtype=np.uint16)


def bits(i: int) -> np.ndarray:
    return grey(i) > 127


FORMS = {
    "grey": ([grey(0), grey(1)], {}, (8, 1, False), {}),
    "rgb": ([rgb(0), rgb(1)], {}, (8, 3, False), {}),
    "rgb that shows greys": ([shows_grey(0), grey(1)], {}, (8, 1, False), {"equal channels taken as grey": 1}),
    "grey and rgb": ([grey(0), rgb(0)], {}, (8, 3, False), {"grey to RGB": 1}),
    "rgb and rgb that shows greys": ([rgb(0), shows_grey(0)], {}, (8, 3, False), {}),
    "rgb as grey": ([rgb(0), rgb(1)], {"colour": "grey"}, (8, 1, False), {"RGB to grey": 2}),
    "grey as rgb": ([grey(0), grey(1)], {"colour": "rgb"}, (8, 3, False), {"grey to RGB": 2}),
    "16 bits": ([deep(0), deep(1)], {}, (16, 1, False), {}),
    "16 beside 8 as 8": ([deep(0), grey(0)], {"depth": 8}, (8, 1, False), {"16 to 8 bits": 1}),
    "16 beside 8 as 16": ([deep(0), grey(0)], {"depth": 16}, (16, 1, False), {"8 to 16 bits": 1}),
    "drawings": ([bits(0), bits(1)], {}, (1, 1, False), {}),
    "drawings beside grey": ([bits(0), grey(0)], {}, (8, 1, False), {"1 to 8 bits": 1}),
    "static": ([grey(0), grey(1)], {"binarise": "static"}, (1, 1, False), {"binarised at half of white": 2}),
    "depth 1": ([grey(0), bits(0)], {"depth": 1}, (1, 1, False), {"binarised at half of white": 1}),
    "16 bits to 1": ([deep(0), deep(1)], {"depth": 1}, (1, 1, False), {"binarised at half of white": 2}),
    "dynamic": ([grey(0), grey(1)], {"binarise": "dynamic"}, (1, 1, True), {}),
    "dynamic of 16 bits": ([deep(0), deep(1)], {"binarise": "dynamic", "depth": 8}, (1, 1, True), {"16 to 8 bits": 2}),
}


@pytest.mark.parametrize("saved, options, form, notes", FORMS.values(), ids=FORMS)
def test_all_images_are_brought_to_one_form_and_it_is_said(folder, saved, options, form, notes):
    for i, pixels in enumerate(saved):
        save(folder / f"{i}.png", pixels)
    images = open_set(folder, **options)
    assert (images.depth, images.channels, images.dynamic) == form and images.notes == notes
    assert all(images.pixels(i).max() < 2 ** (8 if images.dynamic else images.depth) for i in range(2))


@pytest.mark.parametrize(
    "saved, options, error, match",
    [
        ([deep(0), noise(8, 9)], {}, DataError, r"a1\.png has 8 bits, a0\.png has 16.*Set data\.depth"),
        ([deep(0), deep(1)], {"binarise": "dynamic"}, SettingError, "Set data.depth to 8"),
        ([bits(0), bits(1)], {"binarise": "static"}, SettingError, "images of 1 bit"),
        ([bits(0), bits(1)], {"binarise": "dynamic"}, SettingError, "images of 1 bit"),
        ([rgb(0), rgb(1)], {"binarise": "dynamic"}, DataError, "Set data.colour to grey"),
        ([rgb(0), rgb(1)], {"binarise": "static"}, DataError, "Set data.colour to grey"),
        ([rgb(0), rgb(1)], {"depth": 16}, DataError, "Set data.colour to grey"),
        ([deep(0), rgb(1)], {"depth": 16}, DataError, r"a0\.png is grey of 16 bits, a1\.png is RGB of 8 bits"),
        ([bits(0), bits(1)], {"colour": "rgb"}, DataError, "RGB images can only have 8 bits"),
    ],
)
def test_images_that_do_not_fit_together_or_the_settings(folder, saved, options, error, match):
    for i, pixels in enumerate(saved):
        save(folder / f"a{i}.png", pixels)
    with pytest.raises(error, match=match):
        open_set(folder, **options)


def test_dynamic_keeps_the_grey_values(folder):
    fill(folder, 4)
    grey, dynamic = open_set(folder).pixels(1).copy(), open_set(folder, binarise="dynamic")
    assert np.array_equal(dynamic.pixels(1), grey)


def test_one_size_for_vector_codes(folder):
    for i in range(4):
        save(folder / f"{i}.png", noise(20 + 10 * i, 30, seed=i))
        save(folder / f"b{i}.png", noise(10, 10, seed=i))
    images = open_set(folder, size=(10, 10))
    assert (images.sizes == 10).all() and images.notes == {"resized": 4}
    assert np.abs(images.pixels(0)[..., 0] - noise(20, 30).reshape(10, 2, 10, 3).mean(axis=(1, 3))).max() <= 0.51
    assert images.sha256 == open_set(folder).sha256  # and so the split does not depend on the size


def test_drawings_that_are_resized_stay_drawings(folder):
    for i in range(4):
        save(folder / f"{i}.png", noise(16, 16, seed=i) > 127)
    images = open_set(folder, size=(8, 8))
    share = (noise(16, 16) > 127).reshape(8, 2, 8, 2).mean(axis=(1, 3))
    assert images.depth == 1 and np.array_equal(images.pixels(0)[..., 0], share >= 0.5)


def test_masks_lie_beside_their_images(folder):
    for i in range(4):
        save(folder / f"{i}.png", noise(16, 12, seed=i))
    marked = noise(16, 12) // 200 * 255
    save(folder / "m" / "good.png", marked)
    save(folder / "m" / "small.png", noise(3, 3))
    (folder / "m" / "broken.png").write_bytes(b"broken")
    (folder / "labels.csv").write_text("name,mask\n0.png,m/good.png\n1.png,m/small.png\n2.png,m/broken.png\n")
    images = open_set(folder)
    assert np.array_equal(images.mask(0), marked > 0) and not images.mask(0).flags.writeable
    assert [images.mask(i) is None for i in range(4)] == [False, True, True, True]
    assert {(entry.name, entry.reason[:20]) for entry in images.left_out} == {
        ("mask of 1.png", "3 x 3 pixels, its im"),
        ("mask of 2.png", "not an image (PNG, J"),
    }
    halved = open_set(folder, size=(8, 6))
    assert np.array_equal(halved.mask(0), (marked > 0).reshape(8, 2, 6, 2).any(axis=(1, 3)))
    assert np.array_equal(halved.pixels(3).shape, (8, 6, 1))


def test_the_summary_is_json_and_says_what_happened(folder):
    fill(folder, 12)
    (folder / "broken.png").write_bytes(b"")
    (folder / "README.txt").write_text("text")
    save(folder / "wide.png", noise(10, 20))
    (folder / "labels.csv").write_text("name,label,lot,angle\n" + "\n".join(f"img{i}.png,good,lot {i // 2},{i}" for i in range(10)))
    images = open_set(folder)
    summary = json.loads(json.dumps(images.summary()))
    assert summary["images"] == 13 == sum(summary["splits"].values()) and summary["depth"] == 8
    assert summary["sizes"] == {"different": 2, "smallest": [8, 9], "largest": [10, 20], "most_frequent": [8, 9]}
    assert summary["labels"] == {"good": 10} and summary["lots"] == 5 and summary["factors"] == ["angle"]
    assert {entry["reason"]: (entry["names"], entry["harmless"]) for entry in summary["left_out"]} == {
        "not an image (PNG, JPEG, BMP, TIFF or WebP)": (["README.txt"], True),
        "empty file (0 bytes)": (["broken.png"], False),
    }
    assert np.array_equal(images.factors["angle"], [*range(10), np.nan, np.nan, np.nan], equal_nan=True)


def test_a_summary_stays_short(folder):
    fill(folder, 3)
    for i in range(50):
        (folder / f"note{i}.txt").write_text("text")
    (entry,) = open_set(folder).summary()["left_out"]
    assert entry["count"] == 50 and len(entry["names"]) == 20


def test_lots_by_blocks_of_names(folder):
    images = open_set(fill(folder, 60), lot_block=5)
    of = images.split.reshape(12, 5)
    assert (of == of[:, :1]).all() and len(set(images.lots)) == 12
    assert open_set(folder, lot_block=10).lots != images.lots


def missing(folder):
    return folder / "nothing"


def texts(folder):
    (folder / "a.txt").write_text("text")
    (folder / "b.png").write_text("text")
    return folder


def archive(folder):
    (folder / "a.zip").write_bytes(b"PK")
    return folder / "a.zip"


@pytest.mark.parametrize(
    "make, match", [(lambda folder: folder, "is empty"), (missing, "does not exist"), (texts, "2 x not an image"), (archive, "unpack it")]
)
def test_folders_without_images_are_data_errors(folder, make, match):
    with pytest.raises(DataError, match=match):
        open_set(make(folder))


def test_a_manifest_beside_an_npz_is_an_error(folder):
    np.savez(folder / "a.npz", images=noise(9, 4, 4))
    with pytest.raises(SettingError, match=r"data\.manifest"):
        open_set(folder / "a.npz", manifest="m.csv")


def test_a_16_bit_camera_folder_of_tiffs(folder):
    for i in range(5):
        tifffile.imwrite(folder / f"{i}.tif", noise(9, 7, seed=i, dtype=np.uint16) >> 4, photometric="minisblack")
    images = open_set(folder)
    assert images.depth == 16 and np.array_equal(images.pixels(4)[..., 0], noise(9, 7, seed=4, dtype=np.uint16) >> 4)


def test_an_unreadable_image_is_left_out(folder, monkeypatch):
    fill(folder, 4)
    real_open = open

    def refusing(path, *args, **kwargs):
        if str(path).endswith("img2.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refusing)
    images = open_set(folder)
    assert len(images) == 3 and [tuple(entry) for entry in images.left_out] == [("img2.png", "cannot be opened (Permission denied)", False)]


def test_the_spool_is_beside_the_cache_and_not_in_tmp(folder, monkeypatch):
    """A set larger than /tmp must not fill it."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert len(open_set(fill(folder, 4))) == 4
