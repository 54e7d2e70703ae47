"""What the first page and the studies say in figures can be so, and its commands stand in an order that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT

WRITTEN = (*PAGES, *sorted((ROOT / "experiments").glob("*/README.md")))
# A share with its interval, such as "88.1 % [80.9, 95.3]"; a difference has a sign.
SHARE = re.compile(r"(?<![-+\d.])\d+\.\d(?: %)? \[(-?\d+\.\d), (-?\d+\.\d)\]")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_interval_of_a_share_leaves_0_to_100(page: Path) -> None:
    beyond = [m[0] for m in SHARE.finditer(page.read_text(encoding="utf-8")) if float(m[1]) < 0 or float(m[2]) > 100]
    assert beyond == []


def test_the_first_page_begins_with_what_was_never_run_and_activates_the_environment_before_it_is_used() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any("Never run" in line for line in lines[:10])
    commands = [k for k, line in enumerate(lines) if re.match(r"(mathse|python) ", line)]
    assert lines.index(next(line for line in lines if line.startswith("source .venv/bin/activate"))) < commands[0]
