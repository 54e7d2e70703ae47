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


def test_the_first_page_lists_what_was_not_tried_and_points_there_before_its_results() -> None:
    before_results, _, results = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Results\n")
    assert "(#not-tried)" in before_results
    listed = results.partition("### Not tried\n")[2].partition("\n## ")[0]
    assert all(f"\n- {item}" in listed for item in ("the paper's backbones", "a GPU", "a paid API"))


def test_the_first_page_activates_the_environment_before_it_is_used() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [k for k, line in enumerate(lines) if re.match(r"(mathse|python) ", line)]
    assert lines.index(next(line for line in lines if line.startswith("source .venv/bin/activate"))) < commands[0]
