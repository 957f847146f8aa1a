import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlae.core.causal import CausalNet, Gate, filtered, luminance
from vlae.core.taps import Layer, Reads, after, reach, rectangle, stack
from vlae.core.window import CONTEXTS, Window

from .build import near, network, plans, randomise

SMOOTH = Layer((Reads(0, ((0, 0), (0, -1), (-1, 1))),), ((0.5, 0.3, 0.2),))


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def moved(image: np.ndarray, tap: tuple[int, int]) -> np.ndarray:
    """The image as a tap sees it from every pixel, zero outside."""
    out = np.zeros_like(image)
    for i in range(image.shape[2]):
        for j in range(image.shape[3]):
            k, m = i + tap[0], j + tap[1]
            if 0 <= k < image.shape[2] and 0 <= m < image.shape[3]:
                out[:, :, i, j] = image[:, :, k, m]
    return out


def by_hand(net: CausalNet, image: Tensor, code: Tensor | None) -> np.ndarray:
    """``h = h_residual + a sigmoid(b), (a, b) = sum over reads and taps of W h + C m + bias``, in NumPy."""
    values = [array(image)]
    for number, layer in enumerate(net.layers):
        if layer.fixed:
            terms = [w * moved(values[r.source], t) for r, ws in zip(layer.reads, layer.fixed, strict=True) for t, w in zip(r.taps, ws, strict=True)]
            values.append(sum(terms))
            continue
        total = 0.0
        for read, conv in zip(layer.reads, net.convs[number], strict=True):
            weight = array((conv.g / conv.v.flatten(1).norm(dim=1)).view(-1, 1, 1) * conv.v)
            for column, tap in enumerate(sorted(read.taps)):
                total = total + np.einsum("oi,bihw->bohw", weight[:, :, column], moved(values[read.source], tap))
            total = total + array(conv.b).reshape(1, -1, 1, 1)
        if code is not None and str(number) in net.conditions:
            total = total + array(net.conditions[str(number)](code))
        a, b = np.split(total, 2, axis=1)
        here = [r.source for r in layer.reads if (0, 0) in r.taps]
        values.append(a / (1 + np.exp(-b)) + (values[here[0]] if here else 0))
    return values[-1]


@given(plans(), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.sampled_from(["layers", "input"]), st.booleans())
def test_a_network_is_its_formula(plan, height, width, coded, condition, tied):
    net = CausalNet(network(plan), inputs=2, width=3, code=2 if coded else 0, condition=condition)
    if tied:
        net.tie()
    randomise(net)
    image, code = torch.randn(2, 2, height, width), torch.randn(2, 2, height, width) if coded else None
    with torch.no_grad():
        near(net(image, code).features, torch.from_numpy(by_hand(net, image, code)))


@pytest.mark.parametrize("name, directions", [("all", 5), ("stack6", 2), ("4x2", 4)])
def test_layers_that_are_tied_share_a_direction_and_nothing_else(name, directions):
    """Of ``all`` the image's two, the vertical layers' one and the horizontal layers' two; of a copy, in whatever precision, as many."""
    net = CausalNet(Window.of(name, image=(9, 9)).layers, inputs=1, width=3)
    net.tie()
    copied = copy.deepcopy(net).float()
    for one in (net, copied):
        convs = [conv for layer in one.convs for conv in layer]
        assert len({id(conv.v) for conv in convs}) == directions < len({id(conv.g) for conv in convs}) == len(convs)
        assert sum(key.endswith(".v") for key in one.state_dict()) == directions == sum(key.endswith(".v") for key, _ in one.named_parameters())
        assert {conv.v.dtype for conv in convs} == {next(one.parameters()).dtype}
    assert not {id(p) for p in net.parameters()} & {id(p) for p in copied.parameters()}


@given(plans(), st.sampled_from(["layers", "input"]), st.booleans())
def test_members_are_networks_by_themselves(plan, condition, tied):
    """Each gives what a network of its own width and weights gives, and nothing that is learnt from one reaches the weights of another."""
    count, width = 3, 2
    net = CausalNet(network(plan), inputs=2, width=count * width, code=2, condition=condition, members=count)
    alone = CausalNet(network(plan), inputs=2, width=width, code=2, condition=condition)
    for one in (net, alone) if tied else ():
        one.tie()
    randomise(net)
    image, code = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    features = net(image, code).features.chunk(count, dim=1)
    for member in range(count):
        for name, own in alone.named_parameters():
            place = net.get_parameter(name).detach().unflatten(0, (2, count, width))[:, member].flatten(0, 1)
            own.data.copy_(place if place.shape == own.shape else place.chunk(count, dim=1)[member])
        near(features[member], alone(image, code).features)
        others = [n for n in range(count) if n != member]
        for of_it in torch.autograd.grad(features[member].sum(), list(net.parameters()), retain_graph=True):
            assert not of_it.unflatten(0, (2, count, width))[:, others].any()


@given(plans())
def test_the_last_layer_depends_on_its_reach_and_on_nothing_else(plan):
    """The Jacobian at a pixel so far from the borders that no path leaves the image: zero where forbidden, non-zero where allowed."""
    layers, here = network(plan), (12, 18)
    net = randomise(CausalNet(layers, inputs=1, width=4))
    image = torch.randn(2, 1, 14, 37, requires_grad=True)
    features = net(image).features[:, :, here[0], here[1]]
    (gradient,) = torch.autograd.grad((features * torch.randn_like(features)).sum(), image)
    depends = gradient.abs().sum((0, 1))
    allowed = torch.zeros_like(depends, dtype=torch.bool)
    for di, dj in reach(layers):
        allowed[here[0] + di, here[1] + dj] = True
    assert (depends[~allowed] == 0).all() and (depends[allowed] > 0).all()


@pytest.mark.parametrize("condition, told", [("layers", {"1", "2", "3", "4"}), ("input", {"1", "3"})])
def test_the_code_enters_every_layer_or_those_that_read_the_context(condition, told):
    """One fixed layer, then the paper's 4x2 block: vertical, horizontal (which reads the image too), horizontal; and one more."""
    layers = after((SMOOTH,), (*rectangle(4, 2), Layer((Reads(3, ((0, 0),)),))))
    net = CausalNet(layers, inputs=1, width=3, code=2, condition=condition)
    assert set(net.conditions) == ({"1", "2"} if condition == "input" else told)
    image, code = torch.randn(1, 1, 3, 4), torch.randn(1, 2, 3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(image, code).features.sum(), code)
    assert (gradient != 0).all()


def test_without_layers_the_code_map_is_handed_on():
    net, code = CausalNet((), inputs=1, width=3, code=2), torch.randn(1, 2, 3, 4)
    seen = net(torch.randn(1, 1, 3, 4), code)
    assert seen.features is code and seen.prediction is None


@pytest.mark.parametrize("context", ["low", "high"])
def test_contexts_are_filters(context):
    """The low-pass is the kernel convolved with itself three times; the high-pass is what it leaves."""
    kernel = np.zeros((3, 3))
    kernel[0, :] = kernel[1, :2] = 0.2
    image = torch.randn(2, 3, 5, 7)
    low = array(image)
    for _ in range(3):
        low = sum(kernel[1 + di, 1 + dj] * moved(low, (di, dj)) for di in (-1, 0) for dj in (-1, 0, 1))
    net = CausalNet(after(CONTEXTS[context], stack(1)), inputs=3, width=2)
    near(net.contexts(image)[-1], torch.from_numpy(low if context == "low" else array(image) - low))


def test_a_fixed_layer_keeps_weights_with_their_taps():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert filtered(SMOOTH, [image])[0, 0, 2, 1].item() == pytest.approx(0.5 * 9 + 0.3 * 8 + 0.2 * 6)


def test_gates_are_linear_and_residuals_are_added():
    total, residual = torch.randn(5, 6, 2, 1), torch.randn(5, 3, 2, 1)
    a, b = total.chunk(2, dim=1)
    near(Gate()(total, None), a * torch.sigmoid(b))
    near(Gate()(total, residual), residual + a * torch.sigmoid(b))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_gates_are_those_of_their_formula(layout):
    total = torch.randn(2, 6, 4, 5).contiguous(memory_format=layout).requires_grad_()
    residual, weights = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5)
    ours = torch.autograd.grad((Gate()(total, residual) * weights).sum(), [total, residual])
    a, b = total.split(3, dim=1)
    theirs = torch.autograd.grad(((residual + a * torch.sigmoid(b)) * weights).sum(), [total, residual])
    for one, other in zip(ours, theirs, strict=True):
        near(one, other)


def test_a_prediction_is_linear_in_the_window():
    net = randomise(CausalNet(stack(2), inputs=2, width=3, predictor=Reads(0, ((-1, 0), (0, -1)))))
    image = torch.randn(1, 2, 3, 4)
    above, left = (torch.from_numpy(moved(array(image), tap)).to(image) for tap in ((-1, 0), (0, -1)))
    weights = net.prediction
    near(
        net(image).prediction,
        torch.einsum("pk,bkhw->bphw", weights[:, :, 0], above) + torch.einsum("pk,bkhw->bphw", weights[:, :, 1], left),
    )


def test_luminance_is_that_of_the_paper():
    colours = torch.eye(3).view(3, 3, 1, 1)
    near(luminance(colours).flatten(), torch.tensor([0.299, 0.587, 0.114]))
