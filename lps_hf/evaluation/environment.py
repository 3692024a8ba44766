"""What figures were measured with: versions and device, as far as they decide the digits."""

import platform
from typing import Any

import torch
import transformers

from lps_hf import __version__


def environment(device: torch.device | str | None = None) -> dict[str, Any]:
    """Versions and device, without anything that tells whose machine it is.

    Args:
        device: Where the figures are measured. Default: the accelerator, where there is one.

    Returns:
        `dict`: `lps_hf`, `torch`, `transformers`, `python`, `device` ("cpu", or the accelerator's kind and name), `platform`,
        and of a CPU what rounding depends on: `cpu_capability` and `num_threads`.
    """
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    device = torch.device(device or "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    facts: dict[str, Any] = {
        "lps_hf": __version__,
        "torch": str(torch.__version__),  # which is a class of its own
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": f"{device.type}, {name}" if name else device.type,
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cpu":
        facts |= {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "num_threads": torch.get_num_threads()}
    return facts
