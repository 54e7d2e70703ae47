"""The settings of data sources that read files or tables, and of the decontamination gate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mathse.config.allow import allow, follow

PaperSet = Literal[
    "geoqa_plus", "geometry3k", "chartqa", "unigeo", "multimath", "mavis", "math_puma", "mathv360k", "mathvl"
]
PublicSet = Literal[PaperSet, "tabmwp", "formalgeo", "conversations", "scienceqa", "ai2d"]
SETS: tuple[PaperSet, ...] = get_args(PaperSet)  # that the paper names: data=paper
READABLE: tuple[PublicSet, ...] = get_args(PublicSet)  # all that there is a reader of


@dataclass
class Split:
    """How rows are split by a hash of their ids, and what becomes of a bad row."""

    seed: int = follow("seed", 0)  # of the split
    test_share: float = allow(0.2, low=0, high=1)  # of all rows; never trained on
    dev_share: float = allow(0.1, low=0, high=1)  # of all rows; for validation and what a sweep chooses by
    orm_share: float = allow(0.2, low=0, high=1)  # of all rows; problems that the ORM learns from and is measured on
    seed_share: float = allow(0.4, low=0, high=1)  # of what is left: the problems the teacher solves
    on_bad_row: Literal["error", "skip"] = "error"  # skip: leave out and list the rows that cannot be used
    max_left_out: float = allow(0.05, low=0, high=1)  # share of the rows; if more cannot be used, the run ends


@dataclass(frozen=True)
class JsonlColumns:
    """Which key of a JSONL row holds what; null: the key of this name."""

    id: str | None = None  # with any key named here, a row without one has a hash of its question and pictures
    question: str | None = None  # its text
    images: str | None = None  # a path or a list of paths; with any key named here, a row may lack it
    answer: str | None = None  # its final answer
    choices: str | None = None  # a list of texts
    solution: str | None = None  # a worked solution


@dataclass
class JsonlData(Split):
    """Own problems: rows {"id", "question", "images", "answer", "choices"?, "solution"?} (docs/own-data.md)."""

    _target_: str = "mathse.data.problems.JsonlData"
    path: str | None = None  # the JSONL file
    test_path: str | None = None  # null: a share of `path`, chosen by hash of the id
    columns: JsonlColumns = field(default_factory=JsonlColumns)


@dataclass
class PublicData(Split):
    """A published training set (docs: mathse/data/readers)."""

    _target_: str = "mathse.data.readers.source.PublicData"
    name: PublicSet = "geometry3k"  # which set
    root: str | None = None  # the set's folder, or a hub id
    # The set's own: our splits are shares of `train`; `test`, where it is set, is the whole test split. One name alone
    # stands for {train: NAME, test: null}.
    split: Any = "train"
    revision: str | None = None  # of a hub id

    def __post_init__(self) -> None:
        if isinstance(self.split, Mapping) and self.split.get("test") is None and set(self.split) <= {"train", "test"}:
            self.split = self.split.get("train", "train")  # as earlier runs recorded it

    @property
    def train_split(self) -> str:
        return str(self.split["train"] if isinstance(self.split, Mapping) else self.split)

    @property
    def test_split(self) -> str | None:
        return str(self.split["test"]) if isinstance(self.split, Mapping) else None


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what; null: none does."""

    id: str | None = None  # null: a hash of the question and the pictures
    question: str | None = "question"  # its text
    images: str | None = "image"  # one picture or several, in the table or as paths
    answer: str | None = "answer"  # its final answer
    answer_index: str | None = None  # instead of answer: the number of the right choice, from 0
    choices: str | None = None  # a list of texts
    solution: str | None = None  # a worked solution


@dataclass
class HubData(Split):
    """Any data set that the ``datasets`` library opens (docs: mathse/data/hub.py)."""

    _target_: str = "mathse.data.hub.HubData"
    root: str | None = None  # a folder, or a hub id
    subset: str | None = None  # the set's "config"
    split: str = "train"  # the set's own, whose rows are split by hash
    revision: str | None = None  # of a hub id
    images: str | None = None  # the folder that paths of pictures start from; null: root
    columns: Columns = field(default_factory=Columns)


WordSet = Literal["svamp", "gsm8k", "multiarith", "mawps"]


@dataclass
class WordProblems(Split):
    """Word problems in text alone, from four published sets, each once (docs: mathse/data/words)."""

    _target_: str = "mathse.data.words.WordProblems"
    root: str | None = None  # the folder with the sets' files; null: the MIT-licensed part that comes along
    sets: list[WordSet] = field(default_factory=lambda: ["svamp", "gsm8k"])  # which of the sets
    most_steps: int | None = allow(None, low=1)  # operations of an equation; problems of more are not taken; null: any
    # worked steps made of the equation; short: its sums alone, a line each ("45 / 9 = 5"); own: the set's own prose,
    # where it has some (gsm8k)
    solutions: Literal["equation", "short", "own"] = "equation"
    similarity: float = allow(0.8, low=0.5, high=1)  # share of 4-grams from which two questions are nearly equal
    on_bad_row: Literal["error", "skip"] = "skip"  # as published, some equations and answers differ


@dataclass
class MixtureData(Split):
    """Several sources in one, by weights or counts (docs: mathse/data/mixture.py)."""

    _target_: str = "mathse.data.mixture.MixtureData"
    sources: Any = field(default_factory=dict)  # by name, each a data section with its _target_
    weights: Any = None  # by name: shares of the mixture, of any sum
    counts: Any = None  # by name: rows; instead of weights
    size: int | None = allow(None, low=1)  # rows in all, with weights; null: as many as the weights allow


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


@dataclass
class Decontaminate:
    """What the training data is searched for before the first fit (mathse/evolution/decontamination.py)."""

    against: list[str] = field(default_factory=list)  # benchmarks: official JSON or JSONL, our rows, stored:NAME
    action: Literal["drop", "report", "off"] = "drop"  # with what is found: leave it out, only list it, do not search
    text_similarity: float = allow(0.8, low=0.5, high=1)  # share of a question's 4-grams in common
    picture_distance: int = allow(48, low=0, high=80)  # bits of 255 in which two looks of a picture may differ


@dataclass
class SyntheticData:
    """The synthetic task: arithmetic over pictures of handwritten digits (docs: mathse/data/synthetic)."""

    _target_: str = "mathse.data.synthetic.SyntheticData"
    seed: int = follow("seed", 0)  # of the problems
    seed_size: int = allow(400, low=1)  # problems the teacher solves in distillation
    pool: int = allow(2400, low=0)  # further problems of D, for the rounds
    test: int = allow(1500, low=1)  # problems that students are measured on
    dev: int = allow(300, low=0)  # for validation during fits and the metric a sweep optimises
    orm_train: int = allow(8000, low=0)  # problems whose paths the ORM learns from
    orm_held: int = allow(2500, low=0)  # problems whose paths the ORM is measured on
