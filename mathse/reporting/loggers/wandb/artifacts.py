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
class StageArtifact:
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


def artifacts(stage: FinishedStage, stages: Sequence[FinishedStage]) -> Iterator[StageArtifact]:
    """The artifacts of ``stage``, each after those of the same stage that it was made from. ``stages``: all finished
    ones in the order of the run."""
    if stage.name.startswith("orm/"):  # weak students and the solver are only steps on the way to the ORM
        return
    before = [s for s in stages if s.name in stage.after]
    grown_from = _newest(before, "d_sft", TRAIN) + _version(stage, "verdicts", VERDICTS)
    files_of: list[tuple[str, tuple[str, ...], tuple[Version, ...]]] = [
        ("verdicts", (VERDICTS,), _judged_by(stage, before)),
        ("d_sft", (TRAIN,), grown_from),
    ]
    if stage.name == "orm":  # orm_held.jsonl of a student's stage is a measurement
        files_of.insert(0, ("orm_set", ORM_SET, ()))
    for name, names, made_from in files_of:
        if files := tuple(stage.path(file) for file in names if _holds(stage, file)):
            yield StageArtifact(Version(name, stage.name), stage.folder, files, made_from)
    if (root := stage.checkpoint) is not None:
        files = tuple(file for file in sorted(root.rglob("*")) if file.is_file())
        model = "orm" if stage.name == "orm" else "student"
        yield StageArtifact(Version(model, stage.name), root, files, _fitted_from(stage, before, stages))


def _holds(stage: FinishedStage, file: str) -> bool:
    """Whether the stage has the file, and something in it, or has a checkpoint."""
    if file == CHECKPOINT:
        return stage.checkpoint is not None
    return stage.has(file) and stage.manifest["outputs"][file]["bytes"] > 0


def _version(stage: FinishedStage, name: str, file: str) -> tuple[Version, ...]:
    """The stage's version of ``name``, where it has one."""
    return (Version(name, stage.name),) if _holds(stage, file) else ()


def _newest(stages: Sequence[FinishedStage], name: str, file: str) -> tuple[Version, ...]:
    """The newest version of ``name`` that one of the stages has; what the ORM was made from is no student's."""
    return next((version for s in reversed(stages) if s.name != "orm" and (version := _version(s, name, file))), ())


def _judged_by(stage: FinishedStage, before: Sequence[FinishedStage]) -> tuple[Version, ...]:
    """The ORM, where it judged or criticised the drafts to rewrite; the student that wrote; the verdicts that chose
    those drafts."""
    if not stage.has(VERDICTS):
        return ()
    first: Mapping[str, Any] = next(stage.rows(VERDICTS), {})
    rewrites = stage.has(REFLECTIONS)
    criticised = rewrites and stage.settings.get("evolution.reflect.feedback") == "orm"
    orms = [s for s in before if s.name == "orm"] if criticised or str(first.get("judge")).startswith("orm") else []
    by_student = number_of_round(stage.name) is not None or stage.settings.get("evolution.reflect.writer") == "student"
    return (
        *(Version("orm", s.name) for s in orms),
        *(_newest(before, "student", CHECKPOINT) if by_student else ()),
        *(_newest(before, "verdicts", VERDICTS) if rewrites else ()),
    )


def _fitted_from(
    stage: FinishedStage, before: Sequence[FinishedStage], stages: Sequence[FinishedStage]
) -> tuple[Version, ...]:
    """D_SFT and the checkpoint that the fit began with; of a skipped fit the student that was carried on."""
    if stage.name == "orm":
        return (Version("orm_set", "orm"),) if any(stage.has(name) for name in ORM_SET) else ()
    if (skipped := stage.json(SKIPPED_FIT)) is not None:
        return (Version("student", skipped["carried_on"]),)
    if stage.name == "base":
        return ()
    init = stage.settings.get("evolution.init", stage.settings.get("evolution.reflect.init", "base"))
    began_with = before if init == "previous" else [s for s in stages if s.name == "base"]
    return (*_version(stage, "d_sft", TRAIN), *_newest(began_with, "student", CHECKPOINT))
