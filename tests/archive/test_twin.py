"""The twin computes whole numbers that are the same in any order and precision, close to what the decoder computes."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlae.archive.coder import decode, encode
from vlae.archive.twin import EXACT, back, quantised, twin
from vlae.archive.whole import MOST, WholeConv, WholeOut
from vlae.core.distributions import BernoulliHead, LogisticHead
from vlae.core.wavefront import Wavefront

from ..core.build import code_for, decoder, levels, window

HEAD = LogisticHead(256, 1, 3)
HEADS = {"grey": HEAD, "rgb": LogisticHead(256, 3, 2), "few levels": LogisticHead(7, 1, 2), "bits": BernoulliHead()}
NAMES = ["none", "stack2", "4x2", "5x3", "all"]
SIZES = [(1, 1), (1, 9), (7, 1), (5, 6)]
FORMS = list(itertools.product(NAMES, ["layers", "input"], [0, 1]))


def made(name, condition="layers", pointwise=1, size=(6, 7), batch=3, code="grid", head=HEAD):
    """A random decoder in float32, its twin, whole codes and images."""
    real = decoder(window(name, "pixels", size), head, size, code, condition, pointwise)
    z, x = code_for(real, batch, size), levels(head, batch, size)
    whole = None if z is None else quantised(z)
    return real, twin(real, z, x), whole, x


def tensors(whole, z, x):
    """Every layer's values, the prediction and the frequencies of a twin."""
    found = []
    hooks = [m.register_forward_hook(lambda m, given, value: found.append(value)) for m in whole.modules() if isinstance(m, WholeConv | WholeOut)]
    with torch.no_grad():
        told = whole(z, x)
    [hook.remove() for hook in hooks]
    colours = x.long().unbind(1)
    return [*found, *(told.colour(c, colours[:c]).below(level) for c, level in enumerate(colours))]


@pytest.mark.parametrize("head, code", list(itertools.product(HEADS, ["grid", "vector", None])))
def test_so_it_is_for_every_head_and_code_and_its_images_come_back(head, code):
    _, whole, z, x = made("4x2", code=code, head=HEADS[head])
    double = tensors(copy.deepcopy(whole).double(), None if z is None else z.double(), x.double())
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(tensors(whole, z, x), double, strict=True))
    for n in range(len(x)):
        one = None if z is None else z[n : n + 1]
        words = encode(whole, one, x[n : n + 1])
        assert torch.equal(decode(whole, one, words, x.shape[2:]), x[n : n + 1])
        bits = -whole(one, x[n : n + 1]).log_prob(x[n : n + 1]).sum().item() / np.log(2)
        assert 32 * len(words) <= bits + 80


@pytest.mark.parametrize("name, condition, pointwise", FORMS)
def test_every_layer_is_the_same_in_double_precision_and_in_another_batch(name, condition, pointwise):
    _, whole, z, x = made(name, condition, pointwise)
    found = tensors(whole, z, x)
    assert all(torch.equal(value, value.round()) for value in found)
    single = [tensors(whole, z[n : n + 1], x[n : n + 1]) for n in range(3)]
    assert all(torch.equal(value, torch.cat(parts)) for value, *parts in zip(found, *single, strict=True))
    double = tensors(whole.double(), z.double(), x.double())
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(found, double, strict=True))


def test_every_layer_is_the_same_in_whole_numbers_one_pixel_after_another():
    """Against NumPy's 64-bit integers, tap by tap."""
    _, whole, z, x = made("4x2")
    net, image, code = whole.net, whole.image(x), whole.spread(z, x.shape[2:])
    height, width = x.shape[2:]
    numbers = {"image": image.numpy().astype(np.int64), "code": code.numpy().astype(np.int64)}
    values = [numbers["image"]]
    scale = round(-np.log2(net.gate.to_gate)) + 5
    fraction = round(np.log2(net.gate.to_value)) + scale
    opened = net.gate.table.numpy().astype(np.int64)

    def nearest(value, powers):
        """Of a whole number divided by two so often: the nearest, and of two the even one."""
        return np.array(np.round(value.astype(np.float64) / 2.0**powers), np.int64)

    for number, layer in enumerate(net.layers):
        condition = net.conditions[str(number)]
        weights = condition.w.numpy().astype(np.int64)[:, :, 0, 0]
        total = np.einsum("oc,bchw->bohw", weights, numbers["code"]) + condition.b.numpy().astype(np.int64)[None, :, None, None]
        for read, conv in zip(layer.reads, net.convs[number], strict=True):
            w, source = conv.w.numpy().astype(np.int64), values[read.source]
            total += conv.b.numpy().astype(np.int64)[None, :, None, None]
            for (k, (di, dj)), i, j in itertools.product(enumerate(conv.taps), range(height), range(width)):
                if 0 <= i + di < height and 0 <= j + dj < width:
                    total[:, :, i, j] += source[:, :, i + di, j + dj] @ w[:, :, k].T
        shown, gate = np.split(total, 2, axis=1)
        shown = np.clip(nearest(shown, scale - fraction), -MOST, MOST)
        out = nearest(shown * opened[np.clip(nearest(gate, scale - 5), -256, 256) + 256], 10)
        values.append(out if layer.residual is None else np.clip(out + values[layer.residual], -MOST, MOST))
    with torch.no_grad():
        features = net(image, code).features
        along = Wavefront(net, code, image).run(lambda seen, beside: (seen.features, beside))
    assert np.array_equal(features.numpy(), values[-1]) and torch.equal(along, features)


def test_no_sum_can_reach_what_float32_does_not_hold():
    """With values of the largest size that agree in sign with every weight."""
    _, whole, _, _ = made("5x3")
    for number, convs in enumerate(whole.net.convs):
        most = [255 if read.source == 0 else MOST for read in whole.net.layers[number].reads]
        sums = sum(c.w.abs().flatten(1).sum(1).double() * m + c.b.abs() for c, m in zip(convs, most, strict=True))
        condition = whole.net.conditions[str(number)]
        assert (sums + condition.w.abs().flatten(1).sum(1).double() * MOST + condition.b.abs() < EXACT).all()
    for conv in whole.code_map.modules():
        if isinstance(conv, WholeConv):
            most = 511 if conv is whole.code_map.first else MOST
            assert (conv.w.abs().flatten(1).sum(1).double() * most + conv.b.abs() < EXACT).all()
    assert (whole.out.w.abs().sum(1).double() * MOST + whole.out.b.abs() < EXACT).all()


@pytest.mark.parametrize("name", NAMES[:-1])  # random weights of many layers grow values far beyond those of a trained decoder
def test_it_tells_nearly_what_the_decoder_tells(name):
    """On images of its own: what it holds for next to impossible, the twin cannot make rarer than one in 2^24."""
    real, _, z, x = made(name, size=(12, 12))
    with torch.no_grad():
        real.out.g.mul_(0.03)  # as sure of its pixels as trained decoders are, not surer
        whole = twin(real, back(z), x)
        x = real.sample(back(z), torch.rand(3, 2, 12, 12))
        ours, theirs = whole(z, x).log_prob(x), real(back(z), x).log_prob(x).double()
    assert abs(ours.sum() / theirs.sum() - 1) < 0.03


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name, condition, pointwise", FORMS[::3])
def test_an_image_comes_back_from_its_words(name, condition, pointwise, size):
    _, whole, z, x = made(name, condition, pointwise, size)
    for n, image in enumerate((x[:1], torch.zeros(1, 1, *size), torch.full((1, 1, *size), 255.0))):
        words = encode(whole, z[n : n + 1], image)
        assert torch.equal(decode(whole, z[n : n + 1], words, size), image)
        double = whole.double()
        assert np.array_equal(encode(double, z[n : n + 1].double(), image.double()), words)
        assert torch.equal(decode(double, z[n : n + 1].double(), words, size).float(), image)
        whole.float()


def test_words_are_as_many_as_the_frequencies_say():
    _, whole, z, x = made("stack2", size=(24, 24))
    bits = -whole(z[:1], x[:1]).log_prob(x[:1]).sum().item() / np.log(2)
    assert bits <= 32 * len(encode(whole, z[:1], x[:1])) <= bits + 80


def test_threads_do_not_matter():
    _, whole, z, x = made("stack2", size=(40, 40))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append((encode(whole, z[:1], x[:1]), tensors(whole, z, x)))
    (words, one), (others, two) = found
    assert np.array_equal(words, others) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_has_no_twin_is_refused():
    for head, context in ((LogisticHead(65536, 1, 2), "pixels"), (HEAD, "low")):
        real = decoder(window("4x2", context, (6, 7)), head, (6, 7))
        with pytest.raises(NotImplementedError, match="only"):
            twin(real, code_for(real, 1, (6, 7)), levels(head, 1, (6, 7)))


@pytest.mark.parametrize("times", [10.0, 1e4, 1e10])
def test_weights_of_any_size_give_an_exact_twin_or_are_refused(times):
    real, _, z, x = made("stack2")
    for name, weights in real.named_parameters():
        if name.endswith(".g"):
            weights.data.mul_(times)
    try:
        whole = twin(real, back(z), x)
    except ValueError as refused:
        assert times > 100 and "too large" in str(refused)
    else:
        assert torch.equal(decode(whole, z[:1], encode(whole, z[:1], x[:1]), x.shape[2:]), x[:1])


def test_a_convolution_reads_as_torch_does():
    conv = WholeConv(lambda x, w, b: F.conv2d(x, w, b, padding=1), torch.randint(-9, 9, (4, 2, 3, 3)).float(), torch.randint(-9, 9, (4,)).float())
    x = torch.randint(-99, 99, (2, 2, 5, 6)).float()
    assert torch.equal(conv(x), F.conv2d(x.double(), conv.w.double(), conv.b.double(), padding=1).float())
