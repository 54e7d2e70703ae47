"""judge.explain: who is told why a path is wrong, and when."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from orm_by_heart import saved, six_paths, trained

from mathse.config import judges as settings
from mathse.config.fits import ORM
from mathse.evolution.callbacks import _open_feedback
from mathse.evolution.models import ORMOnDemand, RunModels
from mathse.evolution.state import Judged
from mathse.judges import judge_paths
from mathse.judges.orm import open_orm
from mathse.runs.layout import FEEDBACK_VERDICTS
from mathse.runs.store import read_jsonl
from mathse.types import Verdict


def loop_of(folder: Path, order: str, explain: Any) -> Any:
    """The run's models and what a reflection asks of a run."""
    orm = ORM(order=order)  # type: ignore[arg-type]
    checkpoint = saved(orm, folder / "orm")
    judge = settings.ORMJudge(checkpoint=str(checkpoint), explain=explain, batch_size=2, max_new_tokens=128)
    models = RunModels.__new__(RunModels)
    models.config = SimpleNamespace(judge=judge, seed=0)  # type: ignore[assignment]
    models.served_orm, models.teacher, models.source = None, None, None  # type: ignore[assignment]
    vars(models)["orm"] = ORMOnDemand(lambda: open_orm(checkpoint, lambda: trained(orm), 128))
    return SimpleNamespace(
        models=models,
        stage=SimpleNamespace(path=folder),
        problems=SimpleNamespace(by_id={problem.id: problem for problem, _, _ in six_paths()}),
        context=SimpleNamespace(work=lambda *_: nullcontext(lambda rows: None)),
        config=SimpleNamespace(judge=judge, evolution=SimpleNamespace(reflect=SimpleNamespace(feedback="orm"))),
    )


def verdicts(loop: Any, file: Path) -> list[Verdict]:
    paths = [of for _, of, _ in six_paths()]
    judge_paths(loop.models.judge("orm"), loop.problems.by_id, paths, file, batch_size=2)
    by_path = {verdict.path_id: verdict for verdict in read_jsonl(file, Verdict)}
    return [by_path[of.id] for of in paths]


def test_only_the_drafts_that_a_reflection_reads_are_explained(tmp_path: Path) -> None:
    every = verdicts(loop_of(tmp_path / "all", "verdict_first", "all"), tmp_path / "all.jsonl")
    loop = loop_of(tmp_path / "read", "verdict_first", "read")
    found = verdicts(loop, tmp_path / "read.jsonl")
    assert [(v.status, v.score) for v in found] == [(v.status, v.score) for v in every]
    assert not any(v.error_analysis or v.error_step or v.raw for v in found)
    drafts = [Judged(of, v) for (_, of, _), v in zip(six_paths(), found, strict=True) if v.status == "wrong"][:2]
    feedback = _open_feedback(loop, drafts)
    assert [feedback(draft) for draft in drafts] == [v for v in every if v.status == "wrong"][:2]
    assert len(list(read_jsonl(tmp_path / "read" / FEEDBACK_VERDICTS, Verdict))) == 2


@pytest.mark.parametrize(("order", "explain"), [("verdict_first", "all"), ("analysis_first", "read")])
def test_verdicts_that_are_explained_already_are_read_as_they_are(tmp_path: Path, order: str, explain: str) -> None:
    loop = loop_of(tmp_path, order, explain)
    wrong = [Judged(of, v) for (_, of, _), v in zip(six_paths(), verdicts(loop, tmp_path / "v.jsonl"), strict=True)][1]
    assert wrong.verdict.error_analysis is not None
    assert _open_feedback(loop, [wrong])(wrong) is wrong.verdict
    assert not (tmp_path / FEEDBACK_VERDICTS).exists()
