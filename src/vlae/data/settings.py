"""What a user can say about the images."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from vlae.errors import SettingError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class DataSettings(BaseModel):
    """Which images to learn from, how to see them, and how to split them.

    Errors: ``SettingError`` where two settings contradict each other; pydantic's ``ValidationError`` for a misspelt or malformed one.

    >>> DataSettings(folder="cells", size=(28, 28)).binarise
    'none'
    >>> DataSettings(folder="cells", binarise="dynamic", colour="rgb")
    Traceback (most recent call last):
    vlae.errors.SettingError: data.binarise is dynamic. Only grey images can be binarised. Found: data.colour rgb. Set data.colour to grey.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(description="A folder of images (also in the MVTec layout), or an .npz file of arrays.")
    manifest: Path | None = Field(
        None,
        description="A CSV or JSONL file that lists the images: a column name, file or image, and optionally label, mask, lot or day, "
        "split (train, validation, test); other columns of numbers are factors. Unset, manifest.csv, manifest.jsonl or labels.csv "
        "in the folder is taken; labels.csv only annotates, images that it does not name stay.",
    )
    colour: Literal["auto", "grey", "rgb"] = Field("auto", description="auto: grey where every image is grey, else RGB.")
    depth: Literal["auto", 1, 8, 16] = Field("auto", description="Bits of a pixel value. auto: the one depth that the images have.")
    binarise: Literal["none", "static", "dynamic"] = Field(
        "none", description="static: 1 where a grey value is at least half of white. dynamic: drawn anew for each batch, 1 with the probability v/255."
    )
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Height and width that every image is resized to by area averages (vector codes). Unset, images keep their sizes."
    )
    minimum: PositiveInt = Field(1, description="Images with a side shorter than this many pixels are left out.")
    max_pixels: PositiveInt = Field(100_000_000, description="Images with more pixels than this are left out without being decoded.")
    validation: float = Field(0.1, gt=0.0, lt=1.0, description="Share of images (or lots) held out for validation, where the source has no split.")
    test: Fraction = Field(0.1, description="Share of images (or lots) held out for the test, where the source has no split.")
    split_by: Literal["auto", "content", "lot"] = Field(
        "auto", description="content: by a hash of the pixels. lot: whole lots, by a hash of the lot's name. auto: lot where there are lots."
    )
    lot_block: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Images whose names follow one another form lots in blocks of this many (neighbours are alike: hold them out together)."
    )
    only_label: str | None = Field(
        None, description="Train and validate on images of this label alone (good, say); the images of other labels join the test images."
    )

    @model_validator(mode="after")
    def _agree(self) -> "DataSettings":
        if self.binarise != "none" and self.colour == "rgb":
            raise _clash(f"data.binarise is {self.binarise}", "Only grey images can be binarised", "data.colour rgb", "Set data.colour to grey")
        if self.depth in (1, 16) and self.colour == "rgb":
            raise _clash(f"data.depth is {self.depth}", "RGB images have 8 bits", "data.colour rgb", "Set data.depth to 8 or data.colour to grey")
        if self.binarise == "static" and self.depth in (8, 16):
            raise _clash("data.binarise is static", "Its result has 1 bit", f"data.depth {self.depth}", "Leave data.depth out")
        if self.binarise == "dynamic" and self.depth in (1, 16):
            raise _clash("data.binarise is dynamic", "It draws from 8-bit values", f"data.depth {self.depth}", "Set data.depth to 8")
        if self.lot_block is not None and self.split_by == "content":
            raise _clash("data.lot_block has no effect", "A split by content knows no lots", "data.split_by content", "Leave one of them out")
        if self.validation + self.test >= 1.0:
            raise _clash(
                "No image would be left to train on",
                "data.validation + data.test must be below 1",
                f"{self.validation} + {self.test}",
                "Lower one of them",
            )
        return self


def _clash(what: str, rule: str, found: str, do: str) -> SettingError:
    return SettingError(what, rule=rule, found=found, do=do)
