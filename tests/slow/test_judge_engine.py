"""MathVerse judged through a real engine: a tiny Qwen2-VL that has learnt to say "1", behind ``transformers serve``.

Needs what ``pip install transformers[serving]`` brings; skipped where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation.cases import metrics, rows, run, verse_row, write_rows

from slow.served import needs_serving, served, taught

pytestmark = [pytest.mark.slow, needs_serving]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "judge"
    return taught(folder, "1", lambda step: f"Question {step}. " * (1 + step % 60), steps=120)


@pytest.fixture(scope="module")
def url(judge: Path) -> Iterator[str]:
    with served(judge) as address:
        yield address


def test_a_real_engine_extracts_and_judges(judge: Path, url: str, tmp_path: Path) -> None:
    problems = write_rows(tmp_path / "mathverse.jsonl", [verse_row(k) for k in range(1, 5)])
    answers = write_rows(tmp_path / "a.jsonl", [{"id": str(k), "response": f"It is {k}."} for k in range(1, 5)])
    settings = ["benchmark=mathverse", f"benchmark.mathverse.problems={problems}", f"predictions={answers}"]
    server = [f"llm.model={judge}", f"llm.base_url={url}", "llm.api_key_env=null", f"llm.cache_dir={tmp_path}/cache"]
    assert run(tmp_path / "run", *settings, *server, "llm.max_concurrency=2") == 1.0
    scored = rows(tmp_path / "run" / "mathverse" / "scored.jsonl")
    assert [row["extraction"] for row in scored] == ["1"] * 4 and all(row["correct"] for row in scored)
    usage = metrics(tmp_path / "run", "mathverse")["protocol"]["llm"]["usage"]
    assert usage["outcomes"] == {"answered": 8}  # four extractions, four judgements
