"""Every test: one torch thread (set before anything can load torch), no network, nothing uploaded."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "TOKENIZERS_PARALLELISM": "false",
}

# A shell starts what it puts into the background with Ctrl-C ignored, and tests of Ctrl-C would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Only a power cut tells a flushed file from one in the kernel's cache, and waiting for the disk would be a good part of
# a tiny run's time. Processes that tests start do flush; in which order, tests/test_store.py asks.
os.fsync = lambda fd: None

import pytest  # noqa: E402  (the variables first)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def _collect_only_what_this_file_makes() -> None:
    """A run collects garbage after every fit, and would walk through all modules and all collected tests each time: two
    thirds of a tiny run's time. What stands when a file begins is therefore left out of collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of real problems and reference weights, where there is one: $MATHSE_FIXTURES, else beside the
    repository."""
    folder = Path(os.environ.get("MATHSE_FIXTURES", ROOT.parent / "shared" / "fixtures")).resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the fixtures folder, and {folder} does not exist; set MATHSE_FIXTURES")
    return folder
