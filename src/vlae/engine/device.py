"""Where to compute."""

import torch

from vlae.errors import DeviceError


def find_device(name: str) -> torch.device:
    """The device of a name: cpu, cuda, or auto for the best there is.

    Raises:
        DeviceError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise DeviceError(f"{name} is no device", rule="A device is cpu, cuda or auto", do="Choose one of them")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("There is no GPU that torch can use", rule="The device cuda needs one", do="Choose cpu or auto")
    return torch.device(name)


def arithmetic(precision: str, device: torch.device) -> torch.autocast:
    """Within it, what ``train.precision`` asks for: bfloat16 where the model does not keep the weights' precision, or that everywhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
