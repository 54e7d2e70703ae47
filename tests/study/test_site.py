"""python -m mathse report --all: one page over studies and runs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from run_builder import Builder

from mathse.errors import RunError
from mathse.reporting.report import main as report
from mathse.reporting.study import main as study

QUESTION = (
    "# Stages\n\n**Question.** Does each <stage> of `a<b` add\nsomething?\n\n"
    "<!-- results: written by python -m mathse study -->"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a study, an unfinished run without a report, and the study's results."""
    root = tmp_path_factory.mktemp("site")
    for seed in (1, 2):
        settings = {"study": "table1_stages", "variant": "mathse"}
        Builder(root / "outputs" / "studies" / f"seed_{seed}", seed, settings=settings).build()
    Builder(root / "outputs" / "demo" / "seed_0", 0, name="demo", stop_after="distill").build()
    readme = root / "experiments" / "table1_stages" / "README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text(f"{QUESTION}\n<!-- end of results -->\n")
    study(["table1_stages", "--runs", str(root / "outputs"), "--out", str(readme.parent)])
    return root


def test_the_page_shows_each_study_and_links_to_each_run(place, capsys):
    out = place / "outputs" / "index.html"
    arguments = ["--all", str(place / "outputs"), "--experiments", str(place / "experiments"), "--out", str(out)]
    assert report(arguments) == 0
    page = out.read_text()
    assert "Does each &lt;stage&gt; of <code>a&lt;b</code> add something? Seeds 1, 2." in page
    assert "data:image/svg+xml;base64," in page and '<section id="study-table1_stages"' in page
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert links == {"studies/seed_1/report.html", "studies/seed_2/report.html", "demo/seed_0/report.html"}
    assert all((out.parent / link).is_file() for link in links)
    assert "not finished" in page
    places = [page.index(f'<section id="{name}"') for name in ("runs", "study-table1_stages", "study-runs")]
    assert places == sorted(places), "the user's own runs stand first"
    assert page.index("demo/seed_0/report.html") < places[1] < page.index("studies/seed_1/report.html")
    own = (place / "outputs" / "studies" / "seed_1" / "report.html").read_text()
    assert "<h1>table1_stages: mathse</h1>" in own


def test_the_page_asks_nothing_of_the_network(place):
    out = place / "elsewhere" / "index.html"
    report(["--all", str(place / "outputs"), "--experiments", str(place / "experiments"), "--out", str(out)])
    page = out.read_text()
    assert "default-src 'none'" in page and not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert '../outputs/demo/seed_0/report.html"' in page


def test_a_run_that_cannot_be_read_is_listed_and_the_others_are_shown(place, tmp_path):
    for name, text in (("summary.json", "{"), ("run.json", "{}"), ("distill/stage.json", "[]"), ("x?y/run.json", "[]")):
        copy = tmp_path / "outputs" / name.replace("/", "-")
        shutil.copytree(place / "outputs" / "demo" / "seed_0", copy)
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    shutil.copytree(place / "outputs" / "demo" / "seed_0", tmp_path / "outputs" / "a:b #1?")
    out = tmp_path / "index.html"
    assert report(["--all", str(tmp_path / "outputs"), "--experiments", str(tmp_path), "--out", str(out)]) == 0
    page = out.read_text()
    assert page.count("<li>") == 4 and "Runs that cannot be read" in page
    assert "distill/stage.json is not a stage&#x27;s manifest" in page
    assert 'href="outputs/a%3Ab%20%231%3F/report.html"' in page


def test_a_report_older_than_its_run_is_written_again(place, tmp_path):
    run = tmp_path / "outputs" / "seed_1"
    shutil.copytree(place / "outputs" / "studies" / "seed_1", run)
    arguments = ["--all", str(tmp_path / "outputs"), "--experiments", str(tmp_path), "--out", str(tmp_path / "i.html")]
    (run / "report.html").write_text("old")
    report(arguments)
    assert (run / "report.html").read_text() == "old"
    os.utime(run / "report.html", (0, 0))
    report(arguments)
    assert "<h1>table1_stages: mathse</h1>" in (run / "report.html").read_text()


def test_runs_alone_are_enough(place, tmp_path):
    assert (
        report(["--all", str(place / "outputs"), "--experiments", str(tmp_path), "--out", str(tmp_path / "i.html")])
        == 0
    )
    assert "3 runs, 0 studies" in (tmp_path / "i.html").read_text()


def test_nothing_at_all_is_told(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        report(["--all", str(tmp_path), "--experiments", str(tmp_path), "--out", str(tmp_path / "index.html")])


def test_a_report_of_nothing_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        report([])
    assert "pass --all" in capsys.readouterr().err
