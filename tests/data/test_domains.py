"""The task domains: what is asked, how answers are compared, and that problems carry their domain to whoever asks."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from mathse.config import build
from mathse.config.compose import compose_train
from mathse.config.data import JsonlDataConfig, SyntheticDataConfig
from mathse.config.schema import TrainConfig
from mathse.config.task_domains import JOBS, AnswerFormConfig, TaskDomainConfig, check_texts
from mathse.data.domains import (
    MATH,
    TaskDomain,
    domain_of,
    final_answer,
    in_domain,
    is_right,
    open_domain,
    recorded_domain,
    same_answers,
    subject,
)
from mathse.data.domains.domain import texts_in
from mathse.data.sources import open_source
from mathse.errors import ConfigError, DataError
from mathse.inference import prompts
from mathse.judges.answer import AnswerJudge
from mathse.runs.settings import LATER, flatten
from mathse.scoring.answers import AnswerRule, same_answer
from mathse.types import Lineage, Problem, ReasoningPath

OURS = ("math", "words", "science", "charts")
SCIENCE = open_domain(
    TaskDomainConfig(name="science", texts="mathse.data.domains.science", answer=AnswerFormConfig("text"))
)
HEART = Problem("p", "What pumps the blood?", answer="the heart", domain=SCIENCE)


# --- answers ----------------------------------------------------------------------------------------------------------

TEXT, CHARTS = AnswerRule("text"), AnswerRule("text", tolerance=0.05)


@pytest.mark.parametrize(("prediction", "reference"), [("the heart", "heart"), ("H2O", "H_2O")])
def test_short_texts_are_the_same_where_mathematics_sees_two_names(prediction: str, reference: str) -> None:
    assert TEXT.same(prediction, reference) and TEXT.same(reference, prediction)
    assert not same_answer(prediction, reference) and not MATH.same_answer(prediction, reference)


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("H₂O", "$\\mathrm{H_2O}$", True), ("Carbon-dioxide", "carbon dioxide", True), ("“心脏”。", "心脏", True),
        ("A cell", "cell", True), ("vitamin A", "vitamin", False), ("a b", "b", False), ("-5", "5", False),
        ("12", "1/2", False), ("2 cubes", "2 cones", False), ("4 legs", "4", True), ("", "heart", False),
        ("x", "", False),
    ],
)  # fmt: skip
def test_a_short_text_is_compared_without_what_says_nothing(prediction: str, reference: str, right: bool) -> None:
    assert TEXT.same(prediction, reference) is right


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("95", "100", True), ("105", "100", True), ("94.9", "100", False), ("105.1", "100", False),
        ("-95", "100", False),
        ("0.01", "0", False), ("52%", "50%", True), ("0.51", "50%", True), ("9.6 million", "10 million", True),
        ("Brazil", "brazil", True), ("Brasil", "brazil", False), ("104", "one hundred", True),
    ],
)  # fmt: skip
def test_a_chart_s_number_may_be_five_per_cent_off_and_its_names_may_not(
    prediction: str, reference: str, right: bool
) -> None:
    assert CHARTS.same(prediction, reference) is right
    assert TEXT.same("95", "100") is False


def test_an_option_is_named_by_its_letter_or_its_text() -> None:
    choices = ("the heart", "a lung", "H_2O")
    for form in ("text", "choice"):
        rule = AnswerRule(form)
        named = [rule.same(text, "A", choices) for text in ("A", "(A)", "heart", "The heart.", "B", "lung", "liver")]
        assert named == [True, True, True, True, False, False, False]
        assert rule.same("H2O", "C", choices)
    assert AnswerRule("choice").same("(B)", "B") and not AnswerRule("choice").same("b cells", "B")


def test_forms_of_answers_have_their_own_comparison() -> None:
    number = AnswerRule("number", tolerance=0.01)
    assert number.same("3 kg", "3000 g") and number.same("3.02", "3") and not number.same("x", "x")
    assert not AnswerRule("number", unit="needed").same("3", "3 kg") and AnswerRule("number").same("3", "3 kg")
    assert AnswerRule("number", unit="ignored").same("3 g", "3 kg")
    listed = AnswerRule("list", tolerance=0.05)
    assert listed.same("[Red, Blue]", "blue and red") and listed.same("3, 1,250", "1,200; 3")
    assert not listed.same("red", "red, blue") and not listed.same("red, red", "red, blue")
    assert AnswerRule("expression", tolerance=0.01).same("3.14", "3.1416") and not MATH.same_answer("3.14", "3.1416")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The heart.", "The heart"),
        ("Step 1: It beats.\nThe answer to this problem is the heart.", "the heart"),
        ("Answer: (B)", "(B)"),
        ("", None),
    ],
)
def test_a_short_line_is_an_answer_where_answers_are_texts(response: str, answer: str | None) -> None:
    assert TEXT.extract(response) == answer


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_a_domain_has_every_job_with_its_slots_and_the_paper_s_keys(name: str) -> None:
    texts = texts_in(f"mathse.data.domains.{name}")
    keys = ["status", "error_step", "error_analysis", "improvement_suggestion"]
    slots = {"generate": {"marker", "question"}, "judge": {"question", "answer", "path"},
             "annotate": {"question", "answer", "path"},
             "reflect": {"marker", "question", "path", "step", "analysis"}}  # fmt: skip
    for job in JOBS:
        template = texts[job, "en"].template
        assert set(re.findall(r"\{(\w+)\}", template)) == slots[job]
        named = [key for key in keys if f'"{key}"' in template]
        assert named == {"judge": keys[:3], "annotate": keys}.get(job, [])
        assert ("mathematics" in template) == (name == "math")


def test_a_problem_is_asked_in_the_words_of_its_domain() -> None:
    assert "You teach science" in prompts.generation_prompt(HEART, "full")
    assert "You grade answers to questions in science" in prompts.judge_prompt(HEART, "P", "full", see_answer=False)[0]
    assert prompts.version("judge", "full", HEART) == "judge/full/science/en/1"
    plain = Problem("p", HEART.question, answer=HEART.answer)
    assert "You teach mathematics" in prompts.generation_prompt(plain, "full")
    assert prompts.generation_prompt(HEART, "compact") == prompts.generation_prompt(plain, "compact")


def test_a_domain_without_a_language_asks_in_one_that_it_has(tmp_path: Path) -> None:
    chinese = Problem("z", "什么器官输送血液？", domain=SCIENCE)
    assert prompts.language(chinese) == "en" and "You teach science" in prompts.generation_prompt(chinese, "full")
    for job in JOBS:
        path = "" if job == "generate" else "{path}\n"
        (tmp_path / f"{job}.de.v1.txt").write_text(f"Frage: {{question}}\n{path}{{marker}} ...\n", encoding="utf-8")
    german = TaskDomain(TaskDomainConfig(name="raetsel", texts=str(tmp_path), step=["Schritt"]))
    problem = Problem("p", "Was ist das?", domain=german)
    assert prompts.version("generate", "full", problem) == "generate/full/raetsel/de/1"
    assert prompts.generation_prompt(problem, "full") == "Frage: Was ist das?\nThe answer to this problem is ..."
    assert "not the JSON object" in prompts.repair_prompt(problem)  # of all domains
    assert german.steps("Schritt 1: ja\nSchritt 2: nein") == [(1, "Schritt 1: ja"), (2, "Schritt 2: nein")]


def test_a_folder_without_a_job_is_refused_with_the_files_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "generate.en.v1.txt").write_text("{question}")
    with pytest.raises(ConfigError, match=r"lacks judge.en.v1.txt, annotate.en.v1.txt, reflect.en.v1.txt"):
        texts_in(str(tmp_path))
    for nowhere in ("no.such.package", "../..//nowhere", "__main__"):
        with pytest.raises(ConfigError, match="no such folder, and no such package"):
            texts_in(nowhere)


@pytest.mark.parametrize(
    ("job", "text", "mistake"),
    [
        ("generate", b"Solve it.", r"generate.en.v2.txt: the prompt of generate needs {question}, and"),
        ("judge", b"{question}", r"judge.en.v2.txt: the prompt of judge needs {path}"),
        (
            "judge",
            b"{question}\n{path}\n{foo}",
            r"nothing is known of {foo}; .* with {question}, {path}, {answer}, {marker}",
        ),
        ("annotate", b"{path}\n\xff{question}", r"annotate.en.v2.txt: cannot be read as UTF-8 text"),
        ("reflect", b"{question}\n{path} {step}", r"line 2 has {path} beside {step}, .*; write two lines"),
    ],
)
def test_a_prompt_that_would_leave_something_out_is_refused_with_its_file(
    job: str, text: bytes, mistake: str, tmp_path: Path
) -> None:
    for name in JOBS:
        (tmp_path / f"{name}.en.v1.txt").write_text("{question}" if name == "generate" else "{question}\n{path}")
    assert list(check_texts(str(tmp_path))) == []
    (tmp_path / f"{job}.en.v2.txt").write_bytes(text)
    [sentence] = check_texts(str(tmp_path))
    assert re.search(mistake.replace("{", r"\{").replace("}", r"\}"), sentence), sentence


def test_a_setting_of_the_domain_needs_no_domain_to_be_chosen() -> None:
    config, _ = compose_train(["task_domain.step=[Schritt]"])
    assert (config.task_domain.name, config.task_domain.step) == ("math", ["Schritt"])
    data = ("data=ai2d", "data.root=AI2D/ai2d", "teacher=replay")
    config, _ = compose_train([*data, "task_domain.answer.tolerance=0.1"])
    assert (config.task_domain.name, config.task_domain.answer) == ("science", AnswerFormConfig("text", tolerance=0.1))
    for nothing in ("[]", "['']"):
        with pytest.raises(ConfigError, match="name what stands before a step's number"):
            compose_train([f"task_domain.step={nothing}"])


# --- problems and their domain ----------------------------------------------------------------------------------------


def test_the_answer_judge_goes_by_the_domain_of_each_problem() -> None:
    plain = Problem("m", HEART.question, answer=HEART.answer)
    paths = [
        ReasoningPath(p.id, p.id, "The answer to this problem is heart.", Lineage("student", "", ""))
        for p in (HEART, plain)
    ]
    assert [v.status for v in AnswerJudge().judge([HEART, plain], paths)] == ["correct", "wrong"]
    assert final_answer(HEART, "The heart") == "The heart" and is_right(HEART, "The heart")


def test_a_domain_is_no_part_of_a_record_and_survives_a_process() -> None:
    assert "domain" not in HEART.to_json() and Problem.from_json(HEART.to_json()) == HEART
    copies = pickle.loads(pickle.dumps([HEART, HEART]))
    assert copies[0].domain is copies[1].domain and is_right(copies[0], "The answer to this problem is Heart.")


def test_mathematics_is_one_domain_and_the_default() -> None:
    assert open_domain(TaskDomainConfig()) is MATH is domain_of(Problem("p", "?")) is domain_of(None)
    assert in_domain(HEART, MATH).domain is None and in_domain(HEART, SCIENCE) is HEART
    assert subject({}) == "mathematics" and subject({"task_domain": {"name": "charts"}}) == "charts"
    assert recorded_domain({}) is MATH is recorded_domain({"task_domain": flat_settings()})
    assert all(LATER[f"task_domain.{key}"] == value for key, value in flatten(TaskDomainConfig()).items())


def flat_settings() -> dict[str, Any]:
    return {"_target_": TaskDomainConfig._target_, "name": "math", "answer": {"form": "expression"}}


def test_reading_a_run_imports_no_domain_that_the_run_names() -> None:
    with pytest.raises(DataError, match="runs no code that the run names.*MATHSE_TRUST=somebodys.Domain"):
        recorded_domain({"task_domain": {"_target_": "somebodys.Domain"}})


class OwnSource:
    """A source that knows no domains."""

    bad_rows: list[dict[str, object]] = []
    notes = ("a note",)

    def splits(self) -> dict[str, list[Problem]]:
        return {"test": [Problem("a", "?")]}

    def distillable(self) -> list[Problem]:
        return [Problem("a", "?")]

    def get(self, problem_id: str) -> Problem:
        return Problem(problem_id, "?")


def test_every_source_s_problems_are_of_the_run_s_domain(tmp_path: Path) -> None:
    rows = [{"id": f"p{k}", "question": f"What is {k}?", "images": [], "answer": "a heart"} for k in range(9)]
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    domain = TaskDomainConfig(name="science", texts="mathse.data.domains.science", answer=AnswerFormConfig("text"))
    small = SyntheticDataConfig(seed_size=2, pool=1, test=2, dev=1, orm_train=1, orm_held=1)
    for data in (JsonlDataConfig(path=str(file)), small, {"_target_": f"{__name__}.OwnSource"}):
        source = open_source(TrainConfig(data=data, task_domain=domain))
        problems = [p for split in source.splits().values() for p in split]
        problems += [source.distillable()[0], source.get(problems[0].id)]
        assert problems and {domain_of(p).name for p in problems} == {"science"}
        of_math = open_source(TrainConfig(data=data))
        assert {p.domain for split in of_math.splits().values() for p in split} == {None}
        assert source.bad_rows == of_math.bad_rows and source.notes == of_math.notes


class Riddles(TaskDomain):
    """A domain in which answers are read backwards."""

    def __init__(self, settings: TaskDomainConfig) -> None:
        super().__init__(settings)

    def same_answer(self, prediction: str | None, reference: str, choices: Any = ()) -> bool:
        return prediction is not None and super().same_answer(prediction[::-1], reference, choices)


def test_a_class_of_one_s_own_extends_ours() -> None:
    domain = build(TaskDomainConfig(_target_=f"{__name__}.Riddles", answer=AnswerFormConfig("text")))
    assert is_right(Problem("p", "?", answer="heart", domain=domain), "The answer to this problem is traeh.")


def test_the_question_of_a_problem_decides_what_is_counted_and_whether_order_matters() -> None:
    apples = Problem("p", "How many apples are in the box?", answer="12")
    assert is_right(apples, "The answer to this problem is 12 apples.")
    assert not is_right(apples, "The answer to this problem is 12 pears.")
    roots, pair = (
        Problem("q", question, answer="2, 1")
        for question in ("Find all solutions of x^2-3x+2=0.", "Find the quotient and the remainder.")
    )
    assert is_right(roots, "The answer to this problem is 1, 2.") and not is_right(
        pair, "The answer to this problem is 1, 2."
    )
    assert same_answers(roots, "1, 2", "2, 1") and not same_answers(pair, "1, 2", "2, 1")
