"""The one form, depth and channels, that all images of a set are brought to."""

from collections.abc import Sequence
from typing import NamedTuple

from vlae.data.convert import to_depth, to_grey
from vlae.data.read import Pixels
from vlae.data.settings import DataSettings
from vlae.errors import DataError, SettingError


class Form(NamedTuple):
    """``depth`` 1, 8 or 16 bits a value, ``channels`` 1 or 3."""

    depth: int
    channels: int


def common_form(found: Sequence[tuple[str, Form]], settings: DataSettings) -> Form:
    """Decide the form of the cache from the names and forms of all images.

    Errors: ``DataError`` where the images do not agree and a setting has to decide, ``SettingError`` for a setting that cannot be honoured.
    """
    examples: dict[Form, str] = {}
    for name, form in found:
        examples.setdefault(form, name)
    channels = {"grey": 1, "rgb": 3, "auto": max(form.channels for form in examples)}[settings.colour]
    depth = _depth(examples, settings)
    if channels == 3 and (depth != 8 or settings.binarise == "dynamic"):
        raise DataError(
            "RGB images can only have 8 bits a value",
            rule="Images of 1 or 16 bits, and those to binarise, are grey",
            found=", ".join(f"{name} {_words(form)}" for form, name in examples.items()),
            do="Set data.colour to grey, or leave data.binarise and data.depth out",
        )
    return Form(depth, channels)


def convert(pixels: Pixels, source: Form, target: Form) -> tuple[Pixels, tuple[str, ...]]:
    """Bring one image to the common form, and say what was done."""
    notes: tuple[str, ...] = ()
    if source.channels > target.channels:
        pixels, notes = to_grey(pixels), ("RGB to grey",)
    if source.depth != target.depth:
        pixels = to_depth(pixels, source.depth, target.depth)
        notes += ("binarised at half of white" if target.depth == 1 else f"{source.depth} to {target.depth} bits",)
    if source.channels < target.channels:
        pixels, notes = pixels.repeat(3, axis=2), (*notes, "grey to RGB")
    return pixels, notes


def _depth(examples: dict[Form, str], settings: DataSettings) -> int:
    names = {form.depth: name for form, name in examples.items()}
    if settings.binarise != "none" and names.keys() == {1}:
        raise SettingError(
            f"data.binarise is {settings.binarise}", rule="It is for grey images", found="images of 1 bit", do="Set data.binarise to none"
        )
    if settings.depth != "auto":
        return settings.depth
    if settings.binarise == "static":
        return 1
    if settings.binarise == "dynamic" and 16 in names:
        found = f"{names[16]} has 16 bits"
        raise SettingError("data.binarise is dynamic", rule="It draws from 8-bit values", found=found, do="Set data.depth to 8")
    if {8, 16} <= names.keys():
        raise DataError(
            "The images have different depths",
            rule="All images of a set have 8 bits, or all have 16",
            found=f"{names[8]} has 8 bits, {names[16]} has 16",
            do="Set data.depth to 8 or 16, and all are converted",
        )
    return max(names)


def _words(form: Form) -> str:
    return f"is {'grey' if form.channels == 1 else 'RGB'} of {form.depth} bit{'s' * (form.depth > 1)}"
