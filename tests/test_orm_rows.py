"""The Outcome Reward Model's training rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from small import path, problems, tiny_backbone, verdict, world

from mathse.config.fits import ORMConfig
from mathse.inference.prompts import parse_feedback
from mathse.judges import orm_rows as orm
from mathse.models.tiny import TinyBackbone
from mathse.types import Problem, ReasoningPath, Verdict


@pytest.fixture(scope="module")
def backbone() -> Iterator[TinyBackbone]:
    yield tiny_backbone()


def annotate(problem: Problem, of: ReasoningPath) -> Verdict:
    return world().check(problem, of.text)


def labelled(right: int, wrong: int) -> list[orm.Labelled]:
    paths = [path(f"p{i}") for i in range(right + wrong)]
    return [(p, verdict(p, "correct" if i < right else "wrong")) for i, p in enumerate(paths)]


def test_each_path_is_labelled_under_its_own_id() -> None:
    pool = {p.id: p for p in problems(5)}
    paths = [path(p.id, text=p.solution or "") for p in pool.values()] + [path(i, "1", "Step 1: no.") for i in pool]
    done = orm.label(paths, pool, annotate)
    assert [p for p, _ in done] == paths
    assert [w.path_id for _, w in done] == [p.id for p in paths]
    assert [w.status for _, w in done] == ["correct"] * 5 + ["wrong"] * 5


def test_a_repeated_text_counts_once_a_problem() -> None:
    first, second = problems(2)
    pool = {first.id: first, second.id: second}
    paths = [path(first.id, "0"), path(first.id, "1"), path(second.id, "0"), path(first.id, "2", "other words")]
    assert [p.id for p, _ in orm.label(paths, pool, annotate)] == [paths[0].id, paths[2].id, paths[3].id]


@pytest.mark.parametrize(("right", "wrong"), [(30, 70), (70, 30), (5, 5), (1, 9)])
def test_as_many_right_as_wrong_paths_are_kept(right: int, wrong: int) -> None:
    kept = orm.balance(labelled(right, wrong), seed=0)
    n = min(right, wrong)
    assert Counter(w.status for _, w in kept) == {"correct": n, "wrong": n}
    assert len({p.id for p, _ in kept}) == 2 * n


@pytest.mark.parametrize(("right", "wrong"), [(0, 5), (5, 0), (0, 0)])
def test_with_one_kind_of_path_alone_nothing_is_balanced(right: int, wrong: int) -> None:
    assert orm.balance(labelled(right, wrong), seed=0) == []


def test_balancing_depends_on_the_seed_and_not_on_anything_else() -> None:
    pool = labelled(40, 80)
    assert orm.balance(pool, 1) == orm.balance(pool, 1)
    assert orm.balance(pool, 1) != orm.balance(pool, 2)
    assert [p.id for p, _ in orm.balance(pool, 1)] == sorted(p.id for p, _ in orm.balance(pool, 1))


def test_a_row_asks_about_the_path_and_answers_with_the_labels_json(backbone: TinyBackbone) -> None:
    [problem] = problems(1)
    word = world().check(problem, "Step 1: The digits are 1.")
    row = orm.training_row(backbone.prompt_style, problem, "Step 1: The digits are 1.", word, ORMConfig())
    assert row["history"] == [(problem.question, "Step 1: The digits are 1.")]
    assert row["images"] == problem.images
    assert parse_feedback(row["response"]) == Verdict("", word.status, word.error_step, word.error_analysis)


def test_the_prompt_holds_no_answer_unless_asked(backbone: TinyBackbone) -> None:
    problem = replace(problems(1)[0], answer="SECRET")
    word = verdict(path(problem.id), "correct")
    assert "SECRET" not in str(orm.training_row(backbone.prompt_style, problem, "words", word, ORMConfig()))
    for seen in (ORMConfig(see_answer=True), ORMConfig(own_answer=True)):  # an own one is there only when it judges
        assert "SECRET" in orm.training_row(backbone.prompt_style, problem, "words", word, seen)["question"]


def test_an_orm_that_may_not_see_gets_no_image(backbone: TinyBackbone) -> None:
    [problem] = problems(1)
    row = orm.training_row(
        backbone.prompt_style, problem, "words", verdict(path(problem.id), "correct"), ORMConfig(see_image=False)
    )
    assert list(row["images"]) == []


def test_a_binary_orm_writes_the_status_alone(backbone: TinyBackbone) -> None:
    [problem] = problems(1)
    word = world().check(problem, "Step 1: no.")
    assert orm.target(problem, word, ORMConfig(kind="binary")) == '{"status": "WRONG"}'


def test_solve_first_writes_the_reference_solution_before_it_judges() -> None:
    [problem] = problems(1)
    said = json.loads(orm.target(problem, world().check(problem, "Step 1: no."), ORMConfig(order="solve_first")))
    assert next(iter(said.items())) == ("solution", problem.solution)


def test_made_up_rows_are_the_same_for_the_same_draw_and_hold_right_and_wrong_paths(backbone: TinyBackbone) -> None:
    data = world()
    make = orm.MadeUpRows(backbone.prompt_style, data.splits()["orm_train"], ORMConfig(), data.corrupt, data.check)
    rows = [make(random.Random(i)) for i in range(60)]
    assert rows == [make(random.Random(i)) for i in range(60)]
    assert {parse_feedback(row["response"]).status for row in rows} == {"correct", "wrong"}


def test_made_up_rows_show_jittered_pictures_where_asked(backbone: TinyBackbone) -> None:
    data = world()
    asked = data.splits()["orm_train"][:3]
    make = orm.MadeUpRows(
        backbone.prompt_style, asked, ORMConfig(jitter=True), data.corrupt, data.check, jittered=data.jittered
    )
    rows = [make(random.Random(k)) for k in range(4)]
    known = {image for problem in asked for image in problem.images}
    assert all(image not in known and image.partition("+")[0] in known for row in rows for image in row["images"])
    assert rows == [make(random.Random(k)) for k in range(4)]


def test_a_reference_solution_is_a_teachers_path() -> None:
    [problem] = problems(1)
    reference = orm.solution_path(problem, "orm")
    assert (reference.problem_id, reference.text, reference.lineage.origin) == (problem.id, problem.solution, "teacher")
    assert orm.solution_path(replace(problem, solution=None), "orm").text == ""
