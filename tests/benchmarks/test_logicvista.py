"""LogicVista's official extraction, verdicts and aggregates, on published answers of LLaVA-7B and rule by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mathse.data.decontamination.benchmark_files import problems_of
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import NOT_SCORED
from mathse.evaluation.benchmarks import make
from mathse.evaluation.benchmarks.logicvista import EXTRACT, read_options_by_rule, read_options_in
from tests.benchmarks.cases import Scripted

# Yijia-Xiao/LogicVista, data/dataset.json and eval/results/LLAVA7B-accuracy-results.csv (Apache-2.0): the reference,
# skill, capability, the response, what the authors' LLM extracted, whether it was right.
D, R, B = ["diagram"], ["ocr"], ["diagram", "ocr"]
PUBLISHED = [
    ("v1_0", "C", "inductive", B, " Based on the image, the correct choice to replace the question mark would be B.",
     "b", 0),
    ("v1_1", "A, C", "inductive", D, " A, B, C, D", "a, b, c, d", 0),
    ("v1_5", "B, D", "inductive", B, " The correct answer is A and B.", "a, b", 0),
    ("v1_12", "B", "inductive", D, " B", "b", 1),
    ("v1_19", "C", "inductive", D, " A) 10", "a", 0),
    ("v1_20", "3", "deductive", R, " 1", "1", 0),
    ("v1_42", "A", "deductive", R, " A", "a", 1),
    ("v1_57", "D", "numerical", B, " D) Spending on IT hardware will decline.", "d", 1),
    ("v1_66", "D", "numerical", R, " Based on the image, approximately 4% of the people sampled are unemployed.",
     "d", 1),
    ("v1_75", "A", "spatial", D, " A", "a", 1),
    ("v1_133", "C", "mechanical", B, " C) The wider angle of view reduces blind spots.", "c", 1),
    ("v1_144", "B", "mechanical", B, " The weight with the question mark is 5 lb.", "a, b, c, d, e", 0),
]  # fmt: skip


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    table: dict[str, dict[str, Any]] = {}
    for name, answer, skill, capability, *_ in PUBLISHED:
        table[name] = {"imagename": f"{name}.png", "question": f"What about {name}?", "answer": answer,
                       "skill": [skill], "capability": capability}  # fmt: skip
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    return tmp_path / "dataset.json"


def extractor(prompt: str) -> str:
    """Says of a published response what the authors' LLM extracted."""
    found = next(
        extracted for *_, response, extracted, _ in PUBLISHED if f'The answer is "{response.strip()}"' in prompt
    )
    return f"The answer is:\n{json.dumps({'choices': found.upper().split(', ')})}"


def test_published_answers_get_their_published_extractions_and_verdicts(published: Path) -> None:
    bench, llm = make("logicvista"), Scripted(extractor)
    items = bench.load(published)
    assert all(len(item.problem.images) == 1 for item in items) and items[0].prompt == "What about v1_0?"
    responses = [response for *_, response, _, _ in PUBLISHED]
    extractions = bench.extract(items, responses, llm)
    scored = bench.score(items, responses, extractions, llm)
    assert [row.prediction for row in scored] == [extracted for *_, extracted, _ in PUBLISHED]
    assert [row.correct for row in scored] == [bool(right) for *_, right in PUBLISHED]
    assert len(llm.asked) == 7 and {version for version, _ in llm.asked} == {EXTRACT}  # options alone need no LLM
    found = bench.buckets(items, scored)
    assert found["Total"] == {"accuracy": 0.5, "correct": 6, "total": 12}
    assert found["Inductive"] == {"accuracy": 0.2, "correct": 1, "total": 5}
    assert (found["Diagram"]["total"], found["OCR"]["total"], found["OCR and Diagram"]["total"]) == (9, 8, 5)
    assert bench.protocol()["extractor"] == "scripted"


def test_its_file_can_be_kept_out_of_training_data(published: Path) -> None:
    problems = list(problems_of(published))
    assert [problem.id for problem in problems] == [name for name, *_ in PUBLISHED]
    assert all(len(problem.images) == 1 and Path(problem.images[0]).is_file() for problem in problems)


def test_without_an_llm_a_sentence_is_not_scored(published: Path) -> None:
    bench = make("logicvista")
    items = bench.load(published)[:2]
    responses = ["It would be B.", "C, A"]
    extractions = bench.extract(items, responses, None)
    assert [extraction.decided_by for extraction in extractions] == [NOT_SCORED, "rule"]
    assert [row.correct for row in bench.score(items, responses, extractions)] == [None, True]


@pytest.mark.parametrize(
    ("response", "options"),
    [("", ""), (" \n", ""), ("B", "B"), ("USER: x ASSISTANT: b", "b"), ("F", "ZZZZZ"), ("?", "ZZZZZ"), ("7", "7"),
     ("A,C", "A,C"), ("A and C", None), ("(A)", None)],
)  # fmt: skip
def test_what_needs_no_extractor_is_decided_by_rule(response: str, options: str | None) -> None:
    assert read_options_by_rule(response) == options


@pytest.mark.parametrize(
    ("reply", "options"),
    [('{"choices": ["A", "C"]}', "A, C"), ('Sure: {"choices": ["ZZZZZ"]}.', "ZZZZZ"), ("B", "ZZZZZ"), ("{}", "ZZZZZ"),
     ('{"choices": []}', "ZZZZZ"), ("{" * 5000 + "}", "ZZZZZ"), ('{"choices": [3]}', "3")],
)  # fmt: skip
def test_a_reply_without_options_chose_nothing(reply: str, options: str) -> None:
    assert read_options_in(reply) == options


def test_a_question_with_braces_goes_into_the_extractors_prompt(published: Path) -> None:
    bench, llm = make("logicvista"), Scripted('{"choices": ["C"]}')
    items = bench.load(published)[:1]
    (extraction,) = bench.extract(items, ["It is {C}, \\frac{1}{2}."], llm)
    assert extraction.text == "C" and '"It is {C}, \\frac{1}{2}."' in llm.asked[0][1]


def test_a_students_own_sentence_is_mapped() -> None:
    bench = make("logicvista")
    assert bench.mapped("Step 1: ...\nThe answer to this problem is B.") == "B"
    assert bench.mapped("The answer to this problem is 12 cm.") == "The answer to this problem is 12 cm."


def test_what_cannot_be_read_is_one_sentence(published: Path) -> None:
    with pytest.raises(ConfigError, match="benchmark.logicvista.problems=data/dataset.json"):
        make("logicvista").load(None)
    table = json.loads(published.read_text())
    published.write_text(json.dumps({"v1_0": {**table["v1_0"], "skill": "inductive"}}))
    with pytest.raises(DataError, match='"skill" is a list of words'):
        make("logicvista").load(published)
    published.write_text(json.dumps({"v1_0": {"question": "Which?"}}))
    with pytest.raises(DataError, match="no row of logicvista"):
        make("logicvista").load(published)
