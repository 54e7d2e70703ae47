"""Every random draw of a run is keyed: by the run's seed, the stage and the row or batch it is for.

So nothing depends on what was drawn before, and a run that was killed and resumed draws the same numbers.
"""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, *key: object) -> int:
    """A seed in [0, 2**63) for this (seed, key), the same on every machine and Python version."""
    text = "\x1f".join([str(seed), *map(str, key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *key: object) -> random.Random:
    """A fresh standard-library generator for this (seed, key)."""
    return random.Random(derive(seed, *key))
