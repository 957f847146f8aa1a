import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlae.core.causal import CausalNet
from vlae.core.operations import Operations
from vlae.core.schedule import schedule
from vlae.core.taps import Layer, Reads, after, everything, reach, rectangle, stack, with_pointwise
from vlae.core.wavefront import Wavefront, visited
from vlae.core.window import CONTEXTS

from .build import near, network, plans, randomise

NAMED = {
    "stack": stack(3),
    "4x2": rectangle(4, 2),
    "5x3": rectangle(5, 3),
    "7x1": rectangle(7, 1),
    "1x2": rectangle(1, 2),
    "all": everything(4, 5),
    "7x4": rectangle(7, 4),
}
SIZES = [(1, 1), (1, 7), (6, 1), (2, 9), (5, 6), (9, 2)]


class OfTensors(Wavefront):
    """A wavefront in tensor operations, as on a GPU, wherever it runs."""

    def _in_loops(self, write):
        return visited(Operations(self.layout, self.code, self.beside), self.layout, write)


def along_the_wavefront(net, image, code, kind=Wavefront):
    """What is known of every pixel when its turn comes, and in which step it comes, while ``image`` is fed in pixel by pixel."""
    batch, channels, height, width = image.shape
    front = kind(net, code, torch.cat([image, torch.ones(batch, 1, height, width)], dim=1))
    visits = []

    def write(seen, beside):
        values, inside = beside.split([channels, 1], dim=1)
        visits.append(inside.sum().item())
        prediction = torch.zeros_like(values) if seen.prediction is None else seen.prediction
        return torch.cat([seen.features, prediction, torch.full_like(inside, len(visits) - 1)], dim=1), values

    with torch.no_grad():
        features, prediction, step = front.run(write).split([net.width, channels, 1], dim=1)
    assert sum(visits) == batch * height * width, "no pixel is visited twice"
    assert (step == step[:1]).all(), "images go side by side"
    return features, prediction, step[0, 0].long()


def check(net, image, code, kind=Wavefront):
    features, prediction, steps = along_the_wavefront(net, image, code, kind)
    with torch.no_grad():
        parallel = net(image, code)
    near(features, parallel.features)
    if parallel.prediction is not None:
        near(prediction, parallel.prediction)
    return steps


FORMS = [("layers", 0, 1), ("input", 1, 3), ("layers", 2, 2)]
"""Where the code enters, layers of 1x1 taps, images in the batch."""
TABLE = list(itertools.product(SIZES, NAMED, ["pixels", "low", "high"], FORMS))[::2]  # every three values still stand together in a row
SOME = TABLE[::5]


@pytest.mark.parametrize("size, name, context, form", [pytest.param(*row, marks=() if row in SOME else pytest.mark.slow) for row in TABLE], ids=str)
def test_conditionals_along_the_wavefront_are_the_parallel_ones(size, name, context, form):
    condition, pointwise, batch = form
    layers = with_pointwise(after(CONTEXTS[context], NAMED[name]), pointwise)
    predictor = Reads(len(CONTEXTS[context]), tuple(sorted(reach(NAMED[name]))[-6:]))
    net = randomise(CausalNet(layers, inputs=2, width=3, code=2, condition=condition, predictor=predictor))
    check(net, torch.randn(batch, 2, *size), torch.randn(batch, 2, *size))


@pytest.mark.parametrize("size, name, context, form", SOME[::2], ids=str)
def test_tensor_operations_find_the_same(size, name, context, form):
    condition, pointwise, batch = form
    layers = with_pointwise(after(CONTEXTS[context], NAMED[name]), pointwise)
    predictor = Reads(len(CONTEXTS[context]), tuple(sorted(reach(NAMED[name]))[-6:]))
    net = randomise(CausalNet(layers, inputs=2, width=3, code=2, condition=condition, predictor=predictor))
    check(net, torch.randn(batch, 2, *size), torch.randn(batch, 2, *size), OfTensors)


@pytest.mark.parametrize("kind", [Wavefront, OfTensors])
@pytest.mark.parametrize("name, size", [(name, (12, width)) for name in ("stack", "5x3", "7x4", "7x1") for width in (1, 2, 3)], ids=str)
def test_times_without_a_pixel_leave_nothing_behind(name, size, kind):
    """In an image that is narrower than the slope."""
    net = randomise(CausalNet(NAMED[name], inputs=1, width=3, code=2))
    check(net, torch.randn(2, 1, *size), torch.randn(2, 2, *size), kind)


@pytest.mark.parametrize("name", NAMED)
def test_so_do_several_threads(name):
    """Few pixels at a time, and many; and torch has as many threads as before."""
    net = randomise(CausalNet(after(CONTEXTS["high"], NAMED[name]), inputs=1, width=3, code=2))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for batch, size in ((1, (4, 5)), (90, (4, 5))):
            check(net, torch.randn(batch, 1, *size), torch.randn(batch, 2, *size))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_wavefront_can_run_again():
    net = randomise(CausalNet(NAMED["4x2"], inputs=2, width=3, code=2))
    image, code = torch.randn(2, 2, 6, 7), torch.randn(2, 2, 6, 7)
    with torch.no_grad():
        front, parallel = Wavefront(net, code, image), net(image, code).features
        for _ in range(2):
            near(front.run(lambda seen, beside: (seen.features, beside)), parallel)


@pytest.mark.parametrize(
    "name, size", [("stack", (30, 4)), ("stack", (10, 1)), ("4x2", (4, 30)), ("5x3", (15, 15)), ("7x4", (9, 2)), ("all", (7, 9))], ids=str
)
def test_rows_hand_on_their_slots_whole_or_a_few_at_a_time(name, size):
    """Far more rows than can be under way at once, or fewer, in a batch that works on every slot by itself."""
    net = randomise(CausalNet(after(CONTEXTS["low"], NAMED[name]), inputs=1, width=3, code=2))
    for batch in (1, 70):
        check(net, torch.randn(batch, 1, *size), torch.randn(batch, 2, *size))


@given(plans(), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_so_they_are_for_any_taps(plan, height, width, coded):
    net = randomise(CausalNet(network(plan), inputs=2, width=3, code=2 if coded else 0))
    check(net, torch.randn(2, 2, height, width), torch.randn(2, 2, height, width) if coded else None)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["stack", "4x2", "5x3"])
def test_pixels_of_a_slanted_line_are_written_together(name, size):
    net = randomise(CausalNet(NAMED[name], inputs=1, width=3))
    slope = schedule(net.layers).slope
    steps = check(net, torch.randn(1, 1, *size), None)
    time = torch.arange(size[1]) + slope * torch.arange(size[0]).view(-1, 1)
    assert torch.equal(torch.unique(steps, return_inverse=True)[1], torch.unique(time, return_inverse=True)[1])


def test_an_image_takes_so_many_steps():
    """82 steps for 28x28 at slope 2, instead of 784."""
    net = CausalNet(stack(6), inputs=1, width=1)
    steps = along_the_wavefront(net, torch.zeros(1, 1, 28, 28), None)[2]
    assert steps.max() + 1 == 28 + 2 * 27 == 82


@pytest.mark.parametrize("depth", [1, 2, 6, 20])
def test_stacks_of_any_depth_have_slope_2(depth):
    for layers in (stack(depth), with_pointwise(stack(depth), 2), after(CONTEXTS["high"], stack(depth))):
        assert schedule(layers).slope == 2


@pytest.mark.parametrize("columns, rows, slope", [(4, 2, 2), (5, 3, 3), (7, 4, 4), (3, 1, 2), (2, 1, 1), (1, 1, 1), (1, 5, 1), (11, 2, 6)])
def test_blocks_need_a_slope_of_one_more_than_they_see_to_the_right(columns, rows, slope):
    assert schedule(rectangle(columns, rows)).slope == slope


@given(plans())
def test_the_slope_is_the_smallest_that_the_window_allows(plan):
    """Every pixel of the window must be written at an earlier time: ``dj + s di < 0``, and that is all that is asked."""
    layers = network(plan)
    slope = schedule(layers).slope
    assert all(dj + slope * di < 0 for di, dj in reach(layers))
    assert slope == 1 or any(dj + (slope - 1) * di >= 0 for di, dj in reach(layers))


def test_a_linear_prediction_counts_as_part_of_the_window():
    assert schedule(stack(2), Reads(0, ((-1, 4),))).slope == 5


@pytest.mark.parametrize("offset", [(0, 0), (0, 1), (0, 3)])
def test_taps_that_need_a_pixel_before_it_is_written_are_refused(offset):
    """Directly, by two layers, behind a filter that sees the pixel itself, or in the prediction."""
    here = Layer((Reads(0, ((0, 0), (0, -1))),), ((0.5, 0.5),))
    refused = [
        ((Layer((Reads(0, (offset,)),)),), None),
        ((*stack(1), Layer((Reads(1, ((0, 0), (offset[0], offset[1] + 1))),))), None),
        (after((here,), (Layer((Reads(0, (offset,)),)),)), None),
        (stack(1), Reads(0, (offset,))),
    ]
    for layers, predictor in refused:
        with pytest.raises(ValueError, match="before it is written"):
            schedule(layers, predictor)


@pytest.mark.parametrize("kind", [Wavefront, OfTensors])
def test_maps_of_another_type_become_the_networks(kind):
    net = randomise(CausalNet(NAMED["stack"], inputs=1, width=3, code=2)).float()
    image, code = torch.randn(2, 1, 5, 6).float(), torch.randn(2, 2, 5, 6).float()
    for found, expected in zip(
        along_the_wavefront(net, image.double(), code.double(), kind), along_the_wavefront(net, image, code, kind), strict=True
    ):
        assert torch.equal(found, expected)
