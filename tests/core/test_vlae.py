import pytest
import torch

from vlae.core import fused
from vlae.core.codes import Prior
from vlae.core.decoder import Decoder
from vlae.core.encoder import VectorEncoder, VectorMap
from vlae.core.layers import WeightNorm
from vlae.core.objective import elbo, window_only
from vlae.core.taps import stack
from vlae.core.vlae import VLAE, Terms
from vlae.core.window import Window

from .build import HEADS, PYRAMID, decoder, levels, model, near

IMAGE = (5, 6)
MODELS = {
    "vector code, IAF": ("4x2", "grey", "vector", True),
    "vector code, Gaussian": ("stack2", "bernoulli", "vector", False),
    "grid code, IAF": ("5x3", "rgb", "grid", True),
    "grid code, plain VAE": ("none", "grey", "grid", False),
    "no code": ("stack2", "grey", None, False),
}
each_model = pytest.mark.parametrize("name, head, code, iaf", MODELS.values(), ids=MODELS)


def made(name, head, code, iaf, batch=4):
    whole, x = model(name, HEADS[head], IMAGE, code, iaf=iaf), levels(HEADS[head], batch, IMAGE)
    return whole, x, torch.randn(batch, *whole.code_shape(*IMAGE))


@each_model
@torch.no_grad()
def test_the_terms_of_a_batch_are_those_of_each_image(name, head, code, iaf):
    whole, x, noise = made(name, head, code, iaf)
    together = whole(x, noise)
    for n in range(4):
        alone = whole(x[n : n + 1], noise[n : n + 1])
        for part, one in zip(together[:3], alone[:3], strict=True):
            near(one[0], part[n])
        for part in ("log_px_z", "log_qz_x", "log_pz", "kl_by_group", "elbo"):
            near(getattr(alone, part)[0], getattr(together, part)[n])


@each_model
@torch.no_grad()
def test_the_terms_are_the_log_probabilities_of_their_parts(name, head, code, iaf):
    whole, x, noise = made(name, head, code, iaf)
    terms = whole(x, noise)
    if code is None:
        assert torch.equal(terms.elbo, whole.decoder(None, x).log_prob(x).sum((1, 2))) and terms.kl_by_group.shape == (4, 0)
        return
    sampled = whole.posterior(x).sample(noise)
    by_hand = [whole.decoder(sampled.z, x).log_prob(x), whole.prior.log_prob(sampled.z), -sampled.log_q]
    near(terms.elbo, sum(part.flatten(1).sum(1) for part in by_hand))
    near(terms.log_px_z_map, by_hand[0])


@each_model
@torch.no_grad()
def test_what_is_shown_reaches_the_pixels_through_the_decoder_alone(name, head, code, iaf):
    whole, x, noise = made(name, head, code, iaf)
    shown = x + torch.randn_like(x)
    terms, plain = whole(x, noise, shown), whole(x, noise)
    near(terms.log_px_z_map, whole.decoder(None if code is None else whole.posterior(x).sample(noise).z, shown).log_prob(x))
    assert torch.equal(terms.log_qz_x_parts, plain.log_qz_x_parts) and torch.equal(terms.log_pz_parts, plain.log_pz_parts)
    assert torch.equal(terms.log_px_z_map[:, 0, 0], plain.log_px_z_map[:, 0, 0]), "nothing comes before the first pixel"


def test_groups_of_the_code_are_dimensions_or_channels():
    vector, grid = torch.randn(3, 5), torch.randn(3, 2, 4, 4)
    pixels = torch.zeros(3, 2, 2)
    assert torch.equal(Terms(pixels, vector, torch.zeros_like(vector)).kl_by_group, vector)
    near(Terms(pixels, grid, torch.zeros_like(grid)).kl_by_group, torch.stack([grid[:, 0].sum((1, 2)), grid[:, 1].sum((1, 2))], dim=1))


@each_model
@torch.no_grad()
def test_the_kl_of_groups_adds_up_to_the_whole(name, head, code, iaf):
    whole, x, noise = made(name, head, code, iaf)
    terms = whole(x, noise)
    near(terms.kl_by_group.sum(1), terms.log_qz_x - terms.log_pz)
    near(terms.elbo, terms.log_px_z - terms.kl_by_group.sum(1))


@each_model
def test_initialisation_standardises_every_layer_of_a_model(name, head, code, iaf, monkeypatch):
    """In the state it leaves the model in, the same batch and noise give every layer's output mean 0 and its standard deviation."""
    whole, x, noise = made(name, head, code, iaf, batch=16)
    whole.initialise(x, noise)
    monkeypatch.setattr(fused, "fits", lambda net, image: False)  # each layer by itself, so that it can be watched
    outputs: list[tuple[WeightNorm, torch.Tensor]] = []
    layers = [m for m in whole.modules() if isinstance(m, WeightNorm)]
    with torch.no_grad():
        for layer in layers:
            settled = layer.settled
            layer.settled = lambda y, layer=layer, settled=settled: outputs.append((layer, y)) or settled(y)
        whole(x, noise)
    assert {id(layer) for layer, _ in outputs} == {id(layer) for layer in layers} and len(outputs) == len(layers)
    for layer, y in outputs:
        by_output = y.transpose(0, 1).flatten(1)
        varying = by_output.std(1) > 1e-9  # what nothing may tell is constant
        near(by_output.mean(1), torch.zeros(len(by_output)), 1e-8)
        near(by_output.std(1, correction=0)[varying], torch.full((int(varying.sum()),), layer.scale), 1e-8)
        assert varying.sum() >= len(by_output) // 3


def test_initialisation_fits_the_linear_prediction():
    """The second column of images whose pixels repeat the one to the left is foretold."""
    whole = model("4x2", HEADS["grey"], IMAGE)
    x = torch.randint(0, 16, (64, 1, IMAGE[0], 1)).expand(-1, -1, -1, IMAGE[1]).to(torch.get_default_dtype())
    whole.initialise(x, torch.randn(64, 3))
    told = whole.decoder.net(whole.decoder.image(x), whole.decoder.spread(torch.zeros(64, 3), IMAGE)).prediction
    assert (told - whole.decoder.scaled(x))[..., 2:].abs().max() < 0.05


@each_model
def test_gradients_reach_every_parameter(name, head, code, iaf):
    whole, x, noise = made(name, head, code, iaf)
    whole(x, noise).elbo.sum().backward()
    for parameter_name, parameter in whole.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@each_model
def test_a_sample_is_a_decoding_of_a_code_of_the_prior(name, head, code, iaf):
    whole, _, noise = made(name, head, code, iaf)
    uniforms = torch.rand(4, HEADS[head].uniforms, *IMAGE)
    sampled = whole.sample(noise, uniforms)
    assert sampled.shape == (4, HEADS[head].colours, *IMAGE)
    assert torch.equal(sampled, whole.decoder.sample(None if code is None else whole.prior.sample(noise), uniforms))


def test_a_reconstruction_is_a_decoding_of_the_images_own_code():
    whole, x, noise = made("4x2", "grey", "vector", True)
    uniforms = torch.rand(4, 2, *IMAGE)
    decoded = whole.reconstruct(x, noise, uniforms)
    assert torch.equal(decoded, whole.decoder.sample(whole.posterior(x).sample(noise).z, uniforms))
    assert torch.equal(whole.reconstruct(x[2:3], noise[2:3], uniforms[2:3]), decoded[2:3])


def test_shapes_of_codes():
    assert [made(*row)[0].code_shape(*IMAGE) for row in MODELS.values()] == [(3,), (3,), (2, 3, 3), (2, 3, 3), (0,)]
    assert made(*MODELS["grid code, IAF"])[0].code_shape(9, 31) == (2, 5, 16)


def test_a_step_downhill_raises_the_bound():
    """Twenty small steps on one batch: the sign and the flow of gradients of everything together."""
    whole, x, noise = made("4x2", "grey", "vector", True, batch=8)
    whole.initialise(x, noise)
    optimiser = torch.optim.Adam(whole.parameters(), lr=3e-3)
    before = whole(x, noise).elbo.mean().item()
    for _ in range(20):
        optimiser.zero_grad()
        (-whole(x, noise).elbo.mean()).backward()
        optimiser.step()
    assert whole(x, noise).elbo.mean().item() > before + 1


def test_the_papers_binary_model_has_its_shapes():
    """28x28, 64 dimensions, a code map of 4 channels concatenated with the image, and a window beyond the digit's strokes."""
    head = HEADS["bernoulli"]
    code_map = VectorMap(PYRAMID, (28, 28), dims=64, hidden=45, outputs=4)
    made_of = Decoder(Window("stack6", stack(6)), head, code_map, 4, 12, pointwise=1, condition="input")
    whole = VLAE(Prior(), VectorEncoder(PYRAMID, (1, 28, 28), 64, 45, None, 0), made_of)
    terms = whole(levels(head, 2, (28, 28)), torch.randn(2, 64))
    assert terms.log_px_z_map.shape == (2, 28, 28) and terms.log_pz_parts.shape == terms.log_qz_x_parts.shape == (2, 64)


@each_model
@torch.no_grad()
def test_in_lower_precision_pixels_means_and_codes_keep_theirs(name, head, code, iaf):
    """bfloat16 has 8 bits: what reads pixels or a code, or writes means, is computed as it is without it."""
    whole, x, noise = made(name, head, code, iaf)
    whole, x, noise = whole.float(), x.float(), noise.float()
    whole.initialise(x, noise)
    seen: list[tuple[WeightNorm, torch.Tensor, torch.Tensor]] = []
    hooks = [m.register_forward_hook(lambda m, x, y: seen.append((m, x[0], y))) for m in whole.modules() if isinstance(m, WeightNorm)]
    with torch.autocast(x.device.type, torch.bfloat16):
        lower = whole(x, noise)
    for hook in hooks:
        hook.remove()
    assert all(part.dtype == torch.float32 for part in lower[:3])
    for layer, given, out in seen:
        assert not layer.exact or torch.equal(out, layer(given.float()))
    lowered = sum(out.dtype == torch.bfloat16 for _, _, out in seen)
    assert 0 < lowered < len(seen)
    full = whole(x, noise)
    assert (lower.elbo - full.elbo).abs().max() / x[0].numel() < 0.03
    assert not torch.equal(lower.elbo, full.elbo)


@each_model
def test_inpainting_keeps_what_is_known_and_draws_the_rest(name, head, code, iaf):
    whole, x, noise = made(name, head, code, iaf)
    known, turns = torch.rand(4, 1, *IMAGE) < 0.6, 2
    uniforms = list(torch.rand(turns, 4, whole.decoder.head.uniforms, *IMAGE))
    filled = whole.inpaint(x, known, [noise] * turns, uniforms)
    assert torch.equal(torch.where(known, filled, 0), torch.where(known, x, 0))
    other = torch.where(known, x, levels(HEADS[head], 4, IMAGE))  # what is not known plays no part
    assert torch.equal(whole.inpaint(other, known, [noise] * turns, uniforms), filled)
    assert torch.equal(whole.inpaint(x, torch.ones_like(known), [noise], uniforms[:1]), x)
    assert torch.equal(whole.inpaint(x, torch.zeros_like(known), [noise], uniforms[:1]), whole.sample(noise, uniforms[0]))


def test_a_decoder_of_the_window_alone_is_trained_along_and_nothing_of_it_reaches_the_rest():
    whole, x, noise = made("4x2", "grey", "vector", True)
    whole.window_only = Decoder(whole.decoder.window, HEADS["grey"], None, 0, 4, 1, "layers")
    whole.initialise(x, noise)
    assert whole(x, noise).log_px_map is None
    terms = whole(x, noise, learning=True)
    near(terms.log_px_map, whole.window_only(None, x).log_prob(x))
    window_only(terms).backward()
    reached = {name for name, p in whole.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached and all(name.startswith("window_only.") for name in reached)
    whole.zero_grad()
    elbo(terms).backward()
    assert not any(name.startswith("window_only.") for name, p in whole.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0)


@pytest.mark.parametrize("code", ["vector", None])
def test_members_learn_from_the_mean_of_their_own_bounds(code):
    """So nothing but the length of the last map tells one of the other, and it is a bound of what they reach together."""
    whole = model("all", HEADS["bernoulli"], IMAGE, code)
    whole.decoder = decoder(whole.decoder.window, HEADS["bernoulli"], IMAGE, code, members=2)
    x, noise = levels(HEADS["bernoulli"], 4, IMAGE), torch.randn(4, *whole.code_shape(*IMAGE))
    together, apart = whole(x, noise), whole(x, noise, learning=True)
    z = None if code is None else whole.posterior(x).sample(noise).z
    members = torch.stack([member.log_prob(x) for member in whole.decoder.apart(z, x)])
    near(apart.log_px_z_map, members.mean(0))
    assert (together.elbo > apart.elbo).all()
    near(together.log_qz_x, apart.log_qz_x)
