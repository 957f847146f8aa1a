"""A causal network: layers of taps, evaluated for all pixels at once. ``wavefront`` evaluates the same network pixel by pixel.

B batch, C width, H and W height and width, K channels of the image, M channels of the code map, P predicted channels.
"""

from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from vlae.core.layers import Conv, TapConv, TapGrid, channels_last, full_precision, lowered
from vlae.core.taps import Layer, Layers, Reads

Conditioning = Literal["layers", "input"]


class Seen(NamedTuple):
    """What a causal network knows about each pixel before it is written."""

    features: Tensor
    """The last layer's values, (B, C, H, W); the code map itself where there is no layer."""
    prediction: Tensor | None
    """The linear prediction from the window, (B, P, H, W)."""


class CausalNet(nn.Module):
    """Layers of taps over an image, conditioned on a map of the code: ``h = h_residual + glu(sum W h + C m + b)``.

    Gates are linear (Dauphin et al. 2017, arXiv:1612.08083): one pass over memory, and no value is squashed on its way.

    Args:
        layers: what each layer reads; with none the network hands on the code map.
        inputs: channels of the image.
        width: channels of every learned layer.
        code: channels of the code map, 0 for none.
        condition: ``layers``, the code map enters every layer (van den Oord et al. 2016, arXiv:1606.05328, equation 5), or ``input``, only
            those that read the image or its context, as if it were concatenated with them (the paper's binary models).
        predictor: what a linear prediction of ``inputs`` channels reads, None for no prediction.
        members: so many networks, among whom the width is shared out, know nothing of each other: an ensemble (Lakshminarayanan et al. 2017,
            arXiv:1612.01474).
    """

    def __init__(
        self,
        layers: Layers,
        inputs: int,
        width: int,
        code: int = 0,
        condition: Conditioning = "layers",
        predictor: Reads | None = None,
        members: int = 1,
    ) -> None:
        super().__init__()
        self.layers, self.inputs, self.width, self.members = layers, inputs, width, members
        self.fixed = [layer.fixed is not None for layer in layers]
        self.convs: Sequence[Sequence[TapConv]] = nn.ModuleList(  # type: ignore[assignment]
            nn.ModuleList(self._conv(r) for r in layer.reads if not layer.fixed) for layer in layers
        )
        reads_code = [code > 0 and not layer.fixed and (condition == "layers" or self._reads_context(layer)) for layer in layers]
        self.conditions = nn.ModuleDict({str(n): Conv(code, 2 * width, kernel=1) for n, reads in enumerate(reads_code) if reads})
        self.gate = Gate()
        self.predictor = predictor
        self.prediction = nn.Parameter(torch.zeros(inputs, inputs, len(predictor.taps))) if predictor else None

    def tie(self) -> None:
        """Tie layers that read the same pattern of taps, near or far apart: they share directions of weights, not lengths and biases.

        The paper ties its layers on static MNIST, to overfit less (Chen et al. 2017, arXiv:1611.02731, appendix).

        >>> from vlae.core.window import Window
        >>> net = CausalNet(Window.of("stack6").layers, inputs=1, width=8)
        >>> free = sum(p.numel() for p in net.parameters())
        >>> net.tie()
        >>> free, sum(p.numel() for p in net.parameters())
        (3456, 896)
        """
        first: dict[tuple[int, ...], TapConv] = {}
        for layer, convs in zip(self.layers, self.convs, strict=True):
            for place, (read, conv) in enumerate(zip(layer.reads, convs, strict=False)):  # a fixed layer has none to learn
                pattern = place, conv.grid.height, conv.grid.width, *conv.grid.cells
                if not self._is_context(read.source) and (alike := first.setdefault(pattern, conv)) is not conv:
                    conv.turn_with(alike)

    def channels(self, source: int) -> int:
        """How many channels a source has: those of the image for it and its contexts, else the width."""
        return self.inputs if self._is_context(source) else self.width

    def _conv(self, read: Reads) -> TapConv:
        shared = self._is_context(read.source)
        conv = TapConv(self.channels(read.source), 2 * self.width, read.taps, exact=shared)
        if self.members > 1 and not shared:
            conv.part(self.members)
        return conv

    def _is_context(self, source: int) -> bool:
        return source == 0 or self.fixed[source - 1]

    def _reads_context(self, layer: Layer) -> bool:
        return any(self._is_context(r.source) for r in layer.reads)

    def matrix(self, number: int, coded: bool, member: int | None = None) -> tuple[Float[Tensor, "n D"], Float[Tensor, " D"]]:
        """All weights of learned layer ``number`` (from 0), tap by tap, then those of the code where it is told, for each of its sums; the biases.

        Of one ``member`` only those of its own sums, for what it reads.
        """
        told = coded and str(number) in self.conditions
        convs = [*self.convs[number], *([cast(Conv, self.conditions[str(number)])] if told else [])]
        weights, bias = [conv.weight().flatten(2) for conv in convs], torch.stack([conv.b for conv in convs]).sum(0)
        if member is not None:
            weights = [self._of_sums(w, member) for w in weights]
            weights = [w if conv.own is None else w.chunk(self.members, dim=1)[member] for w, conv in zip(weights, convs, strict=True)]
            bias = self._of_sums(bias, member)
        return torch.cat([w.permute(2, 1, 0).flatten(0, 1) for w in weights]), bias

    def _of_sums(self, values: Float[Tensor, "D ..."], member: int) -> Float[Tensor, "d ..."]:
        """What belongs to the sums of a member: of either half of the channels its part."""
        return values.unflatten(0, (2, self.members, -1))[:, member].flatten(0, 1)

    def condition(self, number: int, code: Float[Tensor, "B M H W"] | None) -> Float[Tensor, "B D H W"] | None:
        """What the code map adds to layer ``number`` (from 0) before its gate; None where it adds nothing."""
        return self.conditions[str(number)](code) if code is not None and str(number) in self.conditions else None

    def forward(self, image: Float[Tensor, "B K H W"], code: Float[Tensor, "B M H W"] | None = None) -> Seen:
        """What is known about every pixel: it depends on the window before the pixel, and on the code map."""
        if not self.layers:
            assert code is not None, "a decoder that sees nothing needs a code"
            return Seen(code, None)
        values, fused = self.contexts(image), _fused()
        features = fused.features(self, values, code) if fused.fits(self, image) else self.convolved(values, code)
        return Seen(features, self.predict(values))

    def convolved(self, contexts: list[Float[Tensor, "B K H W"]], code: Float[Tensor, "B M H W"] | None) -> Float[Tensor, "B C H W"]:
        """The values of the last layer, each layer by convolutions, for what the loops of ``fused`` cannot do."""
        values = list(contexts)
        for number, layer in list(enumerate(self.layers))[len(values) - 1 :]:
            parts = [lowered(conv(values[read.source])) for read, conv in zip(layer.reads, self.convs[number], strict=True)]
            residual = None if layer.residual is None else values[layer.residual]
            total = reduce(torch.add, [*parts, *([] if (told := self.condition(number, code)) is None else [told])])
            values.append(self.gate(total, residual))
        return values[-1]

    def predict(self, values: list[Tensor]) -> Float[Tensor, "B P H W"] | None:
        """The linear prediction from the values of the sources, where there is one."""
        if self.predictor is None or self.prediction is None:
            return None
        context = values[self.predictor.source]
        with full_precision(context):
            return TapGrid(self.predictor.taps).convolve(context, self.prediction, None)

    def contexts(self, image: Float[Tensor, "B K H W"]) -> list[Tensor]:
        """The image, and the values of the fixed layers, which come first."""
        values: list[Tensor] = [image]
        with full_precision(image):
            for layer in self.layers:
                if layer.fixed:
                    values.append(filtered(layer, values))
        return values


@cache
def _fused() -> Any:
    """The compiled loops of a CPU: their compiler takes a while to load, and not every command computes."""
    from vlae.core import fused

    return fused


def filtered(layer: Layer, values: list[Float[Tensor, "B K H W"]]) -> Float[Tensor, "B K H W"]:
    """A fixed layer's value: the weighted sum of its taps, channel by channel."""
    assert layer.fixed is not None
    total = torch.zeros_like(values[0])
    for read, weights in zip(layer.reads, layer.fixed, strict=True):
        source = values[read.source]
        ordered = sorted(zip(read.taps, weights, strict=True))
        kernel = torch.tensor([[[w for _, w in ordered]]], dtype=source.dtype, device=source.device)
        summed = TapGrid(tuple(t for t, _ in ordered)).convolve(source.flatten(0, 1).unsqueeze(1), kernel, None)
        total = total + summed.view_as(source)
    return total


class Whole(NamedTuple):
    """A gate of whole numbers: its sigmoid's table, what brings the channels of a sum to whole numbers, the largest value."""

    table: Float[Tensor, " n"]
    steps: Float[Tensor, " D"]
    most: float


class Gate(nn.Module):
    """A layer's value from what its reads and the code add up to: ``residual + a sigmoid(b)`` for the two halves of the sum's channels."""

    @property
    def whole(self) -> Whole | None:
        """What makes it a gate of whole numbers; None for one of real numbers."""
        return None

    def forward(self, total: Float[Tensor, "B D H W"], residual: Float[Tensor, "B C H W"] | None) -> Float[Tensor, "B C H W"]:
        out: Tensor = _Gate.apply(total)
        return out if residual is None else residual + out


class _Gate(torch.autograd.Function):
    """``F.glu`` in fewer passes over memory, its gradient in the memory format of its input."""

    @staticmethod
    def forward(ctx: FunctionCtx, total: Tensor) -> Tensor:
        # With channels last, half of the channels lies in pieces: copied together once, every later pass is several times as fast.
        shown, gate = (channels_last(half) for half in total.chunk(2, dim=1))
        opened = torch.sigmoid(gate)
        ctx.save_for_backward(shown, opened)
        return shown * opened

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        shown, opened = ctx.saved_tensors
        of_shown = grad * opened
        of_gate = torch.addcmul(of_shown, of_shown, opened, value=-1).mul_(shown)
        return torch.cat([of_shown, of_gate], dim=1)


def luminance(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """``0.299 R + 0.587 G + 0.114 B``, the paper's grey context."""
    return (x * torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype, device=x.device).view(3, 1, 1)).sum(1, keepdim=True)
