"""The LLM that extracts, judges and names mistakes, behind a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import KEY, MODEL, ApiServer, pictures_in, text_of

from evaluation.cases import draw_pictures, metrics, rows, run, vision_row, write_rows
from mathse.errors import ConfigError, TeacherError
from mathse.evaluation.error_types import read_kind
from mathse.inference.llm import faults

# The judge's reply to each answer, and the expected kind.
JUDGED = {
    "1": ("1", True),
    "2": ("Judgement: 0", False),
    "3": ("The answer 10 is wrong", None),
    "4": ("", None),
    "5": ("refusal", None),
    "6": ("Judgement: 1\n", True),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(faults, "FIRST_WAIT_SECONDS", 0.01)


def asked_about(text: str) -> str:
    """The number of the row that a judge's question is about."""
    return text.rpartition("length of side ")[2].partition(".")[0]


def is_judging(text: str) -> bool:
    return "Judgement" in text


def answer(body: dict[str, Any]) -> str:
    text = text_of(body)
    if is_judging(text):
        return JUDGED[asked_about(text)][0]
    return text.rpartition("Model response: '")[2].partition("'")[0].split()[-1]


def mood(text: str, nth: int) -> str | None:
    return "refusal" if is_judging(text) and JUDGED[asked_about(text)][0] == "refusal" else None


@pytest.fixture
def judge() -> Iterator[ApiServer]:
    with ApiServer(answer, mood) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, files: Path) -> Callable[..., list[str]]:
    """An evaluation of six MathVerse answers."""
    given = [{"id": str(k), "response": f"The side is surely {10 * k}"} for k in range(1, 7)]
    file = write_rows(tmp_path / "answers.jsonl", given)

    def of(api: ApiServer, *more: str) -> list[str]:
        return [
            "benchmark=mathverse",
            f"benchmark.mathverse.problems={files}/mathverse.jsonl",
            f"predictions={file}",
            f"llm.base_url={api.url}",
            f"llm.model={MODEL}",
            f"llm.cache_dir={tmp_path}/cache",
            *more,
        ]

    return of


def test_mathverse_is_extracted_and_judged_by_the_llm(
    judge: ApiServer, settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert run(tmp_path / "run", *settings(judge)) is None
    scored = {row["id"]: row for row in rows(tmp_path / "run" / "mathverse" / "scored.jsonl")}
    assert {i: row["extraction"] for i, row in scored.items()} == {str(k): str(10 * k) for k in range(1, 7)}
    assert {i: row["correct"] for i, row in scored.items()} == {i: word for i, (_, word) in JUDGED.items()}
    assert scored["1"]["decided_by"] == "llm:mathverse-extract/1+llm:mathverse-judge/1"
    assert "The answer 10 is wrong" in scored["3"]["note"]
    found = metrics(tmp_path / "run", "mathverse")
    assert (found["correct"], found["total"], found["not_scored"]) == (2, 6, 3)
    told = found["protocol"]["llm"]
    assert told["model"] == MODEL and told["prompt_versions"] == ["mathverse-extract/1", "mathverse-judge/1"]
    assert len(told["date"]) == 10 and told["usage"]["requests"] == 12
    assert set(judge.billed.values()) == {1}


def test_half_a_character_in_an_answer_or_a_reply_ends_no_scoring(
    judge: ApiServer, settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    judge.answer = lambda body: f"\ud83d{answer(body)}"
    given = [{"id": str(k), "response": f"\ud83d The side is surely {10 * k}"} for k in range(1, 7)]
    file = write_rows(tmp_path / "half.jsonl", given)
    run(tmp_path / "run", *settings(judge, f"predictions={file}"))
    scored = rows(tmp_path / "run" / "mathverse" / "scored.jsonl")
    assert [row["extraction"] for row in scored] == [f"\ufffd{10 * k}" for k in range(1, 7)]


def test_a_rerun_and_another_run_ask_nothing_again(
    judge: ApiServer, settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    run(tmp_path / "run", *settings(judge))
    asked, first = len(judge.asked), rows(tmp_path / "run" / "mathverse" / "scored.jsonl")
    for folder in ("run", "other"):
        run(tmp_path / folder, *settings(judge))
        assert rows(tmp_path / folder / "mathverse" / "scored.jsonl") == first
    assert len(judge.asked) == asked == 12


def test_a_server_that_is_gone_ends_the_run_in_a_sentence_and_the_answers_stay(
    judge: ApiServer, settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    down = [s for s in settings(judge) if not s.startswith("llm.base_url")]
    with pytest.raises(TeacherError, match="llm.base_url = http://127.0.0.1:9/v1"):
        run(tmp_path / "run", *down, "llm.base_url=http://127.0.0.1:9/v1", "llm.max_retries=1", "llm.timeout=1")
    assert len(rows(tmp_path / "run" / "mathverse" / "predictions.jsonl")) == 6
    assert run(tmp_path / "run", *settings(judge)) is None  # the same command continues
    assert metrics(tmp_path / "run", "mathverse")["correct"] == 2


def test_the_openai_api_without_a_key_is_refused_by_the_setting_s_name(
    judge: ApiServer, settings: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    without_url = [s for s in settings(judge) if not s.startswith("llm.base_url")]
    with pytest.raises(ConfigError, match="llm.api_key_env = 'OPENAI_API_KEY': this environment variable is not set"):
        run(tmp_path / "run", *without_url)


def test_the_key_is_in_no_file_of_the_run(judge: ApiServer, settings: Callable[..., list[str]], tmp_path: Path) -> None:
    run(tmp_path / "run", *settings(judge))
    written = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert written and not [f for f in written if KEY.encode() in f.read_bytes()]


# --- kinds of mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("reasoning", "reasoning"),
        ("Knowledge.", "knowledge"),
        ("**calculation**", "calculation"),
        ("Type: question", "question"),
        ("vision error", "vision"),
        ("reasoning, and calculation", "unclear"),
        ("It is a reasoning mistake", "unclear"),
        ("", "unclear"),
        (None, "unclear"),
    ],
)
def test_a_reply_names_one_kind_of_mistake_or_none(reply: str | None, kind: str) -> None:
    assert read_kind(reply) == kind


def test_wrong_answers_are_sorted_into_the_paper_s_kinds(tmp_path: Path) -> None:
    write_rows(tmp_path / "mathvision.jsonl", [vision_row(k) for k in range(1, 7)])
    draw_pictures(tmp_path, 6)
    given = [{"id": str(k), "response": str(k if k < 3 else 100 + k)} for k in range(1, 7)]
    file = write_rows(tmp_path / "a.jsonl", given)
    kinds = {"103": "reasoning", "104": "vision", "105": "reasoning", "106": "no idea"}

    def say(body: dict[str, Any]) -> str:
        return kinds[text_of(body).rpartition("Wrong solution:\n")[2].split()[0]]

    with ApiServer(say) as api:
        settings = ["benchmark=mathvision", f"benchmark.mathvision.problems={tmp_path}/mathvision.jsonl"]
        settings += [f"predictions={file}", f"llm.base_url={api.url}", f"llm.model={MODEL}"]
        settings += [f"llm.cache_dir={tmp_path}/cache", "error_types=true", "llm.vision=true"]
        run(tmp_path / "run", *settings)
        assert [len(pictures_in(body)) for body in api.asked] == [1, 1, 1, 1]
    found = metrics(tmp_path / "run", "mathvision")["error_types"]
    assert {k: v for k, v in found.items() if k != "judge"} == {
        "reasoning": 2, "knowledge": 0, "calculation": 0, "question": 0, "vision": 1, "unclear": 1, "total": 4,
        "with_picture": 4,
    }  # fmt: skip
    listed = rows(tmp_path / "run" / "mathvision" / "error_types.jsonl")
    assert [(row["id"], row["type"]) for row in listed] == [
        ("3", "reasoning"), ("4", "vision"), ("5", "reasoning"), ("6", "unclear"),
    ]  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Kinds of mistakes" in page and "MathSE-InternVL" in page
