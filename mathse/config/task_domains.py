"""The task domains: what kind of reasoning the problems of a run ask for (docs: mathse/data/domains)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Section
from mathse.scoring.answers import Form, UnitRule

JOBS = ("generate", "judge", "annotate", "reflect")  # the prompts that every domain has, each in all its languages
TEXT_FILE = re.compile(r"(?P<job>\w+)\.(?P<language>[a-z]{2})\.v(?P<version>\d{1,4})\.txt")
SLOT = re.compile(r"\{(\w+)\}")  # in a prompt, what it is filled with
# By job: the slots that its prompt needs, and those that it may have, which may be empty. Any may have {marker}.
SLOTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "generate": (("question",), ()),
    "judge": (("question", "path"), ("answer",)),
    "annotate": (("question", "path"), ("answer",)),
    "reflect": (("question", "path"), ("step", "analysis")),
    "reflect_short": (("path",), ("question", "step", "analysis")),
    "repair": ((), ()),
}


@dataclass(config=SETTINGS)
class AnswerFormConfig(Section):
    """How the final answers of a domain are compared (mathse/scoring/answers/rule.py)."""

    form: Form = Field(
        default="expression",
        description="Form of a correct answer: the same expression (numbers, tuples, sets too), number, option, short "
        "text, list of texts.",
    )
    tolerance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Largest deviation of a number as a share of the reference. ChartQA uses 0.05.",
    )
    unit: UnitRule = Field(
        default="optional",
        description="Treatment of a number's unit. optional: a unit that only one side names is ignored; needed: the "
        "unit of the reference must be there.",
    )


@dataclass(config=SETTINGS)
class TaskDomainConfig(Section):
    """Prompts and the form of answers (docs: mathse/data/domains)."""

    _target_: str = "mathse.data.domains.TaskDomain"
    name: str = Field(default="math", description="Name of the domain in the versions of its prompts.")
    texts: str = Field(
        default="mathse.data.domains.math",
        description="Folder of the domain's prompts: a path, or the dotted name of a package.",
    )
    step: list[str] = Field(default_factory=lambda: ["Step", "步骤"], description="Words in front of a step's number.")
    answer: AnswerFormConfig = Field(default_factory=AnswerFormConfig)


def find_texts_folder(texts: str) -> Path | None:
    """The folder that ``texts`` names; None where there is none. A package is found without importing it."""
    if (folder := Path(texts)).is_dir():
        return folder
    top, *below = texts.split(".")
    if not all(part.isidentifier() for part in (top, *below)):
        return None
    try:
        spec = find_spec(top)
    except ValueError:  # "__main__", which is no package
        return None
    roots = spec.submodule_search_locations if spec is not None else None
    return next((folder for root in roots or () if (folder := Path(root, *below)).is_dir()), None)


def find_newest_texts(folder: Path) -> dict[tuple[str, str], tuple[int, Path]]:
    """(job, language) -> the newest version of its prompt in a folder, and its file."""
    newest: dict[tuple[str, str], tuple[int, Path]] = {}
    for file in folder.iterdir():
        if (name := TEXT_FILE.fullmatch(file.name)) is not None:
            version = int(name["version"]), file
            newest[name["job"], name["language"]] = max(version, newest.get((name["job"], name["language"]), version))
    return newest


def check_texts(texts: str) -> Iterator[str]:
    """What is wrong with a domain's folder of prompts: a sentence for each mistake."""
    folder = find_texts_folder(texts)
    if folder is None:
        yield "no such folder, and no such package; it holds the prompts of a task domain, such as generate.en.v1.txt"
        return
    newest = find_newest_texts(folder)
    for language in sorted({language for _, language in newest}) or ["en"]:
        if missing := [f"{job}.{language}.v1.txt" for job in JOBS if (job, language) not in newest]:
            yield f"{folder} lacks {', '.join(missing)}; a domain has {', '.join(JOBS)} in each of its languages"
    for (job, _), (_, file) in sorted(newest.items()):
        if job in SLOTS:
            yield from (f"{file}: {mistake}" for mistake in _prompt_problems(job, file))


def _prompt_problems(job: str, file: Path) -> Iterator[str]:
    """What is wrong with a job's prompt by its slots: they are filled line by line, see mathse.data.domains.domain."""
    needed, optional = SLOTS[job]
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        yield f"cannot be read as UTF-8 text ({error}); save it as such"
        return
    of_lines = [SLOT.findall(line) for line in lines]
    present = {slot for slots in of_lines for slot in slots}
    if missing := [slot for slot in needed if slot not in present]:
        yield f"the prompt of {job} needs {_braces(missing)}, and this one has no such place"
    if unknown := sorted(present - {*needed, *optional, "marker"}):
        places = _braces([*needed, *optional, "marker"])
        yield f"nothing is known of {_braces(unknown)}; the prompt of {job} can be filled with {places}"
    for number, slots in enumerate(of_lines, 1):
        beside, lost = [s for s in optional if s in slots], [s for s in needed if s in slots]
        if beside and lost:
            yield (
                f"line {number} has {_braces(lost)} beside {_braces(beside)}, and a line is left out where one of its "
                "places is empty; write two lines"
            )


def _braces(slots: list[str]) -> str:
    return ", ".join(f"{{{slot}}}" for slot in slots)
