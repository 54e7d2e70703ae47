"""``mathse control RUN [RUN ...]``: train the two controls of finished runs.

    equal compute   the distilled rows without rounds, trained with as many operations as the whole run spent
    best length     the distilled rows without rounds, at the length that is best on dev problems; the search counts

Both start from the same base, use the same teacher calls and are scored on the same test problems. Each control is a
separate training run in RUN_controls/, which continues after a kill. RUN/controls.json and the report of RUN have the
result. Several runs (seeds) are also compared together: paired differences over all answers.
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
from mathse.config.updates import SFTUpdateConfig
from mathse.errors import RunError
from mathse.reporting import report
from mathse.reporting.progress.wording import accuracy_text, gain, points
from mathse.reporting.report.run import BEST, CONTROL_TITLES, EQUAL
from mathse.runs.layout import CONTROLS, METRICS, TRAIN
from mathse.runs.ledger import compute_row_flops, read_spent, sum_flops
from mathse.runs.reader import FinishedStage, Run, read_finished_summary, read_run
from mathse.runs.store import write_json
from mathse.scoring.metrics import transitions, wilson
from mathse.scoring.resampling import difference_interval, mcnemar, paired_interval

# Multiples of the distilled student's training steps. 1 is the distilled student itself.
DEFAULT_LENGTHS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class ControlStudent:
    """A student of the distilled rows, without rounds.

    Attributes:
        flops: FLOPs of its training run.
        solved: test problem -> whether its answer was right.
    """

    steps: int
    flops: int
    dev_accuracy: float | None
    solved: Mapping[str, bool]

    @property
    def accuracy(self) -> float:
        return sum(self.solved.values()) / len(self.solved)


class Controls:
    """The controls of one run. Raises RunError for an unfinished run, or a run without its FLOPs."""

    def __init__(self, folder: Path) -> None:
        if read_finished_summary(folder) is None:
            raise RunError(f"{folder}: has not finished; a control repeats what a finished run spent")
        self.run: Run = read_run(folder)
        if self.run.task != "evolve":
            raise RunError(f"{folder}: task = {self.run.task!r}; controls need a run with rounds (task=evolve)")
        self.distill = self._find_stage("distill")
        measured = [stage for stage in self.run.stages if stage.solved()]
        if self.distill not in measured:
            raise RunError(f"{folder}: its students were not measured on test problems; callbacks.evaluate does that")
        self.last = measured[-1]
        budget, row = sum_flops(self.run.stages), compute_row_flops(self.distill)
        if budget is None or row is None:
            raise RunError(
                f"{folder}: a stage does not record how many operations it took, so no control of equal compute can be "
                "made; an earlier version made this run: repeat it with this version"
            )
        self.budget = budget
        with forbid_foreign_classes():  # the run folder may be another person's: only MathSE's own classes are built
            self.config: TrainConfig = parse(OmegaConf.create(dict(self.run.config)))
        self.settings: SFTConfig = self.config.sft.of_stage("distill")
        self.steps: int = self.settings.steps(sum(1 for _ in self.distill.rows(TRAIN)))  # of the distilled student
        # Steps of the distilled student that cost as many FLOPs as the whole run.
        self.equal_steps = max(1, round(budget / (row * self.settings.batch_size)))

    def _find_stage(self, name: str) -> FinishedStage:
        if (stage := self.run.stage(name)) is None:
            raise RunError(f"{self.run.folder}: has no stage {name}; its controls are trained on that stage's rows")
        return stage

    def check(self, lengths: Sequence[float]) -> None:
        """Raise RunError if dev problems must choose a length and the run has none."""
        if {*lengths} != {1.0} and self._read_distilled().dev_accuracy is None:
            raise RunError(
                f"{self.run.folder}: has no dev problems to choose a length on; pass --lengths 1, which needs no search"
            )

    def train_controls(self, lengths: Sequence[float]) -> dict[str, Any]:
        """Train the missing controls, and write the result."""
        equal = self._train(EQUAL, self.equal_steps)
        students = {1.0: self._read_distilled()}
        for length in lengths:
            if length != 1:
                students[length] = self._train(f"length_{length:g}", max(1, round(length * self.steps)))
        # The best accuracy on dev problems; the shorter length of two equal ones.
        best = min(students, key=lambda length: (-(students[length].dev_accuracy or 0.0), length))
        search_flops = sum(student.flops for student in students.values())
        result = {
            EQUAL: self._compare(equal, equal.flops),
            BEST: self._compare(students[best], search_flops),
        }
        tried = {f"{length:g}": _to_json(students[length]) for length in sorted(students)}
        result[BEST] |= {"length": best, "tried": tried}
        write_json(self.run.folder / CONTROLS, result)
        report.main([str(self.run.folder)])
        return result

    def _read_distilled(self) -> ControlStudent:
        """Return the run's own distilled student."""
        metrics = self.distill.json(METRICS)
        flops = read_spent(self.distill).training_flops or 0
        return ControlStudent(self.steps, flops, metrics["dev_accuracy"], self.distill.solved())

    def _train(self, name: str, steps: int) -> ControlStudent:
        """Train a student on the distilled rows for ``steps`` optimiser steps."""
        from mathse.evolution.tasks import run_task  # loads torch, after the run has been checked

        # The same settings and rows, without the settings of stages: one training of ``steps`` steps.
        none = StageFitConfig()
        sft = replace(self.settings, epochs=None, max_steps=steps, distill=none, round=none, final=none)
        sft = replace(sft, train=str(self.distill.path(TRAIN)))
        config: TrainConfig = replace(
            self.config, name=f"{self.config.name}.{name}", task="sft", sft=sft, resume="branch",
            resume_from=[str(self.run.folder)], study=None, variant=None, plan=False,
            evolution=replace(self.config.evolution, update=SFTUpdateConfig()),
        )  # fmt: skip
        folder = self.run.folder.with_name(f"{self.run.folder.name}_controls") / name
        run_task(config, folder)
        stage = read_run(folder).stage("sft")
        assert stage is not None  # run_task has just made it
        spent, metrics = read_spent(stage), stage.json(METRICS)
        return ControlStudent(steps, spent.flops or 0, metrics["dev_accuracy"], stage.solved())

    def _compare(self, control: ControlStudent, flops: int) -> dict[str, Any]:
        """Compare the run's last student with a control on their test problems. ``flops``: FLOPs of the control."""
        # A pair of answers per test problem: the control's and the run's.
        ours = self.last.solved()
        changes = transitions(control.solved, ours)
        before, after = [control.solved[key] for key in ours], list(ours.values())
        return {
            **_to_json(control),
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


def _to_json(student: ControlStudent) -> dict[str, Any]:
    return {"steps": student.steps, "accuracy": student.accuracy, "dev_accuracy": student.dev_accuracy}


def format_control(results: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the line of a control over all runs: accuracies, paired difference with its interval, McNemar's p."""
    rows = [result[name] for result in results]
    # Counts over the answers of all runs.
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
    """Run the subcommand and return its exit code. Raises RunError for a run without controls."""
    parser = argparse.ArgumentParser(
        prog=format_command("control"),
        description="Train the two controls of finished runs and compare: the distilled rows without rounds, with as "
        "many operations as the whole run, and at the length that is best on dev problems.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a finished run folder; several: its seeds")
    parser.add_argument(
        "--lengths",
        type=lambda text: [float(part) for part in text.split(",")],
        default=list(DEFAULT_LENGTHS),
        metavar="K,K",
        help="lengths to search, as multiples of the distilled student's steps (default: 0.5,1,2)",
    )
    arguments = parser.parse_args(argv)
    if min(arguments.lengths) <= 0:
        parser.error(f"--lengths {arguments.lengths}: each must be above 0")
    controls = [Controls(folder) for folder in arguments.runs]  # a mistake in any run ends the command before training
    for control in controls:
        control.check(arguments.lengths)
    results = [control.train_controls(arguments.lengths) for control in controls]
    for folder, result in zip(arguments.runs, results, strict=True):
        for name in CONTROL_TITLES:
            print(f"{folder}: {format_control([result], name)}")
    if len(results) > 1:
        for name in CONTROL_TITLES:
            print(f"{len(results)} runs: {format_control(results, name)}")
    return 0
