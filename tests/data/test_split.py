import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlae.data.settings import DataSettings
from vlae.data.split import assign, position
from vlae.errors import DataError, SettingError


def split(sha256, lots=None, given=None, labels=None, **options):
    none = [None] * len(sha256)
    return assign(sha256, lots or none, given or none, labels or none, DataSettings(folder="x", **options))


def names(count, start=0):
    return [f"sha {i}" for i in range(start, start + count)]


@settings(max_examples=50)
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_images_added_and_shuffled_move_no_other(start, random):
    sha256 = names(100, start)
    few = sha256[:40]
    before = dict(zip(few, split(few, validation=0.3, test=0.3).of, strict=True))
    random.shuffle(sha256)
    after = dict(zip(sha256, split(sha256, validation=0.3, test=0.3).of, strict=True))
    assert {sha: after[sha] for sha in few} == before


def test_what_the_source_says_nothing_of_is_held_out_with_its_like():
    """Equal images and lots are not parted, but where the source itself does so."""
    sha256, given = [*names(40), "sha 0", "sha 1", "sha 2"], ["test", "validation", "train", *[None] * 37, None, None, "test"]
    of = split(sha256, given=given).of
    assert of[[0, 40]].tolist() == ["test"] * 2 and of[[1, 41]].tolist() == ["validation"] * 2 and of[[2, 42]].tolist() == ["train", "test"]
    lots = ["monday", "tuesday", *[f"day {n}" for n in range(38)], "monday", "tuesday", "monday"]
    of = split(names(43), lots=lots, given=[*given[:42], None]).of
    assert of[[0, 40, 42]].tolist() == ["test"] * 3 and of[[1, 41]].tolist() == ["validation"] * 2


def test_the_shares_are_met():
    of = split(names(20_000), validation=0.2, test=0.05).of
    assert abs((of == "validation").mean() - 0.2) < 0.01 and abs((of == "test").mean() - 0.05) < 0.01


def test_the_split_never_changes():
    """Runs hold their split only by this rule: another result would move held-out images into training."""
    assert [round(position(group), 6) for group in ("lot a", "image 00", "image \u00e9")] == [0.204964, 0.065997, 0.854231]


def test_identical_images_are_never_parted():
    of = split(names(500) * 2, validation=0.4, test=0.2).of
    assert np.array_equal(of[:500], of[500:])


def test_whole_lots_are_held_out():
    lots = [f"lot {i // 10}" for i in range(1000)]
    result = split(names(1000), lots=lots, validation=0.2, test=0.2)
    assert all(len({of for of, lot in zip(result.of, lots, strict=True) if lot == one}) == 1 for one in set(lots))
    assert len(set(result.of)) == 3 and "lot" in result.rule
    assert "lot" not in split(names(1000), lots=lots, split_by="content").rule


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.4])
@pytest.mark.parametrize("count, parts", [(2, ["train", "validation"]), (3, ["test", "train", "validation"]), (4, ["test", "train", "validation"])])
def test_few_images_are_split_too(count, parts, share):
    for start in range(0, 400, 4):
        assert sorted(set(split(names(count, start), validation=share, test=share).of)) == parts


@pytest.mark.parametrize("given, parts", [(["test", None, None], "test train validation"), (["validation", None, None], "test train validation")])
def test_few_training_images_of_a_given_split(given, parts):
    for start in range(0, 300, 3):
        assert sorted(split(names(3, start), given=given).of) == parts.split()


def test_validation_images_are_pooled_with_the_training_images_and_the_test_images_stay():
    given = ["train"] * 3000 + ["validation"] * 2000 + ["test"] * 1000
    result = split(names(6000), given=given, pool_validation=True, validation=0.04)
    assert (result.of[:5000] != "test").all() and (result.of[5000:] == "test").all()
    for part in (slice(3000), slice(3000, 5000)):
        assert abs((result.of[part] == "validation").mean() - 0.04) < 0.015
    lots = [f"lot {n // 20}" for n in range(6000)]
    by_lot = split(names(6000), lots=lots, given=given, pool_validation=True, split_by="lot").of[:5000].reshape(-1, 20)
    assert (by_lot == by_lot[:, :1]).all(), "a lot is not parted"
    assert "4% validation" in result.rule and "training and validation images" in result.rule
    with pytest.raises(SettingError, match="pool_validation"):
        split(names(9), given=["train"] * 6 + ["test"] * 3, pool_validation=True)


def test_no_test_images_where_none_are_wanted():
    assert set(split(names(100), test=0.0).of) == {"train", "validation"}


def test_the_split_of_the_source_is_kept():
    given = ["train"] * 50 + ["validation"] * 20 + ["test"] * 30
    result = split(names(100), given=given)
    assert result.of.tolist() == given and result.rule == "given by the source"


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_what_the_source_does_not_give_is_taken_out_of_its_training_images(missing):
    other = {"validation": "test", "test": "validation"}[missing]
    given = [other] * 30 + ["train"] * 100 + [None] * 100
    of = split(names(230), given=given, validation=0.2, test=0.2).of
    assert set(of[:30]) == {other} and set(of[30:]) == {"train", missing}


def test_images_of_other_labels_become_test_images():
    labels = (["good"] * 9 + ["bad"]) * 50
    result = split(names(500), labels=labels, only_label="good")
    bad = np.array(labels) == "bad"
    assert set(result.of[bad]) == {"test"} and set(result.of[~bad]) == {"train", "validation", "test"} and "good" in result.rule


@pytest.mark.parametrize(
    "options, given, match",
    [
        ({"split_by": "lot"}, None, "no lots"),
        ({"split_by": "content"}, ["train", "validation", "test"], "split_by"),
        ({"lot_block": 2}, ["train", "validation", "test"], "lot_block"),
        ({"only_label": "good"}, None, "no labels"),
    ],
)
def test_settings_without_effect_are_errors(options, given, match):
    with pytest.raises(SettingError, match=match):
        split(names(3), given=given, **options)


def test_an_unknown_label_names_the_known_ones():
    with pytest.raises(SettingError, match="bad, fine"):
        split(names(3), labels=["fine", "bad", None], only_label="good")


@pytest.mark.parametrize("given", [[None], ["test"] * 3, ["test", "test", "train"]])
def test_an_empty_part_is_a_data_error_that_says_what_to_do(given):
    with pytest.raises(DataError, match=r"data\.validation"):
        split(names(len(given)), given=given)
