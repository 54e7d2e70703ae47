"""evolution.update: rounds that learn by each offline update, end to end, and by a class of the user's own."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from e2e.runs import TINY, rows, run, stages
from e2e.test_tasks import check_bookkeeping, weights
from mathse.errors import ConfigError
from mathse.runs.store import read_json

PREVIOUS = ("evolution.init=previous", "evolution.reflect.init=previous")
SMALL = ("evolution.rounds=1", "evolution.samples_per_problem=4", "evolution.update.lr_scale=0.5")
GROUPS = ("evolution.init=previous", "evolution.reflect.when=never")
OFFLINE = "evolution.update.steps=null"

OWN = '''
class Winners:
    """Learns from the responses that are better than the mean of their group."""

    data = "groups"

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def advantages(self, rewards, judged):  # (groups, samples) each
        mean = (rewards * judged).sum(1, keepdim=True) / judged.sum(1, keepdim=True).clamp(min=1)
        return ((rewards - mean).clamp(min=0) * judged) ** self.power

    def token_losses(self, tokens, advantages):  # (responses, tokens), (responses,)
        return -advantages[:, None] * tokens.log_probs
'''


@pytest.fixture(scope="module")
def by_kto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kto") / "run"
    run(folder, *TINY, *PREVIOUS, *SMALL, "evolution.update=kto")
    return folder


def branch(folder: Path, source: Path, *settings: str) -> Path:
    """A run that shares the stages up to distillation with another."""
    run(folder, *TINY, *settings, "resume=branch", f"resume_from=[{source}]")
    assert weights(folder / "distill") == weights(source / "distill")
    check_bookkeeping(folder)
    return folder


def test_every_verdict_is_a_row_of_kto(by_kto: Path) -> None:
    check_bookkeeping(by_kto)
    stage = by_kto / "round_01"
    accepted = {row["path_id"]: row["status"] == "correct" for row in rows(stage / "verdicts.jsonl")}
    learned = rows(stage / "responses.jsonl")
    written = {row["id"]: row for row in rows(stage / "paths.jsonl")}
    readable = [i for i, row in written.items() if row["text"].strip()]
    assert sorted(row["path"]["id"] for row in learned) == sorted(readable)
    for row in learned:
        assert row["right"] == accepted[row["path"]["id"]]
        others = {p["text"] for p in written.values() if p["problem_id"] != row["path"]["problem_id"]}
        assert row["mismatched"] in others
    assert {row["right"] for row in learned} == {True, False}
    assert {"loss", "divergence", "right_ahead", "wrong_ahead"} <= set(rows(stage / "train_log.jsonl")[0])
    assert weights(stage) != weights(by_kto / "distill")
    assert stages(by_kto)["round_01"]["summary"]["exposure"] is None


def test_the_final_student_learns_from_the_verdicts_on_rewrites(by_kto: Path) -> None:
    judged = {row["path_id"] for row in rows(by_kto / "reflection" / "verdicts.jsonl")}
    learned = {row["path"]["id"] for row in rows(by_kto / "final" / "responses.jsonl")}
    assert learned and learned <= judged


def test_mpo_learns_from_the_pairs_of_dpo(tmp_path: Path, by_kto: Path) -> None:
    stage = branch(tmp_path, by_kto, *PREVIOUS, *SMALL, "evolution.update=mpo") / "round_01"
    assert rows(stage / "preferences.jsonl")
    assert {"loss", "margin", "preferred"} <= set(rows(stage / "train_log.jsonl")[0])


def test_raft_learns_from_the_accepted_paths_of_the_round(tmp_path: Path, by_kto: Path) -> None:
    folder = branch(tmp_path, by_kto, *GROUPS, *SMALL, "evolution.update=raft")
    verdicts = rows(folder / "round_01" / "verdicts.jsonl")
    learned = rows(folder / "round_01" / "responses.jsonl")
    accepted = {verdict["path_id"] for verdict in verdicts if verdict["status"] == "correct"}
    assert {row["path"]["id"] for row in learned} == accepted and len(learned) == len(accepted)
    assert {row["advantage"] for row in learned} == {1.0}
    assert "no path of this stage" in read_json(folder / "final" / "skipped_fit.json")["reason"]


@pytest.mark.parametrize("update", ["grpo", "gspo"])
def test_groups_learn_from_advantages_over_their_problem_s_paths(update: str, tmp_path: Path, by_kto: Path) -> None:
    stage = branch(tmp_path, by_kto, *GROUPS, *SMALL, f"evolution.update={update}", OFFLINE) / "round_01"
    of_problem: dict[str, list[float]] = defaultdict(list)
    for row in rows(stage / "responses.jsonl"):
        assert (row["advantage"] > 0) == row["right"]
        of_problem[row["path"]["problem_id"]].append(row["advantage"])
    assert of_problem and all(math.isclose(sum(values), 0, abs_tol=1e-5) for values in of_problem.values())
    assert [row["id"] for row in rows(stage / "reference.jsonl")] == [
        row["path"]["id"] for row in rows(stage / "responses.jsonl")
    ]
    assert weights(stage) != weights(stage.parent / "distill")


def test_an_update_of_the_user_s_own_is_a_class_of_ten_lines(
    tmp_path: Path, by_kto: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_updates.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = ("evolution.update._target_=users_updates.Winners", "+evolution.update.power=2.0")
    small = [setting for setting in SMALL if "lr_scale" not in setting]
    try:
        stage = branch(tmp_path / "run", by_kto, *GROUPS, *small, *own) / "round_01"
    finally:
        sys.modules.pop("users_updates", None)
    learned = rows(stage / "responses.jsonl")
    assert learned and all(row["right"] and row["advantage"] < 1 for row in learned)
    made_by = stages(stage.parent)["round_01"]["config"]
    assert made_by["evolution.update._target_"] == "users_updates.Winners"
    assert made_by["evolution.update.power"] == 2.0


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        (("evolution.update=kto",), ["pass evolution.init=previous", "pass evolution.reflect.init=previous"]),
        (("evolution.update=raft", "task=distill"), ["groups of judged paths come up in rounds, and task is distill"]),
        (
            ("evolution.update=grpo", "evolution.samples_per_problem=1", "judge=accept", "evolution.init=previous"),
            [
                "evolution.samples_per_problem = 1: grpo compares",
                "judge = accept: accepts every path",
                "evolution.reflect.when = 'last'",
            ],
        ),
        (
            (*GROUPS, "evolution.update=gspo", "evolution.update.aggregation=tokens", "generator.top_p=0.9"),
            ["evolution.update.aggregation = 'tokens'", "generator.top_p = 0.9"],
        ),
        ((*GROUPS, "evolution.update=cispo", "evolution.round.restarts=1"), ["evolution.round.restarts = 1"]),
    ],
)
def test_settings_that_do_not_go_with_an_update_are_refused_by_key(
    tmp_path: Path, settings: tuple[str, ...], sentences: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        run(tmp_path / "run", *TINY, *settings)
    for sentence in sentences:
        assert sentence in str(error.value)


def test_a_class_that_is_no_update_is_refused_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_mistakes.py").write_text(
        "class A:\n    data = 'words'\n\n\nclass B:\n    data = 'pairs'\n\n\n"
        "class C:\n    data, aggregation = 'groups', 'max'\n    advantages = token_losses = lambda *_: None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name, sentence in (("A", "has 'words'"), ("B", "lacks pair_losses"), ("C", "has 'max'")):
        settings = (f"evolution.update._target_=users_mistakes.{name}", *PREVIOUS, *GROUPS, *SMALL[:2])
        with pytest.raises(ConfigError, match=f"evolution.update._target_ = 'users_mistakes.{name}'.*{sentence}"):
            run(tmp_path / name, *TINY, *settings)
        assert not (tmp_path / name / "base" / "stage.json").exists()
