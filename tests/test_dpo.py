"""A fit by DPO: its loss, its reference, and that micro-batches and kills change neither."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import log_of, problems, tiny_backbone
from test_fit import SETTINGS, TRAINER, fit_until, job, same_files, weights
from test_loss import TOKENS, VOCABULARY, parts
from test_ranks import SPEC, in_ranks
from test_ranks import job as job_of_ranks

from mathse.config.fits import Optimizer
from mathse.config.updates import DPOUpdateConfig
from mathse.evolution.state import Judged
from mathse.evolution.training_rows import Preference, make_preference_row, pair_paths
from mathse.models.base import IGNORED, Backbone
from mathse.models.row import Row
from mathse.runs.store import read_jsonl
from mathse.training import loss
from mathse.training.fit import FitJob, fit
from mathse.training.loss import token_log_probs
from mathse.training.updates.preferences import DPOUpdate
from mathse.types import Lineage, ReasoningPath, Verdict

PAIRS = replace(SETTINGS, batch_size=4, micro_batch_size=2)


def path(problem: str, name: str, text: str, origin: Any = "student", parent: str | None = None) -> ReasoningPath:
    return ReasoningPath(f"round_01/{problem}/{name}", problem, text, Lineage(origin, "round_01", "model", parent))


def pair_rows(count: int = 8) -> list[Row]:
    """Right paths beside wrong ones, of other lengths."""
    return [
        make_preference_row(
            "compact",
            problem,
            Preference(
                path(problem.id, "0", problem.solution or ""), path(problem.id, "1", "9 + 9 = 1. " * (1 + k % 3))
            ),
        )
        for k, problem in enumerate(problems(count))
    ]


def dpo_job(folder: Path, rows: Sequence[Row], settings: Any = PAIRS, **dpo: float) -> FitJob:
    return job(folder, rows, settings, update=DPOUpdate(DPOUpdateConfig(**dpo)))


def log_p(backbone: Backbone, row: Row, text: str) -> float:
    """log p of a response, by itself."""
    logits, targets = backbone.answer_logits(backbone.collate([Row(**{**row, "response": text})]))
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()


def test_the_first_steps_loss_is_log_2_and_the_reference_is_what_the_model_gave_before(tmp_path: Path) -> None:
    rows = pair_rows()
    fit(tiny_backbone(), dpo_job(tmp_path, rows))
    first = log_of(tmp_path)[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and first["margin"] == pytest.approx(0, abs=1e-4)
    backbone = tiny_backbone()
    for row, kept in zip(rows, read_jsonl(tmp_path / "reference.jsonl"), strict=True):
        assert kept["id"] == row["id"]
        assert kept["chosen"] == pytest.approx(log_p(backbone, row, row["response"]), rel=1e-4)
        assert kept["rejected"] == pytest.approx(log_p(backbone, row, row["rejected"]), rel=1e-4)


@pytest.mark.parametrize(("smoothing", "nll_weight"), [(0.0, 0.0), (0.2, 0.5)])
def test_a_later_loss_is_that_of_the_papers_formulas(tmp_path: Path, smoothing: float, nll_weight: float) -> None:
    rows = pair_rows(4)
    settings = replace(PAIRS, max_steps=2, optimizer=Optimizer(lr=5e-3, warmup_ratio=0.0))
    one_step = replace(settings, max_steps=1)
    start = tiny_backbone()
    options = {"label_smoothing": smoothing, "nll_weight": nll_weight}
    fit(start, dpo_job(tmp_path / "one", rows, one_step, **options))  # now after a step
    fit(tiny_backbone(), dpo_job(tmp_path / "two", rows, settings, **options))
    before = tiny_backbone()
    losses = []
    for row in rows:
        ahead = [log_p(start, row, t) - log_p(before, row, t) for t in (row["response"], row["rejected"])]
        p = 1 / (1 + math.exp(-0.1 * (ahead[0] - ahead[1])))
        tokens = int((start.collate([row])["labels"][:, 1:] != IGNORED).sum())
        nll = -log_p(start, row, row["response"]) / tokens
        losses.append(-(1 - smoothing) * math.log(p) - smoothing * math.log(1 - p) + nll_weight * nll)
    assert log_of(tmp_path / "two")[-2]["loss"] == pytest.approx(log_of(tmp_path / "one")[0]["loss"], abs=1e-6)
    assert log_of(tmp_path / "two")[-1]["loss"] == pytest.approx(sum(losses) / 4, abs=2e-4)


def test_the_student_comes_to_prefer_accepted_paths(tmp_path: Path) -> None:
    fit(tiny_backbone(), dpo_job(tmp_path, pair_rows(), replace(PAIRS, max_steps=15)))
    last = log_of(tmp_path)[-1]
    assert last["preferred"] == 1.0 and last["margin"] > 0.5 and last["loss"] < 0.5


def test_micro_batches_make_the_step_of_one_batch(tmp_path: Path) -> None:
    optimizer = Optimizer(lr=1.0, eps=1.0, weight_decay=0.0, clip=1e9)  # AdamW's step is the gradient itself
    sizes: dict[str, dict[str, Any]] = {
        "whole": {"micro_batch_size": 8},
        "three": {"micro_batch_size": 3},
        "tokens": {"micro_batch_size": 8, "tokens_per_micro_batch": 300},
    }
    steps = {}
    for name, size in sizes.items():
        settings = replace(PAIRS, max_steps=1, batch_size=8, optimizer=optimizer, **size)
        fit(tiny_backbone(), dpo_job(tmp_path / name, pair_rows(), settings))
        steps[name] = weights(tmp_path / name)
    for name in ("three", "tokens"):
        assert all(torch.allclose(steps["whole"][k], steps[name][k], atol=1e-5) for k in steps["whole"])


def test_a_fit_that_was_stopped_goes_on_with_the_reference_that_it_began_with(tmp_path: Path) -> None:
    rows = pair_rows()
    fit(tiny_backbone(), dpo_job(tmp_path / "whole", rows))
    fit_until(dpo_job(tmp_path / "cut", rows), 4)
    stamp = (tmp_path / "cut" / "reference.jsonl").stat().st_mtime_ns
    fit(tiny_backbone(), dpo_job(tmp_path / "cut", rows))
    assert same_files(tmp_path / "whole", tmp_path / "cut")
    assert (tmp_path / "cut" / "reference.jsonl").stat().st_mtime_ns == stamp


def test_adapters_learn_from_pairs_too(tmp_path: Path) -> None:
    settings = replace(PAIRS, method="lora", max_steps=2)
    fit(tiny_backbone(), replace(dpo_job(tmp_path, pair_rows(4), settings), trainer=replace(TRAINER, log_every=1)))
    assert log_of(tmp_path)[0]["margin"] == pytest.approx(0, abs=1e-3)
    assert (tmp_path / "checkpoint" / "adapter").is_dir()


def test_log_probabilities_in_chunks_are_the_plain_ones_and_so_are_their_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, states, targets = parts()
    weigh = torch.linspace(-1, 1, TOKENS)
    gradients = []
    for at_once in (VOCABULARY * TOKENS * 4, VOCABULARY * 8 * 4):
        monkeypatch.setattr(loss, "LOGITS_CHUNK_BYTES", at_once)
        head.weight.grad = states.grad = None
        values = token_log_probs(head, states, targets)
        (values * weigh).sum().backward()  # type: ignore[no-untyped-call]
        assert states.grad is not None and head.weight.grad is not None
        gradients.append((values.detach(), states.grad.clone(), head.weight.grad.clone()))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "sizes"),
    [("ddp", {}), ("ddp", {"batch_size": 1, "micro_batch_size": 1}), ("fsdp2", {})],
    ids=["ddp", "ddp, a rank without a pair", "fsdp2"],
)
def test_two_ranks_make_the_steps_of_one_process(tmp_path: Path, strategy: str, sizes: dict[str, Any]) -> None:
    def fitted(folder: Path, strategy: str) -> None:
        update = DPOUpdate(DPOUpdateConfig())
        fit(SPEC.open(), replace(job_of_ranks(folder, strategy, **sizes), rows=pair_rows(), update=update))

    fitted(tmp_path / "one", "auto")
    if (error := in_ranks(2, lambda: fitted(tmp_path / "both", strategy))) is not None:
        raise error
    one, both = weights(tmp_path / "one"), weights(tmp_path / "both")
    assert all(torch.allclose(one[name], both[name], atol=1e-4) for name in one)
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "both"), strict=True):
        assert a.keys() == b.keys() and all(b[name] == pytest.approx(a[name], abs=1e-4) for name in a)


# --- pairs ------------------------------------------------------------------------------------------------------------


def wrong(of: ReasoningPath) -> Judged:
    return Judged(of, Verdict(of.id, "wrong"))


def test_pairs_are_of_one_problem_newest_first_and_accepted_paths_take_turns() -> None:
    train = [path("a", "0", "right"), path("b", "0", "right"), path("a", "1", "right too")]
    drafts = [path("a", "old", "w1"), path("c", "x", "w"), path("a", "new", "w2"), path("a", "same", "right")]
    found = [(p.chosen.id[-3:], p.rejected.id.rpartition("/")[2]) for p in pair_paths(train, [*map(wrong, drafts)])]
    assert found == [("a/1", "new"), ("a/0", "new"), ("a/1", "old"), ("a/0", "old"), ("a/1", "same")]
    assert len(list(pair_paths(train, [*map(wrong, drafts)], most=2))) == 2


def test_a_rewrite_is_paired_with_its_own_draft_alone() -> None:
    drafts = [path("a", "0", "w1"), path("a", "1", "w2"), path("a", "2", " ")]
    rewrite = path("a", "r", "right", "reflection", parent=drafts[0].id)
    (found,) = pair_paths([rewrite], [*map(wrong, drafts)])
    assert (found.chosen, found.rejected) == (rewrite, drafts[0])
