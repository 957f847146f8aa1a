import itertools
import math

import mpmath
import pytest
import scipy.stats
import torch
from torch import Tensor

from vlae.core.distributions import Bernoulli, BernoulliHead, LogisticHead, LogisticMixture, PixelDistribution, log_normal

from .build import agree, near


def row(values, like: Tensor | None = None) -> Tensor:
    """Grey pixels side by side: ``(1, 1, 1, W)``."""
    return torch.as_tensor(values, dtype=torch.get_default_dtype() if like is None else like.dtype).view(1, 1, 1, -1)


def grey(levels, logits, means, log_scales, pixels):
    """The same mixture for so many grey pixels side by side, from its numbers by component."""
    logits, means, log_scales = (torch.as_tensor(v).view(1, -1, 1, 1).expand(-1, -1, 1, pixels) for v in (logits, means, log_scales))
    return LogisticMixture(levels, logits, means.unsqueeze(2), log_scales.unsqueeze(2))


def random_mixture(levels, colours, components, pixels):
    """One random mixture whose scales lie between a fraction of a level and the whole range."""
    low, high = math.log(0.3 / levels), 0.0
    return LogisticMixture(
        levels,
        torch.randn(1, components, 1, 1).expand(-1, -1, 1, pixels),
        torch.empty(1, components, colours, 1, 1).uniform_(-1.2, 1.2).expand(-1, -1, -1, 1, pixels),
        torch.empty(1, components, colours, 1, 1).uniform_(low, high).expand(-1, -1, -1, 1, pixels),
        torch.randn(1, components, 3, 1, 1).expand(-1, -1, -1, 1, pixels) if colours == 3 else None,
    )


def every_pixel(levels, colours):
    """All values of one pixel side by side: ``(1, C, 1, L^C)``."""
    return torch.cartesian_prod(*[torch.arange(levels)] * colours).view(-1, colours).T.to(torch.get_default_dtype()).view(1, colours, 1, -1)


@pytest.mark.parametrize("levels", [2, 3, 10, 256, 65536])
@pytest.mark.parametrize("components", [1, 4])
def test_grey_probabilities_sum_to_one(levels, components):
    p = random_mixture(levels, 1, components, levels).log_prob(row(range(levels))).exp()
    near(p.sum(), torch.tensor(1.0), 1e-12)


@pytest.mark.parametrize("log_scale", [-30.0, -14.0, -8.5, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [-40.0, -1.0, 0.3, 1.0, 7.0])
def test_they_do_however_far_off_the_mean_and_however_small_the_scale(mean, log_scale):
    for levels in (256, 65536):
        p = grey(levels, [0.0], [mean], [log_scale], levels).log_prob(row(range(levels))).exp()
        near(p.sum(), torch.tensor(1.0), 1e-9)


@pytest.mark.parametrize("levels", [2, 5])
def test_colour_probabilities_sum_to_one(levels):
    p = random_mixture(levels, 3, 2, levels**3).log_prob(every_pixel(levels, 3)).exp()
    near(p.sum(), torch.tensor(1.0), 1e-12)


def scipy_mass(level, levels, mean, scale):
    """The mass of a level's interval from SciPy's logistic distribution."""
    at = scipy.stats.logistic(mean, scale)
    low = 0.0 if level == 0 else at.cdf((2 * level - 1) / (levels - 1) - 1)
    return (1.0 if level == levels - 1 else at.cdf((2 * level + 1) / (levels - 1) - 1)) - low


@pytest.mark.parametrize("levels", [5, 256])
def test_colours_follow_one_another_within_a_component(levels):
    """``sum_k w_k p_k(r) p_k(g | r) p_k(b | r, g)``, each a logistic of SciPy's whose mean follows the earlier colours."""
    d = random_mixture(levels, 3, 3, 20)
    x = torch.randint(0, levels, (1, 3, 1, 20)).double()
    x[..., :3] = torch.tensor([[0, levels - 1, 1], [levels - 1, 0, 0], [0, levels - 1, 0]]).view(1, 3, 1, 3)
    weights = torch.softmax(d.logits[0, :, 0, 0], 0)
    for pixel in range(20):
        r, g, b = (int(v) for v in x[0, :, 0, pixel])
        red, green = 2 * r / (levels - 1) - 1, 2 * g / (levels - 1) - 1
        total = 0.0
        for k, w in enumerate(weights.tolist()):
            mean, scale, slope = (
                d.means[0, k, :, 0, 0].tolist(),
                d.log_scales[0, k, :, 0, 0].exp().tolist(),
                d.slopes[0, k, :, 0, 0].tolist(),
            )
            p_r = scipy_mass(r, levels, mean[0], scale[0])
            p_g = scipy_mass(g, levels, mean[1] + slope[0] * red, scale[1])
            total += w * p_r * p_g * scipy_mass(b, levels, mean[2] + slope[1] * red + slope[2] * green, scale[2])
        p = d.log_prob(x.to(d.logits.dtype))[0, 0, pixel].exp().item()
        assert p == pytest.approx(total, rel=1e-9 if d.logits.dtype == torch.float64 else 1e-3, abs=1e-13)


def exact(level, levels, logits, means, log_scales):
    """The log mass of a grey level under a mixture, from differences of logistic functions in 400 digits."""
    with mpmath.workdps(400):

        def below(edge, mean, log_scale):
            return 1 / (1 + mpmath.exp(-(mpmath.mpf(edge) / (levels - 1) - 1 - mpmath.mpf(mean)) / mpmath.exp(mpmath.mpf(log_scale))))

        def mass(mean, log_scale):
            low = 0 if level == 0 else below(2 * level - 1, mean, log_scale)
            return (1 if level == levels - 1 else below(2 * level + 1, mean, log_scale)) - low

        weights = [mpmath.exp(mpmath.mpf(v)) for v in logits]
        total = sum(w * mass(m, s) for w, m, s in zip(weights, means, log_scales, strict=True))
        return float(mpmath.log(total / sum(weights)))


def tails(levels):
    """Levels at the ends and inside, means near and far in units of the scale, scales from the head's smallest to its largest."""
    smallest = -math.log(levels) - 3
    for level, log_scale in itertools.product(
        [0, 1, levels // 3, levels - 2, levels - 1], [smallest, smallest + 1.5, -math.log(levels), -5.0, -1.0, 3.0]
    ):
        for away in (0.0, 0.4, -3.0, 20.5, -20.5, -60.0, 150.0):
            yield level, level * 2 / (levels - 1) - 1 + away * math.exp(log_scale), log_scale


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("levels", [256, 65536])
def test_log_masses_are_exact_in_the_tails(levels, dtype, tolerance):
    cases = list(tails(levels))
    level, mean, log_scale = (torch.tensor(values, dtype=dtype) for values in zip(*cases, strict=True))
    d = LogisticMixture(levels, torch.zeros(1, 1, 1, len(cases), dtype=dtype), mean.view(1, 1, 1, 1, -1), log_scale.view(1, 1, 1, 1, -1))
    ours = d.log_prob(row(level, like=level)).flatten().tolist()
    for mine, x, m, s in zip(ours, level.tolist(), mean.tolist(), log_scale.tolist(), strict=True):
        assert mine == pytest.approx(exact(int(x), levels, [0.0], [m], [s]), rel=tolerance, abs=tolerance), (x, m, s)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_so_they_are_in_mixtures(dtype, tolerance):
    logits, means, log_scales = [0.3, -2.0, 1.0], [-0.9, 0.2, 0.5], [-9.0, -5.5, -7.0]
    told = [torch.tensor(v, dtype=dtype) for v in (logits, means, log_scales)]
    levels = [0, 3000, 30000, 40001, 65535]
    ours = grey(65536, *told, pixels=5).log_prob(row(levels, like=told[0])).flatten().tolist()
    for mine, x in zip(ours, levels, strict=True):
        assert mine == pytest.approx(exact(x, 65536, *(t.tolist() for t in told)), rel=tolerance, abs=tolerance)


def bernoulli(pixels):
    return Bernoulli(torch.full((1, 1, 1, pixels), 0.7))


GREY = {f"grey {levels}": (lambda pixels, levels=levels: random_mixture(levels, 1, 3, pixels), levels, 1) for levels in (2, 9, 256)}
COLOUR = {f"rgb {levels}": (lambda pixels, levels=levels: random_mixture(levels, 3, 2, pixels), levels, 3) for levels in (2, 4)}
CASES = {"bernoulli": (bernoulli, 2, 1), **GREY, **COLOUR}
DRAWS = 40_000


def draw(make, levels, colours) -> tuple[PixelDistribution, Tensor]:
    """One pixel drawn many times."""
    torch.manual_seed(1)
    d = make(DRAWS)
    drawn = d.sample(torch.rand(1, 1 if levels == 2 and isinstance(d, Bernoulli) else 1 + colours, 1, DRAWS))
    return d, drawn


@pytest.mark.parametrize("make, levels, colours", CASES.values(), ids=CASES)
def test_samples_lie_on_the_levels_as_often_as_their_probability_says(make, levels, colours):
    drawn = draw(make, levels, colours)[1]
    assert torch.equal(drawn, drawn.round().clamp(0, levels - 1))
    torch.manual_seed(1)
    probability = make(levels**colours).log_prob(every_pixel(levels, colours)).exp().flatten()
    cell = (drawn[0, :, 0].T @ (float(levels) ** torch.arange(colours - 1, -1, -1))).long()
    agree(torch.bincount(cell, minlength=levels**colours), probability)


@pytest.mark.parametrize("make, levels, colours", CASES.values(), ids=CASES)
def test_the_mean_of_minus_log_p_over_own_samples_is_the_entropy(make, levels, colours):
    d, drawn = draw(make, levels, colours)
    nats = -d.log_prob(drawn).flatten()
    torch.manual_seed(1)
    p = make(levels**colours).log_prob(every_pixel(levels, colours)).exp()
    entropy = torch.special.entr(p).sum()
    assert abs(nats.mean() - entropy) < 4.5 * nats.std() / math.sqrt(DRAWS)


def test_the_entropy_of_a_16_bit_pixel():
    """In float32 too, where a sample is rounded from a number of seven digits."""
    d, drawn = draw(lambda pixels: random_mixture(65536, 1, 3, pixels), 65536, 1)
    nats = -d.log_prob(drawn).flatten()
    torch.manual_seed(1)
    p = random_mixture(65536, 1, 3, 65536).log_prob(every_pixel(65536, 1)).exp()
    assert abs(nats.mean() - torch.special.entr(p).sum()) < 4.5 * nats.std() / math.sqrt(DRAWS)


@pytest.mark.parametrize("u", [0.0, 1e-300, 0.5, 1 - 2**-53, 1.0])
def test_extreme_uniforms_give_levels(u):
    for d, colours in ((random_mixture(256, 1, 3, 1), 1), (random_mixture(256, 3, 3, 1), 3)):
        drawn = d.sample(torch.full((1, 1 + colours, 1, 1), u))
        assert torch.equal(drawn, drawn.round().clamp(0, 255))


def test_bernoulli_is_that_of_torch():
    logits = torch.linspace(-30, 30, 41).view(1, 1, 1, -1)
    for x in (0.0, 1.0):
        near(
            Bernoulli(logits).log_prob(torch.full_like(logits, x)),
            torch.distributions.Bernoulli(logits=logits).log_prob(torch.tensor(x))[:, 0],
        )


@pytest.mark.parametrize("logit", [-800.0, -100.0, -1e-3, 0.0, 3.0, 50.0])
def test_bernoulli_is_exact_in_the_tails(logit):
    d = Bernoulli(torch.full((1, 1, 1, 1), logit))
    with mpmath.workdps(50):
        for x, sign in ((1.0, -1), (0.0, 1)):
            assert d.log_prob(row([x])).item() == pytest.approx(float(-mpmath.log1p(mpmath.exp(sign * mpmath.mpf(logit)))), rel=1e-6)


HEADS = {
    "8-bit grey": LogisticHead(256, 1, 5),
    "16-bit grey": LogisticHead(65536, 1, 5),
    "rgb": LogisticHead(256, 3, 5),
    "two": LogisticHead(2, 1, 1),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_values_and_gradients_are_finite_whatever_the_network_says(head, dtype, size):
    numbers = (size * torch.randn(6, head.outputs, 4, 5, dtype=dtype)).requires_grad_()
    x = torch.randint(0, head.levels, (6, head.colours, 4, 5)).to(dtype)
    x[0], x[1] = 0, head.levels - 1
    value = head(numbers, size * torch.randn(6, head.colours, 4, 5, dtype=dtype)).log_prob(x)
    value.sum().backward()
    assert value.isfinite().all() and (value <= 1e-6).all() and numbers.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    """At the lowest and highest level, between, and in all three colours."""
    x = torch.tensor([[0.0, 9, 4], [9, 0, 3], [5, 5, 9]]).T.reshape(1, 3, 1, 3).double()
    numbers = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 2, 1, 3), (1, 2, 3, 1, 3), (1, 2, 3, 1, 3), (1, 2, 3, 1, 3))
    ]
    assert torch.autograd.gradcheck(lambda a, b, c, d: LogisticMixture(10, a, b, c - 2, d).log_prob(x), numbers)


def test_a_head_reads_its_numbers():
    """For each component: weight, means, scales by colour, slopes; a prediction moves the means."""
    head = LogisticHead(256, 3, 2)
    numbers, prediction = 0.1 * torch.randn(1, head.outputs, 2, 2), torch.randn(1, 3, 2, 2)
    d = head(numbers, prediction)
    assert (head.uniforms, head.outputs) == (4, 2 * (1 + 3 + 3 + 3))
    for k, at in enumerate((0, 10)):
        assert torch.equal(d.logits[:, k], numbers[:, at])
        near(d.means[:, k], numbers[:, at + 1 : at + 4] + prediction)
        near(d.log_scales[:, k], numbers[:, at + 4 : at + 7] - 3)
        assert torch.equal(d.slopes[:, k], numbers[:, at + 7 : at + 10])


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_scales_end_where_a_level_in_the_middle_has_all_the_mass(levels):
    head = LogisticHead(levels, 1, 1)
    numbers = torch.tensor([0.0, 0.0, -1e3]).view(1, 3, 1, 1)
    middle = 2.0 * (levels // 2) / (levels - 1) - 1
    d = head(numbers, torch.full((1, 1, 1, 1), middle))
    assert d.log_prob(row([levels // 2])).item() > -1e-5
    assert head(-numbers, None).log_scales.item() == 3


def test_the_bernoulli_head():
    head, numbers = BernoulliHead(), torch.randn(1, 1, 2, 3)
    assert torch.equal(head(numbers, None).logits, numbers) and (head.outputs, head.uniforms, head.levels, head.colours) == (1, 1, 2, 1)


def test_log_normal_is_that_of_torch():
    eps = torch.linspace(-40, 40, 31)
    near(log_normal(eps), torch.distributions.Normal(0.0, 1.0).log_prob(eps))
