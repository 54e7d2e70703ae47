"""Online training runs: each step samples from the weights of the step before, and resumes to the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from online_jobs import SAMPLING, make_online_job
from small import log_of, problems, tiny_backbone

from mathse.config.fits import OptimizerConfig
from mathse.config.updates import PolicyGradientConfig
from mathse.evolution.online import Rollout, RoundRollouts
from mathse.inference.rows import solve_row
from mathse.runs.layout import ROLLOUTS
from mathse.runs.store import read_jsonl, sha256_file
from mathse.training.fit import FitJob, fit
from mathse.training.groups import Sampling
from mathse.training.online import compute_response_log_probs
from mathse.training.updates.policy_gradient import PolicyGradient
from mathse.types import Problem, ReasoningPath, Verdict

STEPS, PROBLEMS, SAMPLES = 4, 3, 4


class EvenLength:
    """Accepts texts with an even number of characters."""

    name = "even"

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [Verdict(p.id, "wrong" if len(p.text) % 2 else "correct", judge=self.name) for p in paths]


def online_job(folder: Path, micro: int = 12, **settings: object) -> FitJob:
    values = {"steps": STEPS, "problems_per_step": PROBLEMS, "max_draws": 1, **settings}
    update = PolicyGradient(PolicyGradientConfig(**values))  # type: ignore[arg-type]
    return make_online_job(folder, update, problems(8), EvenLength(), samples=SAMPLES, micro_batch_size=micro)


def weights_of(folder: Path) -> str:
    return sha256_file(folder / "checkpoint" / "model.safetensors")


def test_each_step_samples_from_the_weights_of_the_step_before(tmp_path: Path) -> None:
    fit(tiny_backbone(), online_job(tmp_path))
    rollouts = list(read_jsonl(tmp_path / ROLLOUTS, Rollout))
    assert [r.step for r in rollouts[:: PROBLEMS * SAMPLES]] == [0, 1, 2, 3]
    # The untrained student gives the first step's tokens the probabilities that were recorded, and no later step's.
    backbone = tiny_backbone()
    by_id = {problem.id: problem for problem in problems(8)}
    for rollout in (rollouts[0], rollouts[-1]):
        row = solve_row(backbone.prompt_style, by_id[rollout.path.problem_id])
        row["response_ids"] = rollout.ids
        with torch.no_grad():
            logits, targets = backbone.answer_logits(backbone.pad(backbone.encode([row])))
        logits[:, backbone.never_sampled] = -torch.inf
        recomputed = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        assert targets.tolist() == rollout.ids
        close = torch.allclose(recomputed, torch.tensor(rollout.log_probs), atol=1e-4)
        assert close == (rollout.step == 0)
    # At each step the trainer finds the log-probabilities of the sampler: both have the same weights.
    log = list(read_jsonl(tmp_path / "train_log.jsonl"))
    assert len(log) == STEPS and all(line["sampler_difference"] < 1e-5 for line in log)
    assert all(0 <= line["reward"] <= 1 and line["samples"] == PROBLEMS * SAMPLES for line in log)


def test_a_step_is_the_one_that_plain_torch_makes(tmp_path: Path) -> None:
    temperature, lr = 0.7, 1e-2
    backbone = tiny_backbone()
    job = online_job(tmp_path, 5, steps=1)
    assert isinstance(job.online, RoundRollouts)
    job.online.sampling = colder = Sampling(temperature, SAMPLING.max_new_tokens)
    fit(backbone, replace(job, sampling=colder))

    # The same by hand, a response at a time: GRPO's advantage, the mean over all tokens of -A log p, one AdamW step.
    plain = tiny_backbone()
    plain.model.eval()
    by_id = {problem.id: problem for problem in problems(8)}
    rollouts = list(read_jsonl(tmp_path / ROLLOUTS, Rollout))
    rewards = torch.tensor([float(len(r.path.text) % 2 == 0) for r in rollouts]).view(PROBLEMS, SAMPLES)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    tokens = sum(len(r.ids) for r in rollouts)
    for rollout, advantage in zip(rollouts, advantages.flatten().tolist(), strict=True):
        row = solve_row(plain.prompt_style, by_id[rollout.path.problem_id])
        prompt = plain.encode([row])[0].prompt
        row["response_ids"] = rollout.ids
        batch = plain.pad(plain.encode([row]))
        assert batch["input_ids"][0].tolist() == [*prompt, *rollout.ids]
        logits, targets = plain.answer_logits(batch)
        logits = logits / temperature
        logits[:, plain.never_sampled] = -torch.inf
        log_p = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        (-advantage * log_p.sum() / tokens).backward()
    settings = job.settings.optimizer
    for name, parameter in plain.model.named_parameters():
        expected = parameter.detach().clone().requires_grad_()
        if parameter.grad is None:
            continue
        expected.grad = parameter.grad
        decay = settings.weight_decay if sum(size > 1 for size in parameter.shape) > 1 else 0.0
        torch.optim.AdamW([expected], lr=lr, betas=(settings.beta1, settings.beta2), weight_decay=decay).step()
        made = dict(backbone.model.named_parameters())[name]
        # Adam divides by the gradient's size: where that is nearly 0, rounding decides the direction.
        clear = parameter.grad.abs() > 1e-6
        assert torch.allclose(made[clear], expected[clear], atol=2e-4), name


def test_the_cut_into_micro_batches_changes_a_step_by_rounding_only(tmp_path: Path) -> None:
    for aggregation in ("tokens", "sequences", "constant"):
        after = []
        for micro in (12, 5, 1):
            folder = tmp_path / f"{aggregation}_{micro}"
            backbone = tiny_backbone()
            job = online_job(folder, micro, steps=1, aggregation=aggregation)
            fit(backbone, job)
            after.append(torch.cat([p.detach().flatten() for p in backbone.model.parameters()]))
        # AdamW's first step is lr * sign(gradient) nearly everywhere, so a difference of rounding may flip few signs.
        for other in after[1:]:
            assert float(((after[0] - other).abs() > 1e-4).float().mean()) < 0.01


@pytest.mark.parametrize("killed_at", ["sampling", "judging", "training"])
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tiny_backbone(), online_job(tmp_path / "whole"))

    class Killed(BaseException):
        pass

    folder = tmp_path / "killed"
    job, calls = online_job(folder), 0
    backbone = tiny_backbone()

    def kill_third(function):  # type: ignore[no-untyped-def]
        def called(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == 3:
                raise Killed
            return function(*args, **kwargs)

        return called

    if killed_at == "sampling":
        backbone.complete = kill_third(backbone.complete)
    elif killed_at == "judging":
        assert isinstance(job.online, RoundRollouts)
        job.online.judge.judge = kill_third(job.online.judge.judge)
    else:
        assert isinstance(job.online, RoundRollouts)
        job.online.update.token_losses = kill_third(job.online.update.token_losses)
    with pytest.raises(Killed):
        fit(backbone, job)
    fit(tiny_backbone(), online_job(folder))
    assert weights_of(folder) == weights_of(tmp_path / "whole")
    assert sha256_file(folder / ROLLOUTS) == sha256_file(tmp_path / "whole" / ROLLOUTS)


def test_a_staleness_of_two_learns_from_samples_of_two_steps_before(tmp_path: Path) -> None:
    fit(tiny_backbone(), online_job(tmp_path / "whole", staleness=2))
    log = list(read_jsonl(tmp_path / "whole" / "train_log.jsonl"))
    assert [line["staleness"] for line in log] == [0, 1, 2, 2]
    assert log[0]["sampler_difference"] < 1e-5 < log[3]["sampler_difference"]
    # A run that a kill cuts after two steps goes on with the queue that it had.
    job = online_job(tmp_path / "killed", staleness=2)
    assert isinstance(job.online, RoundRollouts)
    losses, calls = job.online.update.token_losses, []

    def third_fails(*values: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return losses(*values)

    job.online.update.token_losses = third_fails
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_backbone(), job)
    fit(tiny_backbone(), online_job(tmp_path / "killed", staleness=2))
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


def test_after_a_kill_the_judge_reads_the_samples_of_before(tmp_path: Path) -> None:
    # Another machine might sample another text, to which the stored verdicts would not belong.
    job = online_job(tmp_path, steps=1)
    assert isinstance(job.online, RoundRollouts)
    seen: list[str] = []

    class Killed(EvenLength):
        def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
            seen.extend(path.text for path in paths)
            raise KeyboardInterrupt

    job.online.judge = Killed()
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_backbone(), job)
    fit(tiny_backbone(seed=1), online_job(tmp_path, steps=1))
    assert sorted(r.path.text for r in read_jsonl(tmp_path / ROLLOUTS, Rollout)) == sorted(seen)


def test_a_reference_holds_the_student_back(tmp_path: Path) -> None:
    moved = []
    for beta in (0.0, 50.0):
        backbone, reference = tiny_backbone(), tiny_backbone()
        reference.model.eval()
        job = online_job(tmp_path / f"{beta}", beta=beta)
        assert isinstance(job.online, RoundRollouts)
        if beta:
            job.online.reference = lambda rows, model=reference: compute_response_log_probs(model, rows, SAMPLING, 4)
        fit(backbone, job)
        log = list(read_jsonl(tmp_path / f"{beta}" / "train_log.jsonl"))
        rollouts = list(read_jsonl(tmp_path / f"{beta}" / ROLLOUTS, Rollout))[-PROBLEMS * SAMPLES :]
        by_id = {problem.id: problem for problem in problems(8)}
        rows = [
            {**solve_row("compact", by_id[r.path.problem_id]), "response_ids": r.ids, "log_probs": r.log_probs}
            for r in rollouts
        ]
        of_reference = compute_response_log_probs(reference, rows, SAMPLING, 4)
        pairs = [
            (a, b) for row, r in zip(of_reference, rollouts, strict=True) for a, b in zip(row, r.log_probs, strict=True)
        ]
        moved.append(sum(abs(a - b) for a, b in pairs) / len(pairs))
        assert len(log) == STEPS
    assert moved[1] < moved[0]


def test_groups_without_a_difference_are_drawn_again_up_to_the_bound(tmp_path: Path) -> None:
    class AllWrong(EvenLength):
        def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
            return [Verdict(p.id, "wrong", judge=self.name) for p in paths]

    job = online_job(tmp_path, max_draws=2)
    assert isinstance(job.online, RoundRollouts)
    job.online.judge = AllWrong()
    before = torch.cat([p.detach().flatten() for p in tiny_backbone().model.parameters()])
    backbone = tiny_backbone()
    fit(backbone, replace(job, settings=replace(job.settings, optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.0))))
    rollouts = list(read_jsonl(tmp_path / ROLLOUTS, Rollout))
    assert len(rollouts) == STEPS * 2 * PROBLEMS * SAMPLES
    after = torch.cat([p.detach().flatten() for p in backbone.model.parameters()])
    assert torch.equal(before, after)  # there was nothing to learn
