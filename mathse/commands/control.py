"""``mathse control RUN [RUN ...]``: the controls that a reader of a result asks for, made from finished runs.

    equal compute   the distilled rows without rounds, trained with as many operations as the whole run spent
    best length     the distilled rows without rounds, at the length that is best on dev problems; the search counts

Both start from the same base, use the same teacher calls and are scored on the same test problems. Each is a training
run of its own in RUN_controls/, which goes on where it was killed; RUN/controls.json and the report of RUN hold the
result. Several runs (seeds) are also compared as one: paired differences over all answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mathse.config.fits import SFTConfig, StageFitConfig
from mathse.config.parse import parse
from mathse.config.program import format_command
from mathse.config.schema import TrainConfig
from mathse.config.trust import forbid_foreign_classes
from mathse.errors import RunError
from mathse.reporting import report
from mathse.reporting.progress.wording import accuracy_text, gain, points
from mathse.reporting.report.run import BEST, CONTROL_TITLES, EQUAL
from mathse.runs.layout import CONTROLS, METRICS, TRAIN
from mathse.runs.ledger import flops_of_run, flops_of_trained_row, spent_in
from mathse.runs.reader import FinishedStage, Run, finished_summary, read_run
from mathse.runs.store import write_json
from mathse.scoring.metrics import transitions, wilson
from mathse.scoring.resampling import difference_interval, mcnemar, paired_interval

LENGTHS = (0.5, 1.0, 2.0)  # of the distilled student's training run; 1 is that student itself


@dataclass(frozen=True)
class Trained:
    """A student of the distilled rows alone."""

    steps: int
    flops: int  # of its training run
    dev_accuracy: float | None
    solved: Mapping[str, bool]  # test problems

    @property
    def accuracy(self) -> float:
        return sum(self.solved.values()) / len(self.solved)


class Controls:
    """The controls of one run. Raises RunError where it has not finished, or does not say what it spent."""

    def __init__(self, folder: Path) -> None:
        if finished_summary(folder) is None:
            raise RunError(f"{folder}: has not finished; a control repeats what a finished run spent")
        self.run: Run = read_run(folder)
        if self.run.task != "evolve":
            raise RunError(f"{folder}: task = {self.run.task!r}; controls are made of a run with rounds (task=evolve)")
        self.distill = self._stage("distill")
        measured = [stage for stage in self.run.stages if stage.solved()]
        if self.distill not in measured:
            raise RunError(f"{folder}: its students were not measured on test problems; callbacks.evaluate does that")
        self.last = measured[-1]
        budget, row = flops_of_run(self.run.stages), flops_of_trained_row(self.distill)
        if budget is None or row is None:
            raise RunError(
                f"{folder}: a stage of it does not say how many operations it took, so no control of equal compute can "
                "be made; it is a run of an earlier version: make it again with this one"
            )
        self.budget = budget
        with forbid_foreign_classes():  # a run folder may be somebody else's: only MathSE's own classes are built
            self.config: TrainConfig = parse(OmegaConf.create(dict(self.run.config)))
        self.settings: SFTConfig = self.config.sft.of_stage("distill")
        self.steps: int = self.settings.steps(sum(1 for _ in self.distill.rows(TRAIN)))  # of the distilled student
        self.equal_steps = max(1, round(budget / (row * self.settings.batch_size)))

    def _stage(self, name: str) -> FinishedStage:
        if (stage := self.run.stage(name)) is None:
            raise RunError(f"{self.run.folder}: has no stage {name}; its controls are trained on that stage's rows")
        return stage

    def check(self, lengths: Sequence[float]) -> None:
        """Raises RunError where a length is to be chosen on dev problems and the run has none."""
        if {*lengths} != {1.0} and self._distilled().dev_accuracy is None:
            raise RunError(
                f"{self.run.folder}: has no dev problems to choose a length on; pass --lengths 1, which searches none"
            )

    def make(self, lengths: Sequence[float]) -> dict[str, Any]:
        """Train the controls that are missing, and write the result."""
        equal = self._train(EQUAL, self.equal_steps)
        tried = {1.0: self._distilled()}
        tried |= {k: self._train(f"length_{k:g}", max(1, round(k * self.steps))) for k in lengths if k != 1}
        # The best on dev; of equally good ones the shorter.
        best = min(tried, key=lambda k: (-(tried[k].dev_accuracy or 0.0), k))
        found = {
            EQUAL: self._compared(equal, equal.flops),
            BEST: self._compared(tried[best], sum(student.flops for student in tried.values())),
        }
        found[BEST] |= {"length": best, "tried": {f"{k:g}": _shown(tried[k]) for k in sorted(tried)}}
        write_json(self.run.folder / CONTROLS, found)
        report.main([str(self.run.folder)])
        return found

    def _distilled(self) -> Trained:
        """The run's own distilled student, which is trained already."""
        metrics = self.distill.json(METRICS)
        flops = spent_in(self.distill).training_flops or 0
        return Trained(self.steps, flops, metrics["dev_accuracy"], self.distill.solved())

    def _train(self, name: str, steps: int) -> Trained:
        """A student of the distilled rows after so many optimiser steps."""
        from mathse.evolution.tasks import run_task  # here: it loads torch, and a mistake is refused before that

        none = StageFitConfig()
        sft = replace(self.settings, epochs=None, max_steps=steps, distill=none, round=none, final=none)
        sft = replace(sft, train=str(self.distill.path(TRAIN)))
        config: TrainConfig = replace(
            self.config, name=f"{self.config.name}.{name}", task="sft", sft=sft, resume="branch",
            resume_from=[str(self.run.folder)], study=None, variant=None, plan=False,
            evolution=replace(self.config.evolution, update="sft"),
        )  # fmt: skip
        folder = self.run.folder.with_name(f"{self.run.folder.name}_controls") / name
        run_task(config, folder)
        stage = read_run(folder).stage("sft")
        assert stage is not None  # run_task has just made it
        spent, metrics = spent_in(stage), stage.json(METRICS)
        return Trained(steps, spent.flops or 0, metrics["dev_accuracy"], stage.solved())

    def _compared(self, control: Trained, flops: int) -> dict[str, Any]:
        """The run's last student against a control, on the test problems of both."""
        ours = self.last.solved()
        changes = transitions(control.solved, ours)
        before, after = [control.solved[key] for key in ours], list(ours.values())
        return {
            **_shown(control),
            "flops": flops,
            "run_flops": self.budget,
            "stage": self.last.name,
            "run_accuracy": sum(ours.values()) / len(ours),
            "n": len(ours),
            "gained": changes["wrong_correct"],
            "lost": changes["correct_wrong"],
            "difference": (sum(after) - sum(before)) / len(ours),
            "ci95": list(difference_interval(before, after) or ()),
            "p": mcnemar(changes["correct_wrong"], changes["wrong_correct"]),
        }


def _shown(student: Trained) -> dict[str, Any]:
    return {"steps": student.steps, "accuracy": student.accuracy, "dev_accuracy": student.dev_accuracy}


def pooled(results: Sequence[Mapping[str, Any]], name: str) -> str:
    """The line of a control over all runs: accuracies, the paired difference with its interval, McNemar's p."""
    rows = [result[name] for result in results]
    n = sum(row["n"] for row in rows)
    ours = round(sum(row["run_accuracy"] * row["n"] for row in rows))
    others = round(sum(row["accuracy"] * row["n"] for row in rows))
    counts = [(row["gained"], row["lost"], row["n"]) for row in rows]
    interval = rows[0]["ci95"] if len(rows) == 1 else paired_interval(counts)
    p = mcnemar(sum(row["lost"] for row in rows), sum(row["gained"] for row in rows))
    share = sum(row["flops"] for row in rows) / sum(row["run_flops"] for row in rows)
    low, high = interval or (0.0, 0.0)  # there are answers, so there is an interval
    control = accuracy_text(others / n, wilson(others, n))
    return (
        f"{CONTROL_TITLES[name]}: {control} of {n:,} answers, with {share:.2f} times "
        f"the run's operations; the run: {accuracy_text(ours / n, wilson(ours, n))}; difference "
        f"{gain(others / n, ours / n)} points [{points(low)}, {points(high)}], McNemar's p {p:.2g}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """``control``: returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=format_command("control"),
        description="Train the two controls of finished runs and compare: the distilled rows alone with as many "
        "operations as the whole run, and at the length that is best on dev problems.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a finished run folder; several: its seeds")
    parser.add_argument(
        "--lengths",
        type=lambda text: [float(part) for part in text.split(",")],
        default=list(LENGTHS),
        metavar="K,K",
        help="lengths to search, as multiples of the distilled student's steps (default: 0.5,1,2)",
    )
    arguments = parser.parse_args(argv)
    if min(arguments.lengths) <= 0:
        parser.error(f"--lengths {arguments.lengths}: each must be above 0")
    controls = [Controls(folder) for folder in arguments.runs]  # a mistake in one ends the command before any training
    for control in controls:
        control.check(arguments.lengths)
    results = [control.make(arguments.lengths) for control in controls]
    for folder, result in zip(arguments.runs, results, strict=True):
        for name in CONTROL_TITLES:
            print(f"{folder}: {pooled([result], name)}")
    if len(results) > 1:
        for name in CONTROL_TITLES:
            print(f"{len(results)} runs: {pooled(results, name)}")
    return 0
