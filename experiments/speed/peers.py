"""MathSE's fit, sampling and judging beside what its users run instead, in CPU time: one table.

    python experiments/speed/peers.py                                         # ours and the loop written by hand
    python experiments/speed/peers.py --venvs DIR --write                     # all sides, into peers.json and README.md
    python experiments/speed/peers.py --venvs DIR --write --tasks full,mixed  # these rows of the table anew

Each side is a process of its own, since what one has allocated or loaded would slow or speed up another. They take
turns step by step (``turns.py``), so that a busy neighbour slows all of them. DIR holds an environment a peer: trl,
llamafactory, swift; one that is not there is listed as absent. README.md says what is compared and how to make them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tiny_qwen2vl import LARGEST, SMALLEST, build
from turns import PIPE

from mathse.inference.prompts import judge_prompt
from mathse.seeds import derive
from mathse.types import Problem

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE / "README.md", HERE / "peers.json"
BEGIN, END = "<!-- peers.py writes the rest -->", "<!-- until here -->"
TITLES = {
    "ours": "ours",
    "plain": "by hand",
    "trl": "TRL",
    "llamafactory": "LLaMA-Factory",
    "swift": "ms-swift",
}
PACKAGES = {"trl": "trl", "llamafactory": "llamafactory", "swift": "ms_swift"}
WARM_UP = 2  # steps that are not counted: allocation, lazy initialisation, the first optimiser state
COMPARED = 10  # first steps whose losses must agree
PARITY, PARITY_BF16 = 1e-3, 2e-2  # largest difference of these losses, as a share; seen in float32: 4e-7
DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LOADED_AT = 2.5  # load average above which the table says that the machine was busy


@dataclass(frozen=True)
class Task:
    """A row of the table: what each side does, and what is asked of ours."""

    title: str
    kind: str = "fit"  # fit, sample, judge
    lora: bool = False
    bf16: bool = False
    frozen_tower: bool = False
    mixed: bool = False
    batch: int = 16
    micro: int = 16
    n: int = 1  # samples a prompt
    new_tokens: int = 64
    goals: dict[str, float] = field(default_factory=dict)  # by side: how many times as fast ours shall be


TASKS = {
    "full": Task("SFT, all weights", goals=dict.fromkeys(("plain", "trl", "llamafactory", "swift"), 1.0)),
    "lora": Task("SFT, LoRA of rank 8", lora=True, goals=dict.fromkeys(("plain", "trl", "llamafactory", "swift"), 1.0)),
    "bf16": Task("SFT, all weights, bf16", bf16=True, goals={"plain": 1.0}),
    "frozen": Task("SFT, frozen tower", frozen_tower=True, goals={"plain": 1.0}),
    "mixed": Task("SFT, mixed lengths", mixed=True, batch=64, goals={"trl": 1.4, "llamafactory": 1.4}),
    "sample": Task("sampling, n = 4", "sample", n=4, goals={"plain": 1.3}),
    "judge": Task("judging", "judge"),
}


class Side:
    """A process that does one step of a task at a time."""

    def __init__(self, name: str, python: Path, task: dict[str, Any], log: Path) -> None:
        self.name, self.log, self.steps = name, log, list[dict[str, Any]]()
        read, written = os.pipe()
        environment = {
            **os.environ, PIPE: str(written), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "USE_HF": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled",
            "TMPDIR": str(log.parent),  # a side is killed, so it cannot tidy up
        }  # fmt: skip
        if name == "ours":
            environment["PYTHONPATH"] = str(HERE.parents[1])
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [str(python), str(HERE / f"side_{name}.py"), json.dumps(task)],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, pass_fds=(written,), env=environment,
                text=True,
            )  # fmt: skip
        os.close(written)
        self.answers = os.fdopen(read)

    def answer(self) -> dict[str, Any] | None:
        """Its next answer; None where it has ended, which its log explains."""
        line = self.answers.readline()
        return json.loads(line) if line else None

    def step(self) -> bool:
        """One step; False where the side has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        if (done := self.answer()) is not None:
            self.steps.append(done)
        return done is not None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.answers.close()


def take_turns(task: Task, pythons: dict[str, Path], folder: Path, steps: int, logs: Path, **more: Any) -> list[Side]:
    """The sides of a task after ``steps`` steps of each; a side that ended before has fewer."""
    settings = {
        **vars(task), "folder": str(folder), "lr": 1e-3, "newline": False, "lora_modules": DECODER,
        "adapter_seed": derive(0, "adapter") % 2**63,  # as in our fit of seed 0
        "min_pixels": SMALLEST**2, "max_pixels": LARGEST**2, **more,
    }  # fmt: skip
    sides: list[Side] = []
    try:
        for name, python in pythons.items():  # one after the other: they would slow each other down
            print(f"  starting {TITLES[name]}", file=sys.stderr, flush=True)
            sides.append(side := Side(name, python, settings, logs / f"{name}.log"))
            side.answer()
        running = list(sides)
        for _ in range(steps):
            running = [side for side in running if side.step()]
            running = running[1:] + running[:1]  # who comes first changes
    finally:
        for side in sides:
            side.end()
    return sides


def check_losses(task: Task, sides: list[Side], folder: Path, logs: Path) -> dict[str, float]:
    """How far each side's first losses are from those that equal work gives, as a share.

    The peers also learn the newline behind the end token, and draw their adapters at seed 0; a loop by hand that does
    the same stands in for ours beside them.
    """
    reference = ours = next(side for side in sides if side.name == "ours")
    if any(side.name in PACKAGES for side in sides):
        python = {"plain": Path(sys.executable)}
        [reference] = take_turns(task, python, folder, COMPARED, logs, newline=True, adapter_seed=0)
    apart = {}
    for side in sides:
        wanted = ours if side.name in ("ours", "plain") else reference
        pairs = list(zip(side.steps[:COMPARED], wanted.steps[:COMPARED], strict=False))
        apart[side.name] = max((abs(a["loss"] / b["loss"] - 1) for a, b in pairs), default=0.0)
        if apart[side.name] > allowed(task):
            curves = [" ".join(f"{step['loss']:.4f}" for step in s.steps[:COMPARED]) for s in (side, wanted)]
            print(
                f"{TITLES[side.name]} is up to {apart[side.name]:.2%} from the loss of equal work:", *curves, sep="\n  "
            )
    return apart


def allowed(task: Task) -> float:
    return PARITY_BF16 if task.bf16 else PARITY


def measure(key: str, pythons: dict[str, Path], counted: int, work: Path) -> dict[str, Any]:
    """What peers.json holds of a task."""
    task, steps, load = TASKS[key], WARM_UP + counted, [os.getloadavg()[0]]
    print(task.title, file=sys.stderr, flush=True)
    folder = work / key
    [instructions, _] = judge_prompt(Problem("", "", ()), "", "full", see_answer=False)
    build(folder, task.batch * (steps + 1), task.mixed, instructions if task.kind == "judge" else "")
    able = {"fit": list(TITLES), "sample": ["ours", "plain"], "judge": ["ours"]}[task.kind]
    sides = take_turns(task, {n: python for n, python in pythons.items() if n in able}, folder, steps, work)
    load.append(os.getloadavg()[0])
    failed = {}
    for side in sides:
        if len(side.steps) < steps:
            failed[side.name] = f"ended after {len(side.steps)} steps"
            print(f"{TITLES[side.name]} {failed[side.name]}:", *side.log.read_text().splitlines()[-15:], sep="\n  ")
    if "ours" in failed:
        raise SystemExit(f"ours {failed['ours']}")
    sides = [side for side in sides if side.name not in failed]
    result: dict[str, Any] = {"steps": counted, "load": load, "failed": failed}
    if task.kind == "judge":
        [ours] = sides
        counted_steps = ours.steps[WARM_UP:]
        parts = ("write", "status_alone", "verdict_first", "analysis_first", "write_4", "status_of_4")
        medians = {part: median(step[part] for step in counted_steps) for part in parts}
        tokens = {name: median(step[name] for step in counted_steps) for name in ("prompt", "judged_prompt", "wrong")}
        return {**result, "cpu_ms": medians, **tokens}
    if task.kind == "fit" and not task.mixed:  # mixed: each side groups rows in its own way
        result["apart"] = check_losses(task, sides, folder, work)
        failed |= {name: "does other work" for name, apart in result["apart"].items() if apart > allowed(task)}
    result["cpu_ms"] = {side.name: median(step["cpu_ms"] for step in side.steps[WARM_UP:]) for side in sides}
    result["page_faults"] = {side.name: median(step["page_faults"] for step in side.steps[WARM_UP:]) for side in sides}
    result["tokens_a_cpu_s"] = {
        side.name: 1000 * sum(step["tokens"] for step in side.steps[WARM_UP:])
        / sum(step["cpu_ms"] for step in side.steps[WARM_UP:])
        for side in sides
    }  # fmt: skip
    return result


def table_row(key: str, result: dict[str, Any]) -> list[str]:
    """Each side's figure, and in brackets how many times ours is as fast."""
    task = TASKS[key]
    # a step of each side is the same work, where all take the same rows
    equal = task.kind == "fit" and not task.mixed
    figures = result["cpu_ms"] if equal else result["tokens_a_cpu_s"]
    row = [task.title, "CPU ms a step" if equal else "tokens a CPU s"]
    for name in TITLES:
        if name in result["failed"]:
            row.append(result["failed"][name])
        elif name not in figures:
            row.append("")
        else:
            ratio = figures[name] / figures["ours"] if equal else figures["ours"] / figures[name]
            row.append(f"{figures[name]:,.0f}" + ("" if name == "ours" else f" ({ratio:.2f})"))
    goals: dict[float, list[str]] = {}
    for name, goal in task.goals.items():
        goals.setdefault(goal, []).append(TITLES[name])
    row.append("; ".join(f"{goal} of {', '.join(titles)}" for goal, titles in goals.items()))
    return [*row, f"{min(result['load']):.1f}-{max(result['load']):.1f}"]


def markdown(results: dict[str, Any]) -> list[str]:
    """The part of README.md that is made from peers.json."""
    tasks: dict[str, dict[str, Any]] = {key: results["tasks"][key] for key in TASKS if key in results["tasks"]}
    lines = [", ".join(f"{name} {version}" for name, version in results["versions"].items()) + "."]
    rows = [table_row(key, result) for key, result in tasks.items() if key != "judge"]
    if rows:
        heading = ["", "", *TITLES.values(), "goal", "load"]
        lines += ["", *(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))]
    if "judge" in tasks:
        judged = tasks["judge"]
        cpu, load = judged["cpu_ms"], max(judged["load"])
        write = cpu["write"]
        lines += [
            "",
            f"Judging (load {load:.1f}): writing 16 paths of 64 tokens, a problem each, takes {write:,.0f} CPU ms. "
            f"Judging 16 responses of about 75 tokens takes {cpu['status_alone'] / write:.2f} times that for a status "
            f"and P(correct) alone (`judge.explain=read`), {cpu['verdict_first'] / write:.2f} times with an "
            f"explanation of the {judged['wrong']:.0%} called wrong behind it, and "
            f"{cpu['analysis_first'] / write:.2f} times with 64 tokens of analysis before it (goal: at most 1). A "
            f"prompt is of {judged['prompt']:.0f} tokens, the judge's, which holds the path, of "
            f"{judged['judged_prompt']:.0f}. Four paths of each of four problems: "
            f"{cpu['status_of_4'] / cpu['write_4']:.2f} times writing them, for the status.",
        ]
    apart = [
        f"{TASKS[key].title}: " + ", ".join(f"{TITLES[n]} {a:.0e}" for n, a in result["apart"].items() if n != "ours")
        for key, result in tasks.items()
        if "apart" in result
    ]
    if apart:
        lines += ["", f"Largest difference of the first {COMPARED} losses, as a share: {'; '.join(apart)}."]
    steps = sorted({result["steps"] for result in tasks.values()})
    busy = [key for key, result in tasks.items() if max(result["load"]) > LOADED_AT]
    lines += [
        "",
        f"Medians of {' or '.join(map(str, steps))} steps; load averages of a machine with {os.cpu_count()} cores.",
    ]
    if busy:
        lines[-1] += " Where others were busy on it, CPU time is up to a third more, on all sides: ratios count."
    return lines


def versions(pythons: dict[str, Path]) -> dict[str, str]:
    """Of ours and the loop by hand, then of each peer with what it runs on."""
    of_all = {package: importlib.metadata.version(package) for package in ("torch", "transformers")}
    for name, package in PACKAGES.items():
        if name in pythons:
            code = f"import importlib.metadata as m; print(*map(m.version, ('{package}', 'transformers')))"
            out = subprocess.run([str(pythons[name]), "-c", code], capture_output=True, text=True, check=True).stdout
            of_all[TITLES[name]] = "{} (transformers {})".format(*out.split())
    return of_all


def main() -> None:
    parser = argparse.ArgumentParser(description="MathSE beside TRL, LLaMA-Factory, ms-swift and a loop by hand")
    parser.add_argument("--sides", default=",".join(TITLES), help=f"of {','.join(TITLES)}")
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {','.join(TASKS)}")
    parser.add_argument("--venvs", type=Path, help="folder of the peers' environments: trl, llamafactory, swift")
    parser.add_argument("--steps", type=int, default=12, help=f"of each side, after {WARM_UP} that are not counted")
    parser.add_argument("--write", action="store_true", help="put the figures into peers.json and README.md")
    args = parser.parse_args()
    args.tasks, sides = args.tasks.split(","), args.sides.split(",")
    if unknown := [*({*args.tasks} - {*TASKS}), *({*sides} - {*TITLES})]:
        parser.error(f"there is no task or side {unknown[0]!r}")
    if "ours" not in sides:
        parser.error("--sides needs ours, which the others are compared with")
    if args.steps < COMPARED - WARM_UP:
        parser.error(f"--steps is at least {COMPARED - WARM_UP}: the losses of {COMPARED} steps are compared")
    pythons: dict[str, Path] = {}
    for name in (name for name in TITLES if name in sides):
        python = Path(sys.executable) if name not in PACKAGES else (args.venvs or HERE) / name / "bin" / "python"
        if python.exists():
            pythons[name] = python
        else:
            print(f"absent: {TITLES[name]} ({python})", file=sys.stderr)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"versions": {}, "tasks": {}}
    results["versions"] |= versions(pythons)
    with tempfile.TemporaryDirectory() as work:
        for key in args.tasks:
            results["tasks"][key] = measure(key, pythons, args.steps, Path(work))
            print(*markdown({**results, "tasks": {key: results["tasks"][key]}}), sep="\n", flush=True)
            if args.write:  # at once: a later task may fail
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                text = README.read_text()
                before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
                README.write_text("\n".join([before, "", *markdown(results), "", after]))


if __name__ == "__main__":
    main()
