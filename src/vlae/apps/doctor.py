"""Doctor: what this machine has, and what is slow on it."""

import importlib.metadata
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from vlae.version import __version__

OPTIONAL = ("tensorboard", "mlflow-skinny")


def doctor() -> dict[str, Any]:
    """Versions, cores, GPU, disk and the measured rate of a convolution, with advice where something is slow or missing."""
    found = {
        "vlae": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "convolution_gflops": round(convolution_rate(), 1),
        "bfloat16_gflops": round(convolution_rate(torch.bfloat16), 1),
        "extras": {name: _version(name) for name in OPTIONAL},
    }
    return found | {"advice": _advice(found)}


def convolution_rate(dtype: torch.dtype = torch.float32, seconds: float = 0.5) -> float:
    """Billions of multiplications and additions a second in a 2x3 convolution of 32 to 64 channels, the decoder's main work."""
    x = torch.zeros(8, 32, 64, 64, dtype=dtype).contiguous(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(32, 64, (2, 3), dtype=dtype)
    best, began = 0.0, time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - began < seconds:
            before = time.perf_counter()
            y = conv(x)
            best = max(best, 2 * y.numel() * 32 * 6 / (time.perf_counter() - before) / 1e9)
    return best


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _advice(found: dict[str, Any]) -> list[str]:
    advice = []
    if found["gpu"] is None:
        advice.append("No GPU: everything works; an hour of two cores trains a model of 300x300 images.")
    if found["threads"] < (found["cores"] or 1):
        advice.append(f"Only {found['threads']} of {found['cores']} cores are used: OMP_NUM_THREADS may be set.")
    if told := found["openblas_coretype"]:
        advice.append(
            f"OPENBLAS_CORETYPE={told} holds matrix products to that processor: where this one is newer, training is up to twice as fast without."
        )
    if found["gpu"] is None and found["bfloat16_gflops"] < 2 * found["convolution_gflops"]:
        advice.append("bfloat16 is slow here: leave train.precision at 32-true, or set it where a recipe has bf16-mixed.")
    if found["disk_free_gb"] < 2:
        advice.append("Less than 2 GB of disk are free: decoded images may not fit.")
    if found["convolution_gflops"] < 20:
        advice.append("Convolutions are slow here (below 20 billion operations a second): choose model.size=small.")
    return advice
