import pytest

from vlae.core.taps import stack
from vlae.core.window import CONTEXTS, Window, draw

from .build import block, earlier, expected, picture, trapezoid

# The support of the low-pass filter, three passes over the pixel and the four that a 2x3 tap set sees before it: X is part of it.
LOW = picture("o o o o o o o\no o o o o o  \no o o o o    \no o o X      ") | {(0, 0)}


@pytest.mark.parametrize("name", ["none", "stack1", "stack3", "stack12", "4x2", "5x3", "7x4", "1x1", "2x1", "11x3"])
@pytest.mark.parametrize("context", ["pixels", "grey", "low", "high"])
def test_names(name, context):
    seen = Window.of(name, context)
    offsets = expected(name, (0, 0))
    assert seen.offsets == offsets
    filtered = context in ("low", "high")
    assert seen.pixels == ({(a + c, b + d) for a, b in offsets for c, d in LOW} if filtered else offsets)


@pytest.mark.parametrize("radius", [1, 2, 3, 10])
def test_a_radius_is_the_block_around(radius):
    assert Window.of(f"r{radius}").offsets == block(2 * radius + 1, radius)


def test_all_is_every_earlier_pixel():
    assert earlier(4, 6) <= Window.of("all", image=(4, 6)).offsets
    with pytest.raises(ValueError, match="size of the image"):
        Window.of("all")


@pytest.mark.parametrize(
    "name", ["", "4", "x2", "4x", "0x2", "4x0", "-1x2", "r0", "stack0", "stack", "r", "4x2 ", "4X2", "4x2x1", "100x1", "r1\u0663"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="a window is 'none'"):
        Window.of(name)


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_plain_vae_sees_nothing_of_any_context(context):
    assert Window.of("none", context).layers == () and not Window.of("none", context).pixels


def test_the_filters_sum_to_one_and_to_zero():
    low, high = CONTEXTS["low"], CONTEXTS["high"]
    assert [sum(layer.fixed[0]) for layer in low] == pytest.approx([1, 1, 1])
    assert sum(sum(weights) for weights in high[-1].fixed) == 0


def test_a_window_is_a_value_that_can_be_drawn():
    assert str(Window.of("5x3")) == "o o o o o\no o o o o\no o o o o\no o X"
    assert str(Window.of("none")) == "X"
    assert picture(str(Window.of("stack2"))) == trapezoid(2)
    assert Window.of("stack2") == Window("stack2", stack(2))


def test_draw_marks_what_is_not_seen():
    assert draw({(-1, 1), (0, -2)}) == ". . . o\no . X"
