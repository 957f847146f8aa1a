"""What a user can say about the images."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from vlae.errors import SettingError


class DataSettings(BaseModel):
    """Which images to learn from, how to see them, and how to split them.

    Errors: ``SettingError`` where two settings contradict each other; pydantic's ``ValidationError`` for a misspelt or malformed one.

    >>> DataSettings(folder="cells", size=(28, 28)).binarise
    'none'
    >>> DataSettings(folder="cells", binarise="dynamic", colour="rgb")
    Traceback (most recent call last):
    vlae.errors.SettingError: data.binarise is dynamic. Only grey images can be binarised. Found: data.colour rgb. Change one of the two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(
        description="A folder of images (also in the MVTec layout), or an .npz file of arrays. A relative one that is not there is looked for "
        "in the folder that the environment variable VLAE_DATA names."
    )
    manifest: Path | None = Field(
        None,
        description="A CSV or JSONL file that lists the images: a column name, file or image, and optionally label, mask, lot or day, "
        "split (train, validation, test); other columns of numbers are factors. Unset, manifest.csv, manifest.jsonl or labels.csv "
        "in the folder is taken; labels.csv only annotates, images that it does not name stay.",
    )
    colour: Literal["auto", "grey", "rgb"] = Field("auto", description="auto: grey where every image is grey, else RGB.")
    depth: Literal["auto", 1, 8, 16] = Field("auto", description="Bits of a pixel value. auto: the one depth that the images have.")
    binarise: Literal["none", "static", "dynamic"] = Field(
        "none",
        description="static: 1 where a grey value is at least half of white. "
        "dynamic: drawn anew for each batch, 1 with the probability v/255. Images of 1 bit need neither.",
    )
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Height and width that every image is resized to by area averages (vector codes). Unset, images keep their sizes."
    )
    minimum: PositiveInt = Field(1, description="Images with a side shorter than this many pixels are left out.")
    max_pixels: PositiveInt = Field(100_000_000, description="Images with more pixels than this are left out without being decoded.")
    validation: float = Field(0.1, gt=0.0, lt=1.0, description="Share of images, or of lots, for validation; where the source gives none.")
    test: float = Field(0.1, ge=0.0, lt=1.0, description="Share of images, or of lots, for the test; where the source gives none.")
    pool_validation: bool | None = Field(
        None,
        description="Train on the validation images that the source gives, too, but for the share data.validation of both: for a last training, "
        "when everything is chosen.",
    )
    split_by: Literal["auto", "content", "lot"] = Field(
        "auto",
        description="content: by a hash of the pixels. lot: whole lots, by a hash of the lot's name. auto: by lot where there are lots.",
    )
    lot_block: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Blocks of this many images whose names follow one another form lots: where neighbours come from one part or one hour, "
        "a split by content would test on what was trained on.",
    )
    only_label: str | None = Field(
        None, description="Train and validate on images of this label alone (good, say); the images of other labels become test images."
    )

    @property
    def found(self) -> "DataSettings":
        """The same with the folder where it is: as given, or in that of ``VLAE_DATA``."""
        shared = os.environ.get("VLAE_DATA")
        if self.folder.exists() or self.folder.is_absolute() or not shared or not (Path(shared) / self.folder).exists():
            return self
        return self.model_copy(update={"folder": Path(shared) / self.folder})

    @model_validator(mode="after")
    def _agree(self) -> "DataSettings":
        """Refuse settings that contradict each other."""
        binarise, colour, depth = self.binarise, self.colour, self.depth
        rules = (
            (
                binarise != "none" and colour == "rgb",
                f"data.binarise is {binarise}",
                "Only grey images can be binarised",
                "data.colour rgb",
            ),
            (depth in (1, 16) and colour == "rgb", f"data.depth is {depth}", "RGB images have 8 bits", "data.colour rgb"),
            (binarise == "static" and depth in (8, 16), "data.binarise is static", "Its result has 1 bit", f"data.depth {depth}"),
            (binarise == "dynamic" and depth in (1, 16), "data.binarise is dynamic", "It draws from 8-bit values", f"data.depth {depth}"),
            (self.lot_block and self.split_by == "content", "data.lot_block is set", "It is for a split by lot", "data.split_by content"),
        )
        for broken, what, rule, found in rules:
            if broken:
                raise SettingError(what, rule=rule, found=found, do="Change one of the two")
        if self.validation + self.test >= 1.0:
            rule = "data.validation and data.test together stay below 1"
            raise SettingError("No image would be left to train on", rule=rule, found=f"{self.validation} + {self.test}", do="Lower one of them")
        return self
