"""The page on own reasoning tasks does what it says: its files, its commands, in a folder of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.desk import execute
from docs.pages import ROOT, Block, blocks
from mathse.config.options import look_in
from mathse.data.domains import is_right
from mathse.data.sources import problem_lookup
from mathse.errors import DataError
from mathse.inference import prompts
from mathse.runs.reader import Run, read_run
from mathse.runs.store import read_json

PAGE = [block for block in blocks(ROOT / "docs" / "own-task.md") if not block.slow]
CHECK, TRAIN, DISTILL = (words for block in PAGE if block.language == "bash" for words in block.commands)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside the repository, with the files of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        monkeypatch.delitem(sys.modules, name)
    for block in PAGE:
        if block.title and block.language != "bash":
            write(tmp_path, block)
    (tmp_path / "my_project" / "__init__.py").touch()
    yield tmp_path
    look_in(None)


def write(project: Path, block: Block) -> None:
    file = project / block.title
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text, encoding="utf-8")


def the_run(project: Path) -> Run:
    return read_run(next(project.glob("outputs/**/run.json")).parent)


def test_a_newcomer_s_domain_is_checked_and_trained_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert execute(CHECK, monkeypatch) == 0
    figures = read_json(project / "check" / "data_check.json")
    assert (figures["used"], figures["solutions_without_the_answer"]) == (10, 0)
    assert execute(TRAIN, monkeypatch) == 0

    # The run is read without the folder of options, and knows the domain.
    look_in(None)
    finished = the_run(project)
    clock = problem_lookup(finished.config)("1")
    assert prompts.generation_prompt(clock, "full").startswith("You solve riddles. ")
    assert prompts.version("judge", "full", clock) == "judge/full/riddles/en/1"
    assert is_right(clock, "The answer to this problem is the clock.")
    assert [number for number, _ in clock.domain.steps("Clue 1: hands\nClue 2: no clap")] == [1, 2]
    assert (finished.folder / "report.html").is_file()


def test_a_newcomer_s_class_decides_what_is_right(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (project / "riddles.jsonl").read_text()
    (project / "riddles.jsonl").write_text(rows.replace('"answer": "echo"', '"answer": "voice / echo"'))
    assert execute(DISTILL, monkeypatch) == 0
    finished = the_run(project)
    accepted = {row["problem_id"] for row in finished.stages[-1].rows("train.jsonl")}
    assert "2" in accepted
    with pytest.raises(DataError, match="MATHSE_TRUST=my_project.riddle_answers.Riddles"):
        problem_lookup(finished.config)
    monkeypatch.setenv("MATHSE_TRUST", "my_project.riddle_answers.Riddles")
    echo = problem_lookup(finished.config)("2")
    assert is_right(echo, "The answer to this problem is an echo.") and not is_right(echo, "It is a clock.")


def test_prompts_that_change_make_other_stages(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mathse.config.task_domains import TaskDomainConfig
    from mathse.data.content_hashes import prompt_hashes
    from mathse.data.domains.domain import texts_in

    domain = TaskDomainConfig(name="riddles", texts="my_project.riddles")
    before = prompt_hashes(domain)
    assert list(before) == ["task_domain.texts_sha256"] and prompt_hashes(TaskDomainConfig()) == {}
    (project / "my_project" / "riddles" / "generate.en.v2.txt").write_text("Guess: {question}\n")
    texts_in.cache_clear()
    assert prompt_hashes(domain) != before
