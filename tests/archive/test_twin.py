"""The twin computes whole numbers that are the same in any order and precision, close to what the decoder computes."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlae.archive.codebook import Codebook
from vlae.archive.coder import decode, encode
from vlae.archive.twin import CODE_MOST, EXACT, GREY_STEP, exact_sums, twin
from vlae.archive.whole import GATE_SCALE, MOST, WholeConv, WholeDenseBlock
from vlae.core.wavefront import Wavefront

from .build import made, plan, tensors

KINDS = {
    "grey": {},
    "rgb": {"colours": 3},
    "rgb seen as grey": {"colours": 3, "context": "grey"},
    "few levels": {"levels": 7},
    "bits": {"levels": 2},
    "16 bits": {"levels": 65536},
}
NAMES = ["none", "stack2", "4x2", "5x3", "all"]
FORMS = list(itertools.product(NAMES, ["layers", "input"], [0, 1]))


def doubled(one):
    """The same twin in float64, on the same codes and images."""
    return tensors(copy.deepcopy(one.codec.twin).double(), None if one.z is None else one.z.double(), one.x.double())


@pytest.mark.parametrize("kind, code", list(itertools.product(KINDS, ["grid", "vector", "none"])))
def test_every_layer_is_whole_and_the_same_in_double_precision(kind, code):
    one = made(plan("4x2", code=code, size=(6, 7), **KINDS[kind]))
    found = tensors(one.codec.twin, one.z, one.x)
    assert all(torch.equal(value, value.round()) for value in found)
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(found, doubled(one), strict=True))


@pytest.mark.parametrize("code", ["grid", "vector"])
def test_so_it_is_with_dense_blocks(code):
    one = made(replace(plan("stack2", code=code, size=(6, 7)), block="densenet"))
    found = tensors(one.codec.twin, one.z, one.x)
    assert any(isinstance(m, WholeDenseBlock) for m in one.codec.twin.modules())
    assert all(torch.equal(value, value.round()) for value in found)
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(found, doubled(one), strict=True))
    with torch.no_grad():
        real, whole = one.real.spread(one.codes, (6, 7)), one.codec.twin.spread(one.z, (6, 7)) / 2**one.codec.twin.fraction
    assert (real - whole).norm() < 0.1 * real.norm()


@pytest.mark.parametrize("name, condition, pointwise", FORMS)
def test_so_it_is_for_every_window_and_in_another_batch(name, condition, pointwise):
    one = made(plan(name, condition=condition, pointwise=pointwise, size=(6, 7)))
    found = tensors(one.codec.twin, one.z, one.x)
    single = [tensors(one.codec.twin, one.z[n : n + 1], one.x[n : n + 1]) for n in range(3)]
    assert all(torch.equal(value, torch.cat(parts)) for value, *parts in zip(found, *single, strict=True))
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(found, doubled(one), strict=True))


def whole(values):
    """The whole numbers that a tensor holds."""
    found = values.numpy().astype(np.int64)
    assert np.array_equal(found, values.numpy())
    return found


def nearest(value, powers):
    """Of a whole number divided by two so often: the nearest, and of two the even one."""
    powers = np.maximum(powers, 0)
    down, half = value >> powers, np.int64(1) << np.maximum(powers - 1, 0)
    rest = value - (down << powers)
    return down + np.where(powers > 0, (rest > half) | ((rest == half) & (down % 2 == 1)), 0)


def read(taps, weights, source):
    """The sums of one read, pixel by pixel and tap by tap."""
    total = np.zeros((source.shape[0], weights.shape[0], *source.shape[2:]), np.int64)
    height, width = source.shape[2:]
    for (k, (di, dj)), i, j in itertools.product(enumerate(taps), range(height), range(width)):
        if 0 <= i + di < height and 0 <= j + dj < width:
            total[:, :, i, j] += source[:, :, i + di, j + dj] @ weights[:, :, k].T
    return total


def shown(one):
    """What the network sees of the image: 2 x - (L - 1), or four times that of the luminance, to the nearest quarter of a level."""
    top, x = one.codec.plan.levels - 1, whole(one.x)
    if one.codec.plan.context == "pixels":
        return 2 * x - top
    return 2 * nearest(4 * (77 * x[:, :1] + 150 * x[:, 1:2] + 29 * x[:, 2:]), 8) - 4 * top


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_the_same_in_whole_numbers_one_pixel_after_another(kind):
    """Against NumPy's 64-bit integers, tap by tap."""
    one = made(plan("4x2", **KINDS[kind]))
    net, out, code = one.codec.twin.net, one.codec.twin.out, one.codec.twin.spread(one.z, one.x.shape[2:])
    values = [shown(one)]
    lower = -np.log2(net.gate.steps.numpy()).astype(int)[None, :, None, None]
    opened = whole(net.gate.table * GATE_SCALE)
    for number, layer in enumerate(net.layers):
        condition = net.conditions[str(number)]
        total = np.einsum("oc,bchw->bohw", whole(condition.w)[:, :, 0, 0], whole(code)) + whole(condition.b)[None, :, None, None]
        for reads, conv in zip(layer.reads, net.convs[number], strict=True):
            total += read(conv.taps, whole(conv.w), values[reads.source]) + whole(conv.b)[None, :, None, None]
        a, b = np.split(np.clip(nearest(total << np.maximum(-lower, 0), lower), -MOST, MOST), 2, axis=1)
        gate = opened[b + MOST]
        residual = 0 if layer.residual is None else values[layer.residual]
        values.append(np.clip(nearest(residual * GATE_SCALE + a * gate, 10), -MOST, MOST))
    lowered = -np.log2(out.step.numpy()).astype(int)[None, :, None, None]
    numbers = nearest(np.einsum("oc,bchw->bohw", whole(out.w), values[-1]) + whole(out.b)[None, :, None, None], lowered)
    with torch.no_grad():
        seen = net(one.codec.twin.image(one.x), code)
        along = Wavefront(net, code, one.codec.twin.image(one.x)).run(lambda seen, beside: (seen.features, beside))
        told = out(seen.features)
    assert np.array_equal(seen.features, values[-1]) and torch.equal(along, seen.features)
    assert (lowered >= 0).all() and np.array_equal(told, numbers)
    assert (net.prediction is None) == (one.codec.plan.levels == 2 or one.codec.plan.context == "grey")
    assert net.prediction is None or np.array_equal(seen.prediction, read(net.predictor.taps, whole(net.prediction), values[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_sum_can_reach_what_floats_do_not_hold(kind):
    """With values of the largest size that agree in sign with every weight."""
    one = made(plan("5x3", **KINDS[kind]))
    found, exact = one.codec.twin, EXACT[one.codec.twin.dtype]
    assert exact == (2**53 if kind == "16 bits" else 2**24)
    brightest = (one.codec.plan.levels - 1) * (GREY_STEP if one.codec.plan.context == "grey" else 1)
    for number, convs in enumerate(found.net.convs):
        most = [brightest if read.source == 0 else MOST for read in found.net.layers[number].reads]
        sums = sum(c.w.abs().flatten(1).sum(1).double() * m + c.b.abs() for c, m in zip(convs, most, strict=True))
        condition = found.net.conditions[str(number)]
        assert (sums + condition.w.abs().flatten(1).sum(1).double() * MOST + condition.b.abs() < exact).all()
    for conv in found.code_map.modules():
        if isinstance(conv, WholeConv):
            most = CODE_MOST if conv is found.code_map.first else MOST
            assert (conv.w.abs().flatten(1).sum(1).double() * most + conv.b.abs() < exact).all()
    assert (found.out.w.abs().sum(1).double() * MOST + found.out.b.abs() < exact).all()
    if found.net.prediction is not None:
        assert (found.net.prediction.abs().flatten(1).sum(1).double() * brightest < exact).all()


@pytest.mark.parametrize("kind", ["grey", "rgb", "rgb seen as grey", "16 bits"])
@pytest.mark.parametrize("name", NAMES[:-1])  # random weights of many layers grow values far beyond those of a trained decoder
def test_it_tells_nearly_what_the_decoder_tells(name, kind):
    """On images of its own: what it holds for next to impossible, the twin cannot make rarer than one in 2^24."""
    one = made(plan(name, **KINDS[kind]), size=(12, 12))
    real, z = one.real, one.codes
    with torch.no_grad():
        real.out.g.mul_(0.03)  # as sure of its pixels as trained decoders are, not surer
        found = twin(real, z, one.x.float())
        x = real.sample(z, torch.rand(3, real.head.uniforms, 12, 12))
        ours = found(one.z, x.to(found.dtype)).log_prob(x.to(found.dtype))
        theirs = real(z, x).log_prob(x).double()
    assert abs(ours.sum() / theirs.sum() - 1) < 0.03


@pytest.mark.parametrize("code", ["none", "grid"])
@pytest.mark.parametrize("times", [0.3, 1.0, 3.0])
def test_values_use_their_room_and_are_not_cut_off(code, times):
    """Whatever their size, on the images that it was calibrated on."""
    one = made(plan("stack2", code=code))
    with torch.no_grad():
        for convs in one.real.net.convs:
            for conv in convs:
                conv.g.mul_(times)
        found = twin(one.real, one.codes, one.x.float())
    largest = 0.0

    def look(gate, given, value):
        nonlocal largest
        largest = max(largest, value.abs().max().item())

    found.net.gate.register_forward_hook(look)
    found(one.z, one.x.to(found.dtype))
    assert largest < MOST
    assert code == "grid" or largest > MOST / 3  # else the map of the code may have the largest


def test_tied_layers_have_the_twin_of_their_weights():
    free = made(plan("all", code="vector", size=(6, 7)))
    tied = copy.deepcopy(free.real)
    tied.net.tie()
    with torch.no_grad():
        for alone, shared in zip(free.real.net.convs, tied.net.convs, strict=True):
            for conv, like in zip(alone, shared, strict=True):
                conv.v.copy_(like.v)
    x = free.x.float()
    ours, theirs = (twin(one, free.codes, x).state_dict() for one in (tied, free.real))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_members_have_the_twin_of_the_one_network_that_they_are():
    """An archive knows nothing of members: it holds a network in which the weights between them are zero."""
    wanted = plan("all", levels=2, code="vector", size=(6, 7))
    one, members = made(wanted), wanted.decoder(members=2)
    members.load_state_dict(one.real.state_dict())
    with torch.no_grad():
        for of_members, of_one in zip(members.net.convs, one.real.net.convs, strict=True):
            for apart, conv in zip(of_members, of_one, strict=True):
                conv.v.mul_(1 if apart.own is None else apart.own)
    x = one.x.float()
    assert any((conv.weight() == 0).any() for convs in one.real.net.convs for conv in convs)
    ours, theirs = (twin(real, one.codes, x).state_dict() for real in (members, one.real))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_has_no_twin_is_refused():
    for context in ("low", "high"):
        real = plan("4x2", context).decoder()
        with pytest.raises(NotImplementedError, match="whole numbers"):
            twin(real, torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 6, 7))


@pytest.mark.parametrize("times", [10.0, 1e4, 1e10])
def test_weights_of_any_size_give_an_exact_twin_or_are_refused(times):
    one = made(plan("stack2"))
    for name, weights in one.real.named_parameters():
        if name.endswith(".g"):
            weights.data.mul_(times)
    try:
        found = twin(one.real, one.codes, one.x)
    except ValueError as refused:
        assert times > 100 and "too large" in str(refused)
    else:
        codec = copy.copy(one.codec)
        object.__setattr__(codec, "twin", found)
        words = [image.words for image in encode(codec, one.index, one.x)]
        assert torch.equal(decode(codec, words, one.x.shape[2:]).x, one.x)


def test_a_convolution_reads_as_torch_does():
    conv = WholeConv(lambda x, w, b: F.conv2d(x, w, b, padding=1), torch.randint(-9, 9, (4, 2, 3, 3)).float(), torch.randint(-9, 9, (4,)).float())
    x = torch.randint(-99, 99, (2, 2, 5, 6)).float()
    assert torch.equal(conv(x), F.conv2d(x.double(), conv.w.double(), conv.b.double(), padding=1).float())


@pytest.mark.parametrize("coarseness", [0.1, 1.0, 50.0])
def test_a_codebook_has_the_nearest_code_of_every_channel(coarseness):
    codes, stds = 3 * torch.randn(9, 2, 5, 4), torch.tensor([0.05, 0.8]).view(1, 2, 1, 1).expand(9, 2, 5, 4)
    book = Codebook.of(codes, stds, coarseness)
    index, steps = book.index(codes), book.steps.view(1, 2, 1, 1) / 16
    assert book.steps[1] >= book.steps[0] and (book.steps.log2() % 1 == 0).all()
    inside = codes.abs() <= CODE_MOST / 16 - steps
    assert torch.equal(book.whole(index), index * book.steps.view(1, 2, 1, 1)) and torch.equal(book.code(index) * 16, book.whole(index).double())
    assert ((book.code(index) - codes).abs() <= steps / 2)[inside].all() and inside.any()
    assert torch.equal(book.index(book.code(index)), index) and (book.whole(index).abs() <= CODE_MOST).all()
    assert torch.equal(book.of_levels(book.levels(index)).view_as(index), index)


def test_a_code_that_is_everywhere_the_same_is_known():
    codes = torch.tensor([2.3, -0.7]).view(1, 2, 1, 1).expand(4, 2, 3, 5)
    book, dropped = (
        Codebook.of(some, torch.full_like(codes, 0.3), coarseness) for some, coarseness in ((codes, 1.0), (torch.randn(4, 2, 3, 5), 1e9))
    )
    assert torch.equal(book.only.view(1, 2, 1, 1).expand_as(codes), book.index(codes)) and book.only.tolist() != [0, 0]
    assert dropped.only.tolist() == [0, 0]
    assert Codebook.of(codes + 0.5 * torch.randn(4, 2, 3, 5), torch.full_like(codes, 0.3), 1.0).only is None


def test_a_codebook_knows_how_often_its_indices_come():
    """The entropy of indices like those that it was made from, against that of their histogram."""
    codes = torch.randn(4000, 1, 3, 3) * 2 + 1
    book = Codebook.of(codes, torch.full_like(codes, 0.3), 1.0)
    level = book.levels(book.index(codes))
    shares = book.shares(9)
    bits = -((shares.below(level + 1) - shares.below(level)) / shares.total).log2().mean()
    counts = torch.bincount(level.flatten()).double()
    entropy = -(counts / counts.sum()).clamp(min=1e-9).log2().mul(counts / counts.sum()).sum()
    assert entropy <= bits < entropy + 0.05


def test_whole_numbers_are_exact_whichever_way_precision_was_asked_for():
    """By torch's newer settings, beside which the older one cannot even be asked; and they stay as they were."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with exact_sums():
            assert matmul.fp32_precision == "ieee" and torch.get_float32_matmul_precision() == "highest"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
        torch.set_float32_matmul_precision("highest")
