"""Which images go through in tiles."""

from unittest.mock import patch

import pytest
import torch

from tests.core.build import HEADS, levels
from tests.core.build import model as built
from vlae.engine.inspection import look as module
from vlae.engine.inspection.evidence import evidence
from vlae.engine.inspection.reference import fitted


@pytest.mark.parametrize("code, tiled", [("grid", True), (None, True), ("vector", False)])
def test_large_images_go_through_in_tiles_unless_their_code_is_one_vector(code: str | None, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = built("4x2", HEADS["grey"], (8, 8), code).float()
    x = levels(HEADS["grey"], 3, (8, 8)).float()
    model.initialise(x, torch.randn(3, *model.code_shape(8, 8)))
    reference = fitted([evidence(model, x)], by_place=False)
    whole = [found.score for found in module.look(model, reference, x)]
    monkeypatch.setattr(module, "MOST_PIXELS", 10)
    with patch.object(module, "evidence_in_tiles", wraps=module.evidence_in_tiles) as called:
        parts = [found.score for found in module.look(model, reference, x)]
    assert called.call_count == (3 if tiled else 0) and parts == pytest.approx(whole, rel=1e-4)
