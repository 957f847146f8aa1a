"""The opponents of ``sampling.py``: the same causal network pixel by pixel in raster order, with caches, and without.

With caches every layer's values are kept, and whatever the rows above tell is added up for a whole row in one product as soon as they are
complete, so that at a pixel only the taps of its own row are left: as few operations a pixel as we could find.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlae.core.causal import CausalNet, Seen
from vlae.core.decoder import Decoder
from vlae.core.taps import Reads

Write = Callable[[Seen, int, int], Tensor]


class _Taps:
    """Some taps of one read, with their weights as one matrix."""

    def __init__(self, cache: Tensor, offsets: list[tuple[int, int]], weights: list[Tensor], above: int, left: int) -> None:
        self.cache, self.offsets, self.above, self.left = cache, offsets, above, left
        self.weight = torch.cat(weights)

    def of_row(self, i: int, width: int) -> Tensor:
        """What they add to each pixel of a row, (W, B, D)."""
        row = [self.cache[self.above + i + di, self.left + dj : self.left + dj + width] for di, dj in self.offsets]
        return torch.cat(row, dim=2) @ self.weight

    def add_to(self, total: Tensor, i: int, j: int) -> None:
        """Add them at one pixel."""
        if len(self.offsets) == 1:
            ((di, dj),) = self.offsets
            total.addmm_(self.cache[self.above + i + di, self.left + j + dj], self.weight)
        else:
            pixel = [self.cache[self.above + i + di, self.left + j + dj] for di, dj in self.offsets]
            total.addmm_(torch.cat(pixel, dim=1), self.weight)


class Raster:
    """A causal network without contexts of fixed weights, ready to run pixel by pixel."""

    def __init__(self, net: CausalNet, code: Tensor | None, batch: int, height: int, width: int) -> None:
        assert not any(net.fixed), "contexts of fixed weights are not written here"
        self.net, self.batch, self.height, self.width = net, batch, height, width
        reads = [r for layer in net.layers for r in layer.reads] + ([net.predictor] if net.predictor else [])
        self.above = max(0, *(-di for r in reads for di, _ in r.taps))
        self.left = max(0, *(-dj for r in reads for _, dj in r.taps))
        right = max(0, *(dj for r in reads for _, dj in r.taps))
        like = next(net.parameters()).detach()
        sides = (self.above + height, self.left + width + right, batch)
        self.caches = [like.new_zeros(*sides, net.channels(source)) for source in range(len(net.layers) + 1)]
        self.code = None if code is None else code.permute(2, 3, 0, 1).contiguous()
        self.bias = [torch.stack([c.b for c in convs]).sum(0) for convs in net.convs]
        self.from_code = [self._from_code(n) for n in range(len(net.layers))]
        parts = [[self._parts(r, c.taps, c.weight()) for r, c in zip(x.reads, cs, strict=True)] for x, cs in zip(net.layers, net.convs, strict=True)]
        self.rows_above = [[p for part in layer for p in part[0]] for layer in parts]
        self.own_row = [[p for part in layer for p in part[1]] for layer in parts]
        told = self._parts(net.predictor, net.predictor.taps, net.prediction) if net.predictor and net.prediction is not None else ([], [])
        self.prediction_above, self.prediction_own = told

    def _from_code(self, number: int) -> tuple[Tensor, Tensor] | None:
        if self.code is None or str(number) not in self.net.conditions:
            return None
        condition = self.net.conditions[str(number)]
        return condition.weight().flatten(1).t(), condition.b

    def _parts(self, read: Reads, taps: tuple, weight: Tensor) -> tuple[list[_Taps], list[_Taps]]:
        found = []
        for own in (False, True):
            chosen = [k for k, (di, _) in enumerate(taps) if (di == 0) == own]
            weights = [weight[:, :, k].t() for k in chosen]
            offsets = [taps[k] for k in chosen]
            found.append([_Taps(self.caches[read.source], offsets, weights, self.above, self.left)] if chosen else [])
        return found[0], found[1]

    def run(self, write: Write, rows: int) -> None:
        """Visit the pixels of the first rows."""
        for i in range(rows):
            begun = [self._begin(number, i) for number in range(len(self.net.layers))]
            predicted = sum(part.of_row(i, self.width) for part in self.prediction_above) if self.net.predictor else None
            for j in range(self.width):
                for number, layer in enumerate(self.net.layers):
                    total = begun[number][j]
                    for part in self.own_row[number]:
                        part.add_to(total, i, j)
                    shown, gate = total.chunk(2, dim=1)
                    value = shown * torch.sigmoid(gate)
                    if layer.residual is not None:
                        value += self.caches[layer.residual][self.above + i, self.left + j]
                    self.caches[number + 1][self.above + i, self.left + j] = value
                prediction = None
                if predicted is not None:
                    told = predicted[j]
                    for part in self.prediction_own:
                        part.add_to(told, i, j)
                    prediction = told[:, :, None, None]
                seen = Seen(self.caches[-1][self.above + i, self.left + j][:, :, None, None], prediction)
                self.caches[0][self.above + i, self.left + j] = write(seen, i, j)

    def _begin(self, number: int, i: int) -> Tensor:
        """A layer's sums of a row, (W, B, D), as far as the rows above and the code tell them."""
        total = self.bias[number].expand(self.width, self.batch, -1)
        if (condition := self.from_code[number]) is not None:
            weight, bias = condition
            total = total + (self.code[i] @ weight + bias)
        for part in self.rows_above[number]:
            total = total + part.of_row(i, self.width)
        return total.contiguous() if total.stride(0) else total.clone()


@torch.no_grad()
def raster(decoder: Decoder, z: Tensor | None, uniforms: Tensor, rows: int) -> Tensor:
    """The first rows of the images of the codes, in raster order with caches."""
    batch, _, height, width = uniforms.shape
    x = uniforms.new_zeros(batch, decoder.head.colours, height, width)
    weight, bias = decoder.out.weight().flatten(1), decoder.out.b

    def write(seen: Seen, i: int, j: int) -> Tensor:
        numbers = F.linear(seen.features.flatten(1), weight, bias)[:, :, None, None]
        pixel = decoder.head(numbers, seen.prediction).sample(uniforms[:, :, i : i + 1, j : j + 1])
        x[:, :, i : i + 1, j : j + 1] = pixel
        return decoder.image(pixel).flatten(1)

    Raster(decoder.net, decoder.spread(z, (height, width)), batch, height, width).run(write, rows)
    return x


@torch.no_grad()
def naive(decoder: Decoder, z: Tensor | None, uniforms: Tensor, pixels: int) -> Tensor:
    """The first pixels of the images of the codes, the whole network for each."""
    batch, _, height, width = uniforms.shape
    x = uniforms.new_zeros(batch, decoder.head.colours, height, width)
    code = decoder.spread(z, (height, width))
    for i, j in [divmod(n, width) for n in range(pixels)]:
        seen = decoder.net(decoder.image(x), code)
        x[:, :, i, j] = decoder.head(decoder.out(seen.features), seen.prediction).sample(uniforms)[:, :, i, j]
    return x
