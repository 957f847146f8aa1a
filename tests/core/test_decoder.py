import itertools
import math

import numpy as np
import pytest
import torch

from vlae.core.decoder import PREDICTOR_REACH, Decoder, Given
from vlae.core.distributions import BernoulliHead, LogisticHead
from vlae.core.wavefront import Wavefront
from vlae.core.window import CONTEXTS, Window

from .build import HEADS, PYRAMID, agree, code_for, decoder, expected, fields, levels, near, window
from .test_window import LOW

NAMES = ["none", "stack1", "stack2", "stack4", "4x2", "5x3", "7x4", "3x1", "2x1", "1x1", "1x3", "6x2", "all"]
CONDITIONS = ["layers", "input"]


def depends(made: Decoder, image: tuple[int, int]):
    """How the numbers of each pixel's distribution depend on the image, on its prediction, and on the code.

    ``(H W, C, H, W)``: as many copies of an image as it has pixels, of each of which one pixel is asked; the sum of two images.
    """
    count = math.prod(image)
    x, z = levels(made.head, 2, image).repeat_interleave(count, 0).requires_grad_(), code_for(made, 2, image)
    z = None if z is None else z.repeat_interleave(count, 0).requires_grad_()
    numbers = fields(made(z, x)).flatten(2)[torch.arange(2 * count), :, torch.arange(count).repeat(2)]
    by = torch.autograd.grad((numbers * torch.randn_like(numbers)).sum(), [x] if z is None else [x, z], allow_unused=True)
    return [torch.zeros(count, made.head.colours, *image) if g is None else g.abs().unflatten(0, (2, count)).sum(0) for g in by]


def check_window(name, context, image, made):
    """Every number of the distribution of every pixel: zero where forbidden, non-zero where allowed, and the code everywhere."""
    offsets = expected(name, image)
    seen = {(a + c, b + d) for a, b in offsets for c, d in LOW} if context in ("low", "high") else offsets
    allowed = torch.tensor(
        [[[(k - i, m - j) in seen for m in range(image[1])] for k in range(image[0])] for i in range(image[0]) for j in range(image[1])]
    )
    of_pixels, *of_code = depends(made, image)
    for colour in range(made.head.colours):
        assert (of_pixels[:, colour][~allowed] == 0).all(), "forbidden"
        assert (of_pixels[:, colour][allowed] > 0).all(), "allowed"
    assert all((g.flatten(1).sum(1) > 0).all() for g in of_code), "the code"


TABLE = [
    (name, context, head, condition, pointwise, code)
    for name, context, head in itertools.product(NAMES, CONTEXTS, HEADS)
    for condition, pointwise, code in itertools.product(CONDITIONS, range(3), ["vector", "grid", None])
    if not (name == "none" and code is None)
]
SOME, TRIPLES = TABLE[::19], TABLE[::5]
"""Every two values stand together in one of some rows, every three in one of the triples."""


@pytest.mark.parametrize("row", SOME + [pytest.param(row, marks=pytest.mark.slow) for row in TRIPLES if row not in SOME], ids=str)
def test_a_decoder_sees_its_window_and_its_code_and_nothing_else(row):
    name, context, head, condition, pointwise, code = row
    image = (6, 8)
    made = decoder(window(name, context, image), HEADS[head], image, code, condition, pointwise)
    assert (made.net.prediction is not None) == (name != "none" and head != "bernoulli" and (context, head) != ("grey", "rgb"))
    check_window(name, context, image, made)


def naive(made: Decoder, z, uniforms, given=None):
    """Sample in raster order, all of the network for every pixel."""
    batch, _, height, width = uniforms.shape
    x = torch.zeros(batch, made.head.colours, height, width)
    with torch.no_grad():
        for i in range(height):
            for j in range(width):
                drawn = made(z, x).sample(uniforms)[:, :, i, j]
                x[:, :, i, j] = drawn if given is None else torch.where(given.known[:, :, i, j], given.x[:, :, i, j], drawn)
    return x


SIZES = [(1, 1), (5, 6), (1, 7), (6, 1), (3, 9), (7, 2)]
SAMPLING = [
    (name, context, head, size, condition, pointwise, code, batch)
    for name, context, head, size in itertools.product(NAMES, CONTEXTS, HEADS, SIZES)
    for condition, pointwise, code, batch in [("layers", 1, "vector", 2), ("input", 0, "grid", 3), ("layers", 2, None, 1)]
    if not (name == "none" and code is None)
][::13]  # every two values still stand together in a row
SOME_SAMPLING = SAMPLING[::7]


@pytest.mark.parametrize("row", [pytest.param(row, marks=() if row in SOME_SAMPLING else pytest.mark.slow) for row in SAMPLING], ids=str)
def test_sampling_is_that_of_the_naive_raster_order(row):
    """So it feeds on exactly the conditionals that ``log_prob`` uses."""
    name, context, head, size, condition, pointwise, code, batch = row
    made = decoder(window(name, context, size), HEADS[head], size, code, condition, pointwise)
    z, uniforms = code_for(made, batch, size), torch.rand(batch, made.head.uniforms, *size)
    sampled = made.sample(z, uniforms)
    assert torch.equal(sampled, naive(made, z, uniforms))
    assert torch.equal(sampled, sampled.round().clamp(0, made.head.levels - 1))


@pytest.mark.parametrize("row", SOME_SAMPLING[::2], ids=str)
def test_log_probabilities_along_the_wavefront_are_the_parallel_ones(row):
    name, context, head, size, condition, pointwise, code, batch = row
    if name == "none":
        pytest.skip("nothing waits for one another")
    made = decoder(window(name, context, size), HEADS[head], size, code, condition, pointwise)
    z, x = code_for(made, batch, size), levels(made.head, batch, size)
    out = made.out.pointwise()

    def write(seen, beside):
        return made.head(out(seen.features), seen.prediction).log_prob(beside).unsqueeze(1), made.image(beside)

    with torch.no_grad():
        along = Wavefront(made.net, made.spread(z, size), x).run(write)
        near(along[:, 0], made(z, x).log_prob(x))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["none", "stack2", "4x2"])
def test_known_pixels_stay_and_the_others_are_drawn_after_them(name, head):
    image = (5, 6)
    made = decoder(window(name, "pixels", image), HEADS[head], image)
    z, uniforms = code_for(made, 3, image), torch.rand(3, made.head.uniforms, *image)
    given = Given(levels(made.head, 3, image), torch.rand(3, 1, *image) < 0.5)
    sampled = made.sample(z, uniforms, given)
    assert torch.equal(sampled, naive(made, z, uniforms, given))
    assert torch.equal(torch.where(given.known, sampled, 0), torch.where(given.known, given.x, 0))


def test_a_sample_depends_on_its_own_code_and_uniforms_only():
    image = (5, 6)
    made = decoder(Window.of("4x2"), HEADS["grey"], image)
    z, uniforms = code_for(made, 4, image), torch.rand(4, 2, *image)
    together = made.sample(z, uniforms)
    assert torch.equal(together, torch.cat([made.sample(z[n : n + 1], uniforms[n : n + 1]) for n in range(4)]))


TINY = {
    "two rows of three binary pixels": ("stack2", BernoulliHead(), (2, 3)),
    "three columns of binary pixels": ("5x3", BernoulliHead(), (3, 3)),
    "four pixels of three levels": ("4x2", LogisticHead(3, 1, 2), (2, 2)),
    "two pixels in two levels of each colour": ("all", LogisticHead(2, 3, 2), (2, 1)),
    "pixels alone": ("none", LogisticHead(4, 1, 2), (1, 3)),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name, head, image", TINY.values(), ids=TINY)
def test_the_probabilities_of_all_images_sum_to_one(name, head, image, context):
    made = decoder(window(name, context, image), head, image)
    count = head.colours * math.prod(image)
    every = torch.tensor(list(itertools.product(range(head.levels), repeat=count)), dtype=torch.get_default_dtype())
    z = code_for(made, 1, image).expand(len(every), -1)
    log_prob = made(z, every.view(-1, head.colours, *image)).log_prob(every.view(-1, head.colours, *image))
    near(log_prob.flatten(1).sum(1).exp().sum(), torch.tensor(1.0), 1e-12)


def test_the_probability_of_a_sampled_image_is_how_often_it_is_sampled():
    """The 64 images of six binary pixels."""
    image = (2, 3)
    made = decoder(Window.of("stack2"), HEADS["bernoulli"], image, code=None)
    every = torch.tensor(list(itertools.product(range(2), repeat=6)), dtype=torch.get_default_dtype()).view(-1, 1, *image)
    probability = made(None, every).log_prob(every).flatten(1).sum(1).exp()
    drawn = made.sample(None, torch.rand(20_000, 1, *image)).flatten(1) @ (2.0 ** torch.arange(5, -1, -1))
    agree(torch.bincount(drawn.long(), minlength=64), probability)


@pytest.mark.parametrize(
    "name, context, head", [("5x3", "pixels", "grey"), ("stack4", "low", "grey"), ("4x2", "high", "rgb"), ("stack2", "pixels", "rgb")]
)
def test_the_linear_prediction_is_that_of_least_squares(name, context, head):
    """NumPy's least squares on the neighbours of every pixel, the ridge as rows of its own."""
    made = decoder(Window.of(name, context), HEADS[head], (6, 7))
    x, ridge = levels(made.head, 3, (6, 7)), 1e-2
    seen = x + torch.randn_like(x)
    made.fit_predictor(x, seen, ridge)
    shown = made.net.contexts(2 * seen / (made.head.levels - 1) - 1)[len(CONTEXTS[context])].cpu().numpy()
    taps = sorted(expected(name, (0, 0)))
    padded = np.pad(shown, ((0, 0), (0, 0), (7, 7), (7, 7)))
    columns = [padded[:, c, 7 + di : 13 + di, 7 + dj : 14 + dj].ravel() for c in range(made.head.colours) for di, dj in taps]
    design = np.vstack([np.array(columns).T, math.sqrt(ridge * 3 * 6 * 7) * np.eye(len(columns))])
    target = np.vstack(
        [(2 * x / (made.head.levels - 1) - 1).permute(0, 2, 3, 1).flatten(0, 2).cpu().numpy(), np.zeros((len(columns), made.head.colours))]
    )
    weights = np.linalg.lstsq(design, target, rcond=None)[0]
    near(made.net.prediction.detach().flatten(1), torch.from_numpy(weights.T.copy()), 1e-9)


def test_the_linear_prediction_reads_near_pixels_of_its_window_only():
    taps = set(decoder(Window.of("stack9"), HEADS["grey"], (3, 3)).net.predictor.taps)
    assert taps == {(di, dj) for di, dj in expected("stack9", (0, 0)) if -di <= PREDICTOR_REACH and abs(dj) <= PREDICTOR_REACH}


def test_a_prediction_moves_the_means_of_all_components():
    image = (4, 5)
    made, x = decoder(Window.of("4x2"), HEADS["rgb"], image, code=None), levels(HEADS["rgb"], 2, image)
    moved = made.net(made.image(x), None).prediction
    with_it, _ = made(None, x).means, made.net.prediction.data.zero_()
    near(with_it - made(None, x).means, moved.unsqueeze(1).expand_as(with_it))


@pytest.mark.parametrize("head", [LogisticHead(256, 1, 3), LogisticHead(65536, 1, 3), LogisticHead(256, 3, 3), BernoulliHead()])
def test_levels_are_shown_from_minus_one_to_one(head):
    made = decoder(Window.of("none"), head, (2, 2))
    ends = torch.tensor([0.0, head.levels - 1]).view(2, 1, 1, 1).expand(-1, head.colours, 2, 2)
    near(made.image(ends)[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))


def test_the_grey_context_shows_the_luminance():
    made = decoder(Window.of("4x2", "grey"), HEADS["rgb"], (2, 2))
    x = levels(HEADS["rgb"], 2, (2, 2))
    grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    near(made.image(x), (2 * grey / 7 - 1).unsqueeze(1))


def test_a_decoder_without_window_and_code_is_refused():
    with pytest.raises(ValueError, match="a window or a code"):
        decoder(Window.of("none"), HEADS["grey"], (2, 2), code=None)


def test_decoders_of_grid_codes_work_at_any_size():
    made = decoder(Window.of("4x2"), HEADS["grey"], (8, 8), code="grid")
    for image in [(8, 8), (5, 11), (1, 1)]:
        z, x = code_for(made, 2, image), levels(made.head, 2, image)
        assert z.shape[2:] == PYRAMID.grid(*image)
        assert made(z, x).log_prob(x).shape == (2, *image)


@pytest.mark.parametrize("code", ["vector", None])
@pytest.mark.parametrize("name", ["stack2", "4x2", "all"])
def test_members_together_are_the_geometric_mean_of_each_and_no_worse(name, code):
    image = (5, 6)
    made = decoder(window(name, "pixels", image), HEADS["bernoulli"], image, code, members=2)
    z, x = code_for(made, 4, image), levels(made.head, 4, image)
    with torch.no_grad():
        together, apart = made(z, x).log_prob(x), torch.stack([member.log_prob(x) for member in made.apart(z, x)])
        other = torch.stack([member.log_prob(1 - x) for member in made.apart(z, x)])
    mean, of_other = apart.mean(0), other.mean(0)
    assert (apart[0] - apart[1]).abs().max() > 0.1
    near(together, mean - torch.logaddexp(mean, of_other))
    assert (together >= mean - 1e-12).all()


def test_members_apart_are_as_exact_as_together():
    """In bfloat16, too: their logits are rounded no more than the mean of them is."""
    image = (5, 6)
    made = decoder(window("all", "pixels", image), HEADS["bernoulli"], image, members=2).float()
    z, x = code_for(made, 3, image).float(), levels(made.head, 3, image).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        together, apart = made(z, x).logits, torch.cat([member.logits for member in made.apart(z, x)], 1)
    near(together, apart.mean(1, keepdim=True), 1e-5)


def test_members_are_drawn_together():
    image = (5, 6)
    made = decoder(window("all", "pixels", image), HEADS["bernoulli"], image, members=2)
    z, uniforms = code_for(made, 3, image), torch.rand(3, 1, *image)
    assert torch.equal(made.sample(z, uniforms), naive(made, z, uniforms))


def test_what_has_no_members_is_apart_as_it_is():
    image = (5, 6)
    made = decoder(window("4x2", "pixels", image), HEADS["grey"], image)
    z, x = code_for(made, 2, image), levels(made.head, 2, image)
    (one,) = made.apart(z, x)
    assert torch.equal(one.log_prob(x), made(z, x).log_prob(x))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["none", "stack2"])
def test_numbers_of_another_type_draw_the_same(name, head):
    """The compiled loops copy bytes: of numbers twice as long they would read too many."""
    image = (5, 6)
    made = decoder(window(name, "pixels", image), HEADS[head], image).float()
    z, uniforms = code_for(made, 2, image).float(), torch.rand(2, made.head.uniforms, *image).float()
    given = Given(levels(made.head, 2, image).float(), torch.rand(2, 1, *image) > 0.5)
    assert torch.equal(made.sample(z, uniforms.double()).float(), made.sample(z, uniforms))
    assert torch.equal(made.sample(z, uniforms, given._replace(x=given.x.double())).float(), made.sample(z, uniforms, given))
