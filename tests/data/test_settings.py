import pytest
from pydantic import ValidationError

from vlae.data.settings import DataSettings
from vlae.errors import SettingError


def test_every_field_is_described():
    assert all(field.description for field in DataSettings.model_fields.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"binarise": "static", "colour": "rgb"},
        {"binarise": "dynamic", "colour": "rgb"},
        {"binarise": "static", "depth": 8},
        {"binarise": "dynamic", "depth": 16},
        {"binarise": "dynamic", "depth": 1},
        {"depth": 16, "colour": "rgb"},
        {"depth": 1, "colour": "rgb"},
        {"lot_block": 20, "split_by": "content"},
        {"validation": 0.6, "test": 0.4},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_errors(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong)).replace("lot_block", "data.lot_block")):
        DataSettings(folder="x", **wrong)


@pytest.mark.parametrize(
    "wrong", [{"folders": "y"}, {"size": (0, 3)}, {"depth": 4}, {"validation": 0.0}, {"lot_block": 1}, {"max_pixels": 0}], ids=str
)
def test_misspelt_and_malformed_settings_are_named(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DataSettings(folder="x", **wrong)


def test_settings_survive_json():
    settings = DataSettings(folder="x", manifest="m.csv", size=(28, 28), lot_block=20)
    assert DataSettings.model_validate_json(settings.model_dump_json()) == settings
