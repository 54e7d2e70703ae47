"""The artifacts of a finished stage, and the artifacts that each was made from: the data flow of the run.

=============  ==========  =========================  ================================================================
artifact       stages      files                      made from
=============  ==========  =========================  ================================================================
``d_sft``      all         train.jsonl                the previous D_SFT, and the stage's verdicts
``verdicts``   all         verdicts.jsonl             the ORM if it judged, the student if it wrote the paths; for
                                                      rewrites also the verdicts on the drafts
``student``    all         checkpoint/, by reference  D_SFT of the stage, and the checkpoint before its training
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
# Artifact -> its type in W&B.
TYPES = {"d_sft": "dataset", "orm_set": "dataset", "verdicts": "verdicts", "student": "model", "orm": "model"}


@dataclass(frozen=True)
class Version:
    """The version of an artifact that a stage made."""

    name: str
    stage: str

    @property
    def alias(self) -> str:
        return self.stage.replace("/", "-")

    def reference(self, run_id: str) -> str:
        """Return the version's name in W&B: ``d_sft-1a2b3c4d:round_01``."""
        return f"{self.name}-{run_id}:{self.alias}"


@dataclass(frozen=True)
class StageArtifact:
    """A version to send, with its files below ``root``."""

    version: Version
    root: Path
    files: tuple[Path, ...]
    made_from: tuple[Version, ...]

    @property
    def kind(self) -> str:
        return TYPES[self.version.name]

    @property
    def by_reference(self) -> bool:
        return self.kind == "model"


def artifacts(stage: FinishedStage, stages: Sequence[FinishedStage]) -> Iterator[StageArtifact]:
    """Yield the artifacts of ``stage``, sources before the artifacts that are made from them.

    Args:
        stage: a finished stage.
        stages: all finished stages in the order of the run.
    """
    if stage.name.startswith("orm/"):  # weak students and the solver are intermediate steps of the ORM
        return
    before = [s for s in stages if s.name in stage.after]
    sources_of_rows = _newest(before, "d_sft", TRAIN) + _version(stage, "verdicts", VERDICTS)
    # (artifact, its files, its sources)
    data: list[tuple[str, tuple[str, ...], tuple[Version, ...]]] = [
        ("verdicts", (VERDICTS,), _sources_of_verdicts(stage, before)),
        ("d_sft", (TRAIN,), sources_of_rows),
    ]
    if stage.name == "orm":  # orm_held.jsonl of a student's stage is a measurement
        data.insert(0, ("orm_set", ORM_SET, ()))
    for name, names, made_from in data:
        if files := tuple(stage.path(file) for file in names if _has_content(stage, file)):
            yield StageArtifact(Version(name, stage.name), stage.folder, files, made_from)
    if (root := stage.checkpoint) is not None:
        files = tuple(file for file in sorted(root.rglob("*")) if file.is_file())
        model = "orm" if stage.name == "orm" else "student"
        yield StageArtifact(Version(model, stage.name), root, files, _sources_of_checkpoint(stage, before, stages))


def _has_content(stage: FinishedStage, file: str) -> bool:
    """Whether the stage has the file and the file is not empty; for CHECKPOINT, whether it has a checkpoint."""
    if file == CHECKPOINT:
        return stage.checkpoint is not None
    return stage.has(file) and stage.manifest["outputs"][file]["bytes"] > 0


def _version(stage: FinishedStage, name: str, file: str) -> tuple[Version, ...]:
    """Return the stage's version of artifact ``name``; empty if the stage has none."""
    return (Version(name, stage.name),) if _has_content(stage, file) else ()


def _newest(stages: Sequence[FinishedStage], name: str, file: str) -> tuple[Version, ...]:
    """Return the newest version of artifact ``name`` among the stages. The stage of the ORM does not count."""
    for stage in reversed(stages):
        if stage.name != "orm" and (version := _version(stage, name, file)):
            return version
    return ()


def _sources_of_verdicts(stage: FinishedStage, before: Sequence[FinishedStage]) -> tuple[Version, ...]:
    """Return the ORM if it judged or criticised, the student if it wrote, and the verdicts that chose the drafts."""
    if not stage.has(VERDICTS):
        return ()
    first: Mapping[str, Any] = next(stage.rows(VERDICTS), {})
    has_rewrites = stage.has(REFLECTIONS)
    orm_criticised = has_rewrites and stage.settings.get("evolution.reflect.feedback") == "orm"
    student_wrote = (
        number_of_round(stage.name) is not None or stage.settings.get("evolution.reflect.writer") == "student"
    )
    sources: list[Version] = []
    if orm_criticised or str(first.get("judge")).startswith("orm"):
        sources += [Version("orm", s.name) for s in before if s.name == "orm"]
    if student_wrote:
        sources += _newest(before, "student", CHECKPOINT)
    if has_rewrites:
        sources += _newest(before, "verdicts", VERDICTS)
    return tuple(sources)


def _sources_of_checkpoint(
    stage: FinishedStage, before: Sequence[FinishedStage], stages: Sequence[FinishedStage]
) -> tuple[Version, ...]:
    """Return D_SFT and the initial checkpoint of the training; for a skipped training, the student that was kept."""
    if stage.name == "orm":
        return (Version("orm_set", "orm"),) if any(stage.has(name) for name in ORM_SET) else ()
    if (skipped := stage.json(SKIPPED_FIT)) is not None:
        return (Version("student", skipped["carried_on"]),)
    if stage.name == "base":
        return ()
    init = stage.settings.get("evolution.init", stage.settings.get("evolution.reflect.init", "base"))
    initial_stages = before if init == "previous" else [s for s in stages if s.name == "base"]
    return (*_version(stage, "d_sft", TRAIN), *_newest(initial_stages, "student", CHECKPOINT))
