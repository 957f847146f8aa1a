import itertools
import math

import pytest
import torch

from vlae.core.flows import Flow, Made, MaskedGrid, Step, grid_flow, vector_flow

from .build import near, randomise, trapezoid

VECTOR = {
    f"vector {dims}, {steps} steps of {layers} layers{', with scale' * scaled}{', told' * bool(context)}": (
        lambda dims=dims, steps=steps, layers=layers, scaled=scaled, context=context: vector_flow(dims, steps, 9, layers, scaled, context),
        (dims,),
        (context,) if context else None,
    )
    for (dims, steps, layers), scaled, context in itertools.product([(1, 2, 3), (2, 1, 2), (5, 1, 3), (6, 4, 3)], [False, True], [0, 3])
}
GRID = {
    f"grid {shape}, {steps} steps{', with scale' * scaled}{', told' * bool(context)}": (
        lambda k=shape[0], steps=steps, scaled=scaled, context=context: grid_flow(k, steps, 5, scaled=scaled, context=context),
        shape,
        (context, *shape[1:]) if context else None,
    )
    for (shape, steps), scaled, context in itertools.product([((2, 3, 4), 3), ((1, 1, 5), 2), ((3, 4, 1), 2), ((2, 1, 1), 1)], [False, True], [0, 2])
}
FLOWS = {**VECTOR, **GRID}


def made(make, shape, context, batch=3) -> tuple[Flow, torch.Tensor, torch.Tensor | None]:
    """A flow of random weights, which magnifies rounding errors: in float64 whatever the others are in."""
    flow = randomise(make()).double()
    return flow, torch.randn(batch, *shape).double(), None if context is None else torch.randn(batch, *context).double()


@pytest.mark.parametrize("make, shape, context", FLOWS.values(), ids=FLOWS)
def test_a_flow_inverts(make, shape, context):
    flow, y, told = made(make, shape, context)
    with torch.no_grad():
        near(flow.inverse(flow(y, told).value, told), y)
        near(flow(flow.inverse(y, told), told).value, y)


@pytest.mark.parametrize("make, shape, context", VECTOR.values(), ids=VECTOR)
def test_compiled_loops_invert_as_tensor_operations_do(make, shape, context):
    flow, y, told = made(make, shape, context)
    with torch.no_grad():
        compiled = flow.inverse(y, told)
    near(compiled, flow.inverse(y, told).detach())


@pytest.mark.parametrize("make, shape, context", FLOWS.values(), ids=FLOWS)
def test_the_log_determinant_is_that_of_the_jacobian(make, shape, context):
    flow, y, told = made(make, shape, context, batch=2)
    count, ladj = math.prod(shape), flow(y, told).ladj
    assert ladj.shape == y.shape
    for n in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda one, n=n: flow(one[None], told[n : n + 1] if told is not None else None).value, y[n])
        near(ladj[n].sum(), torch.linalg.slogdet(jacobian.reshape(count, count)).logabsdet)


@pytest.mark.parametrize("make, shape, context", FLOWS.values(), ids=FLOWS)
def test_a_flow_without_scale_keeps_volumes(make, shape, context):
    flow, y, told = made(make, shape, context)
    assert any(step.net.scaled for step in flow.steps) or (flow(y, told).ladj == 0).all()


def depends_on(net, y, context=None):
    """Whether shift and log scale of each element depend on each element: ``(elements, elements)`` for both, many points together."""
    count = y[0].numel()

    def told(one):
        return torch.stack([part.reshape(len(one), -1).sum(0) for part in net(one, context)])

    return torch.autograd.functional.jacobian(told, y).abs().sum(2).reshape(2, count, count)


@pytest.mark.parametrize("dims", range(1, 8))
@pytest.mark.parametrize("hidden, layers", [(7, 2), (20, 3), (24, 4)])
@pytest.mark.parametrize("context", [0, 2])
def test_made_tells_each_element_from_all_before_it(dims, hidden, layers, context):
    net = randomise(Made(dims, hidden, layers, scaled=True, context=context))
    of_shift, of_scale = depends_on(net, torch.randn(40, dims), torch.randn(40, context) if context else None)
    before = torch.ones(dims, dims).tril(-1).bool()
    for jacobian in (of_shift, of_scale):
        assert (jacobian[~before] == 0).all() and (jacobian[before] > 0).all()


@pytest.mark.parametrize("dims", [1, 4])
@pytest.mark.parametrize("layers", [2, 3])
def test_made_hears_its_context_in_all_elements(dims, layers):
    net, context = randomise(Made(dims, 12, layers, scaled=True, context=2)), torch.randn(40, 2, requires_grad=True)
    shift, log_scale = net(torch.randn(40, dims), context)
    for element in range(1, dims):
        for told in (shift, log_scale):
            assert torch.autograd.grad(told[:, element].sum(), context, retain_graph=True)[0].abs().sum() > 0


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_masked_convolutions_tell_each_position_from_those_before_it(layers):
    """All channels of a position from no channel of it, and from all channels of the window of the stack."""
    height, width, channels = 4, 5, 2
    net = randomise(MaskedGrid(channels, 6, layers, scaled=True))
    of_shift, of_scale = depends_on(net, torch.randn(2, channels, height, width))
    seen = trapezoid(layers)
    places = list(itertools.product(range(height), range(width)))
    before = torch.tensor([[(k - i, m - j) in seen for k, m in places] for i, j in places]).repeat(channels, channels)
    for jacobian in (of_shift, of_scale):
        assert (jacobian[~before] == 0).all() and (jacobian[before] > 0).all()


@pytest.mark.parametrize("net, shape", [(lambda: Made(4, 9, 3, True), (4,)), (lambda: MaskedGrid(1, 5, 2, True), (1, 2, 3))])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_other_step_reads_in_reversed_order(net, shape, reverse):
    step, y = randomise(Step(net(), reverse)), torch.randn(shape)
    count = y.numel()
    jacobian = torch.autograd.functional.jacobian(lambda one: step(one[None]).value, y).reshape(count, count)
    assert (jacobian.T if reverse else jacobian).triu(1).abs().max() == 0
    assert (jacobian - jacobian.diag().diag()).abs().max() > 0
    ladj = step(y[None]).ladj[0].flatten()
    near(ladj, jacobian.diag().log())  # in the order of the elements, not of the step
    assert [s.reverse for s in vector_flow(3, 4, 4).steps] == [s.reverse for s in grid_flow(1, 4, 4).steps] == [False, True, False, True]


def test_steps_together_reach_every_element():
    """After one step in each order no element of a vector is without the others."""
    flow, y = randomise(vector_flow(4, 2, 12, scaled=True)), torch.randn(20, 4)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v).value.sum(0), y).abs().sum(1)
    assert (jacobian > 0).all()


@pytest.mark.parametrize("make, shape, context", [FLOWS[name] for name in list(FLOWS)[-4:]] + [VECTOR[name] for name in list(VECTOR)[-4:]])
def test_a_flow_maps_each_of_a_batch_alone(make, shape, context):
    flow, y, told = made(make, shape, context, batch=4)
    together = flow(y, told)
    for n in range(4):
        alone = flow(y[n : n + 1], told[n : n + 1] if told is not None else None)
        near(alone.value[0], together.value[n])
        near(alone.ladj[0], together.ladj[n])


def test_scales_are_bounded():
    """However large the numbers of a network, a step scales by exp(-2) to exp(2)."""
    step = randomise(Step(Made(3, 8, 2, True), reverse=False))
    with torch.no_grad():
        step.net.linears[-1].g.mul_(1e4)
    assert step(torch.randn(50, 3)).ladj.abs().max() <= 2


def test_the_papers_prior_has_so_many_parameters():
    """Four steps of three layers, 64 dimensions and 640 units: weights by direction, length and bias of each output; means only."""
    assert sum(p.numel() for p in vector_flow(64, 4, 640).parameters()) == 4 * (640 * 64 + 640 * 640 + 64 * 640 + 2 * (640 + 640 + 64))


def test_a_network_without_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="hidden layer"):
        Made(3, 4, 1, scaled=False)
