"""The settings of data sources that read files or tables, and of the decontamination gate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Options, Section, follows

PaperSet = Literal[
    "geoqa_plus", "geometry3k", "chartqa", "unigeo", "multimath", "mavis", "math_puma", "mathv360k", "mathvl"
]
PublicSet = Literal[PaperSet, "tabmwp", "formalgeo", "conversations", "scienceqa", "ai2d"]
SETS: tuple[PaperSet, ...] = get_args(PaperSet)  # that the paper names: data=paper
READABLE: tuple[PublicSet, ...] = get_args(PublicSet)  # all that there is a reader of


@dataclass(config=SETTINGS)
class Split(Section):
    """How rows are split by a hash of their ids, and what becomes of a bad row."""

    seed: int = Field(default=0, description="Random seed of the split.", json_schema_extra=follows("seed"))
    test_share: float = Field(
        default=0.2, ge=0, le=1, description="Share of all rows for testing. They are never trained on."
    )
    dev_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of all rows for validation and for the metric that a sweep maximises.",
    )
    orm_share: float = Field(
        default=0.2, ge=0, le=1, description="Share of all rows for problems that the ORM is trained and measured on."
    )
    seed_share: float = Field(
        default=0.4, ge=0, le=1, description="Share of the remaining rows for the problems that the teacher solves."
    )
    on_bad_row: Literal["error", "skip"] = Field(
        default="error", description="Treatment of a row that cannot be used. skip: leave it out and list it."
    )
    max_left_out: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share of rows that may be left out. The run ends if there are more.",
    )


@dataclass(config=SETTINGS, frozen=True)
class JsonlColumns(Section):
    """The key of a JSONL row for each field of a problem; null: the key with the field's name."""

    id: str | None = Field(
        default=None,
        description="Key of the id. If any key is set here, a row without an id gets a hash of its question and "
        "images.",
    )
    question: str | None = Field(default=None, description="Key of the question's text.")
    images: str | None = Field(
        default=None,
        description="Key of the image path or the list of image paths. If any key is set here, a row may lack it.",
    )
    answer: str | None = Field(default=None, description="Key of the final answer.")
    choices: str | None = Field(default=None, description="Key of the list of choices.")
    solution: str | None = Field(default=None, description="Key of the worked solution.")


@dataclass(config=SETTINGS)
class JsonlData(Split):
    """Own problems: rows {"id", "question", "images", "answer", "choices"?, "solution"?} (docs/own-data.md)."""

    _target_: str = "mathse.data.problems.JsonlData"
    path: str | None = Field(default=None, description="JSONL file with the problems.")
    test_path: str | None = Field(
        default=None, description="JSONL file with the test problems. null: a share of `path`, by a hash of the id."
    )
    columns: JsonlColumns = Field(default_factory=JsonlColumns)


@dataclass(config=SETTINGS)
class PublicData(Split):
    """A published training set (docs: mathse/data/readers)."""

    _target_: str = "mathse.data.readers.source.PublicData"
    name: PublicSet = Field(default="geometry3k", description="Name of the published set.")
    root: str | None = Field(default=None, description="Folder or hub id of the set.")
    split: Any = Field(
        default="train",
        description="Splits of the published set: {train: NAME, test: NAME}. Our splits are shares of `train`; `test` "
        "is the whole test split. A single name is {train: NAME, test: null}.",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub id.")

    def __post_init__(self) -> None:
        if isinstance(self.split, Mapping) and self.split.get("test") is None and set(self.split) <= {"train", "test"}:
            self.split = self.split.get("train", "train")  # as earlier runs recorded it

    @property
    def train_split(self) -> str:
        return str(self.split["train"] if isinstance(self.split, Mapping) else self.split)

    @property
    def test_split(self) -> str | None:
        return str(self.split["test"]) if isinstance(self.split, Mapping) else None


@dataclass(config=SETTINGS, frozen=True)
class Columns(Section):
    """The column of a table for each field of a problem; null: no column."""

    id: str | None = Field(default=None, description="Column of the id. null: a hash of the question and the images.")
    question: str | None = Field(default="question", description="Column of the question's text.")
    images: str | None = Field(default="image", description="Column of the image or images, in the table or as paths.")
    answer: str | None = Field(default="answer", description="Column of the final answer.")
    answer_index: str | None = Field(
        default=None, description="Column of the correct choice's number, counted from 0. It replaces answer."
    )
    choices: str | None = Field(default=None, description="Column of the list of choices.")
    solution: str | None = Field(default=None, description="Column of the worked solution.")


@dataclass(config=SETTINGS)
class HubData(Split):
    """Any data set that the ``datasets`` library opens (docs: mathse/data/hub.py)."""

    _target_: str = "mathse.data.hub.HubData"
    root: str | None = Field(default=None, description="Folder or hub id of the data set.")
    subset: str | None = Field(default=None, description='Configuration ("config") of the data set.')
    split: str = Field(default="train", description="Split of the data set. Its rows are split further by a hash.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub id.")
    images: str | None = Field(default=None, description="Folder to which image paths are relative. null: root.")
    columns: Columns = Field(default_factory=Columns)


WordSet = Literal["svamp", "gsm8k", "multiarith", "mawps"]
WORD_SETS: tuple[WordSet, ...] = ("svamp", "gsm8k")  # the package has an MIT-licensed part of both


@dataclass(config=SETTINGS)
class WordProblems(Split):
    """Word problems in text alone, from four published sets, each once (docs: mathse/data/words)."""

    _target_: str = "mathse.data.words.WordProblems"
    root: str | None = Field(
        default=None, description="Folder with the files of the sets. null: the MIT-licensed part in the package."
    )
    sets: list[WordSet] = Field(default_factory=lambda: [*WORD_SETS], description="Names of the published sets.")
    most_steps: int | None = Field(
        default=None, ge=1, description="Most operations of an equation. Longer problems are left out. null: no limit."
    )
    solutions: Literal["equation", "short", "own"] = Field(
        default="equation",
        description="Form of the solutions. equation: steps made of the equation; short: the sums, a line each "
        '("45 / 9 = 5"); own: the prose of the set, where it has some (gsm8k).',
    )
    similarity: float = Field(
        default=0.8, ge=0.5, le=1, description="Share of common 4-grams from which two questions count as nearly equal."
    )
    on_bad_row: Literal["error", "skip"] = Field(
        default="skip",
        description="Treatment of a row that cannot be used: in the published sets some equations and answers differ.",
    )


@dataclass(config=SETTINGS)
class MixtureData(Split):
    """Several sources in one, by weights or counts (docs: mathse/data/mixture.py)."""

    _target_: str = "mathse.data.mixture.MixtureData"
    sources: Annotated[Any, Options("data")] = Field(
        default_factory=dict, description="Sources by name, each a data section with its _target_."
    )
    weights: Any = Field(
        default=None, description="Weight of each source by name: its share of the mixture, of any sum."
    )
    counts: Any = Field(default=None, description="Number of rows of each source by name, instead of weights.")
    size: int | None = Field(
        default=None, ge=1, description="Number of rows in all, with weights. null: as many as the weights allow."
    )


def set_name(section: Any) -> str:
    """The name of a data section in results and as a folder: by their file, their published set, or
    the user's own class. ``section``: a settings object, or a mapping as a run records it."""
    values = section if isinstance(section, Mapping) else vars(section)
    target = str(values.get("_target_", "")).rpartition(".")[2]
    if isinstance(path := values.get("path"), str):
        name = Path(path).name.removesuffix(".gz")
        name = name.rpartition(".")[0] or name
    elif target == "PublicData":
        name = str(values.get("name"))
    elif isinstance(root := values.get("root"), str):
        name = Path(root).name
    else:
        known = {"SyntheticData": "synthetic", "WordProblems": "word_problems", "MixtureData": "mixture"}
        name = known.get(target, target)
    return re.sub(r"[^\w.-]+", "_", name).strip("._-") or "synthetic"


@dataclass(config=SETTINGS)
class Decontaminate(Section):
    """The search of the training data for benchmark problems before the first fine-tuning
    (mathse/evolution/problems.py)."""

    against: list[str] = Field(
        default_factory=list,
        description="Benchmarks to search for: official JSON or JSONL files, rows in our format, or stored:NAME.",
    )
    action: Literal["drop", "report", "off"] = Field(
        default="drop",
        description="Treatment of a found problem. drop: leave it out; report: list it; off: do not search.",
    )
    text_similarity: float = Field(
        default=0.8, ge=0.5, le=1, description="Share of common 4-grams from which two questions count as equal."
    )
    picture_distance: int = Field(
        default=48, ge=0, le=80, description="Most bits of 255 in which the hashes of two equal images may differ."
    )


@dataclass(config=SETTINGS)
class SyntheticData(Section):
    """The synthetic task: arithmetic over pictures of handwritten digits (docs: mathse/data/synthetic)."""

    _target_: str = "mathse.data.synthetic.SyntheticData"
    seed: int = Field(default=0, description="Random seed of the problems.", json_schema_extra=follows("seed"))
    seed_size: int = Field(default=400, ge=1, description="Number of problems that the teacher solves in distillation.")
    pool: int = Field(default=2400, ge=0, description="Number of further problems of D, for the rounds.")
    test: int = Field(default=1500, ge=1, description="Number of problems that students are measured on.")
    dev: int = Field(
        default=300, ge=0, description="Number of problems for validation and for the metric that a sweep maximises."
    )
    orm_train: int = Field(default=8000, ge=0, description="Number of problems with paths that the ORM is trained on.")
    orm_held: int = Field(default=2500, ge=0, description="Number of problems with paths that the ORM is measured on.")
