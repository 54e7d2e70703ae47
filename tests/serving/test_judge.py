"""The ORM behind a real server against the one in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_server import text_of
from engine import Engine
from run_builder import write_stage
from small import path, problems, tiny_backbone, verdict

from mathse.config.backbones import TinyBackboneConfig
from mathse.config.judges import JudgeConfig
from mathse.errors import CheckpointError, TeacherError
from mathse.inference.serving.dialect import read_status_log_probs
from mathse.judges import judge_paths
from mathse.judges.orm import open_orm, p_correct
from mathse.judges.served_orm import ServedORM, note_unscored
from mathse.models import load
from mathse.runs.store import read_json, write_json, write_jsonl
from mathse.types import Problem, ReasoningPath, Verdict

WORDS = ("Step 1: 2.\nThe answer to this problem is 2.", "no", "2 + 2 is 5", "求 √2", "Step 1", "")
FORMS = ("analysis_first", "verdict_first", "binary")
LENGTH = 40  # tokens, of which a verdict is at most 30

OrmOf = Callable[[str], Path]


def settings(url: str, place: Path, **how: Any) -> JudgeConfig:
    more = {"max_new_tokens": LENGTH, "max_retries": 1, "cache_dir": str(place / "answers"), **how}
    return JudgeConfig(server=url, **more)


def served(url: str, place: Path, orm: Path, **how: Any) -> Any:
    return ServedORM.at_server(settings(url, place, **how), TinyBackboneConfig(), place, print).of(orm, tiny_backbone)


@pytest.fixture(scope="module")
def asked() -> tuple[list[Problem], list[ReasoningPath]]:
    chosen = problems(12)
    return chosen, [path(problem.id, text=WORDS[k % len(WORDS)]) for k, problem in enumerate(chosen)]


def local(orm: Path, asked: tuple[list[Problem], list[ReasoningPath]]) -> list[Verdict]:
    return open_orm(orm, lambda: load("tiny", orm), LENGTH).judge(*asked)


@pytest.mark.parametrize("form", FORMS)
def test_verdicts_and_probabilities_are_the_local_ones(
    form: str, engine: Engine, orm_of: OrmOf, asked: tuple[list[Problem], list[ReasoningPath]], tmp_path: Path
) -> None:
    there = served(engine.url, tmp_path, orm_of(form)).judge(*asked)
    here = local(orm_of(form), asked)
    words = [(v.path_id, v.status, v.error_step, v.error_analysis, v.judge) for v in there]
    assert words == [(v.path_id, v.status, v.error_step, v.error_analysis, v.judge) for v in here]
    assert [v.score for v in there] == [pytest.approx(v.score, abs=1e-5) for v in here]
    assert {v.status for v in there} == {"correct", "wrong"} and None not in [v.score for v in there]


def test_an_orm_that_answers_problems_itself_does_so_behind_a_server(
    engine: Engine, orm_of: OrmOf, asked: tuple[list[Problem], list[ReasoningPath]], tmp_path: Path
) -> None:
    orm = shutil.copytree(orm_of("analysis_first"), tmp_path / "orm")
    write_json(orm / "orm.json", {**read_json(orm / "orm.json"), "own_answer": True})
    there = served(engine.url, tmp_path, orm).judge(*asked)
    assert [(v.path_id, v.status) for v in there] == [(v.path_id, v.status) for v in local(orm, asked)]
    prompts = [text_of(body) for body in engine.asked]
    assert sum("Check each step." not in prompt for prompt in prompts) >= len({p.question for p in asked[0]})


def test_a_server_without_logprobs_gives_verdicts_without_scores_and_it_is_said(
    engine: Engine, orm_of: OrmOf, asked: tuple[list[Problem], list[ReasoningPath]], tmp_path: Path
) -> None:
    engine.ignores_logprobs = True
    paths = {p.id: p for p in asked[0]}, asked[1]
    judge = served(engine.url, tmp_path, orm_of("analysis_first"))
    there = judge_paths(judge, *paths, tmp_path / "round_01" / "verdicts.jsonl", batch_size=5)
    write_stage(tmp_path / "round_01")
    assert {v.score for v in there} == {None} and {v.status for v in there} == {"correct", "wrong"}
    here = {v.path_id: v.status for v in local(orm_of("analysis_first"), asked)}
    assert {v.path_id: v.status for v in there} == here
    note = note_unscored(tmp_path)
    assert note is not None and note.startswith("judge.server: gave no log-probabilities for 12 of 12 paths")
    assert "P(correct)" in note and "judge.threshold" in note


def test_scored_and_unparsed_verdicts_are_not_counted_as_unscored(tmp_path: Path) -> None:
    word = path("p")
    scored = verdict(word, "correct", 0.7)
    for verdicts in (
        [Verdict(word.id, "unparsed", judge="orm")],
        [Verdict(word.id, "correct", score=0.7, judge="orm")],
    ):
        write_jsonl(tmp_path / "round_01" / "verdicts.jsonl", verdicts)
        write_stage(tmp_path / "round_01")
        assert note_unscored(tmp_path) is None
    write_jsonl(tmp_path / "round_01" / "verdicts.jsonl", [scored, Verdict("other", "wrong", judge="teacher")])
    write_stage(tmp_path / "round_01")
    assert note_unscored(tmp_path) is None


def test_what_the_server_garbles_is_unparsed(
    engine: Engine, checkpoint: Path, asked: tuple[list[Problem], list[ReasoningPath]], tmp_path: Path
) -> None:
    tiny_backbone(seed=9).save(tmp_path / "orm")
    described = {"kind": "generative", "order": "analysis_first", "see_answer": True, "see_image": False}
    write_json(tmp_path / "orm" / "orm.json", described)
    there = served(engine.url, tmp_path, tmp_path / "orm", max_new_tokens=4).judge(*asked)
    assert {(v.status, v.score) for v in there} == {("unparsed", None)}
    said = str(engine.asked[0]["messages"])
    assert "image_url" not in said and "The correct answer is" in said
    with pytest.raises(CheckpointError, match="orm.json is missing there"):
        served(engine.url, tmp_path, checkpoint)


def test_answers_are_asked_for_once_and_an_unanswered_path_ends_the_run(
    engine: Engine, orm_of: OrmOf, asked: tuple[list[Problem], list[ReasoningPath]], tmp_path: Path
) -> None:
    orm = orm_of("binary")
    first = served(engine.url, tmp_path, orm).judge(*asked)
    assert served(engine.url, tmp_path / "other", orm, cache_dir=str(tmp_path / "answers")).judge(*asked) == first
    assert len(engine.answered) == sum(engine.answered.values()) > 0
    engine.echoes = 500
    with pytest.raises(TeacherError, match=r"judge.*500: no good"):
        served(engine.url, tmp_path / "third", orm).judge(*asked)


# --- P(correct) -------------------------------------------------------------------------------------------------------


def token(text: str, logprob: float = -0.1, **top: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "top": top}


def score_at_status(tokens: list[dict[str, Any]], correct: str, wrong: str) -> float | None:
    pair = read_status_log_probs(tokens, correct, wrong)
    return None if pair is None else p_correct(torch.tensor(pair))


def test_p_correct_is_of_the_two_words_where_the_status_begins() -> None:
    before = [token('{"error_analysis": "CORRECT", '), token('"status": "')]
    status = token("COR", -0.105360516, WRO=-2.302585093, x=-1.0)  # 0.9 and 0.1
    assert score_at_status([*before, status, token("RECT")], "COR", "WRO") == pytest.approx(0.9)
    assert score_at_status([*before, token("WRO", -0.2)], "COR", "WRO") == 0.0  # CORRECT is not among the alternatives
    assert score_at_status([*before, token("CORRECT", -0.2)], "COR", "WRO") is None  # another cut of the words
    assert score_at_status(before, "COR", "WRO") is None
    assert score_at_status([token("no JSON")], "COR", "WRO") is None


def test_p_correct_is_read_where_one_token_holds_the_quote_and_the_words_beginning() -> None:
    status = token('"COR', -0.105360516, **{'"WRO': -2.302585093})
    assert score_at_status([token('{"status": '), status, token("RECT")], '"COR', '"WRO') == pytest.approx(0.9)
