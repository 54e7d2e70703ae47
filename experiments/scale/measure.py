"""Time and memory of everything in a run that is no model's work, for many problems, on one core.

    python experiments/scale/measure.py 10000 50000 500000

A run folder of each size is made up: problems with a picture each, and a round with 56 paths for every 100 problems
(280,000 for 500,000; the pool has three in ten of the problems, so most have two) of about 900 characters, of which the
judge accepts 70 %. Then each step runs on it in a process of its own, by the functions or commands that a run uses:

``read``     data=jsonl: open the file, split it, read each problem once
``sources``  where each problem is from, with the hash of its picture's file (base/sources.jsonl)
``compare``  the decontamination gate's text and image hashing (experiments/decontamination/scale.py)
``merge``    a round's bookkeeping: join paths and verdicts, merge, count, write D_SFT and R_incorrect, hash all files
``lineage``  python -m mathse lineage RUN --all --json
``report``   python -m mathse report RUN

CPU seconds and peak resident memory are the whole process's, imports included; beside ``merge`` stands what it takes
once libraries and data are open, as a run has them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from mathse.config import build
from mathse.config.data import JsonlData

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "decontamination"))
PICTURES = 1_000  # different files
STEPS = ("read", "sources", "compare", "merge", "lineage", "report")


@dataclass(frozen=True)
class Made:
    """A made-up run of ``size`` problems below ``folder``."""

    folder: Path
    size: int

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def run(self) -> Path:
        return self.folder / "run"


def opened(made: Made):  # type: ignore[no-untyped-def]
    """The run folder and its source, as train.py opens them."""
    from mathse.config import build
    from mathse.config.compose import train_config
    from mathse.config.sections import plain
    from mathse.evolution.tasks import flatten_settings
    from mathse.runs.stage_cache import RunFolder

    config, _ = train_config(["data=jsonl", f"data.path={made.rows}", "teacher=replay", "judge=answer", "name=scale"])
    run = RunFolder.open(made.run, flatten_settings(config), name="scale", task="evolve", seed=0, nested=plain(config))
    return config, run, build(config.data)


def make(made: Made) -> None:
    """Problems, pictures, and the stages base, distill and (its merge left to do) round_01."""
    from scale import drawing, question

    from mathse.runs.store import write_jsonl

    for k in range(PICTURES):
        made.folder.joinpath(f"{k}.png").parent.mkdir(parents=True, exist_ok=True)
        drawing(str(k)).save(made.folder / f"{k}.png")
    with open(made.rows, "w", encoding="utf-8") as file:
        for k in range(made.size):
            row = {"id": f"p{k}", "question": question(k), "images": [f"{k % PICTURES}.png"], "answer": str(k % 997)}
            file.write(json.dumps(row) + "\n")
    _, run, source = opened(made)
    splits = source.splits()
    base = run.stage("base", ("data",))
    base.begin()
    base.finish({"stage": "base"})
    distill = run.stage("distill", ("data",), [base])
    distill.begin()
    taught = splits["seed"][: made.size // 20]
    write_jsonl(distill.path / "paths.jsonl", (path(p, "distill", "teacher") for p in taught))
    write_jsonl(distill.path / "verdicts.jsonl", (verdict(path(p, "distill", "teacher")) for p in taught))
    accepted = (one for p in taught if verdict(one := path(p, "distill", "teacher")).status == "correct")
    write_jsonl(distill.path / "train.jsonl", accepted)
    write_jsonl(distill.path / "incorrect.jsonl", [])
    distill.finish({"stage": "distill"})
    sample(splits["pool"], made.size * 56 // 100, made.run / "round_01")
    run.close()


def sample(pool, count, folder):  # type: ignore[no-untyped-def]
    """``count`` paths for the problems of the pool in turn, and a verdict on each in another order."""
    from mathse.runs.store import write_jsonl

    def one(k: int):  # type: ignore[no-untyped-def]
        return path(pool[k % len(pool)], "round_01", "student", k // len(pool))

    order = sorted(range(count), key=lambda k: random.Random(k).random())
    write_jsonl(folder / "paths.jsonl", map(one, range(count)))
    write_jsonl(folder / "verdicts.jsonl", (verdict(one(k)) for k in order))


def path(problem, stage, origin, number=0):  # type: ignore[no-untyped-def]
    from mathse.types import Lineage, ReasoningPath

    draw = random.Random(f"{problem.id}/{number}")
    steps = "\n".join(
        f"Step {k}: the figure gives {draw.randint(1, 999)} and {draw.randint(1, 999)}, so the angle between the "
        f"chord and the tangent is {draw.randint(1, 180)} degrees and the next side is {draw.randint(1, 999)}."
        for k in range(1, 8)
    )
    given = problem.answer if draw.random() < 0.7 else "x"
    text = f"{steps}\nThe answer to this problem is {given}"
    model = "replay" if origin == "teacher" else "distill/checkpoint"
    return ReasoningPath(
        f"{stage}/{problem.id}/{number}", problem.id, text, Lineage(origin, stage, model, None, 7, "p/1")
    )


def verdict(path):  # type: ignore[no-untyped-def]
    from mathse.types import Verdict

    right = not path.text.endswith("is x")
    why = None if right else "The chord and the tangent enclose another angle than the step says. " * 3
    status = "correct" if right else "wrong"
    return Verdict(path.id, status, None if right else "Step 3", why, 0.9 if right else 0.1, "orm", f"{status} {why}")


# --- steps ------------------------------------------------------------------------------------------------------------


def read(made: Made) -> None:

    source = build(JsonlData(path=str(made.rows)))
    assert sum(1 for split in source.splits().values() for problem in split if problem.answer) == made.size


def sources(made: Made) -> None:
    from contextlib import contextmanager

    from mathse.evolution.problems import RunProblems, record_sources
    from mathse.runs.layout import DONE, SOURCES

    _, run, source = opened(made)

    @contextmanager
    def track(what: str, total: int) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(advance=lambda rows: None)

    for file in (DONE, SOURCES):
        (made.run / "base" / file).unlink(missing_ok=True)
    base = run.stage("base", ("data",))
    base.begin()
    record_sources(SimpleNamespace(track=track), RunProblems(source), base)  # type: ignore[arg-type]
    base.finish({"stage": "base"})
    run.close()


def compare(made: Made) -> None:
    from scale import compare as compared

    compared(made.size)


def merge(made: Made) -> None:
    from mathse.config.compose import train_config
    from mathse.evolution import measure, stages
    from mathse.evolution.problems import RunProblems
    from mathse.evolution.state import EvolutionState, join_verdicts
    from mathse.runs.layout import PATHS, VERDICTS
    from mathse.runs.rows import JsonlRows
    from mathse.scoring.metrics import accepted
    from mathse.types import ReasoningPath, Verdict

    _, run, source = opened(made)
    begun = time.process_time()
    models = SimpleNamespace(accepts=lambda verdict: accepted(verdict, 0.5))
    base = run.stage("base", ("data",))
    distill = run.stage("distill", ("data",), [base])
    stage = run.stage("round_01", ("data",), [distill])
    stage.begin()
    state = EvolutionState.load(distill.path, source.table.ids())
    paths = JsonlRows(stage.path / PATHS, ReasoningPath)
    judged = join_verdicts(paths, JsonlRows(stage.path / VERDICTS, Verdict))
    state = state.absorb(judged, models.accepts)
    state.save(stage.path)
    config, _ = train_config([])
    loop = SimpleNamespace(
        state=state,
        state_stage=None,
        stage=stage,
        problems=RunProblems(source),
        models=models,
        judged=judged,
        config=config,
    )
    counts = measure.count_rows(loop)  # type: ignore[arg-type]
    state = EvolutionState.load(stage.path, state.problems)
    assert len(state.remaining) + counts["train_rows"] == made.size
    stage.finish({"stage": "round_01", **counts})
    final = run.stage("final", ("data",), [stage])
    final.begin()
    for name in ("train.jsonl", "incorrect.jsonl"):
        stages.carry_on(stage.path / name, final.path / name)
    final.finish({"stage": "final", "train_rows": counts["train_rows"]})
    print(f"{time.process_time() - begun:.1f}")
    run.close()


COMMANDS = {
    "lineage": lambda made: ["lineage", str(made.run), "--all", "--json"],
    "report": lambda made: ["report", str(made.run), "--out", str(made.folder / "report.html")],
}


def measured(step: str, made: Made) -> tuple[float, float]:
    """(CPU seconds, peak GiB) of a step in a process of its own."""
    own = [__file__, str(made.size), "--only", step, "--folder", str(made.folder)]
    arguments = ["-m", "mathse", *COMMANDS[step](made)] if step in COMMANDS else own
    with open(made.folder / f"{step}.out", "wb") as out:
        child = subprocess.Popen([sys.executable, *arguments], stdout=out)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{step} of {made.size} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 50_000, 500_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--only", choices=("make", *STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        globals()[asked.only](Made(asked.folder, *asked.sizes))
        return
    print("| step | problems | CPU seconds | peak memory, GiB |\n|---|---|---|---|", flush=True)
    for size in asked.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            made = Made(Path(scratch), size)
            measured("make", made)
            for step in asked.steps:
                seconds, memory = measured(step, made)
                own = f" ({(made.folder / 'merge.out').read_text().strip()} open)" if step == "merge" else ""
                print(f"| {step} | {size:,} | {seconds:.1f}{own} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
