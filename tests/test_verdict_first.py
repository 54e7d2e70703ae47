"""P(correct) is read at the status and nowhere else, in every order of the ORM's JSON; by ORMs that fit six paths."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from orm_by_heart import six_paths, trained
from small import path, tiny_backbone

from mathse.config.fits import ORMConfig
from mathse.inference.rows import judge_row
from mathse.judges.orm import ORMJudge, find_verdict_prefix
from mathse.judges.orm_rows import target
from mathse.models.base import Completion
from mathse.scoring.metrics import accepted
from mathse.types import Problem, ReasoningPath, Verdict

ORDERS = ("verdict_first", "analysis_first", "solve_first")
GENERATIVE = [ORMConfig(order=order) for order in ORDERS]
BINARY = ORMConfig(kind="binary")


def judge_of(settings: ORMConfig) -> ORMJudge:
    return ORMJudge(
        trained(settings),
        binary=settings.kind == "binary",
        order=settings.order,
        see_answer=settings.see_answer,
        see_image=settings.see_image,
    )


def judged(judge: ORMJudge) -> list[Verdict]:
    asked = six_paths()
    return judge.judge([problem for problem, _, _ in asked], [of for _, of, _ in asked])


@torch.no_grad()
def forward_pass(settings: ORMConfig, problem: Problem, of: ReasoningPath, written: str) -> float:
    """P(correct) where the last status token of ``written`` stands, from the logits of one pass over all of it."""
    backbone = judge_of(settings).backbone
    row = judge_row(backbone.prompt_style, problem, of.text, settings.see_answer, settings.see_image)
    row["response"] = written
    batch = backbone.collate([row])
    statuses = find_verdict_prefix(backbone).statuses
    place = [k for k, token in enumerate(batch["labels"][0].tolist()) if token in statuses][-1]
    logits = backbone.model(**batch).logits[0, place - 1, list(statuses)]
    return torch.softmax(logits.float(), -1)[0].item()


@pytest.mark.slow
def test_every_variant_learns_to_judge() -> None:
    unusual = [
        ORMConfig(order="solve_first", see_answer=True, see_image=False),
        ORMConfig(kind="binary", see_image=False),
    ]
    for settings in (*GENERATIVE, BINARY, *unusual):
        words = judged(judge_of(settings))
        labels = [word for _, _, word in six_paths()]
        assert [w.path_id for w in words] == [w.path_id for w in labels]
        assert [w.status for w in words] == [w.status for w in labels]
        assert [w.score > 0.9 if w.status == "correct" else w.score < 0.1 for w in words if w.score is not None] == (
            [True] * 6
        )
        said = [(w.error_step, w.error_analysis) for w in words]
        binary = settings.kind == "binary"
        assert said == [(None, None) if binary else (w.error_step, w.error_analysis) for w in labels]


@pytest.mark.parametrize("order", ORDERS[1:])
def test_the_score_is_that_of_the_status_field_though_the_analysis_is_full_of_statuses(order: str) -> None:
    settings = ORMConfig(order=order)
    for (problem, of, label), word in zip(six_paths(), judged(judge_of(settings)), strict=True):
        assert word.raw == target(problem, label, settings)
        assert word.score == pytest.approx(forward_pass(settings, problem, of, str(word.raw)), abs=1e-5)


@pytest.mark.parametrize("settings", [GENERATIVE[0], BINARY], ids=["verdict_first", "binary"])
def test_one_forward_pass_gives_the_score_that_the_whole_answer_has(settings: ORMConfig) -> None:
    for (problem, of, label), word in zip(six_paths(), judged(judge_of(settings)), strict=True):
        only_status = json.dumps({"status": label.status.upper()})
        assert word.score == pytest.approx(forward_pass(settings, problem, of, only_status), abs=1e-5)


def test_verdict_first_at_once_and_decoded_give_equal_verdicts() -> None:
    at_once = judge_of(GENERATIVE[0])
    decoding = judge_of(GENERATIVE[0])
    decoding.status_first = False
    for one, other in zip(judged(at_once), judged(decoding), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert (one.status, one.error_step, one.error_analysis) == (
            other.status,
            other.error_step,
            other.error_analysis,
        )
        assert one.raw == (other.raw if one.status == "wrong" else None)


def passes(judge: ORMJudge) -> tuple[list[Verdict], list[tuple[int, int]], int]:
    """The verdicts, (rows, tokens) of each pass of the decoder, and how many passes of the tower there were."""
    model = judge.backbone.model
    decoder: list[tuple[int, int]] = []
    tower: list[int] = []
    hooks = [
        model.model.language_model.register_forward_pre_hook(
            lambda _, __, given: decoder.append(tuple(given["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
        model.model.visual.register_forward_hook(lambda *_: tower.append(1)),
    ]
    try:
        return judged(judge), decoder, len(tower)
    finally:
        for hook in hooks:
            hook.remove()


def test_analyses_are_decoded_for_rejected_paths_alone_from_what_has_been_read() -> None:
    judge = judge_of(GENERATIVE[0])
    words, decoder, tower = passes(judge)
    assert [w.status for w in words] == ["correct", "wrong"] * 3 and tower == 1
    assert [rows for rows, _ in decoder[:2]] == [6, 3]
    assert all(rows <= 3 and tokens < 20 for rows, tokens in decoder[1:]), "no prompt is read again"
    for options in ({"binary": True}, {"order": "verdict_first", "explain": False}):
        again, decoder, _ = passes(ORMJudge(judge.backbone, **options))
        assert [rows for rows, _ in decoder] == [6]
        assert [(w.status, w.score) for w in again] == [(w.status, w.score) for w in words]
        assert not any(w.error_step or w.error_analysis or w.raw for w in again)


def test_an_untrained_orm_would_not_write_a_status_and_is_unparsed() -> None:
    for how in ({"order": "verdict_first"}, {"binary": True}):
        words = judged(ORMJudge(tiny_backbone(), **how))
        assert {(w.status, w.score) for w in words} == {("unparsed", None)}
        assert not any(accepted(w, threshold=0.0) for w in words)


def test_a_rejected_paths_garbled_analysis_is_unparsed() -> None:
    judge = judge_of(GENERATIVE[0])
    judge.max_new_tokens = len(judge.prefix.wrong) + 3  # breaks off amid the analysis
    assert [w.status for w in judged(judge)] == ["correct", "unparsed"] * 3


# --- where the status stands, in answers made up ----------------------------------------------------------------------


def read(ids: list[int], odds: Callable[[int], float]) -> Verdict:
    """What the judge reads from these tokens; ``odds(k)``: how far CORRECT is before WRONG at the k-th."""
    judge = ORMJudge(tiny_backbone())
    text = judge.backbone.tokenizer.decode(ids)
    ahead = torch.tensor([odds(k) for k in range(len(ids))])
    return judge._read_whole(path("p"), Completion(text, ids, torch.stack([ahead, torch.zeros(len(ids))], -1)))


def tokens(text: str) -> list[int]:
    return list(tiny_backbone().tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_status_quoted_in_the_analysis_is_no_status() -> None:
    said = json.dumps({"error_analysis": 'it says "status": "CORRECT" WRONG', "error_step": "1", "status": "WRONG"})
    ids = tokens(said)
    statuses = find_verdict_prefix(tiny_backbone()).statuses
    last = [k for k, token in enumerate(ids) if token in statuses][-1]
    word = read(ids, lambda k: -1.0 if k == last else 9.0)
    assert word.status == "wrong"
    assert word.score == pytest.approx(torch.sigmoid(torch.tensor(-1.0)).item(), abs=1e-6)


def test_a_status_that_is_spelt_in_other_tokens_has_no_score_rather_than_the_analysis_one() -> None:
    before = tokens('{"error_analysis": "CORRECT", "error_step": null, "status": "')
    spelt = [token for letter in "CORRECT" for token in tokens(letter)]
    ids = [*before, *spelt, *tokens('"}')]
    assert tiny_backbone().tokenizer.decode(ids).endswith('"status": "CORRECT"}')
    assert not set(spelt) & set(find_verdict_prefix(tiny_backbone()).statuses)
    word = read(ids, lambda k: 9.0)
    assert (word.status, word.score) == ("correct", None)
