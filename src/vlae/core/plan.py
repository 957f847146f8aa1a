"""What a decoder is made from, but for its weights: plain values, so that it can be written down and made again."""

from dataclasses import dataclass
from typing import Literal

from vlae.core.causal import Conditioning
from vlae.core.decoder import Decoder
from vlae.core.distributions import BernoulliHead, Head, LogisticHead
from vlae.core.encoder import CodeMap, GridMap, Pyramid, VectorMap
from vlae.core.window import Context, Window


@dataclass(frozen=True)
class DecoderPlan:
    """A decoder's window, head, code and sizes; what a kind of decoder does without is empty or 0.

    >>> plan = DecoderPlan("stack2", "pixels", None, 256, 1, 3, "grid", 4, 0, (8, 16), (0, 1), "resnet", 8, 16, 0, "layers")
    >>> plan.decoder().head.outputs
    9
    """

    window: str
    context: Context
    image: tuple[int, int] | None
    """the size that the window ``all`` and a vector code are for"""
    levels: int
    colours: int
    components: int
    code: Literal["none", "vector", "grid"]
    dims: int
    """dimensions of a vector code, channels of a grid code"""
    hidden: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    block: Literal["resnet", "densenet"]
    map_channels: int
    width: int
    pointwise: int
    condition: Conditioning

    @property
    def head(self) -> Head:
        """The distribution of a pixel."""
        return BernoulliHead() if self.levels == 2 else LogisticHead(self.levels, self.colours, self.components)

    @property
    def pyramid(self) -> Pyramid:
        """How the encoder shrinks an image, and the code map grows it again."""
        return Pyramid(self.widths, self.blocks, self.block)

    def decoder(self, members: int = 1) -> Decoder:
        """The decoder, with random weights; to train it, with so many members that know nothing of each other.

        Raises:
            ValueError: there is none: see ``Window.of`` and ``Decoder``.
        """
        window = Window.of(self.window, self.context, self.image)
        return Decoder(window, self.head, self._code_map(), self.map_channels, self.width, self.pointwise, self.condition, members)

    def _code_map(self) -> CodeMap | None:
        if self.code == "grid":
            return GridMap(self.pyramid, self.dims, self.map_channels)
        if self.code == "vector":
            assert self.image is not None
            return VectorMap(self.pyramid, self.image, self.dims, self.hidden, self.map_channels)
        return None
