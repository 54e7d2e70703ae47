"""evolution.update: students that learn from pairs of an accepted and a rejected path."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.runs import TINY, rows, run, stages
from e2e.test_tasks import check_bookkeeping, paths, weights
from mathse.errors import ConfigError
from mathse.evolution.training_rows import Preference
from mathse.runs.store import read_jsonl

PREVIOUS = ("evolution.init=previous", "evolution.reflect.init=previous")
PAIRS = ("evolution.samples_per_problem=4", "evolution.reflect.all_drafts=true", "evolution.update.lr_scale=0.5")


def pairs(stage: Path) -> list[Preference]:
    return list(read_jsonl(stage / "preferences.jsonl", Preference))


@pytest.fixture(scope="module")
def by_dpo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpo") / "run"
    run(folder, *TINY, *PREVIOUS, *PAIRS, "evolution.update=dpo")
    return folder


def test_rounds_and_the_final_fit_learn_from_pairs_of_one_problem(by_dpo: Path) -> None:
    check_bookkeeping(by_dpo)
    for stage in ("round_01", "final"):
        folder = by_dpo / stage
        accepted = {path.id for path in paths(folder / "train.jsonl")}
        rejected = {row["path"]["id"] for row in rows(folder / "incorrect.jsonl")}
        made = pairs(folder)
        assert made and len({pair.id for pair in made}) == len(made)
        for pair in made:
            assert pair.chosen.id in accepted and pair.rejected.id in rejected
            assert pair.chosen.problem_id == pair.rejected.problem_id
        assert stages(by_dpo)[stage]["summary"]["pairs"] == len(made)
        log = rows(folder / "train_log.jsonl")
        assert {"loss", "margin", "preferred", "grad_norm"} <= set(log[0])
        assert [row["id"] for row in rows(folder / "reference.jsonl")] == [pair.id for pair in made]
    assert not (by_dpo / "distill" / "preferences.jsonl").exists()
    assert weights(by_dpo / "round_01") != weights(by_dpo / "distill")


def test_a_rewrite_is_preferred_to_the_draft_that_it_rewrites(by_dpo: Path) -> None:
    rewritten = [pair for pair in pairs(by_dpo / "final") if pair.chosen.lineage.origin == "reflection"]
    assert rewritten and all(pair.chosen.lineage.parent == pair.rejected.id for pair in rewritten)


def test_sft_comes_first_where_both_are_asked_for(tmp_path: Path, by_dpo: Path) -> None:
    run(tmp_path, *TINY, *PREVIOUS, *PAIRS, "evolution.update=sft_then_dpo", "resume=branch", f"resume_from=[{by_dpo}]")
    check_bookkeeping(tmp_path)
    stage = tmp_path / "round_01"
    assert weights(tmp_path / "distill") == weights(by_dpo / "distill")
    assert pairs(stage) == pairs(by_dpo / "round_01")
    assert {"loss", "margin"} <= set(rows(stage / "train_log.jsonl")[0])
    assert "margin" not in rows(stage / "sft" / "train_log.jsonl")[0]
    assert not (stage / "sft" / "checkpoint").exists() and not (stage / "sft" / "fit").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("evolution.update=dpo",), "pass evolution.init=previous, or evolution.update=sft_then_dpo"),
        (("evolution.update=sft_then_dpo", "task=distill"), "pairs come up in rounds, and task is distill"),
    ],
)
def test_pairs_are_refused_where_none_can_be_of_use(tmp_path: Path, settings: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path / "run", *TINY, *settings)
