"""The estimators on a model whose likelihood is known: ``z ~ N(0, I)``, ``x | z ~ N(W z + m, s^2 I)``, hence ``x ~ N(m, W W' + s^2 I)``."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vlae.core.codes import Posterior, Prior
from vlae.core.decoder import Decoder
from vlae.core.encoder import VectorEncoder
from vlae.core.estimate import Estimate, WeightSum, importance_sampled
from vlae.core.flows import vector_flow
from vlae.core.vlae import VLAE

from .build import HEADS, levels, model, near, randomise

IMAGE, DIMS, NOISE = (2, 3), 2, 0.7


@dataclass(frozen=True)
class GaussianPixels:
    """Independent Gaussian pixels."""

    mean: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        return Normal(self.mean, NOISE).log_prob(x).squeeze(1)

    def sample(self, uniforms: Tensor) -> Tensor:
        return self.mean + NOISE * torch.special.ndtri(uniforms)


class LinearDecoder(Decoder):
    """``x = W z + m`` and noise; the columns of W are orthogonal, so that the dimensions of the true posterior are independent."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        pixels = math.prod(IMAGE)
        self.w = nn.Parameter(torch.linalg.qr(torch.randn(pixels, DIMS)).Q * torch.tensor([1.5, 0.6]))
        self.m = nn.Parameter(torch.randn(pixels))

    def scaled(self, x: Tensor) -> Tensor:
        return x

    def forward(self, z: Tensor, x: Tensor) -> GaussianPixels:
        return GaussianPixels((z @ self.w.T + self.m).view(-1, 1, *IMAGE))


class LinearEncoder(VectorEncoder):
    """The true posterior, ``N((W'W + s^2)^-1 W'(x - m), s^2 (W'W + s^2)^-1)``, moved and widened by so much."""

    def __init__(self, decoder: LinearDecoder, off: float, flow=None) -> None:
        nn.Module.__init__(self)
        precision = decoder.w.square().sum(0) + NOISE**2
        self.read, self.m = nn.Parameter((decoder.w / precision).T), decoder.m
        self.log_std, self.off, self.flow = nn.Parameter(0.5 * torch.log(NOISE**2 / precision) + off), off, flow

    def forward(self, v: Tensor) -> Posterior:
        mean = (v.flatten(1) - self.m) @ self.read.T + self.off
        return Posterior(mean, self.log_std.expand_as(mean), self.flow)

    def code_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (DIMS,)


def linear_gaussian(off: float, flow=None) -> VLAE:
    decoder = LinearDecoder()
    return VLAE(Prior(), LinearEncoder(decoder, off, flow), decoder).requires_grad_(False)


def true_log_likelihood(made: VLAE, x: Tensor) -> Tensor:
    """From SciPy's multivariate normal."""
    w, m = (t.cpu().double().numpy() for t in (made.decoder.w, made.decoder.m))
    marginal = scipy.stats.multivariate_normal(m, w @ w.T + NOISE**2 * np.eye(len(m)))
    return torch.as_tensor(marginal.logpdf(x.flatten(1).cpu().double().numpy())).to(x)


def true_bound(made: VLAE, x: Tensor) -> Tensor:
    """``log p(x) - KL(q(z|x) || p(z|x))``, both posteriors Gaussian."""
    q, right = made.posterior(x), LinearEncoder(made.decoder, 0.0)(x)
    kl = kl_divergence(
        MultivariateNormal(q.mean, torch.diag_embed(torch.exp(2 * q.log_std))),
        MultivariateNormal(right.mean, torch.diag_embed(torch.exp(2 * right.log_std))),
    )
    return true_log_likelihood(made, x) - kl


def images(made: VLAE, count: int) -> Tensor:
    """Images from the model."""
    return made.decoder(torch.randn(count, DIMS), torch.empty(0)).sample(torch.rand(count, 1, *IMAGE))


def test_with_the_true_posterior_every_estimate_is_the_likelihood():
    """Whatever the noise, from one sample on."""
    made = linear_gaussian(off=0.0)
    x = images(made, 5)
    exact = true_log_likelihood(made, x)
    near(made(x, 3 * torch.randn(5, DIMS)).elbo, exact)
    told = importance_sampled(made, x, [torch.randn(3, 5, DIMS), 5 * torch.randn(1, 5, DIMS)])
    near(told.log_px, exact.double())
    near(told.effective_samples, torch.full((5,), 4.0, dtype=torch.float64))


def test_the_bound_is_the_likelihood_less_the_divergence_of_posteriors():
    made, count = linear_gaussian(off=0.4), 20_000
    x = images(made, 1)
    estimate = Estimate.of(made(x.expand(count, -1, -1, -1), torch.randn(count, DIMS)).elbo)
    assert abs(estimate.value - true_bound(made, x).item()) < 4.5 * estimate.se
    assert true_bound(made, x).item() < true_log_likelihood(made, x).item() - 0.1


@pytest.mark.parametrize("flow", [False, True])
def test_bounds_rise_with_the_samples_and_never_above_the_likelihood(flow):
    """ELBO <= IS-K <= IS-2K <= log p(x), each step by more than its error; and at K = 1000 there is little left."""
    made = linear_gaussian(off=0.4, flow=randomise(vector_flow(DIMS, 1, 4, scaled=True)) if flow else None)
    x, count = images(made, 1), 2000
    many = x.expand(count, -1, -1, -1)
    exact = true_log_likelihood(made, x).item()
    bounds = [importance_sampled(made, many, [torch.randn(1, count, DIMS) for _ in range(k)]).log_px for k in (1, 2, 4, 8)]
    for lower, higher in itertools.pairwise(bounds):
        gain = Estimate.of(higher - lower)
        assert gain.value > 3 * gain.se
    last = Estimate.of(bounds[-1])
    assert last.value < exact + 3 * last.se
    tight = importance_sampled(made, x, (torch.randn(100, 1, DIMS) for _ in range(10)))
    assert tight.log_px.item() == pytest.approx(exact, abs=0.1)
    assert 30 < tight.effective_samples.item() < 1000


def test_the_mean_of_the_weights_is_the_likelihood():
    """Importance sampling has no bias on the scale of probabilities."""
    made = linear_gaussian(off=0.4)
    x, count = images(made, 1), 20_000
    weights = (made(x.expand(count, -1, -1, -1), torch.randn(count, DIMS)).elbo - true_log_likelihood(made, x)).exp()
    estimate = Estimate.of(weights)
    assert abs(estimate.value - 1) < 4.5 * estimate.se


@pytest.mark.parametrize("pieces", [(1,) * 12, (5, 7), (11, 1), (4, 4, 4)])
@pytest.mark.parametrize("code", ["vector", "grid"])
def test_pieces_are_the_whole(pieces, code):
    made = model("4x2", HEADS["grey"], (4, 5), code)
    x, noise = levels(HEADS["grey"], 3, (4, 5)), torch.randn(12, 3, *made.code_shape(4, 5))
    whole, parts = importance_sampled(made, x, [noise]), importance_sampled(made, x, iter(noise.split(pieces)))
    near(parts.log_px, whole.log_px)
    near(parts.effective_samples, whole.effective_samples)


@pytest.mark.parametrize("code", ["vector", "grid"])
def test_the_samples_of_a_piece_are_decoded_at_once(code):
    made = model("4x2", HEADS["grey"], (4, 5), code)
    x, noise, decoded = levels(HEADS["grey"], 3, (4, 5)), torch.randn(12, 3, *made.code_shape(4, 5)), []
    made.decoder.register_forward_hook(lambda module, given, told: decoded.append(len(given[1])))
    importance_sampled(made, x, noise.split((5, 1, 6)))
    assert decoded == [15, 3, 18]


def test_one_sample_is_the_bound_and_more_are_their_average():
    made = model("stack2", HEADS["bernoulli"], (4, 5))
    x, noise = levels(HEADS["bernoulli"], 3, (4, 5)), torch.randn(6, 3, 3)
    with torch.no_grad():
        bounds = torch.stack([made(x, n).elbo for n in noise])
    near(importance_sampled(made, x, [noise[:1]]).log_px, bounds[0].double())
    together = importance_sampled(made, x, [noise])
    for n in range(3):
        log_w = bounds[:, n].double().cpu().numpy()
        assert together.log_px[n].item() == pytest.approx(scipy.special.logsumexp(log_w) - math.log(6), rel=1e-6)
        weights = scipy.special.softmax(log_w)
        assert together.effective_samples[n].item() == pytest.approx(1 / (weights**2).sum(), rel=1e-4)


def test_an_image_is_estimated_alone_as_in_a_batch():
    made = model("4x2", HEADS["grey"], (4, 5))
    x, noise = levels(HEADS["grey"], 3, (4, 5)), torch.randn(5, 3, 3)
    together = importance_sampled(made, x, [noise])
    for n in range(3):
        near(importance_sampled(made, x[n : n + 1], [noise[:, n : n + 1]]).log_px[0], together.log_px[n])


@pytest.mark.parametrize("offset", [0.0, -5e4, 800.0])
def test_weights_of_any_size(offset):
    """Far from what a float64 can hold as a number; zero weights count as samples."""
    log_w = torch.tensor([[0.0, 1.0], [-2.0, 1.0], [3.0, 1.0], [-math.inf, 1.0]], dtype=torch.float64)
    total = WeightSum.empty(log_w[0])
    total.add(log_w[:1] + offset)
    total.add(log_w[1:] + offset)
    w = log_w.exp()
    told = total.likelihood()
    torch.testing.assert_close(told.log_px, w.mean(0).log() + offset, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(told.effective_samples, w.sum(0).square() / w.square().sum(0), rtol=1e-9, atol=0)


def test_a_mean_and_its_standard_error_are_those_of_scipy():
    values = torch.randn(50) * 3 + 1
    estimate = Estimate.of(values)
    assert estimate.value == pytest.approx(values.double().mean().item())
    assert estimate.se == pytest.approx(scipy.stats.sem(values.double().cpu().numpy())) and estimate.n == 50


def test_one_value_has_no_standard_error():
    estimate = Estimate.of(torch.tensor([3.0]))
    assert estimate.value == 3 and math.isnan(estimate.se) and estimate.n == 1


def test_an_estimate_in_another_unit():
    assert Estimate(3.0, 0.5, 7).times(-2.0) == (-6.0, 1.0, 7)


def test_standard_errors_are_as_large_as_the_spread_of_estimates():
    """A thousand means of forty values."""
    many = [Estimate.of(row) for row in torch.rand(1000, 40)]
    spread = torch.tensor([e.value for e in many]).std().item()
    assert sum(e.se for e in many) / 1000 == pytest.approx(spread, rel=0.1)
