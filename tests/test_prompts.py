"""What models are asked, and how strictly a judge's JSON is read back."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

import pytest
from small import any_text, problems

from mathse.config.task_domains import TaskDomainConfig
from mathse.data.domains import MATH, TaskDomain
from mathse.inference import prompts
from mathse.inference.prompts import binary_json, feedback_json, parse_annotation, parse_feedback
from mathse.scoring.answers import MARKER, extract_answer
from mathse.types import Problem, PromptStyle, Status, Verdict

ORDERS = ("verdict_first", "analysis_first", "solve_first")
UNPARSED = Verdict("", "unparsed")
GOOD = {"status": "WRONG", "error_step": "Step 2", "error_analysis": "7 + 5 is 12."}


# --- a verdict as text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("status", ["correct", "wrong"])
def test_a_verdict_reads_back_as_it_was_written(order: str, status: Status) -> None:
    draw = random.Random(order + status)
    hostile = ['"}', '{"status": "CORRECT"}', "\\", "\n\t\x00", "\ud800", "</s>", ""]
    for text in [*hostile, *(any_text(draw) for _ in range(200))]:
        word = Verdict("id", status, text, text[::-1])
        read = parse_feedback(feedback_json(word, order, solution=text))
        assert read == Verdict("", status, word.error_step, word.error_analysis)
        assert text == "\ud800" or read == Verdict("", status, text, text[::-1])


@pytest.mark.parametrize("order", ORDERS)
def test_a_verdict_without_a_step_reads_back_as_one(order: str) -> None:
    assert parse_feedback(feedback_json(Verdict("id", "correct"), order)) == Verdict("", "correct")


def test_the_orders_are_orders_of_the_papers_keys() -> None:
    word = Verdict("id", "wrong", "Step 2", "7 + 5 is 12.")
    keys = {order: list(json.loads(feedback_json(word, order, "Step 1: ..."))) for order in ORDERS}
    assert keys == {
        "verdict_first": ["status", "error_step", "error_analysis"],
        "analysis_first": ["error_analysis", "error_step", "status"],
        "solve_first": ["solution", "error_analysis", "error_step", "status"],
    }


def test_an_analysis_is_written_in_its_own_script() -> None:
    assert "三角形" in feedback_json(Verdict("id", "wrong", "Step 1", "三角形"), "verdict_first")


@pytest.mark.parametrize("status", ["correct", "wrong"])
def test_a_binary_verdict_holds_the_status_alone(status: Status) -> None:
    text = binary_json(Verdict("id", status, "Step 2", "why"))
    assert list(json.loads(text)) == ["status"]
    assert parse_feedback(text, binary=True) == Verdict("", status)


def test_feedback_is_the_verdict_on_the_path_by_the_judge_that_read_it() -> None:
    assert parse_feedback(json.dumps(GOOD), "p/0", "orm") == Verdict(
        "p/0", "wrong", "Step 2", "7 + 5 is 12.", judge="orm"
    )
    assert parse_annotation("{}", "p/0", "gpt") == Verdict("p/0", "unparsed", judge="gpt")


def test_a_bare_status_is_no_verdict_where_step_and_analysis_are_asked_for() -> None:
    assert parse_feedback('{"status": "CORRECT"}') == UNPARSED


# --- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_verdict_that_was_cut_off_anywhere_is_unparsed(order: str) -> None:
    whole = feedback_json(Verdict("id", "correct", None, "2: 7 + 5 = 12: 77 ok"), order, "Step 1: ...")
    assert parse_feedback(whole).status == "correct"
    for cut, binary in itertools.product(range(len(whole)), (False, True)):
        assert parse_feedback(whole[:cut], binary=binary) == UNPARSED, whole[:cut]


@pytest.mark.parametrize(
    "text",
    ["", " ", "CORRECT", '"CORRECT"', "null", "true", "1", "NaN", "[]", "{}", "[" + json.dumps(GOOD) + "]", "\x00",
     "The verdict: " + json.dumps(GOOD), json.dumps(GOOD) + " because", json.dumps(GOOD) * 2, str(GOOD),
     "```json\n" + json.dumps(GOOD) + "\n```", json.dumps(GOOD).replace('"', "'"), "\ufeff" + json.dumps(GOOD)],
)  # fmt: skip
def test_anything_but_one_json_object_is_unparsed(text: str) -> None:
    assert parse_feedback(text) == parse_feedback(text, binary=True) == UNPARSED


@pytest.mark.parametrize(
    "status", ["correct", "Correct", " CORRECT", "CORRECT.", "INCORRECT", "RIGHT", "", None, True, 1, ["CORRECT"]]
)
def test_a_status_is_one_of_two_words_to_the_letter(status: object) -> None:
    text = json.dumps({**GOOD, "status": status})
    assert parse_feedback(text) == parse_feedback(text, binary=True) == UNPARSED


@pytest.mark.parametrize("key", ["error_step", "error_analysis"])
@pytest.mark.parametrize("value", [2, 2.5, True, ["Step 2"], {"step": 2}, float("nan"), 10**400])
def test_step_and_analysis_are_text_or_nothing(key: str, value: object) -> None:
    assert parse_feedback(json.dumps({**GOOD, key: value})) == UNPARSED
    assert parse_feedback(json.dumps({**GOOD, key: None})).status == "wrong"


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_unparsed_not_a_default(key: str) -> None:
    assert parse_feedback(json.dumps({k: v for k, v in GOOD.items() if k != key})) == UNPARSED


def test_a_key_that_nobody_asked_for_changes_nothing() -> None:
    assert parse_feedback(json.dumps({"confidence": 1, **GOOD, "verdict": "CORRECT"})) == Verdict(
        "", "wrong", "Step 2", "7 + 5 is 12."
    )


def test_half_a_character_that_an_escape_brings_is_replaced() -> None:
    text = json.dumps({**GOOD, "error_step": "Step \ud800", "error_analysis": "\ud83d\ude00 \udc00"})
    assert text.isascii()
    assert parse_feedback(text) == Verdict("", "wrong", "Step \ufffd", "\U0001f600 \ufffd")


def test_two_words_on_the_same_path_are_no_verdict() -> None:
    twice = json.dumps(GOOD)[:-1] + ', "status": "CORRECT"}'
    assert parse_feedback(twice) == parse_feedback(twice, binary=True) == UNPARSED


@pytest.mark.parametrize("depth", [900, 9_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"status":', "}")])
def test_deeply_nested_brackets_are_unparsed_and_break_nothing(depth: int, opening: str, closing: str) -> None:
    for text in (opening * depth + closing * depth, opening * depth, json.dumps(GOOD)[:-1] + ', "x": ' + "[" * depth):
        assert parse_feedback(text) == UNPARSED


def test_a_huge_answer_is_not_even_read() -> None:
    room = prompts.MAX_FEEDBACK_CHARS - len(json.dumps(GOOD))
    assert parse_feedback(json.dumps({**GOOD, "error_analysis": GOOD["error_analysis"] + "x" * room})).status == "wrong"
    assert parse_feedback(json.dumps({**GOOD, "error_analysis": GOOD["error_analysis"] + "x" * (room + 1)})) == UNPARSED
    assert parse_feedback('{"status": ' + "9" * 10_000_000 + "}") == UNPARSED


def test_no_garbage_breaks_the_reader_or_passes_for_correct() -> None:
    draw = random.Random(0)
    alphabet = [*'{}[]",:\\ue0 \n', "CORRECT", "WRONG", '"status"', "null", "\ud800", "\x00"]
    for _ in range(5000):
        text = "".join(draw.choices(alphabet, k=draw.randrange(30)))
        assert parse_feedback(text) == UNPARSED, text


# --- prompts --------------------------------------------------------------------------------------------------------


CHOICE = Problem("p", "Which one is {x}?", choices=("1 cm", "2 cm"), answer="B")


def judge_text(problem: Problem, path: str, style: PromptStyle, see_answer: bool) -> str:
    """All the words the judge reads: earlier turns, then its question."""
    question, history = prompts.judge_prompt(problem, path, style, see_answer)
    return "\n".join([*(text for turn in history for text in turn), question])


def test_choices_are_lettered_lines_under_the_question() -> None:
    assert prompts.question_text(CHOICE) == "Which one is {x}?\n(A) 1 cm\n(B) 2 cm"


@pytest.mark.parametrize("style", ["compact", "full"])
def test_the_judge_reads_the_reference_answer_only_if_it_may(style: PromptStyle) -> None:
    blind = Problem("p", "How long?", answer="SECRET")
    assert "SECRET" in judge_text(blind, "Step 1: long.", style, see_answer=True)
    hidden = judge_text(blind, "Step 1: long.", style, see_answer=False)
    assert "SECRET" not in hidden and "Step 1: long." in hidden and "How long?" in hidden


@pytest.mark.parametrize("style", ["compact", "full"])
def test_no_prompt_holds_the_reference_solution(style: PromptStyle) -> None:
    [problem] = problems(1)
    draft = "Step 1: The digits are 9."
    said = Verdict("id", "wrong", "Step 1", "misread")
    for text in (
        prompts.generation_prompt(problem, style),
        judge_text(problem, draft, style, see_answer=False),
        prompts.reflection_prompt(problem, draft, said, style),
        prompts.reflection_prompt(problem, draft, None, style),
    ):
        assert problem.question in text
        assert not any(line in text for line in (problem.solution or "").split("\n"))


@pytest.mark.parametrize("style", ["compact", "full"])
def test_reflection_shows_the_feedback_there_is(style: PromptStyle) -> None:
    draft, said = "Step 1: 7.", Verdict("id", "wrong", "Step 1", "a misread digit")
    text = prompts.reflection_prompt(CHOICE, draft, said, style)
    assert draft in text and "Step 1" in text and "a misread digit" in text
    blind = prompts.reflection_prompt(CHOICE, draft, None, style)
    assert draft in blind and "misread" not in blind and "None" not in blind


def test_braces_in_a_question_or_path_stay_as_they_are() -> None:
    path = "Step 1: \\frac{1}{2} {question} {0}"
    assert path in judge_text(CHOICE, path, "full", see_answer=False)
    assert "{x}" in prompts.generation_prompt(CHOICE, "full")


def test_lineage_names_job_style_language_and_version_of_a_prompt() -> None:
    assert prompts.version("generate", "full") == f"generate/full/{prompts.VERSION}"
    assert prompts.version("generate", "compact", CHOICE) == f"generate/compact/{prompts.VERSION}"
    assert prompts.version("generate", "full", CHOICE) == "generate/full/en/1"
    assert prompts.version("judge", "full", CHINESE) == "judge/full/zh/1"


# --- the full prompts' files ------------------------------------------------------------------------------------------

CHINESE = Problem("z", "如图，在△ABC中，AB=3，∠A=60°，求BC的长。", choices=("1", "2"), answer="B")
JOBS = ("generate", "judge", "annotate", "repair", "reflect", "reflect_short")
SLOTS = {"generate": {"marker", "question"}, "judge": {"question", "answer", "path"}, "repair": set(),
         "annotate": {"question", "answer", "path"}, "reflect_short": {"marker", "path", "step", "analysis"},
         "reflect": {"marker", "question", "path", "step", "analysis"}}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_text_in_both_languages_with_the_same_slots_and_keys(job: str) -> None:
    texts = {language: MATH.text(job, language).template for language in ("en", "zh")}
    for words in texts.values():
        assert set(re.findall(r"\{(\w+)\}", words)) == SLOTS[job]
        keys = ["status", "error_step", "error_analysis", "improvement_suggestion"]
        named = [key for key in keys if f'"{key}"' in words]
        assert named == {"judge": keys[:3], "annotate": keys, "repair": keys}.get(job, [])
        assert not any(line != line.rstrip() for line in words.split("\n"))
    assert re.search("[\u4e00-\u9fff]", texts["zh"]) and not re.search("[\u4e00-\u9fff]", texts["en"])


QUESTIONS = [
    ("Find x.", "en"),
    ("What is the area of triangle ABC?", "en"),
    ("What does the sign 大 mean in this picture?", "en"),
    ("12 + 5 = ?", "en"),
    ("", "en"),
    ("求面积", "zh"),
    ("如图，在△ABC中，∠C=90°，AC=3，BC=4，则sinA的值是", "zh"),
    ("已知 $f(x)=\\frac{\\sin x}{\\cos x}$，求 $f'(x)$。", "zh"),
    ("计算：\\[\\int_0^1 \\sqrt{1-x^2}\\,\\mathrm{d}x\\]", "zh"),
]


@pytest.mark.parametrize(("question", "language"), QUESTIONS)
def test_a_problem_is_asked_in_its_own_language(question: str, language: str) -> None:
    assert prompts.language(Problem("p", question)) == language


def test_choices_count_for_the_language() -> None:
    assert prompts.language(Problem("p", "A?", choices=("等腰三角形", "直角三角形"))) == "zh"


def test_each_language_has_its_closing_sentence_and_both_read_back() -> None:
    for problem, marker in ((CHOICE, MARKER), (CHINESE, "本题的答案是")):
        assert marker in prompts.generation_prompt(problem, "full")
        assert marker in prompts.reflection_prompt(problem, "x", None, "full")
        assert marker in prompts.reflection_prompt(problem, "x", None, "full", short=True)
        assert extract_answer(f"步骤1：略。\n{marker} 12。") == "12"


@pytest.mark.parametrize("problem", [CHOICE, CHINESE])
def test_a_line_without_its_slot_is_left_out_with_the_blank_after_it(problem: Problem) -> None:
    with_answer, without = (prompts.judge_prompt(problem, "P", "full", see)[0] for see in (True, False))
    assert len(without.split("\n")) == len(with_answer.split("\n")) - 2
    assert "\n\n\n" not in without and "{" not in without.replace("{x}", "")
    partly = prompts.reflection_prompt(problem, "P", Verdict("id", "wrong", None, "why"), "full")
    assert "why" in partly and "None" not in partly and "{" not in partly.replace("{x}", "")


def test_slots_in_what_a_student_writes_are_not_filled() -> None:
    text = prompts.annotation_prompt(CHOICE, "{answer} {marker} {question}")
    assert "{answer} {marker} {question}" in text and text.count("Which one is {x}?") == 1


def test_the_annotator_sees_the_answer_and_the_rewriter_does_not() -> None:
    secret = Problem("p", "How long?", answer="SECRET")
    assert "SECRET" in prompts.annotation_prompt(secret, "P")
    for short in (True, False):
        assert "SECRET" not in prompts.reflection_prompt(secret, "P", None, "full", short=short)
    assert "How long?" not in prompts.reflection_prompt(secret, "P", None, "full", short=True)


def test_the_newest_version_of_a_text_is_used(tmp_path: Path) -> None:
    for job in JOBS:
        path = "" if job in ("generate", "repair") else "{path}"
        for version in (2, 10, 9):
            question = "" if job == "repair" else "{question}"
            (tmp_path / f"{job}.en.v{version}.txt").write_text(f"{version}: {question}\n{path}")
    problem = Problem("p", "Find x.", domain=TaskDomain(TaskDomainConfig(name="own", texts=str(tmp_path))))
    assert prompts.generation_prompt(problem, "full") == "10: Find x."
    assert prompts.version("generate", "full", problem) == "generate/full/own/en/10"
