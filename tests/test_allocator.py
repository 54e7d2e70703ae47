"""Freed memory stays with the process, where glibc's malloc can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys, torch
from mathse.training.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step(): return [torch.ones(2**24) for _ in range(4)]  # 64 MiB each

step(), step()
before = faults()
for _ in range(4):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_memory_that_was_freed_is_not_paged_in_again(root: Path) -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], cwd=root, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") * 10 < faults("leave")
