"""Small models with random weights; windows and contexts written down without the library's arithmetic."""

import math

import torch
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from vlae.core.causal import CausalNet, Conditioning
from vlae.core.codes import Prior
from vlae.core.decoder import Decoder
from vlae.core.distributions import Bernoulli, BernoulliHead, Head, LogisticHead, LogisticMixture, PixelDistribution
from vlae.core.encoder import CodeMap, GridEncoder, GridMap, Pyramid, VectorEncoder, VectorMap
from vlae.core.flows import grid_flow, vector_flow
from vlae.core.layers import WeightNorm
from vlae.core.taps import Layer, Layers, Offset, Reads
from vlae.core.vlae import VLAE
from vlae.core.window import Context, Window

HEADS: dict[str, Head] = {"bernoulli": BernoulliHead(), "grey": LogisticHead(16, 1, 2), "rgb": LogisticHead(8, 3, 2)}
PYRAMID = Pyramid((3, 4), (0, 1))


def picture(text: str) -> frozenset[Offset]:
    """The offsets of the marks ``o`` relative to the pixel ``X``."""
    marks = {(i, j): mark for i, line in enumerate(text.strip("\n").splitlines()) for j, mark in enumerate(line[::2])}
    (here,) = [at for at, mark in marks.items() if mark == "X"]
    return frozenset((i - here[0], j - here[1]) for (i, j), mark in marks.items() if mark == "o")


def block(columns: int, rows: int) -> frozenset[Offset]:
    """The paper's A x B window: A wide and B tall right above the pixel, and ceil((A - 1) / 2) pixels to its left."""
    left = math.ceil((columns - 1) / 2)
    above = {(-k, dj) for k in range(1, rows + 1) for dj in range(-left, columns - left)}
    return frozenset(above | {(0, -k) for k in range(1, left + 1)})


def trapezoid(depth: int) -> frozenset[Offset]:
    """What a stack of causal 2x3 taps sees."""
    above = {(-k, dj) for k in range(1, depth + 1) for dj in range(-depth, k + 1)}
    return frozenset(above | {(0, -k) for k in range(1, depth + 1)})


def earlier(height: int, width: int) -> frozenset[Offset]:
    """Every earlier pixel of an image of this size."""
    return frozenset((di, dj) for di in range(1 - height, 1) for dj in range(1 - width, width) if di < 0 or dj < 0)


def window(name: str, context: Context, image: tuple[int, int]) -> Window:
    """A window for an image of this size."""
    return Window.of(name, context, image if name == "all" else None)


def expected(name: str, image: tuple[int, int]) -> frozenset[Offset]:
    """What the window of this name should show of its context."""
    if name == "none":
        return frozenset()
    if name == "all":
        return earlier(*image)
    if name.startswith("stack"):
        return trapezoid(int(name.removeprefix("stack")))
    columns, rows = name.split("x")
    return block(int(columns), int(rows))


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter a random value, those that start at zero too."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, WeightNorm):
                part.v.normal_()
                part.g.uniform_(0.5, 1.5)
                part.b.normal_(std=0.3)
            if isinstance(part, CausalNet) and part.prediction is not None:
                part.prediction.normal_(std=0.2)
    return module


def decoder(
    seen: Window,
    head: Head,
    image: tuple[int, int],
    code: str | None = "vector",
    condition: Conditioning = "layers",
    pointwise: int = 1,
    pyramid: Pyramid = PYRAMID,
    members: int = 1,
) -> Decoder:
    """A decoder of 4 channels (or of members of 4 each) with a vector code of 3 dimensions, a grid code of 2 channels, or no code."""
    code_map: CodeMap | None = None
    if code == "vector":
        code_map = VectorMap(pyramid, image, dims=3, hidden=5, outputs=2)
    elif code == "grid":
        code_map = GridMap(pyramid, channels=2, outputs=2)
    made = Decoder(seen, head, code_map, map_channels=2, width=4 * members, pointwise=pointwise, condition=condition, members=members)
    randomise(made)
    return made


def code_for(made: Decoder, batch: int, image: tuple[int, int]) -> Tensor | None:
    """A random code for a decoder of ``decoder``."""
    if isinstance(made.code_map, GridMap):
        return torch.randn(batch, 2, *PYRAMID.grid(*image))
    return None if made.code_map is None else torch.randn(batch, 3)


def levels(head: Head, batch: int, image: tuple[int, int]) -> Tensor:
    """Random images for a head."""
    return torch.randint(0, head.levels, (batch, head.colours, *image)).to(torch.get_default_dtype())


def model(name: str, head: Head, image: tuple[int, int], code: str | None = "vector", context: Context = "pixels", iaf: bool = True) -> VLAE:
    """A whole model: flows with scale in the prior, and an IAF posterior or a Gaussian one."""
    made = decoder(window(name, context, image), head, image, code)
    encoder: VectorEncoder | GridEncoder | None = None
    prior = Prior()
    if code == "vector":
        posterior = vector_flow(3, steps=2, hidden=6, scaled=True, context=2) if iaf else None
        encoder = VectorEncoder(PYRAMID, (head.colours, *image), 3, 5, posterior, context=2 if iaf else 0)
        prior = Prior(vector_flow(3, steps=2, hidden=6, scaled=True))
    elif code == "grid":
        posterior = grid_flow(2, steps=2, hidden=4, scaled=True, context=2) if iaf else None
        encoder = GridEncoder(PYRAMID, head.colours, 2, posterior, context=2 if iaf else 0)
        prior = Prior(grid_flow(2, steps=2, hidden=4, scaled=True))
    whole = VLAE(prior, encoder, made)
    randomise(whole)
    return whole


def fields(distribution: PixelDistribution) -> Tensor:
    """All numbers of a distribution of pixels, ``(B, N, H, W)``."""
    if isinstance(distribution, Bernoulli):
        return distribution.logits
    assert isinstance(distribution, LogisticMixture)
    parts = [distribution.logits, distribution.means.flatten(1, 2), distribution.log_scales.flatten(1, 2)]
    return torch.cat(parts if distribution.slopes is None else [*parts, distribution.slopes.flatten(1, 2)], dim=1)


def near(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    """Assert that a tensor is another but for rounding, which float32 has more of."""
    allowed = tolerance if torch.get_default_dtype() == torch.float64 else max(tolerance, 5e-3)
    torch.testing.assert_close(a, b.to(a), rtol=allowed, atol=allowed)


def agree(observed: Tensor, probability: Tensor) -> None:
    """Assert that counts are as likely as they should be: a chi-square test, rare cells together, that refuses one truth in 10,000."""
    order = probability.argsort()
    rare = int((probability[order].cumsum(0) * observed.sum() < 10).sum()) + 1
    cells = [torch.cat([x[order[:rare]].sum(0, keepdim=True), x[order[rare:]]]).detach().double().cpu().numpy() for x in (observed, probability)]
    assert chisquare(cells[0], cells[1] / cells[1].sum() * cells[0].sum()).pvalue > 1e-4


Plan = list[tuple[int, list[Offset], list[float]]]
BEFORE = st.sampled_from(sorted(o for o in earlier(3, 4) if o[0] > -3))
NOT_AFTER = st.one_of(BEFORE, st.just((0, 0)))


@st.composite
def plans(draw: st.DrawFn, fixed: int = 2) -> tuple[list[Plan], list[Plan]]:
    """What the layers of a random causal network read: up to ``fixed`` fixed ones, then learned ones, some of which read two sources.

    Taps of fixed layers come with weights. (Plain data: the types of the library are checked with random numbers of their own.)
    """
    fixed_layers: list[Plan] = []
    for number in range(draw(st.integers(0, fixed))):
        taps = draw(st.lists(NOT_AFTER, min_size=1, max_size=3, unique=True))
        weights = draw(st.lists(st.sampled_from([-0.7, 0.3, 1.1]), min_size=len(taps), max_size=len(taps)))
        fixed_layers.append([(draw(st.integers(0, number)), taps, weights)])
    contexts = len(fixed_layers)
    learned: list[Plan] = []
    for number in range(contexts, contexts + draw(st.integers(1, 4))):
        sources = draw(st.lists(st.integers(0, number), min_size=1, max_size=2, unique=True))
        taps_of = [draw(st.lists(NOT_AFTER if s > contexts else BEFORE, min_size=1, max_size=4, unique=True)) for s in sources]
        learned.append([(source, taps, []) for source, taps in zip(sources, taps_of, strict=True)])
    return fixed_layers, learned


def network(plan: tuple[list[Plan], list[Plan]]) -> Layers:
    """The layers of a plan."""
    made = [Layer(tuple(Reads(s, tuple(taps)) for s, taps, _ in reads), tuple(tuple(w) for _, _, w in reads)) for reads in plan[0]]
    return tuple(made + [Layer(tuple(Reads(s, tuple(taps)) for s, taps, _ in reads)) for reads in plan[1]])
