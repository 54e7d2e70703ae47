"""evolution.update=grpo and its kin: rounds whose steps sample their own batches, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.runs import TINY, rows, run
from e2e.test_tasks import check_bookkeeping, weights
from mathse.__main__ import main
from mathse.errors import ConfigError

ONLINE = (
    *TINY,
    "evolution.rounds=1",
    "evolution.samples_per_problem=3",
    "evolution.init=previous",
    "evolution.reflect.when=never",
)
SHORT = ("evolution.update.steps=2", "evolution.update.problems_per_step=2", "evolution.update.max_draws=2")


@pytest.fixture(scope="module")
def by_grpo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo") / "run"
    run(folder, *ONLINE, "evolution.update=grpo", *SHORT)
    return folder


def test_an_online_round_trains_and_its_student_is_the_last(by_grpo: Path) -> None:
    check_bookkeeping(by_grpo)
    stage = by_grpo / "round_01"
    assert weights(stage) != weights(by_grpo / "distill")
    assert weights(by_grpo / "final") == weights(stage)
    rollouts = rows(stage / "rollouts.jsonl")
    assert [row["id"] for row in rows(stage / "paths.jsonl")] == [row["path"]["id"] for row in rollouts]
    assert len(rows(stage / "verdicts.jsonl")) == len(rollouts) >= 2 * 2 * 3
    assert all(len(row["ids"]) == len(row["log_probs"]) > 0 for row in rollouts)
    # D_SFT is that of distillation: an online student learns from no row of it.
    assert rows(stage / "train.jsonl") == rows(by_grpo / "distill" / "train.jsonl")


def test_samples_of_all_draws_are_in_the_ledger(by_grpo: Path) -> None:
    stage = by_grpo / "round_01"
    (entry,) = [line for line in rows_of_summary(by_grpo) if line["stage"] == "round_01"]
    (before,) = [line for line in rows_of_summary(by_grpo) if line["stage"] == "distill"]
    sampled = sum(len(row["ids"]) for row in rows(stage / "rollouts.jsonl"))
    assert entry["sampled_tokens"] - before["sampled_tokens"] == sampled
    assert entry["trained_tokens"] > before["trained_tokens"]


def rows_of_summary(folder: Path) -> list[dict]:  # type: ignore[type-arg]
    from mathse.runs.store import read_json

    return list(read_json(folder / "summary.json")["stages"])


@pytest.mark.parametrize("update", ["dr_grpo", "rloo", "gspo", "cispo", "critique"])
def test_every_online_update_makes_a_round(update: str, by_grpo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, *ONLINE, f"evolution.update={update}", *SHORT, "resume=branch", f"resume_from=[{by_grpo}]")
    assert weights(folder / "distill") == weights(by_grpo / "distill")
    check_bookkeeping(folder)
    assert {"reward", "sampler_kl", "informative_groups"} <= rows(folder / "round_01" / "train_log.jsonl")[0].keys()


def test_a_report_shows_an_online_run(by_grpo: Path) -> None:
    assert main(["report", str(by_grpo)]) == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("evolution.update=grpo", "trainer.devices=2"), "trainer.devices = 2: evolution.update = 'grpo' samples"),
        (("evolution.update=grpo", "generator.top_k=5"), "generator.top_k = 5"),
        (("evolution.update=critique", "evolution.update.steps=null"), "evolution.update.steps = null"),
        (("evolution.update=critique", "generator.top_p=0.9"), "generator.top_p = 0.9"),
        (("evolution.update=grpo", "evolution.update.max_draws=0"), "evolution.update.max_draws"),
        (
            ("evolution.update=rloo", "evolution.update.mismatch=mask", "evolution.update.mismatch_low=1",
             "evolution.update.mismatch_high=1", "generator=server", "generator.base_url=http://127.0.0.1:9/v1",
             "generator.model=m"),
            "generator = ",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_with_their_key(
    settings: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        run(tmp_path / "run", *ONLINE, *settings)
    assert sentence in str(refused.value)
    assert not (tmp_path / "run").exists()
