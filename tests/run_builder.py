"""Builds a run folder as a run leaves it, for tests of what reads one. Its numbers are MADE UP; nothing is trained.

The problems, pictures, steps and labels are the synthetic task's own; students and judge are dice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mathse.config import build
from mathse.config.data import SyntheticData
from mathse.config.schema import TrainConfig
from mathse.data.synthetic.critique import near_miss
from mathse.data.synthetic.problems import facts
from mathse.data.synthetic.solution import compute_step, write
from mathse.evolution.measure import select_orm_figures
from mathse.runs.stage_cache import list_own_files, name_in
from mathse.runs.store import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from mathse.scoring.answers import extract_answer, same_answer
from mathse.scoring.metrics import accepted, accuracy, orm_metrics, transitions
from mathse.types import Lineage, Problem, ReasoningPath, Reflection, Verdict

NOTE = "This run folder was made up by tests/run_builder.py; no model was trained."
THRESHOLD = 0.5
SKILL = {"base": 0.01, "distill": 0.48, "round_01": 0.60, "round_02": 0.68, "final": 0.90}
SECONDS = {  # fit, sample, judge, other
    "base": (0, 0, 0, 9),
    "orm/solver": (62, 0, 0, 1),
    "orm": (125, 40, 12, 2),
    "distill": (34, 9, 8, 2),
    "round_01": (36, 14, 21, 2),
    "round_02": (38, 9, 12, 2),
    "reflection": (0, 1, 9, 1),
    "final": (41, 4, 0, 1),
}


@dataclass
class Builder:
    """One made-up run; ``stop_after`` names the last finished stage of an unfinished one."""

    folder: Path
    seed: int = 0
    name: str = "made-up"
    size: int = 60  # problems of the pool; the other sets follow
    stop_after: str | None = None
    gain: float = 0.0  # added to every student's skill
    settings: dict[str, Any] | None = None

    def build(self) -> Path:
        """Write the folder and give its path."""
        self.rng = random.Random(self.seed)
        world = build(SyntheticData(seed=self.seed, seed_size=self.size // 6, pool=self.size, test=self.size, dev=0,
                                    orm_train=self.size, orm_held=self.size))  # fmt: skip
        self.splits = world.splits()
        self.ease = {p.id: self.rng.random() for p in self.splits["test"]}
        self.train: list[ReasoningPath] = []
        self.wrong: dict[str, tuple[ReasoningPath, Verdict]] = {}  # R_incorrect by problem
        self.entries: list[dict[str, Any]] = []
        self.answered: dict[str, bool] | None = None
        self.clock = 0
        write_json(
            self.folder / "run.json", {"name": self.name, "task": "evolve", "seed": self.seed, "config": self.config()}
        )
        for stage in ("base", "orm/solver", "orm", "distill", "round_01", "round_02", "reflection", "final"):
            self._stage(stage)
            if stage == self.stop_after:
                return self.folder
        self._summary()
        return self.folder

    def config(self) -> dict[str, Any]:
        """The defaults as a run resolves them."""
        config = {**asdict(TrainConfig()), "name": self.name, "seed": self.seed}
        config["data"] |= {"seed": self.seed, "pool": self.size}
        config["teacher"] |= {"seed": self.seed}
        config["distill"] |= {"judge": "orm"}
        for group, values in (self.settings or {}).items():
            config[group] = config[group] | values if isinstance(values, dict) else values
        return config

    def _stage(self, stage: str) -> None:
        folder = self.folder / stage
        judged: list[tuple[Problem, ReasoningPath, Verdict]] = []
        if stage.startswith("orm"):
            self._orm(stage, folder)
        elif stage == "reflection":
            judged = self._reflect(folder)
        elif stage == "distill" or stage.startswith("round"):
            judged = self._sample(stage, folder)
        self.train += [path for _, path, verdict in judged if accepted(verdict, THRESHOLD)]
        if stage in SKILL:
            self._student(stage, folder)
        if stage != "base":
            self._log(folder, rows=30)
        self._manifest(stage, folder)

    def _sample(self, stage: str, folder: Path) -> list[tuple[Problem, ReasoningPath, Verdict]]:
        teacher = stage == "distill"
        solved = {path.problem_id for path in self.train}
        problems = [p for p in self.splits["seed" if teacher else "pool"] if p.id not in solved]
        skill = 0.8 if teacher else SKILL["distill" if stage == "round_01" else "round_01"]
        judged = [self._judged(stage, p, skill, "teacher" if teacher else "student") for p in problems]
        for problem, path, v in judged:
            self.wrong.pop(problem.id, None)
            if not accepted(v, THRESHOLD):
                self.wrong[problem.id] = (path, v)
        write_jsonl(folder / "paths.jsonl", [path for _, path, _ in judged])
        write_jsonl(folder / "verdicts.jsonl", [v for _, _, v in judged])
        write_jsonl(folder / "incorrect.jsonl", [{"path": path, "verdict": v} for path, v in self.wrong.values()])
        self._held(
            stage, folder / "orm_metrics.json", folder, 0.97 if teacher else 0.94 if stage == "round_01" else 0.91
        )
        return judged

    def _reflect(self, folder: Path) -> list[tuple[Problem, ReasoningPath, Verdict]]:
        problems = {p.id: p for p in (*self.splits["seed"], *self.splits["pool"])}
        rows, judged = [], []
        for draft, feedback in self.wrong.values():
            problem, path, verdict = self._judged("reflection", problems[draft.problem_id], 0.85, "reflection")
            path = replace(path, lineage=replace(path.lineage, parent=draft.id))
            rows.append(Reflection(draft, feedback, path))
            judged.append((problem, path, verdict))
        write_jsonl(folder / "reflections.jsonl", rows)
        write_jsonl(folder / "paths.jsonl", [path for _, path, _ in judged])
        write_jsonl(folder / "verdicts.jsonl", [v for _, _, v in judged])
        return judged

    def _orm(self, stage: str, folder: Path) -> None:
        if stage == "orm":
            rows = [self._judged("orm", p, 0.5, "student") for p in self.splits["orm_train"]]
            write_jsonl(
                folder / "feedback.jsonl", [{"path": path, "verdict": self._label(p, path)} for p, path, _ in rows]
            )
            self._held("orm", folder / "metrics.json", folder, 0.975)

    def _held(self, stage: str, metrics: Path, folder: Path, care: float) -> None:
        rows = [
            self._judged(f"{stage}/held", p, SKILL.get(stage, 0.5), "student", care) for p in self.splits["orm_held"]
        ]
        labels = [self._label(p, path) for p, path, _ in rows]
        verdicts = [v for _, _, v in rows]
        write_jsonl(
            folder / "orm_held.jsonl",
            [{"path": path, "label": label, "verdict": v} for (_, path, v), label in zip(rows, labels, strict=True)],
        )
        write_json(metrics, orm_metrics(labels, verdicts, THRESHOLD))

    def _judged(
        self, stage: str, problem: Problem, skill: float, origin: Any, care: float = 0.96
    ) -> tuple[Problem, ReasoningPath, Verdict]:
        lineage = Lineage(origin, stage, "dice", seed=self.seed, prompt="solve/1")
        path = ReasoningPath(f"{stage}/{problem.id}/0", problem.id, self._draft(problem, skill), lineage)
        return problem, path, self._verdict(problem, path, care)

    def _draft(self, problem: Problem, skill: float) -> str:
        kind, digits = facts(problem)
        spoil = self.rng.choice((0, 0, 1, 2)) if self.rng.random() > skill else None
        steps: list[tuple[int, ...]] = []
        while len(steps) < 4:
            numbers = list(compute_step(kind, digits, steps))
            if len(steps) == spoil:
                place = self.rng.randrange(len(numbers))
                numbers[place] = near_miss(numbers[place], self.rng, digit=spoil == 0)
            steps.append(tuple(numbers))
        return write(kind, steps)

    def _label(self, problem: Problem, path: ReasoningPath) -> Verdict:
        return replace(build(SyntheticData(seed=self.seed)).check(problem, path.text), path_id=path.id)

    def _verdict(self, problem: Problem, path: ReasoningPath, care: float) -> Verdict:
        label = self._label(problem, path)
        if self.rng.random() < 0.004:
            return Verdict(path.id, "unparsed", judge="orm", raw='{"error_analysis": "1: 4/4 ok, 4/4 ok, 4/4')
        called = (label.status == "correct") == (self.rng.random() < care)
        score = min(max(self.rng.gauss(0.97 if called else 0.03, 0.06), 0.001), 0.999)
        score = (
            self.rng.uniform(0.5, 0.99)
            if called and self.rng.random() < 0.1
            else max(score, 0.5)
            if called
            else min(score, 0.49)
        )
        step = (label.error_step if self.rng.random() < 0.9 else "Step 3") or "Step 2"
        return Verdict(
            path.id,
            "correct" if called else "wrong",
            None if called else step,
            label.error_analysis,
            round(score, 4),
            "orm",
        )

    def _student(self, stage: str, folder: Path) -> None:
        skill = min(SKILL[stage] + (self.gain if stage != "base" else 0) + self.rng.gauss(0, 0.005), 1.0)
        rows = []
        for p in self.splits["test"]:
            correct = (self.ease[p.id] * 0.7 + self.rng.random() * 0.3) < 0.15 + 0.7 * skill if skill > 0.02 else False
            given = p.answer if correct else str(int(p.answer) + 1)
            rows.append({"id": p.id, "response": given, "prediction": given, "answer": p.answer, "correct": correct})
        write_jsonl(folder / "predictions.jsonl", rows)
        write_json(folder / "metrics.json", {**accuracy(rows), "dev_accuracy": None})
        write_jsonl(folder / "train.jsonl", self.train)
        self._entry(stage, rows)

    def _entry(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        now = {row["id"]: row["correct"] for row in rows}
        metrics = accuracy(rows)
        origins = {
            kind: sum(path.lineage.origin == kind for path in self.train)
            for kind in ("teacher", "student", "reflection")
        }
        counts = self._counts("reflection" if stage == "final" else stage)
        self.entries.append({
            "stage": stage, "accuracy": metrics["accuracy"], "ci95": metrics["ci95"], "n": metrics["total"],
            "train_rows": len(self.train), **counts,
            "transitions": transitions(self.answered, now) if self.answered is not None else None,
            "origins": origins, "skipped_fit": None,
        })  # fmt: skip
        self.answered = now

    def _counts(self, stage: str) -> dict[str, Any]:
        if not (self.folder / stage / "verdicts.jsonl").exists():
            return dict.fromkeys(("accepted", "rejected", "unparsed", "acceptance_precision", "step_precision"))
        verdicts = list(read_jsonl(self.folder / stage / "verdicts.jsonl", Verdict))
        paths = {p.id: p for p in read_jsonl(self.folder / stage / "paths.jsonl", ReasoningPath)}
        problems = {p.id: p for p in (*self.splits["seed"], *self.splits["pool"])}
        taken = [paths[v.path_id] for v in verdicts if accepted(v, THRESHOLD)]
        right = sum(same_answer(extract_answer(p.text), problems[p.problem_id].answer) for p in taken)
        clean = sum(self._label(problems[p.problem_id], p).status == "correct" for p in taken)
        unparsed = sum(v.status == "unparsed" for v in verdicts)
        return {
            "accepted": len(taken),
            "rejected": len(verdicts) - len(taken) - unparsed,
            "unparsed": unparsed,
            "acceptance_precision": right / len(taken) if taken else None,
            "step_precision": clean / len(taken) if taken else None,
        }

    def _log(self, folder: Path, rows: int) -> None:
        log: list[dict[str, float]] = []
        for k in range(rows):
            step = 10 * (k + 1)
            loss = 0.08 + 3.4 * 0.86**k * self.rng.uniform(0.9, 1.1)
            speed = {"tokens_per_second": 1204.0, "peak_memory_gib": 0.7, "padding": 0.04, "data_wait": 0.01}
            log.append({"step": step, "loss": loss, "lr": 2e-3 * (1 - k / rows), "grad_norm": 2 * loss, **speed})
            if k % 10 == 9:
                log.append({"step": step, "val_loss": 0.12 + 3.4 * 0.87**k})
        write_jsonl(folder / "train_log.jsonl", log)

    def _manifest(self, stage: str, folder: Path) -> None:
        seconds = dict(zip(("fit", "sample", "judge", "other"), SECONDS[stage], strict=True))
        started, self.clock = self.clock, self.clock + sum(seconds.values())
        own = next((e for e in self.entries if e["stage"] == stage), {})
        write_json(folder / "stage.json", {
            "stage": stage, "identity": stage, "config": {}, "keys": [], "after": {}, "inputs": {},
            "outputs": outputs(folder),
            "summary": own, "seed": self.seed, "versions": {"python": "3.11.7", "mathse": "0.1.0"}, "git": None,
            "started": _at(started), "finished": _at(self.clock), "time_s": seconds, "wall_s": sum(seconds.values()),
        })  # fmt: skip

    def _summary(self) -> None:
        by_student = [
            {"stage": s, **select_orm_figures(read_json(self.folder / s / "orm_metrics.json"))}
            for s in ("distill", "round_01", "round_02")
        ]
        write_json(self.folder / "summary.json", {
            "status": "finished", "name": self.name, "task": "evolve", "seed": self.seed,
            "metric": self.entries[-1]["accuracy"], "stages": self.entries,
            "orm": select_orm_figures(read_json(self.folder / "orm/metrics.json")),
            "orm_by_student": by_student, "notes": [NOTE],
        })  # fmt: skip


def outputs(folder: Path) -> dict[str, dict[str, Any]]:
    """What a stage's manifest says of the files in its folder."""
    return {name_in(folder, f): {"sha256": sha256_file(f), "bytes": f.stat().st_size} for f in list_own_files(folder)}


def write_stage(folder: Path) -> None:
    """Have a folder of files be a finished stage, at the top of its run."""
    own = {"stage": folder.name, "identity": folder.name, "config": {}, "keys": [], "after": {}, "summary": {}}
    write_json(folder / "stage.json", {**own, "outputs": outputs(folder), "versions": {"mathse": "0.1.0"}})


def record_again(run: Path) -> None:
    """Have the stages of a run, or one stage, record their files as they stand now: they were made so."""
    for manifest in run.rglob("stage.json"):
        write_json(manifest, {**read_json(manifest), "outputs": outputs(manifest.parent)})


def build_run(folder: Path, **fields: Any) -> Path:
    """A made-up run in ``folder``; the fields are Builder's."""
    return Builder(folder, **fields).build()


def _at(seconds: int) -> str:
    return f"2026-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}+00:00"
