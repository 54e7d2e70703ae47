from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from run_builder import NOTE, build_run, record_again

from mathse.commands.data_check.page import PagePictures
from mathse.config import build
from mathse.config.data import SyntheticData
from mathse.data.domains import MATH
from mathse.data.synthetic.digits import render
from mathse.errors import DataError, RunError
from mathse.reporting.charts import (
    HEIGHT,
    NARROW,
    Curve,
    Stairs,
    chart_style,
    curves,
    flow,
    losses,
    mean_stairs,
    safe,
    spread,
    staircase,
    staircase_svg,
    stairs,
    ticks,
)
from mathse.reporting.progress.wording import gain, percent, points
from mathse.reporting.report import main, write_report
from mathse.reporting.report.compare import comparable_settings, group_runs
from mathse.reporting.report.gallery import Choice, GalleryItem, read_paths, read_test_answers
from mathse.reporting.report.listing import Listing
from mathse.reporting.report.run import fit_row, overfitting, own_seconds
from mathse.runs.layout import stage_order, title
from mathse.runs.reader import Run, read_run
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.scoring.metrics import decide
from mathse.types import Lineage, Problem, ReasoningPath, Verdict

WORLD = build(SyntheticData())
HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(2)> \" ' & \x00\x1b\ud800 ]]> <!-- $title"


def png(ref: str) -> bytes:
    out = io.BytesIO()
    render(ref).save(out, "PNG")
    return out.getvalue()


def blank_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(height * (width + 1))))
        + chunk(b"IEND", b"")
    )


def gallery(run: Run, per_group: int) -> dict[str, list[GalleryItem]]:
    choice = Choice(per_group)
    for item in read_paths(run, WORLD.get):
        choice.add(item)
    return choice.groups()


def inside(page: str) -> dict[str, Any]:
    """The listing inside a page."""
    match = re.search(r'<script type="application/json" id="listing">(.*?)</script>', page, re.S)
    assert match
    return json.loads(match[1])


def beside(page: Path) -> dict[str, Any]:
    """The listing in the parts beside a page."""
    calls = (file.read_text(encoding="ascii") for file in sorted((page.parent / f"{page.stem}_parts").iterdir()))
    matches = (re.fullmatch(r'mathse\("([a-z_0-9]+)",(.*)\);\n', call) for call in calls)
    return {match[1]: json.loads(match[2]) for match in matches if match}


def values(listing: dict[str, Any], kind: str) -> list[Any]:
    return [value for name in sorted(listing) if name.startswith(kind) for value in listing[name]["values"]]


def report(*runs: Path, problem_of: Callable[[Path, str], Problem | None] = lambda run, i: WORLD.get(i)) -> str:
    return write_report(runs, runs[0] / "report.html", problem_of, png).read_text(encoding="utf-8")


class Markup(HTMLParser):
    """Collects tags and checks that each one is closed where it should be."""

    VOID = ("meta", "input", "br", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.values: list[tuple[str, str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.values += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        expected = self.open.pop()
        assert tag in (expected, "option") or expected == tag, f"</{tag}> closes <{expected}>"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.values += [(name, value or "") for name, value in attrs]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "made_up", size=120)


def test_the_report_of_a_finished_run_has_every_part_and_its_numbers(run: Path) -> None:
    page = report(run)
    Markup(page)
    for part in (
        "accuracy",
        "transitions",
        "acceptance",
        "orm",
        "data",
        "fits",
        "time",
        "gallery",
        "notes",
        "settings",
    ):
        assert f'<section id="{part}">' in page, part
        assert f'<a href="#{part}">' in page, part
    for entry in read_json(run / "summary.json")["stages"]:
        assert f"{entry['accuracy'] * 100:.1f}%" in page
        assert f"{entry['train_rows']:,} rows" in page
    for calibrated in ("Share of paths that are right, own held-out", "The same, paths by the student of round 2"):
        assert calibrated in page
    assert NOTE in page
    assert "has not finished" not in page
    assert "evolution.reflect.when" in page


def test_the_report_shows_no_key_that_a_setting_holds(tmp_path: Path) -> None:
    """A rule refuses them; older runs, and settings of a user's own class, may have some."""
    settings = {
        "judge": {"command": "env HF_TOKEN=hf_abcdefgh123 serve --api-key hunter2 {checkpoint}"},
        "callbacks": {"mine": {"_target_": "my.Callback", "api_key": "hunter2", "url": "https://me:hunter2@host/"}},
    }
    page = report(build_run(tmp_path / "run", size=12, settings=settings))
    assert "hunter2" not in page and "hf_abcdefgh123" not in page
    assert "env HF_TOKEN=*** serve --api-key *** {checkpoint}" in page and "https://host/" in page


def test_the_report_loads_nothing_and_runs_no_other_script(run: Path) -> None:
    page = report(run)
    markup = Markup(page)
    assert markup.seen["script"] == 2 and page.count("<script>") == 1 and '<script type="application/json"' in page
    assert markup.seen["link"] == markup.seen["iframe"] == 0
    for name, value in markup.values:
        assert not name.startswith("on")
        if name in ("href", "src"):
            assert value.startswith("#")
    assert "@import" not in page and "url(" not in page
    script = re.search(r"<script>(.*?)</script>", page, re.S)
    policy = re.search(r"script-src 'sha256-([^']+)' 'strict-dynamic';", page)
    assert script and policy
    assert base64.b64decode(policy.group(1)) == hashlib.sha256(script.group(1).encode()).digest()


def test_hostile_text_of_a_model_stays_text(run: Path, tmp_path: Path) -> None:
    hostile = build_run(tmp_path / "hostile", size=30, name=HOSTILE.replace("\ud800", "").replace("\x00", ""))
    stage = hostile / "round_01"
    paths = [json.loads(line) for line in (stage / "paths.jsonl").read_text().splitlines()]
    write_jsonl(stage / "paths.jsonl", [{**row, "text": f"Step 1: {HOSTILE}\nStep 2: {HOSTILE}"} for row in paths])
    words = {"error_step": HOSTILE, "error_analysis": HOSTILE, "judge": HOSTILE}
    verdicts = [{"path_id": row["id"], "status": "wrong", **words} for row in paths]
    write_jsonl(stage / "verdicts.jsonl", verdicts)
    record_again(hostile)
    write_json(
        hostile / "summary.json", {**read_json(hostile / "summary.json"), "notes": [HOSTILE.replace("\ud800", "")]}
    )
    page = report(hostile, problem_of=lambda run, i: Problem(i, HOSTILE, (HOSTILE,), HOSTILE, (HOSTILE, HOSTILE)))
    markup = Markup(page)
    assert markup.seen["script"] == 2 and page.count("<script") == 2
    escaped = page.count("&lt;script&gt;alert(1)") + page.count(r"\u003cscript\u003ealert(1)")
    assert page.count("alert(1)") == escaped > 50
    for text in (page, *(file.read_text() for file in (hostile / "report_parts").iterdir())):
        assert re.search("[\x00\x1b]|" + r"(?<!\\)\\u(0000|001b|d800)", text) is None
    for file in (hostile / "report_parts").iterdir():
        assert not set("<>&").intersection(file.read_text()), file.name


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "The judge does not see that answer."),
        ({"orm": {"see_answer": True}}, "The judge sees that answer."),
        ({"orm": {"own_answer": True}}, "The judge does not see that answer."),
        ({"judge": {"checkpoint": "elsewhere"}}, None),  # another run's ORM has that run's form
        ({"judge": {"name": "answer"}}, None),
    ],
)
def test_whether_the_orm_sees_the_answer_is_said_where_it_is_known(
    tmp_path: Path, settings: dict[str, Any], sentence: str | None
) -> None:
    page = report(build_run(tmp_path / "run", size=12, settings=settings))
    assert re.findall(r"The judge (?:does not see|sees) that answer\.", page) == [sentence] * (sentence is not None)
    assert ("It answers each problem itself" in page) == ("own_answer" in settings.get("orm", {}))


@pytest.mark.parametrize("stage", ["base", "orm/solver", "orm", "distill", "round_01", "reflection"])
def test_a_run_under_way_has_a_report_of_what_is_finished(tmp_path: Path, stage: str) -> None:
    part = build_run(tmp_path / "part", size=30, stop_after=stage)
    (part / "round_02").mkdir(exist_ok=True)
    (part / "round_02" / "paths.jsonl").write_text('{"id": "torn')  # a stage without stage.json is not read
    if stage != "reflection":
        page = report(part)
        Markup(page)
        assert "has not finished" in page


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"name": "x", "task": "orm", "seed": 3, "config": {}})
    page = report(tmp_path)
    Markup(page)
    assert "none yet" in page and "No student was scored" in page


def test_without_a_summary_the_entries_are_counted_from_the_files(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", size=60)
    said = read_run(folder).entries
    (folder / "summary.json").unlink()
    for manifest in folder.rglob("stage.json"):
        write_json(manifest, {**read_json(manifest), "summary": {}})
    counted = read_run(folder).entries
    for a, b in zip(said, counted, strict=True):
        for key in ("stage", "accuracy", "ci95", "n", "train_rows", "transitions", "origins"):
            assert a[key] == b[key], (a["stage"], key)
        if a["stage"].startswith("round"):
            assert [a[k] for k in ("accepted", "rejected", "unparsed")] == [
                b[k] for k in ("accepted", "rejected", "unparsed")
            ]


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json"):
        report(tmp_path)
    with pytest.raises(DataError, match="at least one"):
        write_report([], tmp_path / "x.html", lambda run, i: None, png)


def test_the_gallery_is_spread_over_outcomes_and_the_same_each_time(run: Path) -> None:
    read = read_run(run)
    groups = gallery(read, per_group=20)
    assert list(groups)[:4] == ["distilled", "round 1", "round 2", "reflection"]
    assert "ORM held-out, round 2" in groups
    assert all(len(items) <= 20 for items in groups.values())
    for items in groups.values():
        assert len({item.path.id for item in items}) == len(items)
    shown = Counter((i.decision, i.right) for i in groups["round 1"])
    everyone = Counter(decide(v, 0.5) for v in read_jsonl(run / "round_01" / "verdicts.jsonl", Verdict))
    false_accepts = sum(i.decision == "accepted" and not i.right for i in gallery(read, 10**6)["round 1"])
    assert shown[("accepted", False)] == min(false_accepts, 5) > 0
    assert abs(shown[("accepted", True)] - shown[("rejected", False)]) <= 1 < everyone["accepted"]
    again = gallery(read_run(run), per_group=20)
    assert again == groups


def test_every_judged_path_knows_whether_the_judge_was_right(run: Path) -> None:
    for item in gallery(read_run(run), 10**6)["round 1"]:
        assert item.problem is not None
        truth = item.path.text.endswith(f" is {item.problem.answer}.")
        assert item.right == truth
        if item.decision == "unparsed":
            assert item.judge_right is None
        else:
            assert item.judge_right == ((item.decision == "accepted") == truth)


def test_a_wrong_draft_is_shown_with_its_rewrite_and_the_rewrite_with_its_draft(run: Path) -> None:
    groups = gallery(read_run(run), 10**6)
    drafts = [i for i in groups["round 2"] if i.reflection]
    assert drafts and all(i.reflection and i.reflection.draft.id == i.path.id for i in drafts)
    assert all(i.reflection and i.reflection.revised.id == i.path.id for i in groups["reflection"])
    report(run)
    titles = {row["also"]["title"] for row in values(beside(run / "report.html"), "rows") if "also" in row}
    assert {"the draft it rewrites", "reflection: its rewrite, accepted"} <= titles


def test_problems_and_pictures_that_are_gone_are_said_so(run: Path) -> None:
    page = report(run, problem_of=lambda run, i: None)
    Markup(page)
    assert set(values(inside(page), "problems")) == {None}

    def gone(ref: str) -> bytes:
        raise DataError(f"{ref}: no such file")

    out = write_report([run], run / "report.html", lambda r, i: WORLD.get(i), gone).read_text(encoding="utf-8")
    (picture,) = values(inside(out), "problems")[0]["pictures"]
    assert picture["missing"].startswith("picture not available: digits:")


def test_a_budget_of_pictures_keeps_a_listing_small() -> None:
    def listed(budget: int, image_png: Callable[[str], bytes], count: int = 3) -> list[dict[str, Any]]:
        written: dict[str, str] = {}
        listing = Listing("now", written.__setitem__, image_png, picture_bytes=budget)
        for name in map(str, range(count)):
            path = ReasoningPath(name, name, "Step 1: 2", Lineage("student", "round_01", "x"))
            listing.add(GalleryItem("round 1", path, Problem(name, "?", (name,)), None, None, None))
        listing.index()
        return [problem["pictures"][0] for problem in json.loads(written["problems_0000"])["values"]]

    png = blank_png(200, 100)
    first, second, third = listed(2 * len(png), lambda ref: png)
    assert (first["width"], first["height"], base64.b64decode(second["png"])) == (200, 100, png)
    assert "left out" in third["missing"]
    assert "not a PNG" in listed(10**6, lambda ref: b"GIF89a")[0]["missing"]
    read: list[str] = []
    pictures = listed(len(png), lambda ref: (read.append(ref), png)[1], count=60)
    assert len(read) == 21 and all("left out" in picture["missing"] for picture in pictures[1:])


def test_each_picture_of_a_card_is_stored_once_and_a_budget_keeps_the_page_small() -> None:
    pictures = PagePictures(lambda ref: blank_png(200, 100), budget=200)
    assert pictures.show("a") is pictures.show("a")
    assert (pictures.show("a").width, pictures.show("a").height) == (200, 100)
    pictures.show("b")
    assert "left out" in pictures.show("c").missing
    assert [picture.symbol for picture in pictures.stored] == ["pic0", "pic1"]
    assert "not a PNG" in PagePictures(lambda ref: b"GIF89a").show("d").reason


def test_all_paths_and_test_answers_lie_beside_the_page_and_the_index_has_each(run: Path) -> None:
    report(run)
    listing = beside(run / "report.html")
    index, read = listing["index"], read_run(run)
    rows = [*read_paths(read, WORLD.get), *read_test_answers(read, WORLD.get)]
    assert len(values(listing, "rows")) == len(index["problem"]) == len(rows) > 1000
    groups = [group["title"] for group in index["groups"]]
    for k, (item, row) in enumerate(zip(rows, values(listing, "rows"), strict=True)):
        assert row["id"] == item.path.id and groups[index["group"][k]] == item.group
        assert index["problems"][index["problem"][k]] == item.path.problem_id
        assert index["right"][k] == {True: 1, False: 0, None: -1}[item.right]
        assert "".join(text for _, texts in row["steps"] for text in texts).replace("\n", "") == "".join(
            text for _, text in MATH.steps(item.path.text)
        ).replace("\n", "")
    assert set(index["kinds"]) == {problem.metadata["kind"] for problem in WORLD.splits()["test"]}
    for before, after in zip(read.entries, read.entries[1:], strict=False):
        right = [
            {index["problem"][k]: index["right"][k] for k, g in enumerate(index["group"])
             if index["groups"][g]["student"] == entry["stage"]}
            for entry in (before, after)
        ]  # fmt: skip
        gained = sum(right[1][problem] > right[0][problem] for problem in right[1])
        assert gained == after["transitions"]["wrong_correct"]


def test_a_long_listing_is_cut_into_parts_that_the_index_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathse.reporting.report.listing.PART_CHARS", 2_000)
    monkeypatch.setattr("mathse.reporting.report.listing.MAX_ROWS", 90)
    written: dict[str, str] = {}
    listing = Listing("now", written.__setitem__, png)
    for k in range(100):
        path = ReasoningPath(f"p{k}", f"q{k % 7}", rf"Step 1: $\frac{{1}}{{{k % 5}}}$ $", Lineage("student", "x", "y"))
        listing.add(GalleryItem("round 1", path, Problem(f"q{k % 7}", "$x^2$?"), None, None, None))
    index = listing.index()
    assert index["groups"][0]["all"] == 100 and index["groups"][0]["rows"] == len(index["problem"]) == 90
    starts = index["parts"]["rows"]
    assert starts[0] == 0 and len(starts) > 3
    for k in range(90):
        part = max(p for p, start in enumerate(starts) if start <= k)
        found = json.loads(written[f"rows_{part:04d}"])
        row = found["values"][k - starts[part]]
        assert row["id"] == f"p{k}" and found["stamp"] == "now"
        before, formula, after = row["steps"][0][1]
        assert (before, after) == ("Step 1: ", " $") and rf"\frac{{1}}{{{k % 5}}}</annotation>" in found["formulas"][
            formula
        ]


def test_the_page_of_a_demo_sized_gallery_is_moderate(run: Path) -> None:
    assert len(report(run)) < 1_500_000


def test_every_section_has_its_link_in_the_bar(run: Path) -> None:
    page = report(run)
    bar = re.search(r'<nav aria-label="Sections">(.*?)</nav>', page)
    sections = re.findall(r'<section id="([^"]+)"', page)
    assert bar and re.findall(r'<a href="#([^"]+)">', bar[1]) == sections and {"controls", "costs"} <= {*sections}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Step 1: a\nStep 2: b", [(1, "Step 1: a"), (2, "Step 2: b")]),
        (
            "Let us see. Step 1: a. Step 2: by Step 1 b",
            [(None, "Let us see."), (1, "Step 1: a."), (2, "Step 2: by Step 1 b")],
        ),
        ("**Step 1:** a\n\n**Step 2:** b", [(1, "**Step 1:** a"), (2, "**Step 2:** b")]),
        ("步骤1:读图\n步骤2:相加", [(1, "步骤1:读图"), (2, "步骤2:相加")]),
        ("one line\nanother", [(None, "one line"), (None, "another")]),
        ("", []),
    ],
)
def test_a_path_is_shown_by_its_steps(text: str, expected: list[tuple[int | None, str]]) -> None:
    assert MATH.steps(text) == expected


def test_the_step_that_the_judge_names_is_marked(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", size=30, stop_after="distill")
    path = next(iter(read_jsonl(folder / "distill" / "paths.jsonl", ReasoningPath)))
    write_jsonl(folder / "distill" / "paths.jsonl", [path])
    write_jsonl(folder / "distill" / "verdicts.jsonl", [Verdict(path.id, "wrong", "Step 2", "why", 0.1, "orm")])
    (folder / "distill" / "orm_held.jsonl").unlink()
    (folder / "orm" / "orm_held.jsonl").unlink()
    record_again(folder)
    marked = [text for flags, (text,) in values(inside(report(folder)), "rows")[0]["steps"] if flags]
    assert len(marked) == 1 and marked[0].startswith("Step 2:")


def test_seeds_of_equal_settings_form_one_variant(tmp_path: Path) -> None:
    seeds = [build_run(tmp_path / f"s{k}", size=30, seed=k, name="demo") for k in (1, 2, 3)]
    other = build_run(tmp_path / "random", size=30, seed=1, name="control", settings={"judge": {"name": "random"}})
    found = group_runs([read_run(f) for f in (*seeds, other)])
    assert [(v.label, len(v.runs)) for v in found] == [("demo", 3), ("judge.name=random", 1)]
    flight = mean_stairs(found[0].label, [run.entries for run in found[0].runs])
    finals = [r.entries[-1]["accuracy"] for r in found[0].runs]
    assert flight.accuracy["final"] == pytest.approx(sum(finals) / 3)
    assert flight.interval["final"][0] <= min(max(finals), flight.accuracy["final"])
    assert comparable_settings(found[0].runs[0]) == comparable_settings(found[0].runs[1])
    page = report(*seeds, other)
    Markup(page)
    assert "over 3 seeds" in page and "judge.name</th><td>orm</td><td>random</td>" in page


def test_runs_that_differ_by_a_seed_of_their_own_are_not_lumped_together(tmp_path: Path) -> None:
    a = build_run(tmp_path / "a", size=12, seed=1)
    b = build_run(tmp_path / "b", size=12, seed=1, settings={"teacher": {"seed": 9}})
    assert [v.label for v in group_runs([read_run(a), read_run(b)])] == ["made-up", "teacher.seed=9"]


def test_the_staircase_is_a_well_formed_picture_that_stands_alone(run: Path) -> None:
    entries = read_run(run).entries
    for drawing in (staircase_svg(entries), staircase_svg({"one": entries, "two & <more>": entries[:3]})):
        root = ET.fromstring(drawing)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert f"{entries[-1]['accuracy'] * 100:.1f}%" in drawing
        assert "nan" not in drawing
    assert "two & <more>" in "".join(ET.fromstring(drawing).itertext())


def test_a_viewer_without_named_colours_has_plain_ones() -> None:
    style = chart_style()
    named = re.findall(r"([\w-]+): var\(--[\w-]+\)", style)
    plain = re.findall(r"([\w-]+): #\w+; \1: var\(--[\w-]+\)", style)
    assert len(named) > 40 and plain == named, "librsvg paints what has only a named colour black"


def test_a_gain_is_the_difference_of_the_figures_that_are_shown() -> None:
    assert (percent(0.51625), percent(0.7675), gain(0.51625, 0.7675)) == ("51.6%", "76.8%", "+25.2")
    entries = [{"stage": "base", "accuracy": 0.51625}, {"stage": "distill", "accuracy": 0.7675}]
    assert ">+25.2<" in staircase_svg(entries)
    for before, after in product((k / 800 for k in range(0, 800, 37)), (k / 1300 for k in range(0, 1300, 71))):
        shown = float(percent(after)[:-1]) - float(percent(before)[:-1])
        written = gain(before, after).replace("\N{MINUS SIGN}", "-").replace("±", "")
        assert float(written) == pytest.approx(shown, abs=1e-9)


def test_a_comparison_draws_no_round_that_a_run_did_not_have() -> None:
    def flight(label: str, *stages: str) -> Stairs:
        return Stairs(label, {stage: 0.1 * (k + 1) for k, stage in enumerate(stages)}, {}, {})

    whole = flight("whole", "base", "distill", "round_01", "round_02", "final")
    short = flight("short", "base", "distill", "final")
    drawing = staircase([whole, short])
    lines = [p.get("d") for p in ET.fromstring(drawing).iter() if "stairs" in (p.get("class") or "")]
    assert sorted(line.count("M") for line in lines if line) == [1, 2], "the line of the short run is open in between"
    hints = [t.text or "" for t in ET.fromstring(drawing).iter() if t.tag.endswith("title")]
    assert "round 1: whole 30.0%" in hints and "final: whole 50.0%; short 30.0%" in hints


@pytest.mark.parametrize("stages", [1, 5, 12])
def test_names_of_a_narrow_staircase_stay_on_it(stages: int) -> None:
    entries = [
        {"stage": f"round_{k:02d}", "accuracy": 0.07 * k, "ci95": [0.06 * k, 0.08 * k], "train_rows": 1000 * k}
        for k in range(1, stages + 1)
    ]
    drawing = ET.fromstring(staircase([stairs("x", entries)], NARROW))
    assert drawing.get("viewBox", "").split()[2] == str(NARROW)
    assert all(0 <= float(t.get("x", "0")) <= NARROW for t in drawing.iter() if t.tag.endswith("text"))


def test_charts_of_nothing_are_nothing() -> None:
    assert flow([]) == flow([{"stage": "base", "accuracy": 0.1, "transitions": None}]) == ""
    assert losses({"a": []}) == losses({"a": [{"step": 1, "loss": None}]}) == ""
    assert stairs("x", [{"stage": "base", "accuracy": None}]).accuracy == {}


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 1.0])
def test_curves_that_are_flat_are_drawn_inside_their_frame(share: float) -> None:
    drawing = curves([Curve("first", [(1, share, (share, share)), (2, share, None)])], "samples", "Accuracy")
    ET.fromstring(drawing)
    heights = [float(y) for y in re.findall(r' y[12]?="([\d.-]+)"', drawing)]
    assert min(heights) >= 0 and max(heights) <= HEIGHT


def test_the_loss_chart_survives_a_loss_of_zero_and_a_single_step() -> None:
    drawing = losses({"fit": [{"step": 0, "loss": 0.0, "val_loss": None}, {"step": 1, "loss": 0.5, "val_loss": 0.0}]})
    ET.fromstring(drawing)
    assert "0.5" in drawing


def test_validation_losses_that_have_lines_of_their_own_are_drawn_as_rings() -> None:
    log = [{"step": 10, "loss": 1.0, "lr": 0.1}, {"step": 10, "val_loss": 1.2}, {"step": 20, "loss": 0.5, "lr": 0.1},
           {"step": 20, "val_loss": 0.9}, {"step": 20, "val_loss": math.nan}]  # fmt: skip
    drawing = losses({"distilled": log, "ORM: student 300": log[:1]})
    circles = [c for c in ET.fromstring(drawing).iter() if c.tag.endswith("circle")]
    assert [c.get("class") for c in circles if c.get("class") != "touch"] == ["ring"] * 2
    words = list(ET.fromstring(drawing).itertext())
    assert "distilled, step 20: validation loss 0.9" in words and "ORM: student 300, step 10: training loss 1" in words
    assert "train 0.5" in words and "validation 0.9" in words and "validation 0.9" in drawing.split(">")[0]
    assert drawing.count("validation 0.9<") == 1, "a fit that was not validated has no such label"


def curve(*points: tuple[int, float, float | None]) -> list[dict[str, float]]:
    """A log of (step, loss, validation loss)."""
    log: list[dict[str, float]] = []
    for step, loss, val_loss in points:
        log.append({"step": step, "loss": loss, "lr": 0.1})
        if val_loss is not None:
            log.append({"step": step, "val_loss": val_loss})
    return log


def test_a_fit_that_overfits_is_said_to() -> None:
    healthy = curve((1, 6.0, None), (100, 0.5, 0.6), (200, 0.3, 0.45))
    noisy = curve((100, 0.3, 0.4), (200, 0.2, 0.42))
    stuck = curve((100, 0.3, 0.4), (200, 0.35, 0.9))
    apart = curve((100, 0.002, 0.16), (300, 0.0006, 0.153))
    overfits = curve((1, 6.0, None), (100, 0.02, 0.12), (200, 0.004, 0.14), (300, 0.0006, 0.153))
    assert (
        overfitting({"healthy": healthy, "noisy": noisy, "stuck": stuck, "never validated": curve((9, 1, None))}) == ""
    )
    assert overfitting({"healthy": healthy, "distilled": apart}) == (
        "Widest gap: distilled ends at 0.0006 training and 0.153 validation loss."
    )
    assert overfitting({"healthy": healthy, "distilled": overfits}) == (
        "distilled: validation loss rose from 0.12 at step 100 to 0.153 at the end while training loss fell to 0.0006: "
        "it overfits."
    )


def test_a_fit_in_numbers() -> None:
    first = {"step": 1, "loss": 6.0, "lr": 0.1, "grad_norm": 8.0, "tokens_per_second": 10.0, "peak_memory_gib": 0.5,
             "padding": 0.5, "data_wait": 0.9}  # fmt: skip
    later = {"step": 10, "loss": 0.5, "lr": 0.1, "grad_norm": 2.0, "tokens_per_second": 1200.0, "peak_memory_gib": 0.75,
             "padding": 0.04, "data_wait": 0.01, "mfu": 0.4}  # fmt: skip
    log = [first, later, {"step": 10, "val_loss": 0.75}]
    assert fit_row("round 1", log) == {
        "fit": "round 1", "steps": "10", "training loss": "0.5", "validation loss": "0.75",
        "lowest (step)": "0.75 (10)",
        "gradient norm: median, largest": "5, 8", "tokens/s": "1,200", "MFU": "40.0%", "peak memory": "0.75 GiB",
        "padding": "4.0%", "waiting for data": "1.0%",
    }  # fmt: skip
    cells = fit_row("of an earlier version", curve((10, 0.5, None))).values()
    assert list(cells)[2:] == ["0.5", *["\N{EN DASH}"] * 8]


def test_time_of_a_stage_leaves_out_the_stage_inside_it(run: Path) -> None:
    stages = read_run(run).stages
    orm = next(s for s in stages if s.name == "orm")
    solver = next(s for s in stages if s.name == "orm/solver")
    apart = own_seconds(orm, stages)["other"]
    wide = type(orm)(orm.name, orm.folder, {**orm.manifest, "started": solver.manifest["started"],
                                            "time_s": {**orm.manifest["time_s"], "other": 65.0}})  # fmt: skip
    assert apart == 2
    assert own_seconds(wide, [solver, wide])["other"] == pytest.approx(65 - solver.manifest["wall_s"])


def test_stages_go_in_the_order_of_the_run() -> None:
    names = ["final", "round_02", "orm", "base", "reflection", "round_10", "orm/solver", "distill", "round_01"]
    assert sorted(names, key=stage_order) == [
        "base", "orm/solver", "orm", "distill", "round_01", "round_02", "round_10", "reflection", "final"
    ]  # fmt: skip
    assert [title(n) for n in ("round_01", "distill", "orm", "my_stage")] == ["round 1", "distilled", "ORM", "my stage"]


def test_labels_keep_their_distance_and_axes_have_round_ticks() -> None:
    placed = spread([10.0, 11.0, 50.0], 15)
    assert placed[1] - placed[0] >= 15 and placed[2] > placed[1]
    assert ticks(0, 0.93) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert (points(0.058), points(-0.004), points(0.0)) == ("+5.8", "−0.4", "±0.0")
    assert safe("<a b='c'>\x07") == "&lt;a b=&#x27;c&#x27;&gt;\ufffd"


def test_the_command_writes_beside_the_run_and_says_what_is_wrong(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mathse.reporting.report._problem_of", lambda folder, i: WORLD.get(i))
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert main([str(run), str(run)]) == 0
    assert (tmp_path / "report.html").is_file()
    (tmp_path / "multirun.yaml").touch()  # Hydra's, of a sweep: `mathse report SWEEP/*`
    assert main([str(run), str(tmp_path / "multirun.yaml"), "--out", "sub/mine.html"]) == 0
    assert (tmp_path / "sub" / "mine.html").is_file()
    assert main([str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err
