"""The peak of a GPU in dense bfloat16 operations per second, from the maker's data sheet.

MFU is a share of this number. A device outside the table has no peak and no MFU.
"""

from __future__ import annotations

import re

import torch

# (pattern of the driver's name, peak in teraFLOP/s); the first match counts. NVIDIA's data sheets print twice this
# figure, "with sparsity".
PEAK_TERAFLOPS = (
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
    (r"\bMI250X", 191.5),  # torch has a device for each of its two dies
)


def find_peak_flops(device: torch.device) -> float | None:
    """Return the peak of a device in operations per second; None for a CPU and for an unknown GPU."""
    return find_peak_by_name(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def find_peak_by_name(name: str) -> float | None:
    """Return the peak of a GPU by its name, such as "NVIDIA H100 80GB HBM3"."""
    return next((1e12 * teraflops for pattern, teraflops in PEAK_TERAFLOPS if re.search(pattern, name)), None)
