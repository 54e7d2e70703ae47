"""evolution.reflect.row: what a rewrite is an answer to in the fits that D_SFT goes into."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.runs import TINY, rows, run, stages
from e2e.test_tasks import check_bookkeeping, paths, reflections, weights
from mathse.config import data as data_settings
from mathse.data.synthetic import SyntheticData
from mathse.errors import ConfigError, SettingsChanged
from mathse.evolution import models
from mathse.inference import prompts
from mathse.models.base import Backbone
from mathse.models.row import Row
from mathse.training.fit import FitJob
from mathse.types import Reflection

DRAFT = "evolution.reflect.row=draft"
EVERY = ("evolution.reflect.when=every", "evolution.rounds=2", "evolution.round.sample_size=6")
Fits = dict[str, dict[str, Row]]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    """The rows of each fit by stage and path, as they come to be."""
    seen: Fits = {}
    real: Callable[..., Any] = models.fit

    def noting(backbone: Backbone, job: FitJob, *more: Any) -> Any:
        seen[job.folder.name] = {str(row.get("id")): row for row in job.rows}
        return real(backbone, job, *more)

    monkeypatch.setattr(models, "fit", noting)
    return seen


def world() -> SyntheticData:
    return SyntheticData(
        data_settings.SyntheticData(seed=0, seed_size=8, pool=16, test=8, dev=4, orm_train=12, orm_held=6)
    )


def rewritten(*folders: Path) -> dict[str, Reflection]:
    return {r.revised.id: r for folder in folders for r in reflections(folder / "reflections.jsonl")}


def test_a_rewrite_is_fitted_with_draft_and_critique_in_its_prompt(tmp_path: Path, tiny: Path, fits: Fits) -> None:
    run(tmp_path, *TINY, DRAFT, "resume=branch", f"resume_from=[{tiny}]")
    check_bookkeeping(tmp_path)
    train = paths(tmp_path / "final" / "train.jsonl")
    assert (tmp_path / "final" / "train.jsonl").read_text() == (tiny / "final" / "train.jsonl").read_text()
    made = rewritten(tmp_path / "reflection")
    origins = {path.lineage.origin for path in train}
    assert {"reflection", "student"} <= origins
    for path in train:
        problem, row = world().get(path.problem_id), fits["final"][path.id]
        assert row["response"] == path.text and row["images"] == problem.images
        if path.lineage.origin == "reflection":
            told = made[path.id]
            assert row["question"] == prompts.reflection_prompt(problem, told.draft.text, told.feedback, "compact")
            assert told.draft.text in row["question"] and (told.feedback.error_analysis or "") in row["question"]
        else:
            assert row["question"] == prompts.generation_prompt(problem, "compact")


def test_only_the_fits_that_hold_rewrites_are_made_again(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(SettingsChanged, match=r'row: recorded "question", now "draft" \(stages made with it: final\)'):
        run(tiny, *TINY, DRAFT)
    run(tmp_path, *TINY, DRAFT, "resume=branch", f"resume_from=[{tiny}]")
    before, after = stages(tiny), stages(tmp_path)
    assert {name for name in before if before[name]["identity"] != after[name]["identity"]} == {"final"}
    assert weights(tmp_path / "round_01") == weights(tiny / "round_01")
    assert weights(tmp_path / "final") != weights(tiny / "final")


def test_with_a_reflection_in_every_round_the_next_round_is_fitted_on_drafts_too(tmp_path: Path, fits: Fits) -> None:
    run(tmp_path / "run", *TINY, *EVERY, DRAFT)
    check_bookkeeping(tmp_path / "run")
    made = rewritten(*(tmp_path / "run" / f"round_0{k}" / "reflection" for k in (1, 2)))
    for stage in ("round_02", "final"):
        train = paths(tmp_path / "run" / stage / "train.jsonl")
        own = [path for path in train if path.lineage.origin == "reflection"]
        assert own and all(made[p.id].draft.text in fits[stage][p.id]["question"] for p in own)
    first = {path.lineage.stage for path in train if path.lineage.origin == "reflection"}
    assert "round_01/reflection" in first
    with pytest.raises(SettingsChanged, match=r"row: recorded .*stages made with it: .*round_02"):
        run(tmp_path / "run", *TINY, *EVERY)
    again = tmp_path / "again"
    run(again, *TINY, *EVERY, "resume=branch", f"resume_from=[{tmp_path / 'run'}]")
    rewrites = "round_01/reflection/reflections.jsonl"
    assert (again / rewrites).read_bytes() == (tmp_path / "run" / rewrites).read_bytes()


def test_a_final_fit_that_was_lost_is_made_again_with_the_same_weights(tmp_path: Path, tiny: Path) -> None:
    run(tmp_path, *TINY, DRAFT, "resume=branch", f"resume_from=[{tiny}]")
    whole = weights(tmp_path / "final")
    shutil.rmtree(tmp_path / "final")
    (tmp_path / "summary.json").unlink()
    run(tmp_path, *TINY, DRAFT)
    assert weights(tmp_path / "final") == whole


def test_rows_that_are_too_long_with_their_drafts_are_listed_and_left_out(
    tmp_path: Path, tiny: Path, fits: Fits
) -> None:
    run(tmp_path, *TINY, DRAFT, "sft.max_length=80", "resume=branch", f"resume_from=[{tiny}]")
    listed = {row["id"] for row in rows(tmp_path / "final" / "too_long.jsonl")}
    train = paths(tmp_path / "final" / "train.jsonl")
    assert listed and listed <= {path.id for path in train if path.lineage.origin == "reflection"}
    assert set(fits["final"]) == {path.id for path in train} - listed


def test_task_sft_has_no_drafts_to_show(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"evolution.reflect.row = 'draft': sft.train holds no drafts"):
        run(tmp_path / "run", *TINY, DRAFT, "task=sft", f"sft.train={tiny / 'final' / 'train.jsonl'}")
    assert not (tmp_path / "run").exists()
