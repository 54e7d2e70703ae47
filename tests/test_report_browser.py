"""The report in a real browser, as its readers have it: from a disk, without a network, by mouse and by keyboard."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser
from run_builder import build_run, record_again

from mathse.config import build
from mathse.config.data import SyntheticData
from mathse.data.synthetic.digits import render
from mathse.reporting.report import write_report
from mathse.runs.store import read_json, write_jsonl

WORLD = build(SyntheticData())
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \" ' & $title"
SHOWN = "document.getElementById('shown').textContent"


def png(ref: str) -> bytes:
    out = io.BytesIO()
    render(ref).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run with its report; a path of round 1 is hostile."""
    folder = build_run(tmp_path_factory.mktemp("runs") / "made_up", size=120)
    file = folder / "round_01" / "paths.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["text"] = rf"Step 1: {HOSTILE}" + "\n" + r"Step 2: so $\frac{1}{2}$ it is, zebra."
    write_jsonl(file, rows)
    record_again(folder)
    write_report([folder], folder / "report.html", lambda folder, i: WORLD.get(i), png)
    return folder


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_a_click_on_a_transition_shows_its_problems_and_each_through_all_stages(run: Path, page: Page) -> None:
    page.open(run / "report.html")
    entries = read_json(run / "summary.json")["stages"]
    gained = entries[2]["transitions"]["wrong_correct"]
    assert entries[2]["stage"] == "round_01"
    assert page.run(SHOWN) == "24 of 120 paths shown."

    page.click("a[href*='to=round_01'][href*='wrong_correct'] text")
    page.wait(f"{SHOWN}.includes('of {gained} problems shown')")
    assert page.run("document.getElementById('chosen').textContent") == (
        f"distilled to round 1: {gained} test problems wrong before, right after"
    )
    assert page.run("document.activeElement.id") == "chosen", "a keyboard goes on at what was asked for"
    verdicts = "[...document.querySelectorAll('#cards .verdict')].map((v) => v.textContent)"
    assert page.run(verdicts) == ["wrong", "right"] * min(gained, 24)

    page.click("#cards .about a")  # through all stages
    page.wait("document.querySelectorAll('#cards .path').length === 5")
    assert page.run("[...document.querySelectorAll('#cards h4')].map((h) => h.textContent)") == [
        f"test answer, {stage}" for stage in ("base", "distilled", "round 1", "round 2", "final")
    ]
    permalink = page.run("location.hash")
    page.open(run / "report.html", permalink)  # the same view by its address
    assert page.run("document.querySelectorAll('#cards .path').length") == 5

    page.click("#cards button.picture")
    page.wait("document.getElementById('zoom').open")
    page.press("Escape")
    page.wait("!document.getElementById('zoom').open")
    page.click("#back")
    page.wait(f"{SHOWN}.includes('of 120 paths shown')")
    assert page.errors == []


def test_paths_are_filtered_sorted_searched_and_have_an_address(run: Path, page: Page) -> None:
    page.open(run / "report.html", "#gallery?stage=round+1&verdict=accepted&sort=low")
    scores = "[...document.querySelectorAll('#cards .p')].map((p) => Number(p.textContent.split(' ')[1]))"
    found = page.run(scores)
    assert len(found) == 24 and found == sorted(found) and min(found) >= 0.5
    page.click("#more")
    page.wait("document.querySelectorAll('#cards > article').length > 24")
    assert len(page.run(scores)) == min(48, page.run(f"Number({SHOWN}.split(' ')[2])"))

    page.run(
        "const kind = document.querySelector('[name=kind]'); kind.value = 'sum';"
        "kind.dispatchEvent(new Event('input', {bubbles: true})); 0"
    )
    page.wait("location.hash.includes('kind=sum')")
    page.wait("document.querySelector('#cards .question')")
    questions = set(page.run("[...document.querySelectorAll('#cards .question')].map((q) => q.textContent)"))
    assert questions == {"What is the sum of the three digits?"}

    page.run("location.hash = '#gallery?words=zebra'")
    page.wait(f"{SHOWN}.startsWith('1 found')")
    card = page.run("document.querySelector('#cards .steps').textContent")
    assert HOSTILE in card, "a hostile text is text"
    assert page.run("document.querySelectorAll('#cards math mfrac').length") == 1
    assert page.run("window.hacked === undefined && document.querySelectorAll('#cards img[src=x]').length === 0")
    assert page.errors == []


def test_tables_and_charts_can_be_sorted_hovered_and_taken_away(run: Path, page: Page) -> None:
    page.open(run / "report.html")
    page.run(
        "window.saved = []; window.save = 0; URL.createObjectURL = (blob) => { saved.push(blob); return '#'; };"
        "for (const folded of document.querySelectorAll('section details')) folded.open = true; 0"
    )
    column = "[...document.querySelectorAll('#accuracy tbody tr')].map((r) => r.cells[1].textContent)"
    before = page.run(column)
    for order in (
        sorted(before, key=lambda cell: float(cell[:-1])),
        sorted(before, key=lambda cell: -float(cell[:-1])),
    ):
        page.click("#accuracy thead th:nth-child(2) button")
        assert page.run(column) == order
    assert (
        page.run("document.querySelector('#accuracy thead th:nth-child(2)').getAttribute('aria-sort')") == "descending"
    )

    page.click("#accuracy button[aria-label='this table as CSV']")
    page.click("#accuracy button[aria-label='this chart as SVG']")
    table, chart = page.run("Promise.all(window.saved.map((blob) => blob.text()))")
    head = '"accuracy, %","95% interval, low","95% interval, high",problems,teacher calls,'
    assert table.splitlines()[0].startswith(f"stage,{head}")
    assert re.match(r"final,\d+(\.\d)?,\d+(\.\d)?,\d+(\.\d)?,120,\d+,", table.splitlines()[1])
    assert chart.startswith("<svg") and "<style>" in chart and "--paper" in chart

    page.click("#fits .wide .touch")
    assert re.fullmatch(
        r"ORM: solver, step \d+: training loss [\d.]+", page.run("document.querySelector('.tip').textContent")
    )
    assert page.errors == []


def test_a_table_is_taken_away_as_numbers(run: Path, page: Page) -> None:
    page.open(run / "report.html")
    rows = (
        "run|accuracy|points|of|ids|mixed",
        "a|88.1% [80.9, 95.3]|\u22120.4|57.8% of 1,574|0012|64.2%",
        "b|64%|+2.5|\u2013|0013|=cmd",
        "c|\u2013|±0.0|50.0% of 2|7|\u2013",
    )
    lines = json.dumps([row.split("|") for row in rows])
    page.run(
        f"window.made = document.createElement('table'); for (const cells of {lines}) {{"
        "const row = made.insertRow(); for (const cell of cells) row.insertCell().textContent = cell; } 0"
    )
    assert page.run("csv(made)").split("\r\n") == [
        'run,"accuracy, %","accuracy, low","accuracy, high",points,"of, %","of, of",ids,mixed',
        "a,88.1,80.9,95.3,-0.4,57.8,1574,0012,64.2%",
        "b,64,,,2.5,,,0013,'=cmd",
        "c,,,,0,50,2,7,\u2013",
        "",
    ]


def test_back_from_a_transition_shows_the_list_with_its_filters(run: Path, page: Page) -> None:
    page.open(run / "report.html")
    page.run("location.hash = '#accuracy'; 0")
    page.click("a[href*='to=round_01'][href*='wrong_correct'] text")
    page.wait(f"{SHOWN}.includes('problems shown')")
    assert page.run("document.getElementById('filters').hidden")
    page.run("history.back(); 0")
    page.wait("!document.getElementById('filters').hidden")
    page.wait(f"{SHOWN} === '24 of 120 paths shown.'")
    assert page.run("location.hash") == "#accuracy"


def test_clear_goes_back_to_the_filters_that_the_page_begins_with(run: Path, page: Page) -> None:
    page.open(run / "report.html", "#gallery?stage=distilled&verdict=rejected&sort=low")
    page.wait(f"{SHOWN}.includes('paths shown')")
    page.click("#filters button[type=reset]")
    page.wait("location.hash === '#gallery?stage=round+1'")
    page.wait(f"{SHOWN} === '24 of 120 paths shown.'")
    values = "['stage', 'verdict', 'sort'].map((name) => document.getElementById('filters').elements[name].value)"
    assert page.run(values) == ["round 1", "", ""]


def test_a_keyboard_and_a_screen_reader_reach_everything(run: Path, page: Page) -> None:
    page.open(run / "report.html")
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Skip to the content"
    page.run("document.querySelector('.wide a[href*=\"to=final\"]').focus()")
    page.press("Enter")
    page.wait("!document.getElementById('chosen').parentNode.hidden")

    page.open(run / "report.html")
    spoken = page.spoken()
    assert ("RootWebArea", "MathSE: made-up, seed 0") in spoken and ("navigation", "Sections") in spoken
    nameless = [
        role for role, name in spoken if role in ("button", "link", "combobox", "searchbox", "image") and not name
    ]
    assert nameless == []
    assert any(role == "link" and "problems wrong to correct" in name for role, name in spoken)
    assert {name for role, name in spoken if role == "combobox"} == {
        "Paths of", "Verdict", "Judge was", "Answer is", "Kind of problem", "Written by", "Order"
    }  # fmt: skip


def test_on_a_telephone_nothing_is_cut(run: Path, page: Page) -> None:
    page.size(390)
    try:
        page.open(run / "report.html")
        assert page.run("document.documentElement.scrollWidth") <= 390
        inside = page.run(
            "[...document.querySelectorAll('.narrow svg.chart')].map((chart) => {"
            "const box = chart.getBoundingClientRect();"
            "return [...chart.querySelectorAll('text')].every((t) => { const at = t.getBoundingClientRect();"
            "return at.left >= box.left - 1 && at.right <= box.right + 1 && at.height >= 10; }); })"
        )
        assert len(inside) == 7 and all(inside)
        assert page.run("[...document.querySelectorAll('.wide')].every((drawn) => !drawn.getClientRects().length)")
    finally:
        page.size(1280)


def test_a_page_that_was_taken_away_alone_shows_its_choice_and_says_so(run: Path, page: Page, tmp_path: Path) -> None:
    shutil.copy(run / "report.html", tmp_path / "alone.html")
    page.open(tmp_path / "alone.html")
    assert page.run(SHOWN) == (
        "24 of 60 paths shown. A choice: the other paths are in report_parts/, which is not beside this page."
    )
    picture = page.run("document.querySelector('#cards img').src")
    assert base64.b64decode(picture.partition(",")[2]).startswith(b"\x89PNG")
    page.errors.clear()  # the browser notes the file that is not there
