"""Trainings by updates other than SFT and DPO: their first losses, micro-batches, kills, and their figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import log_of, problems, tiny_backbone
from test_dpo import log_p, pair_rows
from test_fit import SETTINGS, fit_until, job, same_files, weights

from mathse.config.fits import Optimizer
from mathse.config.updates import KTOUpdateConfig, MPOUpdateConfig, PolicyGradientConfig
from mathse.inference.rows import solve_row
from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row
from mathse.runs.store import read_jsonl
from mathse.training.fit import FitJob, fit
from mathse.training.groups import Sampling
from mathse.training.updates.policy_gradient import PolicyGradient
from mathse.training.updates.preferences import KTOUpdate, MPOUpdate

ROWS = replace(SETTINGS, batch_size=4, micro_batch_size=2)
PLAIN = Optimizer(lr=1.0, eps=1.0, weight_decay=0.0, clip=1e9)  # AdamW's first step is the gradient itself
RAFT = {"baseline": "none", "scale": "none", "ratio": "none"}


def texts(count: int) -> list[tuple[Any, str]]:
    """Problems and paths of several lengths."""
    return [(p, (p.solution or "") if k % 2 else "9 + 9 = 1. " * (1 + k % 3)) for k, p in enumerate(problems(count))]


def verdict_rows(count: int = 8) -> list[Row]:
    made = texts(count)
    return [
        Row(**solve_row("compact", p, text), id=p.id, right=k % 2 == 1, mismatched=made[(k + 1) % count][1])
        for k, (p, text) in enumerate(made)
    ]


def group_rows(count: int = 8) -> list[Row]:
    return [
        Row(**solve_row("compact", p, text), id=p.id, advantage=1.0 - 0.5 * k)
        for k, (p, text) in enumerate(texts(count))
    ]


def kto_job(folder: Path, settings: Any = ROWS, rows: Sequence[Row] = (), **values: Any) -> FitJob:
    return job(folder, rows or verdict_rows(), settings, update=KTOUpdate(KTOUpdateConfig(**values)))


def mpo_job(folder: Path, settings: Any = ROWS, rows: Sequence[Row] = (), **values: Any) -> FitJob:
    return job(folder, rows or pair_rows(), settings, update=MPOUpdate(MPOUpdateConfig(**values)))


def group_job(folder: Path, settings: Any = ROWS, rows: Sequence[Row] = (), **values: Any) -> FitJob:
    update = PolicyGradient(PolicyGradientConfig(**values))
    return job(folder, rows or group_rows(), settings, update=update, sampling=Sampling(1.0, 80))


JOBS = {"kto": kto_job, "mpo": mpo_job, "grpo": group_job}


def tokens_of(backbone: Backbone, row: Row) -> int:
    return int((backbone.collate([row])["labels"][:, 1:] != IGNORED).sum())


# --- of all updates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JOBS)
def test_micro_batches_make_the_step_of_one_batch(name: str, tmp_path: Path) -> None:
    steps = {}
    for size in (8, 3):
        settings = replace(ROWS, max_steps=2, batch_size=8, micro_batch_size=size, optimizer=replace(PLAIN, lr=0.1))
        fit(tiny_backbone(), JOBS[name](tmp_path / str(size), settings))
        steps[size] = weights(tmp_path / str(size))
    assert all(torch.allclose(steps[8][k], steps[3][k], atol=1e-5) for k in steps[8])


@pytest.mark.parametrize("name", JOBS)
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    fit(tiny_backbone(), JOBS[name](tmp_path / "whole"))
    fit_until(JOBS[name](tmp_path / "cut"), 4)
    stamp = (tmp_path / "cut" / "reference.jsonl").stat().st_mtime_ns
    fit(tiny_backbone(), JOBS[name](tmp_path / "cut"))
    assert same_files(tmp_path / "whole", tmp_path / "cut")
    assert (tmp_path / "cut" / "reference.jsonl").stat().st_mtime_ns == stamp


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_the_first_kto_loss_is_a_half_and_right_and_wrong_paths_part(tmp_path: Path) -> None:
    fit(tiny_backbone(), kto_job(tmp_path, replace(ROWS, max_steps=12)))
    log = [line for line in log_of(tmp_path) if "loss" in line]
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-4) and log[0]["divergence"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["right_ahead"] > 0.5 > -0.5 > log[-1]["wrong_ahead"]


def test_a_later_kto_loss_compares_with_the_paths_of_other_problems(tmp_path: Path) -> None:
    rows = verdict_rows(4)
    settings = replace(ROWS, max_steps=2, optimizer=Optimizer(lr=5e-3, warmup_ratio=0.0))
    start, before = tiny_backbone(), tiny_backbone()
    fit(start, kto_job(tmp_path / "one", replace(settings, max_steps=1), rows))
    fit(tiny_backbone(), kto_job(tmp_path / "two", settings, rows))

    ahead = [log_p(start, row, row["response"]) - log_p(before, row, row["response"]) for row in rows]
    other = [log_p(start, row, row["mismatched"]) - log_p(before, row, row["mismatched"]) for row in rows]
    divergence = max(0.0, sum(other) / 4)
    values = [
        1 / (1 + math.exp(-0.1 * (a - divergence) * (1 if r["right"] else -1)))
        for a, r in zip(ahead, rows, strict=True)
    ]
    last = log_of(tmp_path / "two")[-1]
    assert last["divergence"] == pytest.approx(divergence, abs=2e-3)
    assert last["loss"] == pytest.approx(sum(1 - v for v in values) / 4, abs=2e-4)


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_the_first_mpo_loss_is_the_sum_of_its_three_parts(tmp_path: Path) -> None:
    rows, before = pair_rows(4), tiny_backbone()
    fit(tiny_backbone(), mpo_job(tmp_path, replace(ROWS, max_steps=1), rows))
    nll = sum(-log_p(before, row, row["response"]) / tokens_of(before, row) for row in rows) / 4
    # both implicit rewards are 0 and so is their mean: DPO's part is log 2 and BCO's 2 log 2
    assert log_of(tmp_path)[0]["loss"] == pytest.approx((0.8 + 2 * 0.2) * math.log(2) + nll, abs=2e-4)


def test_the_quality_part_compares_with_the_mean_reward_of_the_earlier_steps(tmp_path: Path) -> None:
    rows = pair_rows(4)
    only = {"preference_weight": 0.0, "quality_weight": 1.0, "generation_weight": 0.0}
    settings = replace(ROWS, max_steps=3, optimizer=Optimizer(lr=1e-2, warmup_ratio=0.0, min_lr_ratio=1.0))
    rewards = []  # of both paths of each pair, before each step
    for steps in (1, 2):
        student = tiny_backbone()
        fit(student, mpo_job(tmp_path / str(steps), replace(settings, max_steps=steps), rows, **only))
        reference = list(read_jsonl(tmp_path / str(steps) / "reference.jsonl"))
        rewards.append(
            [
                [0.1 * (log_p(student, row, text) - kept[name]) for text, name in zip(texts, names, strict=True)]
                for row, kept in zip(rows, reference, strict=True)
                for texts, names in [((row["response"], row["rejected"]), ("chosen", "rejected"))]
            ]
        )
    fit(tiny_backbone(), mpo_job(tmp_path / "3", settings, rows, **only))
    # steps 1 and 2 came before step 3; before step 1 all rewards are 0
    shift = (0.0 + sum(sum(pair) for pair in rewards[0])) / (2 * 8)
    losses = [
        -math.log(1 / (1 + math.exp(-(chosen - shift)))) - math.log(1 / (1 + math.exp(-(shift - rejected))))
        for chosen, rejected in rewards[1]
    ]
    assert abs(shift) > 0.02
    assert log_of(tmp_path / "3")[-1]["loss"] == pytest.approx(sum(losses) / 4, abs=5e-4)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_right_paths_alone_make_the_steps_of_sft(tmp_path: Path) -> None:
    rows = [Row(**{**row, "advantage": 1.0}) for row in group_rows()]
    fit(tiny_backbone(), group_job(tmp_path / "raft", rows=rows, **RAFT))
    fit(tiny_backbone(), job(tmp_path / "sft", rows, ROWS))
    raft, sft = weights(tmp_path / "raft"), weights(tmp_path / "sft")
    assert all(torch.allclose(raft[name], sft[name], atol=1e-5) for name in raft)
    assert not (tmp_path / "raft" / "reference.jsonl").exists()


def test_advantages_weigh_the_log_probabilities_of_their_paths(tmp_path: Path) -> None:
    rows = group_rows(4)
    settings = replace(ROWS, max_steps=1, optimizer=PLAIN)
    trained, by_hand = tiny_backbone(), tiny_backbone()
    fit(trained, group_job(tmp_path, settings, rows, aggregation="constant"))
    for row in rows:
        logits, targets = by_hand.answer_logits(by_hand.collate([row]))
        log_probs = logits.float().log_softmax(-1).gather(-1, targets[:, None])
        (-row["advantage"] * log_probs.sum() / (4 * 80)).backward()  # type: ignore[no-untyped-call]
    before = tiny_backbone().model.state_dict()
    after = trained.model.state_dict()
    for name, parameter in by_hand.model.named_parameters():
        if parameter.grad is not None and name in after:
            moved = before[name] - after[name]
            cosine = torch.nn.functional.cosine_similarity(moved.ravel(), parameter.grad.ravel(), dim=0)
            assert cosine > 0.98 or parameter.grad.norm() < 1e-6, name


def test_later_steps_compare_with_the_student_before_the_first_step(tmp_path: Path) -> None:
    """With a small clip the paths stop once their ratios have left it; without a ratio they go on."""
    rows = [Row(**{**row, "advantage": 1.0}) for row in group_rows(4)]
    settings = replace(ROWS, max_steps=8, optimizer=Optimizer(lr=5e-3, warmup_ratio=0.0))
    gains = {}
    for name, values in {"clipped": {"clip_high": 0.05, "clip_low": 0.05}, "free": RAFT}.items():
        student, before = tiny_backbone(), tiny_backbone()
        fit(student, group_job(tmp_path / name, settings, rows, **values))
        gains[name] = sum(log_p(student, row, row["response"]) - log_p(before, row, row["response"]) for row in rows)
    assert 0 < gains["clipped"] < 0.6 * gains["free"]
    kept = list(read_jsonl(tmp_path / "clipped" / "reference.jsonl"))
    backbone = tiny_backbone()
    assert [len(row["tokens"]) for row in kept] == [tokens_of(backbone, row) for row in rows]


def test_the_divergence_from_the_student_before_the_first_step_holds_it_back(tmp_path: Path) -> None:
    rows = [Row(**{**row, "advantage": 1.0}) for row in group_rows(4)]
    settings = replace(ROWS, max_steps=6, optimizer=Optimizer(lr=5e-3, warmup_ratio=0.0))
    gains = {}
    for beta in (0.0, 10.0):
        student, before = tiny_backbone(), tiny_backbone()
        fit(student, group_job(tmp_path / str(beta), settings, rows, clip_high=100.0, beta=beta))
        gains[beta] = sum(log_p(student, row, row["response"]) - log_p(before, row, row["response"]) for row in rows)
    assert gains[10.0] < 0.8 * gains[0.0]


def test_log_probabilities_are_those_of_the_sampler_s_temperature(tmp_path: Path) -> None:
    rows, backbone = group_rows(2), tiny_backbone()
    cold = replace(group_job(tmp_path, replace(ROWS, max_steps=1), rows), sampling=Sampling(0.5, 80))
    fit(tiny_backbone(), cold)
    for row, kept in zip(rows, read_jsonl(tmp_path / "reference.jsonl"), strict=True):
        logits, targets = backbone.answer_logits(backbone.collate([row]))
        logits[:, backbone.never_sampled] = -torch.inf
        wanted = (logits.float() / 0.5).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        assert kept["tokens"] == pytest.approx(wanted.tolist(), abs=1e-4)
