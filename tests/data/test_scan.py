from pathlib import Path

import numpy as np
import pytest

from vlae.data.listing import list_files
from vlae.data.scan import scan_folder
from vlae.data.settings import DataSettings
from vlae.data.source import LeftOut, with_block_lots
from vlae.errors import DataError, SettingError

from .samples import fill, noise, save


def scan(folder: Path, **options: object):
    return scan_folder(DataSettings(folder=folder, **options), list_files(folder, Path("/nowhere")))


def test_other_files_are_no_error_and_are_counted(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "README.txt").write_text("about these images")
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    (tmp_path / "text.png").write_text("a text that claims to be an image")
    save(tmp_path / "b.png", noise(3, 3)).rename(tmp_path / "image_without_suffix")
    source = scan(tmp_path)
    assert [item.name for item in source.items] == ["image_without_suffix", "img0.png", "img1.png", "text.png"]
    assert {(name, harmless) for name, _, harmless in source.left_out} == {("README.txt", True), ("labels.csv", True)}


def test_a_manifest_lists_the_images(tmp_path):
    fill(tmp_path / "sub", 4)
    save(tmp_path / "masks" / "m.png", np.full((8, 9), 255, np.uint8))
    (tmp_path / "manifest.csv").write_text(
        "file,label,mask,day,split,angle\nsub/img2.png,bad,masks/m.png,mon,test,1.5\nsub/img0,good,,tue,train,\n"
        "sub/img2.png,twice,,,,\nsub/img9.png,,,,,\n../x.png,,,,,\nsub/img3.png,,gone.png,,,\n"
    )
    source = scan(tmp_path)
    assert [(item.name, item.label, item.lot, item.split, dict(item.factors)) for item in source.items] == [
        ("sub/img0.png", "good", "tue", "train", {}),
        ("sub/img2.png", "bad", "mon", "test", {"angle": 1.5}),
        ("sub/img3.png", None, None, None, {}),
    ]
    assert source.items[1].mask().all() and source.items[0].mask is None and source.items[2].mask is None
    assert sorted(source.left_out) == [
        LeftOut("../x.png", "manifest.csv leads out of the folder"),
        LeftOut("gone.png", "named in manifest.csv, but not in the folder"),
        LeftOut("sub/img1.png", "not named in manifest.csv", harmless=True),
        LeftOut("sub/img2.png", "named again in manifest.csv", harmless=True),
        LeftOut("sub/img9.png", "named in manifest.csv, but not in the folder"),
    ]
    assert source.notes == {"in manifest.csv under another suffix": 1}


def test_a_manifest_elsewhere_is_relative_to_the_folder_or_to_itself(tmp_path):
    fill(tmp_path / "data", 3)
    (tmp_path / "m.jsonl").write_text('{"image": "img0.png"}\n{"image": "data/img2.png"}\n')
    source = scan(tmp_path / "data", manifest=tmp_path / "m.jsonl")
    assert [item.name for item in source.items] == ["img0.png", "img2.png"]


def test_a_manifest_cannot_reach_a_file_outside(tmp_path):
    fill(tmp_path, 1)
    fill(tmp_path / "data", 1)
    (tmp_path / "m.csv").write_text("name\nimg0.png\n../img0.png\n" + str(tmp_path / "img0.png"))
    source = scan(tmp_path / "data", manifest=tmp_path / "m.csv")
    assert [item.name for item in source.items] == ["img0.png"]
    assert len([entry for entry in source.left_out if "leads out" in entry.reason]) == 2


def test_labels_annotate_and_their_masks_are_no_images(tmp_path):
    fill(tmp_path, 3)
    save(tmp_path / "m.png", np.zeros((8, 9), np.uint8))
    (tmp_path / "labels.csv").write_text("name,label,mask\nimg1.jpeg,bad,m.png\nimg7.png,good,\n")
    source = scan(tmp_path)
    assert [(item.name, item.label) for item in source.items] == [("img0.png", None), ("img1.png", "bad"), ("img2.png", None)]
    assert source.left_out == (LeftOut("img7.png", "named in labels.csv, but not in the folder", harmless=True),)
    assert not source.items[1].mask().any()


@pytest.mark.parametrize("name", ["manifest.csv", "labels.csv"])
def test_a_table_that_names_only_missing_images_is_a_data_error(tmp_path, name):
    fill(tmp_path, 2)
    (tmp_path / name).write_text("name\nx1.png\nx2.png\n")
    with pytest.raises(DataError, match=r"2 rows, x1\.png, x2\.png first"):
        scan(tmp_path)


def test_a_manifest_without_names_is_a_data_error(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "manifest.csv").write_text("label\ngood\n")
    with pytest.raises(DataError, match="name, file, image"):
        scan(tmp_path)


def test_a_manifest_that_is_absent_is_a_data_error(tmp_path):
    fill(tmp_path, 2)
    with pytest.raises(DataError, match="No such file"):
        scan(tmp_path, manifest=tmp_path / "m.csv")


def test_the_mvtec_layout(tmp_path):
    fill(tmp_path / "train" / "good", 2)
    fill(tmp_path / "test" / "good", 1)
    fill(tmp_path / "test" / "scratch", 2)
    mask = noise(8, 9) // 128 * 255
    save(tmp_path / "ground_truth" / "scratch" / "img1_mask.png", mask)
    (tmp_path / "license.txt").write_text("free")
    save(tmp_path / "cover.png", noise(8, 9))
    source = scan(tmp_path)
    assert [(item.name, item.split, item.label) for item in source.items] == [
        ("test/good/img0.png", "test", "good"),
        ("test/scratch/img0.png", "test", "scratch"),
        ("test/scratch/img1.png", "test", "scratch"),
        ("train/good/img0.png", "train", "good"),
        ("train/good/img1.png", "train", "good"),
    ]
    assert [item.mask is not None for item in source.items] == [False, False, True, False, False]
    assert np.array_equal(source.items[2].mask(), mask > 0)
    assert {name for name, _, harmless in source.left_out if harmless} == {"license.txt", "cover.png"}


def test_a_folder_of_several_mvtec_sets_is_a_data_error(tmp_path):
    for name in ("bottle", "cable"):
        fill(tmp_path / name / "train" / "good", 1)
    with pytest.raises(DataError, match=r"Found: bottle, cable.*Set data\.folder to .*bottle"):
        scan(tmp_path)


def test_blocks_of_consecutive_names_are_lots(tmp_path):
    source = with_block_lots(scan(fill(tmp_path, 12)), 5)
    assert [item.lot for item in source.items] == ["block 00000"] * 5 + ["block 00001"] * 5 + ["block 00002"] * 2
    with pytest.raises(SettingError, match="lot_block"):
        with_block_lots(source, 5)
