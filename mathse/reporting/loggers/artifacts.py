"""Which artifacts a finished stage is, and which artifacts each was made from: the run's data flow.

=============  ==========  =========================  ================================================================
artifact       of stages   files                      made from
=============  ==========  =========================  ================================================================
``d_sft``      all         train.jsonl                D_SFT as it stood before, and the stage's verdicts
``verdicts``   all         verdicts.jsonl             the ORM and the student where they judged and wrote; of
                                                      rewrites also the verdicts on the drafts
``student``    all         checkpoint/, by reference  D_SFT of the stage, and the checkpoint its fit began with
``orm_set``    orm         feedback.jsonl, held-out   (weak students and their solver are no artifacts)
``orm``        orm         checkpoint/, by reference  ``orm_set``
=============  ==========  =========================  ================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.runs.layout import (
    CHECKPOINT,
    FEEDBACK,
    ORM_HELD,
    REFLECTIONS,
    SKIPPED_FIT,
    TRAIN,
    VERDICTS,
    number_of_round,
)
from mathse.runs.reader import FinishedStage

ORM_SET = (FEEDBACK, ORM_HELD)
# What W&B calls the kinds.
KINDS = {"d_sft": "dataset", "orm_set": "dataset", "verdicts": "verdicts", "student": "model", "orm": "model"}


@dataclass(frozen=True)
class Version:
    """An artifact as one stage left it."""

    name: str
    stage: str

    @property
    def alias(self) -> str:
        return self.stage.replace("/", "-")

    def called(self, run_id: str) -> str:
        """``d_sft-1a2b3c4d:round_01``: what W&B knows it by."""
        return f"{self.name}-{run_id}:{self.alias}"


@dataclass(frozen=True)
class Item:
    """A version to be logged. ``files``: below ``root``."""

    version: Version
    root: Path
    files: tuple[Path, ...]
    made_from: tuple[Version, ...]

    @property
    def kind(self) -> str:
        return KINDS[self.version.name]

    @property
    def by_reference(self) -> bool:
        return self.kind == "model"


def items(stage: FinishedStage, stages: Sequence[FinishedStage]) -> Iterator[Item]:
    """The artifacts of ``stage``, each after those of the same stage that it was made from. ``stages``: all finished
    ones in the order of the run."""
    if stage.name.startswith("orm/"):  # weak students and the solver are only steps on the way to the ORM
        return
    before = [s for s in stages if s.name in stage.after]
    yield from _item(stage, "orm_set", ORM_SET, ())
    yield from _item(stage, "verdicts", (VERDICTS,), _judged_by(stage, before))
    grown = _last(before, "d_sft", TRAIN) + _own(stage, "verdicts", VERDICTS)
    yield from _item(stage, "d_sft", (TRAIN,), grown)
    if (root := stage.checkpoint) is not None:
        files = tuple(file for file in sorted(root.rglob("*")) if file.is_file())
        yield Item(Version(_model(stage), stage.name), root, files, _fitted_from(stage, before, stages))


def _item(stage: FinishedStage, name: str, names: Sequence[str], made_from: tuple[Version, ...]) -> Iterator[Item]:
    if name == "orm_set" and stage.name != "orm":
        return  # orm_held.jsonl of a student's stage is a measurement
    files = tuple(stage.path(file) for file in names if _holds(stage, file))
    if files:
        yield Item(Version(name, stage.name), stage.folder, files, made_from)


def _holds(stage: FinishedStage, file: str) -> bool:
    """Whether the stage has the file, and something in it, or has a checkpoint."""
    if file == CHECKPOINT:
        return stage.checkpoint is not None
    return stage.has(file) and stage.manifest["outputs"][file]["bytes"] > 0


def _model(stage: FinishedStage) -> str:
    return "orm" if stage.name == "orm" else "student"


def _own(stage: FinishedStage, name: str, file: str) -> tuple[Version, ...]:
    """The stage's version of ``name``, where it has one."""
    return (Version(name, stage.name),) if _holds(stage, file) else ()


def _last(stages: Sequence[FinishedStage], name: str, file: str) -> tuple[Version, ...]:
    """The newest version of ``name`` that one of the stages has."""
    return next((own for s in reversed(stages) if _model(s) != "orm" and (own := _own(s, name, file))), ())


def _judged_by(stage: FinishedStage, before: Sequence[FinishedStage]) -> tuple[Version, ...]:
    """Who judged, or said what is wrong with the drafts to rewrite; who wrote; the verdicts that chose those drafts."""
    if not stage.has(VERDICTS):
        return ()
    first: Mapping[str, Any] = next(stage.rows(VERDICTS), {})
    rewrites = stage.has(REFLECTIONS)
    told_by_orm = rewrites and stage.settings.get("evolution.reflect.feedback") == "orm"
    orms = [s for s in before if s.name == "orm"] if told_by_orm or str(first.get("judge")).startswith("orm") else []
    by_student = number_of_round(stage.name) is not None or stage.settings.get("evolution.reflect.writer") == "student"
    return (
        *(Version("orm", s.name) for s in orms),
        *(_last(before, "student", CHECKPOINT) if by_student else ()),
        *(_last(before, "verdicts", VERDICTS) if rewrites else ()),
    )


def _fitted_from(
    stage: FinishedStage, before: Sequence[FinishedStage], stages: Sequence[FinishedStage]
) -> tuple[Version, ...]:
    if stage.name == "orm":
        return (Version("orm_set", "orm"),) if any(stage.has(name) for name in ORM_SET) else ()
    if (skipped := stage.json(SKIPPED_FIT)) is not None:
        return (Version("student", skipped["carried_on"]),)
    if stage.name == "base":
        return ()
    init = stage.settings.get("evolution.init", stage.settings.get("evolution.reflect.init", "base"))
    start = before if init == "previous" else [s for s in stages if s.name == "base"]
    return (*_own(stage, "d_sft", TRAIN), *_last(start, "student", CHECKPOINT))
