"""All that a stream is read with: a decoder's integer twin and the codebook of its codes, as a file that is the same wherever it is made."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vlae.archive.codebook import Codebook
from vlae.archive.mixture import WholeHead
from vlae.archive.twin import Twin, blank
from vlae.core.encoder import GridMap, VectorMap
from vlae.core.plan import DecoderPlan
from vlae.data.form import Form
from vlae.errors import ArchiveError

Words = npt.NDArray[np.uint32]
"""what a range coder writes"""
FORMAT = 2
"""In format 1 the sums of all outputs of a gate's half had one scale."""
_LARGEST_SIZE, _LARGEST_COUNT, _LARGEST_SEEN, _FINEST = 8192, 64, 2**18, 30
_PLAN = TypeAdapter(DecoderPlan)


@dataclass(frozen=True, eq=False)
class Codec:
    """What the streams of an archive are written and read with."""

    plan: DecoderPlan
    twin: Twin
    codebook: Codebook | None
    """None for a decoder without a code"""
    weights: str
    """the SHA-256 of the weights that it was made of"""

    @cached_property
    def data(self) -> bytes:
        """The file: whole numbers in as few bytes as they need, in a fixed order."""
        tensors = dict(self.twin.state_dict())
        if self.codebook:
            tensors |= {f"codebook.{name}": values for name, values in vars(self.codebook).items()}
        steps = {name for name in tensors if name.rpartition(".")[2] in ("step", "steps") and not name.startswith("codebook")}
        small = {name: t.double() if name in steps else _small(t) for name, t in tensors.items()}
        head = self.twin.head
        told = {"plan": asdict(self.plan), "fraction": self.twin.fraction, "weights": self.weights}
        told["prediction_shift"] = head.prediction_shift if isinstance(head, WholeHead) else 0
        return save(small, {"codec": json.dumps({"format": FORMAT, **told}, sort_keys=True)})

    @property
    def key(self) -> str:
        """What it is known by: the SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @classmethod
    def read(cls, data: bytes) -> "Codec":
        """The codec of a file.

        Raises:
            ArchiveError: the file is damaged, foreign or of a newer format.
        """
        try:
            told, tensors = _told(data), load(data)
            if told["format"] > FORMAT:
                raise ArchiveError("This archive was written by a newer version", found=f"format {told['format']}", do="Update vlae")
            plan, fraction, shift = _checked(_PLAN.validate_python(told["plan"]), len(data)), int(told["fraction"]), int(told["prediction_shift"])
            if not (0 <= fraction <= _FINEST and abs(shift) <= _FINEST):
                raise ValueError("its steps are none of ours")
            twin = blank(plan.decoder(), fraction)
            if isinstance(twin.head, WholeHead):
                twin.head = replace(twin.head, prediction_shift=shift)
            columns = {name.removeprefix("codebook."): tensors.pop(name).long() for name in list(tensors) if name.startswith("codebook.")}
            twin.load_state_dict({name: t.to(twin.dtype) for name, t in tensors.items()})
            codec = cls(plan, twin, Codebook(**columns) if columns else None, str(told["weights"]))
            codec.__dict__["data"] = data  # it is known by what was written, however a later version would write it
            return codec
        except (SafetensorError, ValidationError, ValueError, LookupError, ArithmeticError, TypeError, RuntimeError, AssertionError) as error:
            raise ArchiveError("The model of this archive is damaged", found=(str(error).splitlines() or [""])[0]) from None

    def code_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of the code of an image of this size; (0,) without a code."""
        if isinstance(self.twin.code_map, VectorMap):
            return (self.plan.dims,)
        return (self.plan.dims, *self.plan.pyramid.grid(*size)) if isinstance(self.twin.code_map, GridMap) else (0,)

    @property
    def form(self) -> Form:
        """Depth and channels of the images that it codes."""
        return Form(self.plan.levels.bit_length() - 1, self.plan.colours)

    @property
    def any_size(self) -> bool:
        """Whether it codes images of any size."""
        return self.plan.code != "vector" and self.plan.window != "all"

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether it codes images of this size."""
        return self.any_size or size == self.plan.image


def _small(values: Tensor) -> Tensor:
    """Whole numbers in the smallest type that holds them."""
    assert torch.equal(values, values.round())
    most = int(values.abs().max()) if values.numel() else 0
    return values.to(torch.int8 if most < 2**7 else torch.int16 if most < 2**15 else torch.int32 if most < 2**31 else torch.int64)


def _told(data: bytes) -> dict[str, Any]:
    """What the header of a safetensors file tells of the codec."""
    size = int.from_bytes(data[:8], "little")
    told: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["codec"])
    return told


def _checked(plan: DecoderPlan, size: int) -> DecoderPlan:
    """A plan that is no larger than any of ours, nor than its file: a foreign one must not fill the memory."""
    sizes = [plan.dims, plan.hidden, plan.map_channels, plan.width, *plan.widths, *(plan.image or ())]
    counts = [plan.pointwise, plan.components, len(plan.widths), len(plan.blocks), *plan.blocks]
    known = (plan.levels, plan.colours) in ((2, 1), (256, 1), (256, 3), (65536, 1))
    if not known or not all(0 <= n <= _LARGEST_SIZE for n in sizes) or not all(0 <= n <= _LARGEST_COUNT for n in counts):
        raise ValueError("it is larger than any model of ours")
    if plan.window == "all" and math.prod(plan.image or ()) > _LARGEST_SEEN:
        raise ValueError("it sees more than any model of ours")
    with torch.device("meta"):  # each weight has a byte at least; here they come with the lengths of their rows
        if sum(p.numel() for p in plan.decoder().parameters()) > 2 * size:
            raise ValueError("it has more weights than its file has room for")
    return plan
