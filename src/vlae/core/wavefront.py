"""Evaluate a causal network in wavefront order: everything that does not wait for one another at once.

B batch, C width of the network, H and W height and width, K channels of the image, N pixels (rows under way times B), P pixels of the image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlae.core.causal import CausalNet, Seen
from vlae.core.layout import Layout
from vlae.core.operations import Operations

if TYPE_CHECKING:
    from vlae.core.loops import Loops

Write = Callable[[Seen, Float[Tensor, "N U 1 1"]], tuple[Float[Tensor, "N k 1 1"], Float[Tensor, "N K 1 1"]]]
"""From what is known about some pixels, and what was laid beside them: what to keep of them, and the image's values there."""


class Wavefront:
    """A causal network ready to run in wavefront order over images of one size.

    It keeps a few columns of every layer, for the rows under way: beside the maps that it is given, memory grows with the side of an image
    and not with its area.

    Args:
        net: the network.
        code: the code map that conditions it.
        beside: what ``write`` is to be told of each pixel.
    """

    def __init__(self, net: CausalNet, code: Float[Tensor, "B M H W"] | None, beside: Float[Tensor, "B U H W"]) -> None:
        self.layout, self.size = Layout(net, 0 if code is None else code.shape[1], *beside.shape[2:]), beside.shape[2:]
        like = self.layout.readers[0].weight.dtype  # the compiled loops copy bytes, and can tell no other type apart
        self.code, self.beside = None if code is None else by_pixel(code).to(like), by_pixel(beside).to(like)

    def run(self, write: Write) -> Float[Tensor, "B k H W"]:
        """Visit every pixel once, and return what ``write`` keeps of them; later pixels rest on the values that it gives."""
        if self.beside.device.type == "cpu":
            with self.loops() as loops:
                found = visited(loops, self.layout, write) if (drawn := loops.drawn(write)) is None else drawn
        else:
            with torch.inference_mode():  # every operation costs less so
                found = visited(Operations(self.layout, self.code, self.beside), self.layout, write)
        return found.unflatten(0, self.size).permute(2, 3, 0, 1).clone()

    @contextmanager
    def loops(self) -> "Iterator[Loops]":
        """The network's compiled loops, on a CPU."""
        from vlae.core.compiled import sharing  # the compiler takes a while to load, and not every command draws
        from vlae.core.loops import Loops

        with torch.inference_mode(), sharing():
            yield Loops(self.layout, self.code, self.beside)


def visited(steps: Any, layout: Layout, write: Write) -> Float[Tensor, "P B k"]:
    """One time after another, as ``loops`` or ``operations``, with ``write`` at the end of each."""
    for time in layout.sweep.times:
        seen, beside = steps.advance(time)
        if time >= 0 and len(beside):
            steps.lay(time, *write(seen, beside))
    return steps.kept()


def by_pixel(values: Float[Tensor, "B U H W"]) -> Float[Tensor, "P B U"]:
    """A map, pixel after pixel."""
    return values.detach().permute(2, 3, 0, 1).flatten(0, 1)
