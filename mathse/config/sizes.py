"""Amounts of memory as a user writes them."""

from __future__ import annotations

import re

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory_size(text: str) -> int | None:
    """80GiB, 80GB or 80G as a number of bytes, of 1,024 to the power, as cards are labelled; None where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", text.strip(), re.IGNORECASE)
    return round(float(match[1]) * UNITS[match[2].upper()]) if match else None
