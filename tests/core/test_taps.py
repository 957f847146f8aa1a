import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve2d

from vlae.core.taps import Layer, Reads, after, everything, is_before, reach, reaches, rectangle, stack, with_pointwise

from .build import block, earlier, network, picture, plans, trapezoid

PICTURES = {
    "stack1": (stack(1), "o o o\no X"),
    "stack2": (stack(2), "o o o o o\no o o o  \no o X"),
    "stack3": (stack(3), "o o o o o o o\no o o o o o  \no o o o o\no o o X"),
    "4x2": (rectangle(4, 2), "o o o o\no o o o\no o X"),
    "5x3": (rectangle(5, 3), "o o o o o\no o o o o\no o o o o\no o X"),
    "7x4": (rectangle(7, 4), "o o o o o o o\no o o o o o o\no o o o o o o\no o o o o o o\no o o X"),
    "1x1": (rectangle(1, 1), "o\nX"),
    "1x3": (rectangle(1, 3), "o\no\no\nX"),
    "2x1": (rectangle(2, 1), "o o\no X"),
    "2x2": (rectangle(2, 2), "o o\no o\no X"),
    "3x1": (rectangle(3, 1), "o o o\no X"),
    "3x3": (rectangle(3, 3), "o o o\no o o\no o o\no X"),
    "6x1": (rectangle(6, 1), "o o o o o o\no o o X"),
    "7x1": (rectangle(7, 1), "o o o o o o o\no o o X"),
}


@pytest.mark.parametrize("layers, drawn", PICTURES.values(), ids=PICTURES)
def test_windows_as_they_are_drawn(layers, drawn):
    assert reach(layers) == picture(drawn)


@pytest.mark.parametrize("columns", range(1, 12))
def test_rectangles_are_those_of_the_paper(columns):
    for rows in range(1, 9):
        assert reach(rectangle(columns, rows)) == block(columns, rows), (columns, rows)


@pytest.mark.parametrize("depth", range(1, 9))
def test_stacks_are_trapezoids(depth):
    assert reach(stack(depth)) == trapezoid(depth)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (2, 2), (5, 7), (8, 8), (9, 16), (17, 3), (28, 28)])
def test_everything_is_every_earlier_pixel(height, width):
    """Offsets that leave the image whatever the pixel do not matter."""
    inside = {(di, dj) for di, dj in reach(everything(height, width)) if -height < di and abs(dj) < width}
    assert inside == earlier(height, width)


def test_layers_of_a_stack():
    assert stack(2) == (
        Layer((Reads(0, ((-1, -1), (-1, 0), (-1, 1), (0, -1))),)),
        Layer((Reads(1, ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))),)),
    )


def test_layers_of_the_papers_4x2():
    """One vertical layer of 2 rows by 3 columns; two horizontal ones."""
    vertical, first, second = rectangle(4, 2)
    assert vertical == Layer((Reads(0, ((-2, -1), (-2, 0), (-2, 1), (-1, -1), (-1, 0), (-1, 1))),))
    assert first == Layer((Reads(0, ((0, -1),)), Reads(1, ((0, 0),))))
    assert second == Layer((Reads(2, ((0, 0), (0, -1))), Reads(1, ((0, 0),))))


@pytest.mark.parametrize("name, vertical, horizontal", [("4x2", 1, 2), ("5x3", 2, 2), ("7x4", 3, 3)])
def test_vertical_and_horizontal_layers_are_as_many_as_in_the_paper(name, vertical, horizontal):
    rows_seen = [min(di for di, _ in seen) < 0 and all(di < 0 for di, _ in seen) for seen in reaches(PICTURES[name][0])]
    assert (sum(rows_seen), len(rows_seen) - sum(rows_seen)) == (vertical, horizontal)


@pytest.mark.parametrize("layers", [stack(4), rectangle(5, 3), rectangle(4, 2), rectangle(1, 2), everything(5, 4)])
def test_every_layer_sees_only_earlier_pixels(layers):
    assert all(is_before(offset) for seen in reaches(layers) for offset in seen)


def test_before_is_raster_order():
    index = {(i, j): 5 * i + j for i in range(5) for j in range(5)}
    middle = index[2, 2]
    assert all(is_before((i - 2, j - 2)) == (at < middle) for (i, j), at in index.items())


@given(plans())
def test_reach_counts_every_path(plan):
    """Adding up taps along paths is multiplying their indicators as polynomials: a 2-D convolution."""
    layers = network(plan)
    size = 41
    sources = [np.zeros((size, size))]
    sources[0][size // 2, size // 2] = 1
    for layer in layers:
        total = np.zeros((size, size))
        for read in layer.reads:
            taps = np.zeros((7, 7))
            for di, dj in read.taps:
                taps[3 + di, 3 + dj] = 1
            total += convolve2d(sources[read.source], taps, mode="same")
        sources.append(np.minimum(total.round(), 1))
    for seen, literal in zip(reaches(layers), sources[1:], strict=True):
        assert {(i - size // 2, j - size // 2) for i, j in np.argwhere(literal)} == seen


@given(st.sampled_from([stack(3), rectangle(4, 2), rectangle(5, 3), everything(3, 3)]), st.integers(0, 3))
def test_pointwise_layers_add_capacity_and_no_reach(layers, count):
    more = with_pointwise(layers, count)
    assert reach(more) == reach(layers)
    added = [layer for layer in more if len(layer.reads) == 1 and layer.reads[0].taps == ((0, 0),)]
    assert len(more) - len(layers) == count * (len(layers) - 1) <= len(added)


def test_pointwise_layers_stand_between_the_others():
    more = with_pointwise(stack(2), 2)
    assert [layer.reads[0].source for layer in more] == [0, 1, 2, 3]
    assert [len(layer.reads[0].taps) for layer in more] == [4, 1, 1, 5]


def test_pointwise_layers_leave_fixed_layers_alone():
    smooth = Layer((Reads(0, ((0, 0), (0, -1))),), ((0.5, 0.5),))
    layers = with_pointwise(after((smooth,), stack(2)), 1)
    assert [layer.fixed is not None for layer in layers] == [True, False, False, False]
    assert [layer.reads[0].source for layer in layers] == [0, 1, 2, 3]


def test_after_adds_the_reaches():
    first, then = stack(1), stack(2)
    assert reach(after(first, then)) == {(a + c, b + d) for a, b in reach(first) for c, d in reach(then)}


def test_a_layer_adds_to_the_first_source_that_it_reads_at_the_pixel_itself():
    assert [layer.residual for layer in stack(3)] == [None, 1, 2]
    assert [layer.residual for layer in rectangle(4, 2)] == [None, 1, 2]
    assert [layer.residual for layer in rectangle(5, 3)] == [None, 1, 1, 3]
    assert Layer((Reads(0, ((0, 0),)),), ((1.0,),)).residual is None
