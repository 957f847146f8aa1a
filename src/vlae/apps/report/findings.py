"""What a trained model shows of images that it has not seen: decodings, bits by pixel, and what the numbers of its code do.

C colours, H and W height and width, S decodings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vlae.core.taps import Offset
from vlae.core.vlae import VLAE
from vlae.data.imageset import ImageSet
from vlae.engine.batches import uniform
from vlae.engine.measure import Group, chosen, decode, groups, noise_for, placed
from vlae.engine.probe import Readout, read_off
from vlae.engine.results import Evaluation
from vlae.engine.run import Run
from vlae.units import bits

Levels = npt.NDArray[np.float32]
Map = npt.NDArray[np.float64]

Progress = Callable[[int, int], None]

STAGES = 4
IMAGES = 6
DECODINGS = 8
# Of images with more pixels only half as many decodings are made: each takes a second or more.
MANY_PIXELS = 128 * 128
# An image with a longer side is shown by its middle, where the code is a grid or there is none.
SIDE = 300
STRONGEST = 6
MOVED_SIDE = 128
MOVES = (-2, -1, 0, 1, 2)
# So many training images tell how much a number of the code usually varies.
VARYING = 200
PIXELS_AT_ONCE = 2**17


@dataclass(frozen=True)
class Shown:
    """A held-out image, or its middle, and what the model makes of it."""

    name: str
    whole: bool
    """False where ``x`` is the middle of a larger image"""
    x: Levels
    """(C, H, W)"""
    decodings: Levels
    """(S, C, H, W), each of another draw of the code and of the pixels; none without a code"""
    bits: Map
    """bits of each pixel, its colours together, given the code and the window before it: (H, W)"""

    @property
    def spread(self) -> Map:
        """How much the decodings differ, (H, W): their standard deviation in levels, the mean over colours."""
        return self.decodings.std(axis=0, dtype=np.float64).mean(axis=0)


@dataclass(frozen=True)
class Moved:
    """Decodings of one image's code with one of its numbers moved, everything else and all random numbers being equal."""

    group: int
    """which dimension of a vector, which channel of a grid"""
    bits: float
    images: Levels
    """(len(MOVES), C, H, W)"""


@dataclass(frozen=True)
class Site:
    """A pixel of an image, and what the decoder sees when it writes it."""

    image: Shown
    row: int
    column: int
    seen: frozenset[Offset]
    """(rows, columns) of the image"""


@dataclass(frozen=True)
class Findings:
    """All that the page shows of a model, in any language."""

    shown: tuple[Shown, ...]
    moved: tuple[Moved, ...]
    """the strongest numbers of the code; none without a code"""
    readouts: tuple[Readout, ...]
    """none where the images have no factors, or there is no code to read"""
    site: Site | None
    """None where the decoder sees nothing of the image"""
    weights: int

    @property
    def unlike(self) -> bool:
        """Whether decodings are, in the mean square, no nearer to their images than other images are.

        Two draws from one distribution differ no more than two from a wider one: what a model that fits draws is nearer, unless its code
        keeps nothing that shows.
        """
        own = [_distance(image.decodings, image.x) for image in self.shown if len(image.decodings)]
        others = [_distance(a.x, b.x) for a, b in combinations(self.shown, 2) if a.x.shape == b.x.shape]
        return bool(own and others and np.mean(own) >= np.mean(others))


def _distance(a: Levels, b: Levels) -> float:
    return float(np.square(a - b).mean(dtype=np.float64))


def look(run: Run, images: ImageSet, evaluation: Evaluation, progress: Progress) -> Findings:
    """Look at what a model does with images that it was not trained on.

    Raises:
        RunError: its weights are missing or damaged.
    """
    model, split = run.model(torch.device("cpu")), evaluation.split
    has_code = model.encoder is not None
    few = shown(run, images, model, split)
    progress(1, STAGES)
    strongest = moved(run, images, model, split, evaluation.rate_bits_by_group) if has_code else []
    progress(2, STAGES)
    testable = has_code and bool(images.factors) and bool(len(images.indices("test")))
    readouts = read_off(run, images, model) if testable else ()
    progress(3, STAGES)
    return Findings(tuple(few), tuple(strongest), readouts, site(model, few[0]), sum(p.numel() for p in model.parameters()))


def shown(run: Run, images: ImageSet, model: VLAE, split: str) -> list[Shown]:
    """A few images of a split, evenly spaced."""
    found: dict[int, Shown] = {}
    for group in groups(images, chosen(images, split, IMAGES), run.settings.train.seed, PIXELS_AT_ONCE):
        part = group if run.facts.size and max(run.facts.size) <= SIDE else _middle(group, model, SIDE)
        found |= dict(zip(part.numbers.tolist(), _shown(run, images, model, part), strict=True))
    return [found[number] for number in sorted(found)]


def _shown(run: Run, images: ImageSet, model: VLAE, group: Group) -> Iterator[Shown]:
    seed = run.settings.train.seed
    small = group.x.shape[2] * group.x.shape[3] <= MANY_PIXELS
    count = 0 if model.encoder is None else DECODINGS if small else DECODINGS // 2
    decodings = [decode(model, group, seed, sample).cpu().numpy() for sample in range(count)]
    x, nats = group.x.numpy(), _nats(model, group, seed)
    several = np.stack(decodings, axis=1) if decodings else np.empty((len(x), 0, *x.shape[1:]), np.float32)
    for number, *fields in zip(group.numbers.tolist(), x, several, nats * bits(1), strict=True):
        yield Shown(images.names[number], x.shape[2:] == images.shape(number)[:2], *fields)


def _middle(group: Group, model: VLAE, side: int) -> Group:
    """The middle of images, at most ``side`` a side; whole images where the code is a vector, which fits one size alone."""
    if model.encoder is not None and len(model.code_shape(side, side)) == 1:
        return group
    height, width = group.x.shape[2:]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return Group(group.numbers, group.x[:, :, top : top + side, left : left + side].contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def _nats(model: VLAE, group: Group, seed: int) -> Map:
    terms = model(placed(group.x, model), placed(noise_for(model, group, seed), model))
    return -terms.log_px_z_map.double().cpu().numpy()


@torch.no_grad()
def moved(run: Run, images: ImageSet, model: VLAE, split: str, by_group: tuple[float, ...]) -> list[Moved]:
    """What the numbers of the code with the most bits do to the first image shown, the strongest first."""
    seed = run.settings.train.seed
    strongest = [n for n in np.argsort(by_group)[::-1][:STRONGEST].tolist() if by_group[n] > 0]
    [group] = groups(images, chosen(images, split, IMAGES)[:1], seed)
    part = _middle(group, model, MOVED_SIDE)
    z, usual = model.posterior(placed(part.x, model)).centre, _usual(model, images, seed)
    uniforms = uniform((model.decoder.head.uniforms, *part.x.shape[2:]), seed, int(part.numbers[0]))
    if not strongest:
        return []
    decoded = _decoded(model, torch.cat([_moves(z, n, usual) for n in strongest]), uniforms)
    return [Moved(n, by_group[n], decoded[k * len(MOVES) : (k + 1) * len(MOVES)]) for k, n in enumerate(strongest)]


def _moves(z: Tensor, group: int, usual: Tensor) -> Tensor:
    """Copies of a code with one of its numbers (of a grid: a whole channel) moved."""
    copies = z.repeat(len(MOVES), *[1] * (z.dim() - 1))
    steps = torch.tensor(MOVES, dtype=z.dtype, device=z.device) * usual[group]
    copies[:, group] += steps.view(-1, *[1] * (z.dim() - 2))
    return copies


def _decoded(model: VLAE, z: Tensor, uniforms: Tensor) -> Levels:
    """A decoding of each code, all with the same random numbers."""
    each = max(1, PIXELS_AT_ONCE // uniforms[0].numel())
    parts = [model.decoder.sample(part, placed(uniforms, model).expand(len(part), -1, -1, -1)) for part in z.split(each)]
    return torch.cat(parts).float().cpu().numpy()


def _usual(model: VLAE, images: ImageSet, seed: int) -> Tensor:
    """The standard deviation of each number of the code over training images (of a channel, over its places too)."""
    parts = []
    for group in groups(images, chosen(images, "train", VARYING), seed):
        z = model.posterior(placed(group.x, model)).sample(placed(noise_for(model, group, seed), model)).z
        parts.append(z.movedim(1, -1).flatten(0, -2))
    return torch.cat(parts).std(0)


def site(model: VLAE, image: Shown) -> Site | None:
    """The pixel around which most bits went, not too near to a side of the image; None where the decoder sees nothing."""
    offsets = model.decoder.window.pixels
    if not offsets:
        return None
    height, width = image.bits.shape
    near = F.avg_pool2d(torch.from_numpy(image.bits)[None, None], 5, 1, 2, count_include_pad=False)[0, 0].numpy()
    rows, columns = zip(*offsets, strict=True)
    inside = np.zeros((height, width), bool)
    inside[max(-min(rows), height // 6) : height - height // 6, max(-min(columns), width // 6) : width - max(*columns, width // 6)] = True
    if not inside.any():  # the window is larger than the image: a pixel with much before it
        inside[2 * height // 3, width // 2] = True
    row, column = np.unravel_index(int(np.where(inside, near, -np.inf).argmax()), near.shape)
    pixels = ((int(row) + di, int(column) + dj) for di, dj in offsets)
    return Site(image, int(row), int(column), frozenset((i, j) for i, j in pixels if 0 <= i < height and 0 <= j < width))
