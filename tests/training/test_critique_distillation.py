"""Self-distillation from critiques: its gradient, its controls, and what the teacher is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from online_jobs import make_online_job
from small import problems, tiny_backbone

from mathse.config.updates import CritiqueUpdateConfig
from mathse.models.row import Row
from mathse.runs.store import read_jsonl
from mathse.training.fit import FitJob, fit
from mathse.training.updates.critique import CritiqueDistillation
from mathse.training.updates.policy_gradient import ResponseTokens
from mathse.types import Problem, ReasoningPath, Verdict


class NamesAStep:
    """Rejects every path, with an analysis of its own for each."""

    name = "critic"

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [
            Verdict(p.id, "wrong", error_step="Step 1", error_analysis=f"step of {p.id[-1]}", judge=self.name)
            for p in paths
        ]


def job(folder: Path, pool: Sequence[Problem], **settings: object) -> FitJob:
    update = CritiqueDistillation(
        CritiqueUpdateConfig(steps=2, problems_per_step=3, max_draws=1, **settings)  # type: ignore[arg-type]
    )
    return make_online_job(folder, update, pool, NamesAStep(), samples=2, micro_batch_size=4)


def test_expected_gradient_is_that_of_the_divergence_from_the_teacher() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, dtype=torch.float64).log_softmax(0)
    divergence = (logits.softmax(0) * (logits.log_softmax(0) - teacher)).sum()
    (expected,) = torch.autograd.grad(divergence, logits)

    update = CritiqueDistillation(CritiqueUpdateConfig(mismatch="none", steps=1))
    log_probs = logits.log_softmax(0)[:, None]  # five responses of one token
    tokens = ResponseTokens(log_probs, log_probs.detach(), torch.ones(5, 1), reference=teacher[:, None])
    losses = update.token_losses(tokens, torch.ones(5))
    (made,) = torch.autograd.grad((logits.softmax(0).detach()[:, None] * losses).sum(), logits)
    assert torch.allclose(made, expected, atol=1e-12)


def test_only_failed_responses_learn() -> None:
    update = CritiqueDistillation(CritiqueUpdateConfig(steps=1))
    rewards, judged = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]), torch.tensor([[True, True, False]] * 2)
    assert update.advantages(rewards, judged).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert update.find_informative(rewards, judged).tolist() == [True, False]


def shown_to_the_teacher(
    folder: Path, pool: Sequence[Problem], monkeypatch: pytest.MonkeyPatch, **settings: object
) -> list[Row]:
    shown: list[Row] = []
    from mathse.evolution import online

    original = online.compute_response_log_probs

    def recorded(backbone: object, rows: Sequence[Row], *sizes: object) -> list[list[float]]:
        shown.extend(rows)
        return original(backbone, rows, *sizes)  # type: ignore[arg-type]

    monkeypatch.setattr(online, "compute_response_log_probs", recorded)
    fit(tiny_backbone(), job(folder, pool, **settings))
    return shown


def test_the_teacher_never_sees_the_reference_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = problems(4)
    other = [replace(problem, answer="31337", solution="31337") for problem in pool]
    with monkeypatch.context() as first:
        shown = shown_to_the_teacher(tmp_path / "one", pool, first)
    with monkeypatch.context() as second:
        again = shown_to_the_teacher(tmp_path / "two", other, second)
    assert shown == again and len(shown) == 12
    assert all("step of" in row["question"] for row in shown)


def test_the_control_shows_the_critique_of_another_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as first:
        own = shown_to_the_teacher(tmp_path / "own", problems(4), first)
    with monkeypatch.context() as second:
        shuffled = shown_to_the_teacher(tmp_path / "shuffled", problems(4), second, shuffled=True)
    # The first step has the same samples. The critiques are the same six, each with another response.
    assert [row["response_ids"] for row in own[:6]] == [row["response_ids"] for row in shuffled[:6]]

    def critiques(rows: Sequence[Row]) -> list[str]:
        return [row["question"].splitlines()[-2] for row in rows]

    assert critiques(shuffled[:6]) == [*critiques(own[:6])[1:], critiques(own[:6])[0]]


def test_failed_responses_have_a_gradient_where_every_reward_is_0(tmp_path: Path) -> None:
    fit(tiny_backbone(), job(tmp_path, problems(4)))
    first, second = read_jsonl(tmp_path / "train_log.jsonl")
    assert first["reward"] == 0 and first["grad_norm"] > 0 and second["step"] == 2
