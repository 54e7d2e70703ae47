"""What a run's fits learn from, one exchange at a time: the student's D_SFT, or the ORM's labelled paths.

An example has the texts that ``evolution.training_rows`` and ``orm.training_row`` make for the run's own fit; they are
made here from ``prompts`` alone, so that no model library is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.data.labelled import read_labelled
from mathse.data.sources import problem_lookup
from mathse.errors import DataError
from mathse.evolution.state import REFLECTIONS, TRAIN, Judged
from mathse.inference import prompts
from mathse.reporting.report.runs import Run
from mathse.runs.store import read_json, read_jsonl
from mathse.types import Problem, PromptStyle, ReasoningPath, Reflection, Verdict

FEEDBACK = "feedback.jsonl"  # of the stage "orm"
COMPACT = "tiny"  # the family that reads compact prompts; all others read full ones


@dataclass(frozen=True)
class Example:
    """``prompt`` and ``images`` are what the model reads, ``history`` the turns before, ``response`` what it learns.

    ``version`` names the prompt, as in a lineage, ``family`` the backbone that it is for; ``verdict`` is there in the
    ORM's examples.
    """

    path: ReasoningPath
    problem: Problem
    prompt: str
    images: tuple[str, ...]
    response: str
    version: str
    family: str
    history: tuple[tuple[str, str], ...] = ()
    verdict: Verdict | None = None

    @property
    def lineage(self) -> dict[str, str]:
        """What every format keeps of where a row came from."""
        path = self.path
        return {
            "id": path.id,
            "problem_id": path.problem_id,
            "origin": path.lineage.origin,
            "round": path.lineage.stage,
            "source": self.problem.source,
        }


@dataclass(frozen=True)
class Reading:
    """How an ORM reads and writes, as its checkpoint's orm.json says."""

    kind: str
    order: str
    see_answer: bool
    see_image: bool


def sft_examples(run: Run, stage: str) -> Iterator[Example]:
    """The rows of D_SFT that the student of ``stage`` was fitted on. Raises DataError where the stage has none."""
    file = _file_of(run, stage, TRAIN)
    problem_of, family = problem_lookup(run.config), family_of(run.config["backbone"])
    style, rewritten = style_of(family), _reflections(run)
    for number, path in enumerate(read_jsonl(file, ReasoningPath), start=1):
        problem = _known(problem_of, path, file, number)
        if (reflection := rewritten.get(path.id)) is not None:
            prompt = prompts.reflection_prompt(problem, reflection.draft.text, reflection.feedback, style)
        else:
            prompt = prompts.generation_prompt(problem, style)
        version = prompts.version("reflect" if reflection is not None else "generate", style, problem)
        yield Example(path, problem, prompt, tuple(problem.images), path.text, version, family)


def _reflections(run: Run) -> Mapping[str, Reflection]:
    """By the rewrite's id, those whose draft stands in the prompt (``evolution.reflect.row=draft``)."""
    if run.config["evolution"]["reflect"].get("row") != "draft":
        return {}
    files = (stage.folder / REFLECTIONS for stage in run.stages)
    found = (reflection for file in files if file.is_file() for reflection in read_jsonl(file, Reflection))
    return {reflection.revised.id: reflection for reflection in found}


def orm_examples(run: Run) -> Iterator[Example]:
    """The labelled paths that the run's ORM was fitted on, with the JSON it learns to write."""
    file = _file_of(run, "orm", FEEDBACK)
    reading = orm_reading(run)
    problem_of = _orm_problems(run)
    family = family_of(run.config["orm"].get("backbone") or run.config["backbone"])
    style = style_of(family)
    for number, row in enumerate(read_jsonl(file, Judged), start=1):
        problem = _known(problem_of, row.path, file, number)
        question, history = prompts.judge_prompt(problem, row.path.text, style, reading.see_answer)
        images = tuple(problem.images) if reading.see_image else ()
        said = _target(problem, row.verdict, reading)
        version = prompts.version("judge", style, problem)
        yield Example(row.path, problem, question, images, said, version, family, tuple(history), row.verdict)


def _orm_problems(run: Run) -> Callable[[str], Problem]:
    """The run's problems, and those of the file that its ORM learnt from, where it did from one."""
    problem_of, file = problem_lookup(run.config), run.config["orm"].get("train")
    if file is None:
        return problem_of
    known = {row.problem.id: row.problem for row in read_labelled(Path(file), problem_of)}
    return lambda name: known[name] if name in known else problem_of(name)


def orm_reading(run: Run) -> Reading:
    """From the ORM's checkpoint; from the run's settings where the checkpoint is gone."""
    file = run.folder / "orm" / "checkpoint" / "orm.json"
    found = read_json(file) if file.is_file() else run.config["orm"]
    return Reading(found["kind"], found["order"], bool(found["see_answer"]), bool(found["see_image"]))


def family_of(backbone: Mapping[str, Any]) -> str:
    """Of a backbone's settings: ``mathse.models.qwen2vl.load`` -> "qwen2vl"."""
    return str(backbone["_target_"]).removeprefix("mathse.models.").partition(".")[0]


def style_of(family: str) -> PromptStyle:
    """A family's ``Backbone.prompt_style``, without loading its class."""
    return "compact" if family == COMPACT else "full"


def _target(problem: Problem, word: Verdict, reading: Reading) -> str:
    if reading.kind == "binary":
        return prompts.binary_json(word)
    return prompts.feedback_json(word, reading.order, problem.solution)


def _file_of(run: Run, stage: str, name: str) -> Path:
    found = run.stage(stage)
    if found is not None and (found.folder / name).is_file():
        return found.folder / name
    others = [s.name for s in run.stages if (s.folder / name).is_file()]
    if stage == "orm" and name == FEEDBACK:
        raise DataError(f"{run.folder / stage}: has no {name}; the run must have trained its ORM (judge=orm, task=orm)")
    if not others:
        hint = "pass --what orm, or export another run" if run.task == "orm" else "let the run finish a stage first"
        raise DataError(f"{run.folder}: no finished stage of this run has a {name}; {hint}")
    raise DataError(f"{run.folder / stage}: no finished stage with a {name}; choose --stage {' or '.join(others)}")


def _known(problem_of: Any, path: ReasoningPath, file: Path, number: int) -> Problem:
    try:
        problem: Problem = problem_of(path.problem_id)
    except DataError as error:
        raise DataError(f"{file}:{number}: {error}") from None
    return problem
