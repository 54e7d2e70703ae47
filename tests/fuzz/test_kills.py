"""Two hundred kills, one on top of the other: whatever they hit, the run ends in the same files."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from e2e.runs import TINY, contents, killed, run
from e2e.test_ledger import ledgers

pytestmark = pytest.mark.slow

KILLS, IN_A_ROW = 200, 10
SETTINGS = (*TINY, "sft.max_steps=4", "trainer.checkpoint_every=1", "generator.batch_size=5", "judge.batch_size=5")


def test_two_hundred_kills_change_nothing(tmp_path: Path) -> None:
    run(tmp_path / "whole", *SETTINGS)
    draw, landed = random.Random(0), 0
    while landed < KILLS:
        folder = tmp_path / str(landed)
        writes = []
        for _ in range(IN_A_ROW):
            writes.append(draw.choice([draw.randrange(1, 12), draw.randrange(1, 150)]))
            if not killed(lambda folder=folder: run(folder, *SETTINGS), writes[-1]):  # type: ignore[misc]
                break
            landed += 1
        run(folder, *SETTINGS)
        assert contents(folder) == contents(tmp_path / "whole"), f"killed at its writes {writes}"
        assert ledgers(folder) == ledgers(tmp_path / "whole"), f"killed at its writes {writes}"
        shutil.rmtree(folder)
