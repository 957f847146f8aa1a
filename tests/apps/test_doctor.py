"""Doctor measures this machine, and advises about what it finds."""

import pytest

from vlae.apps.doctor import convolution_rate, doctor


def test_measures_the_machine() -> None:
    found = doctor()
    assert found["convolution_gflops"] > 0 and found["bfloat16_gflops"] > 0 and found["disk_free_gb"] >= 0
    assert 1 <= found["threads"] and 1 <= found["cores"]


def test_a_rate_is_of_real_work() -> None:
    """No machine does ten thousand billion operations a second on a CPU's convolution, and none less than a hundredth of a billion."""
    assert 0.01 < convolution_rate(seconds=0.05) < 1e4


def test_tells_of_matrix_products_held_to_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert not any("OPENBLAS" in advice for advice in doctor()["advice"])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert any("OPENBLAS_CORETYPE=Haswell" in advice for advice in doctor()["advice"])
