"""The compiled loops over all pixels: values and gradients of the convolutions that a GPU computes, whatever the shape, however many threads."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlae.core import fused
from vlae.core.causal import CausalNet
from vlae.core.layers import initialising
from vlae.core.window import Window

from .build import near, network, plans, randomise


def convolved(function):
    """What it gives as if there were no loops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "fits", lambda net, image: False)
        return function()


@pytest.fixture
def threads():
    """Torch's own number of them afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def gradients(net, image, code, weights):
    """Values, and the gradients of image, code and weights."""
    given = [t for t in (image, code) if t is not None]
    features = net(image, code).features
    asked = [*given, *(p for p in net.parameters() if p.requires_grad)]
    return features.detach(), torch.autograd.grad((features * weights).sum(), asked, allow_unused=True, materialize_grads=True)


def same(net, image, code):
    weights = torch.randn(len(image), net.width, *image.shape[2:], dtype=image.dtype)
    assert fused.fits(net, image)
    values, grads = gradients(net, image, code, weights)
    expected, convolved_grads = convolved(lambda: gradients(net, image, code, weights))
    near(values, expected)
    for found, wanted in zip(grads, convolved_grads, strict=True):
        near(found, wanted)


MEMBERS = st.integers(1, 2)


@given(plans(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.sampled_from(["layers", "input"]), st.booleans(), MEMBERS)
def test_values_and_gradients_are_those_of_the_convolutions(plan, batch, height, width, coded, condition, tied, members):
    net = CausalNet(network(plan), inputs=2, width=3 * members, code=2 if coded else 0, condition=condition, members=members)
    if tied:
        net.tie()
    randomise(net)
    image = torch.randn(batch, 2, height, width, requires_grad=True)
    code = torch.randn(batch, 2, height, width, requires_grad=True) if coded else None
    same(net, image, code)


@pytest.mark.parametrize("name, size", [("stack6", (9, 200)), ("all", (28, 28)), ("7x4", (5, 40)), ("r2", (130, 3))])
@pytest.mark.parametrize("context", ["pixels", "high"])
def test_also_for_windows_in_use_and_several_images_to_a_line(name, size, context):
    net = randomise(CausalNet(Window.of(name, context, size).layers, inputs=1, width=8, code=3))
    image, code = (torch.randn(11, channels, *size, requires_grad=True) for channels in (1, 3))
    same(net, image, code)


def test_gradients_are_finite_differences():
    net = randomise(CausalNet(Window.of("stack2").layers, inputs=1, width=2, code=1))
    image, code = (torch.randn(3, 1, 3, 4, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda image, code: net(image, code).features, (image, code))


@pytest.mark.parametrize("grad", [True, False])
def test_results_do_not_depend_on_threads_nor_on_gradients(grad, threads):
    net = randomise(CausalNet(Window.of("stack3").layers, inputs=1, width=8, code=3)).float()
    image, code = torch.randn(13, 1, 28, 28).float(), torch.randn(13, 3, 28, 28).float()
    found = []
    for number in (1, 2):
        threads(number)
        with nullcontext() if grad else torch.no_grad():
            features = net(image, code).features
        found.append([features.detach(), *(torch.autograd.grad(features.square().sum(), list(net.parameters())) if grad else [])])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    with torch.no_grad():
        assert torch.equal(net(image, code).features, found[0][0])


def test_what_the_loops_cannot_do_is_left_to_the_convolutions():
    net, image = randomise(CausalNet(Window.of("stack2").layers, inputs=1, width=2)), torch.randn(2, 1, 3, 4)
    with initialising(net):
        assert not fused.fits(net, image)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.fits(net, image.float()) and fused.fits(net, image)  # autocast leaves float64 alone
    assert not fused.fits(net, image[:0]) and not fused.fits(net, image.to("meta"))
