import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vlae.core.layers import Conv, DenseBlock, Linear, ResBlock, TapConv, TapGrid, Upsample, WeightNorm, initialising

from .build import near, randomise

TAP_SETS = {
    "2x3 of a first layer": ((-1, -1), (-1, 0), (-1, 1), (0, -1)),
    "2x3": ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)),
    "one above": ((-1, 0),),
    "one to the left": ((0, -1),),
    "itself": ((0, 0),),
    "more to the right than to the left": ((-2, -1), (-2, 0), (-2, 3), (-1, 2)),
    "only to the right": ((-1, 1), (-1, 2), (-3, 4)),
    "only to the left": ((0, -5), (-1, -3)),
    "dilated": ((-4, -4), (-4, 0), (-4, 4), (0, -4), (0, 0)),
    "dilated differently": ((-6, -1), (-3, 2), (0, -1)),
    "at distances 2 and 3": ((0, -5), (0, -3), (0, 0), (-5, 0), (-3, 0)),
    "beyond the image": ((-9, 0), (0, -9), (-9, 9), (0, 0)),
}


def by_shifts(x, weight, bias, taps):
    """Read every tap of every pixel, one by one."""
    out = bias.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:]).clone()
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            for t, (di, dj) in enumerate(taps):
                if 0 <= i + di < x.shape[2] and 0 <= j + dj < x.shape[3]:
                    out[:, :, i, j] += x[:, :, i + di, j + dj] @ weight[:, :, t].T
    return out


@pytest.mark.parametrize("taps", TAP_SETS.values(), ids=TAP_SETS)
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (4, 7)])
def test_a_tap_grid_reads_its_taps(taps, size):
    x, weight, bias = torch.randn(2, 3, *size), torch.randn(4, 3, len(taps)), torch.randn(4)
    near(TapGrid(taps).convolve(x, weight, bias), by_shifts(x, weight, bias, taps))


@given(st.lists(st.tuples(st.integers(-4, 0), st.integers(-4, 4)), min_size=1, max_size=5, unique=True), st.integers(1, 5), st.integers(1, 6))
def test_a_tap_grid_reads_any_taps_in_the_order_given(taps, height, width):
    x, weight, bias = torch.randn(1, 2, height, width), torch.randn(2, 2, len(taps)), torch.randn(2)
    near(TapGrid(tuple(taps)).convolve(x, weight, bias), by_shifts(x, weight, bias, taps))


def test_a_tap_convolution_has_weights_for_its_taps_only():
    """In sorted order, whatever the order they are given in; a stack's layer keeps 5 of the 9 weights of a masked 3x3 kernel."""
    conv = randomise(TapConv(3, 4, ((0, 0), (-1, 1), (0, -1))))
    assert conv.v.shape == (4, 3, 3) and conv.taps == ((-1, 1), (0, -1), (0, 0))
    x = torch.randn(2, 3, 4, 5)
    near(conv(x), by_shifts(x, conv.weight(), conv.b, conv.taps))


def test_the_kernel_of_2x3_taps_is_2x3_and_zero_to_the_right():
    grid = TapGrid(TAP_SETS["2x3"])
    assert grid.kernel(torch.arange(1.0, 6).view(1, 1, 5)).tolist() == [[[[1, 2, 3], [4, 5, 0]]]]


@pytest.mark.parametrize("name, size, dilation", [("dilated", (2, 3), (4, 4)), ("dilated differently", (3, 2), (3, 3)), ("2x3", (2, 3), (1, 1))])
def test_taps_far_apart_need_no_larger_kernel(name, size, dilation):
    grid = TapGrid(TAP_SETS[name])
    assert (grid.height, grid.width) == size and grid.dilation == dilation


@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (3, 2)])
def test_weights_have_the_direction_of_v_and_the_length_g(kernel, stride):
    layer = randomise(Conv(3, 4, kernel, stride))
    v, g, b = (some.detach().clone().requires_grad_() for some in (layer.v, layer.g, layer.b))
    x = torch.randn(2, 3, 6, 7)
    weight = torch.stack([g[o] * v[o] / v[o].square().sum().sqrt() for o in range(4)])
    expected = F.conv2d(x, weight, b, stride, padding=kernel // 2)
    near(layer(x), expected)
    for y in (layer(x), expected):
        y.square().sum().backward()
    for ours, theirs in zip((layer.v, layer.g, layer.b), (v, g, b), strict=True):
        near(ours.grad, theirs.grad)


@pytest.mark.parametrize("inputs, outputs", [(3, 0), (0, 4), (0, 0)])
def test_layers_of_nothing_have_weights_too(inputs, outputs):
    assert Conv(inputs, outputs).weight().shape == (outputs, inputs, 3, 3) and Linear(inputs, outputs).weight().shape == (outputs, inputs)


def test_the_length_of_v_is_of_no_consequence():
    layer, x = randomise(Linear(5, 3)), torch.randn(4, 5)
    before = layer(x)
    with torch.no_grad():
        layer.v.mul_(torch.tensor([[1e-3], [7.0], [1e4]]))
    near(layer(x), before)
    near(layer.weight().norm(dim=1), layer.g)


LAYERS = {
    "linear": (lambda: Linear(6, 5, scale=0.3), (40, 6)),
    "conv": (lambda: Conv(3, 5, scale=2.0), (6, 3, 5, 7)),
    "strided": (lambda: Conv(3, 5, stride=2), (6, 3, 5, 7)),
    "taps": (lambda: TapConv(3, 5, TAP_SETS["2x3"]), (6, 3, 5, 7)),
}


@pytest.mark.parametrize("make, shape", LAYERS.values(), ids=LAYERS)
def test_initialisation_standardises_each_output(make, shape):
    layer, x = randomise(make()), 3 + 2 * torch.randn(shape)
    with initialising(layer):
        told = layer(x)
    by_channel = told.transpose(0, 1).flatten(1)
    near(by_channel.mean(1), torch.zeros(5))
    near(by_channel.std(1, correction=0), torch.full((5,), layer.scale))
    near(layer(x), told)  # g and b hold it


def test_initialisation_standardises_every_layer_of_a_network():
    """Each from what the layers before it, standardised already, hand on."""
    net = nn.Sequential(Conv(2, 4), ResBlock(4, 6, stride=2), DenseBlock(6, 6), Upsample(6, 3))
    x = torch.randn(8, 2, 8, 8)
    with initialising(net):
        net(x)
    outputs: list[tuple[WeightNorm, torch.Tensor]] = []
    layers = [m for m in net.modules() if isinstance(m, WeightNorm)]
    for layer in layers:
        layer.register_forward_hook(lambda module, _, out: outputs.append((module, out.detach())))
    net(x)
    assert len(outputs) == len(layers) == 1 + 3 + 4 + 1
    for layer, out in outputs:
        near(out.mean((0, 2, 3)), torch.zeros(out.shape[1]))
        near(out.std((0, 2, 3), correction=0), torch.full((out.shape[1],), layer.scale))


def test_initialisation_ends_with_its_block_even_after_an_error():
    layer = Linear(2, 2)
    with pytest.raises(KeyError), initialising(layer):
        raise KeyError
    g = layer.g.clone()
    layer(torch.randn(9, 2))
    assert torch.equal(layer.g, g)


def test_an_output_that_does_not_vary_is_shifted_and_not_blown_up():
    """One image alone, or blank images, say nothing of the scale of an output: later images must not meet a gain of a thousand."""
    layer = Linear(3, 4)
    with initialising(layer):
        assert torch.equal(layer(torch.ones(1, 3)), torch.zeros(1, 4))
    near(layer.weight().norm(dim=1), torch.ones(4))


def test_residual_block():
    block, x = randomise(ResBlock(3, 5, stride=2)), torch.randn(2, 3, 5, 8)
    long = F.conv2d(F.elu(F.conv2d(F.elu(x), *plain(block.first), stride=2, padding=1)), *plain(block.second), padding=1)
    near(block(x), long + F.conv2d(x, *plain(block.shortcut), stride=2, padding=1))
    same = ResBlock(3, 3)
    with initialising(same):
        near((same(x) - x).std((0, 2, 3), correction=0), torch.full((3,), 0.1))  # starts near what passes by
    assert sum(isinstance(m, Conv) for m in same.modules()) == 2  # nothing on the way past
    with torch.no_grad():
        same.second.g.zero_()
        same.second.b.zero_()
    assert torch.equal(same(x), x)


def test_dense_block():
    block, x = randomise(DenseBlock(4, 6)), torch.randn(2, 4, 5, 8)
    one = torch.cat([x, F.conv2d(F.elu(x), *plain(block.steps[0]), padding=1)], 1)
    two = torch.cat([one, F.conv2d(F.elu(one), *plain(block.steps[1]), padding=1)], 1)
    three = torch.cat([two, F.conv2d(F.elu(two), *plain(block.steps[2]), padding=1)], 1)
    assert three.shape[1] == 4 + 3 * 2
    near(block(x), F.conv2d(F.elu(three), *plain(block.merge)))


def test_upsampling_lays_four_channels_out_as_a_square():
    up, x = randomise(Upsample(3, 2)), torch.randn(2, 3, 4, 5)
    wide, out = up.conv(x), up(x)
    assert out.shape == (2, 2, 8, 10)
    for channel in range(2):
        for k in range(4):
            assert torch.equal(out[:, channel, k // 2 :: 2, k % 2 :: 2], wide[:, 4 * channel + k])


def plain(conv):
    """The weight and bias of a convolution."""
    return conv.g.view(-1, 1, 1, 1) * F.normalize(conv.v.flatten(1)).view_as(conv.v), conv.b
