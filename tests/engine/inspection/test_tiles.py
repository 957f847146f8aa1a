"""Large images in tiles: the same evidence as of the whole image, whatever the model and the sides."""

import pytest
import torch

from tests.core.build import HEADS, levels
from tests.core.build import model as built
from vlae.engine.inspection.evidence import evidence
from vlae.engine.inspection.tiles import evidence_in_tiles, reach_of_decoder, reach_of_encoder, tiles


@pytest.mark.parametrize("size", [(40, 61), (33, 32)])
@pytest.mark.parametrize(
    "window, head, code, iaf",
    [("4x2", "grey", "grid", False), ("stack2", "rgb", "grid", True), ("none", "bernoulli", "grid", False), ("stack2", "grey", None, False)],
)
def test_tiles_give_the_evidence_of_the_whole_image(window: str, head: str, code: str | None, iaf: bool, size: tuple[int, int]) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model = built(window, HEADS[head], (8, 8), code, iaf=iaf).double()
        x = levels(HEADS[head], 1, size).double()
        model.initialise(x, torch.randn(1, *model.code_shape(*size)))
        whole, parts = evidence(model, x), evidence_in_tiles(model, x, side=16)
    finally:
        torch.set_default_dtype(torch.float32)
    close = dict(rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(parts.code.bits, whole.code.bits, **close)
    torch.testing.assert_close(parts.pixels.surprise + parts.pixels.entropy, whole.pixels.surprise + whole.pixels.entropy, **close)
    # Bins are of whole levels: where a cut falls right between two, the last bit decides, and the expectation moves by a little.
    for one, other in zip(parts.pixels[1:3], whole.pixels[1:3], strict=True):
        assert ((one - other).abs() > 1e-8).double().mean() < 0.01 and (one - other).abs().max() < 0.1


def test_reaches_are_those_of_perturbations() -> None:
    torch.manual_seed(0)
    model = built("stack2", HEADS["grey"], (8, 8), "grid", iaf=False)
    x = levels(HEADS["grey"], 1, (64, 64)).float()
    model = model.float()
    other = x.clone()
    other[0, 0, 32, 32] = 15 - other[0, 0, 32, 32]
    with torch.no_grad():
        changed = (model.posterior(x).mean != model.posterior(other).mean).any(1)[0].nonzero() * 2
        z = model.posterior(x).mean
        pixels = (model.decoder(z, x).log_prob(x) != model.decoder(z, other).log_prob(x)).squeeze(0).nonzero()
    assert 0 < (changed - 32).abs().max() <= reach_of_encoder(model)
    assert 0 < (pixels - 32).abs().max() <= reach_of_decoder(model)


def test_tiles_cover_every_pixel_once() -> None:
    seen = torch.zeros(23, 40, dtype=torch.int64)
    for tile in tiles(23, 40, 7, 3):
        seen[tile.core] += 1
        outer = torch.zeros_like(seen)
        outer[tile.outer] = 1
        assert outer[tile.core].all() and outer[tile.outer][tile.inner].shape == seen[tile.core].shape
    assert (seen == 1).all()
