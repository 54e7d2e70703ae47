"""The documentation builds strictly and without a network, its pictures are up to date, and its pages can be found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT

sys.path.append(str(ROOT / "docs"))  # docs/draw_rooms.py is a script
import draw_rooms  # noqa: E402  (the path first)
import write_reference  # noqa: E402

LINK = re.compile(r"\]\(([^)#:]+)(?:#[\w-]+)?\)|(?:src|href)=\"([^\":]+)\"")


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs: pip install '.[docs]'")
def test_site_builds_strictly_and_asks_no_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {file.relative_to(tmp_path / "site").as_posix(): file for file in (tmp_path / "site").rglob("*.html")}
    assert "reference/settings.html" in pages and "reference/api.html" in pages
    assert "sft.optimizer.lr" in pages["reference/settings.html"].read_text(encoding="utf-8")
    for name, page in pages.items():
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text("utf-8"))
        assert [url for url in fetched if "canonical" not in url] == [], name


@pytest.mark.parametrize("name", draw_rooms.PICTURES)
def test_picture_of_the_design_is_what_the_code_draws(name: str) -> None:
    drawn = draw_rooms.PICTURES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == drawn, "out of date; run: python docs/draw_rooms.py"


@pytest.mark.parametrize("name", write_reference.PAGES)
def test_page_of_reference_is_what_the_code_says(name: str) -> None:
    page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert page == write_reference.PAGES[name](), "out of date; run: python docs/write_reference.py"


def test_a_row_walks_through_at_most_ten_rooms() -> None:
    rooms = {step.room for step in draw_rooms.WALK}
    assert rooms <= set(draw_rooms.rooms()) and len(rooms) <= 10


def test_a_step_that_is_not_in_the_code_is_not_drawn() -> None:
    step = draw_rooms.Step("training.fit:fit", "evolution.stages:judge", "", "")
    with pytest.raises(LookupError, match="does not call fit"):
        draw_rooms.check(step)


def test_readme_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    links = [a or b for a, b in LINK.findall(page.read_text(encoding="utf-8"))]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`((?:mathse|conf|experiments|tests|docs)/[\w./-]*\w/?)`", text)
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []
