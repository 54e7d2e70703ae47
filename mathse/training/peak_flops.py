"""What a GPU can do at most: floating-point operations a second in bfloat16, dense, as its maker's data sheet says.

MFU is a share of this number. A device that is not in the table has none, and then no MFU is shown.
"""

from __future__ import annotations

import re

import torch

TERA = 1e12
# A pattern over the name that the driver gives, and the figure; the first that matches counts. Data sheets of NVIDIA
# print twice as much beside "with sparsity".
PEAKS = (
    (r"GB200|GB300", 2500),
    (r"\bB300|\bB200", 2250),
    (r"\bB100\b", 1750),
    (r"\bH(100|200)\b.*NVL", 835),
    (r"\bH(100|800)\b.*PCIe", 756),
    (r"\b(GH200|H200|H100|H800)\b", 989),
    (r"\bH20\b", 148),
    (r"\bA(100|800)\b", 312),
    (r"\bA40\b", 149.7),
    (r"\bA30\b", 165),
    (r"\bA10\b", 125),
    (r"\bL40S\b", 362),
    (r"\bL40\b", 181),
    (r"\bL4\b", 121),
    (r"RTX 6000 Ada", 364),
    (r"RTX A6000", 154.8),
    (r"RTX 5090\b", 209.5),
    (r"RTX 4090\b", 165.2),
    (r"RTX 3090\b", 71),
    (r"\bMI325X|\bMI300X", 1307),
    (r"\bMI250X", 191.5),  # torch sees each of its two dies as a device
)


def peak_flops(device: torch.device) -> float | None:
    """Of this device; None of a CPU and of a GPU that is not known here."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """Of a GPU by its name, such as "NVIDIA H100 80GB HBM3"."""
    return next((teraflops * TERA for pattern, teraflops in PEAKS if re.search(pattern, name)), None)
