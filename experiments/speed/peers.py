"""MathSE's fit, sampling and judging beside what its users run instead, in CPU time: one table.

    python experiments/speed/peers.py                                         # ours and the loop written by hand
    python experiments/speed/peers.py --venvs DIR --write                     # all sides; the table goes into README.md
    python experiments/speed/peers.py --tasks full,mixed --sides ours,trl --venvs DIR

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

from mathse.seeds import derive

HERE = Path(__file__).resolve().parent
README, BEGIN, END = HERE / "README.md", "<!-- peers.py writes the rest -->", "<!-- until here -->"
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
PARITY = 0.01  # largest difference of these losses, as a share; equal work in float32 is within 1e-5
DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LOADED_AT = 2.5  # load average above which a table says that it is not one to rely on


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
    goals: dict[str, float] = field(default_factory=dict)  # by side: our rate as a multiple of its rate


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
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
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
        "min_pixels": SMALLEST**2, "max_pixels": LARGEST**2, "keep_freed_memory": True, **more,
    }  # fmt: skip
    sides = []
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


def check_losses(task: Task, sides: list[Side], folder: Path, logs: Path) -> str:
    """Whether all sides did the same work: a sentence. Raises SystemExit where one did not.

    The peers also learn the newline behind the end token, and draw their adapters at seed 0; a loop by hand that does
    the same stands in for ours beside them.
    """
    python = {"plain": Path(sys.executable)}
    peers = [side for side in sides if side.name in PACKAGES and side.steps]
    of_ours = next(side for side in sides if side.name == "ours")
    reference = of_ours
    if peers:
        [reference] = take_turns(task, python, folder, COMPARED, logs, newline=True, adapter_seed=0)
    furthest = []
    for side in sides:
        wanted = of_ours if side.name in ("ours", "plain") else reference
        pairs = list(zip(side.steps[:COMPARED], wanted.steps[:COMPARED], strict=False))
        apart = max((abs(a["loss"] / b["loss"] - 1) for a, b in pairs), default=0.0)
        if apart > PARITY:
            curves = [" ".join(f"{step['loss']:.4f}" for step in s.steps[:COMPARED]) for s in (side, wanted)]
            print(f"{TITLES[side.name]} is up to {apart:.2%} from the loss it should have:", *curves, sep="\n  ")
            raise SystemExit("the sides do different work, so their times mean nothing")
        if side is not of_ours and side.steps:
            furthest.append(f"{TITLES[side.name]} {apart:.0e}")
    return f"{task.title}: {', '.join(furthest)}"


def rate(side: Side) -> float:
    """Real tokens a CPU second."""
    counted = side.steps[WARM_UP:]
    if not counted:
        return 0.0
    return 1000 * sum(step["tokens"] for step in counted) / sum(step["cpu_ms"] for step in counted)


def cells(task: Task, sides: list[Side], names: list[str]) -> list[str]:
    """The table's row: each side's figure, and ours as a multiple of its rate."""
    by_name = {side.name: side for side in sides if len(side.steps) > WARM_UP}
    equal = task.kind == "fit" and not task.mixed  # a step of each side is the same work
    ours = by_name["ours"]
    row = [task.title, "CPU ms a step" if equal else "tokens a CPU s"]
    for name in names:
        if name not in by_name:
            row.append("")
            continue
        side = by_name[name]
        ms = median(step["cpu_ms"] for step in side.steps[WARM_UP:])
        text = f"{ms:,.0f}" if equal else f"{rate(side):,.0f}"
        if name != "ours":
            ratio = ms / median(step["cpu_ms"] for step in ours.steps[WARM_UP:]) if equal else rate(ours) / rate(side)
            text += f" ({ratio:.2f})"
        row.append(text)
    goals: dict[float, list[str]] = {}
    for name, goal in task.goals.items():
        goals.setdefault(goal, []).append(TITLES[name])
    row.append("; ".join(f"{goal} of {', '.join(titles)}" for goal, titles in goals.items()))
    return row


def judging(side: Side) -> list[str]:
    """Judging a path, as a multiple of writing it."""
    counted = side.steps[WARM_UP:]
    written = median(step["write"] for step in counted)
    ratios = {order: median(step[order] for step in counted) / written for order in ("verdict_first", "analysis_first")}
    return [
        "",
        f"Writing 16 paths of 64 tokens takes {written:,.0f} CPU ms; judging 16 responses of about 100 tokens takes "
        f"{ratios['verdict_first']:.2f} times that where the status comes first (one pass), and "
        f"{ratios['analysis_first']:.2f} times with 64 tokens of analysis before it (goal: at most 1).",
    ]


def compare(args: argparse.Namespace, pythons: dict[str, Path], absent: list[str], work: Path) -> list[str]:
    """The lines that README.md shows."""
    names = list(pythons)
    table = [["", "", *(TITLES[name] for name in names), "goal"]]
    losses, after, loads, failed = [], [], [os.getloadavg()[0]], []
    for key in args.tasks:
        task = TASKS[key]
        print(task.title, file=sys.stderr, flush=True)
        folder, steps = work / key, WARM_UP + args.steps
        build(folder, max(task.batch * (steps + 1), 2 * task.batch), task.mixed)
        able = {name: python for name, python in pythons.items() if task.kind == "fit" or name in ("ours", "plain")}
        if task.kind == "judge":
            able = {name: python for name, python in able.items() if name == "ours"}
        sides = take_turns(task, able, folder, steps, work)
        for side in sides:
            if len(side.steps) < steps:
                lines = side.log.read_text().splitlines()
                print(f"{TITLES[side.name]} ended after {len(side.steps)} steps:", *lines[-15:], sep="\n  ")
                if side.name == "ours":
                    raise SystemExit("ours ended before the others")
                failed.append(f"{TITLES[side.name]} ({task.title})")
        if task.kind == "judge":
            after += judging(sides[0])
        else:
            if task.kind == "fit" and not task.mixed:  # mixed: each side groups rows in its own way
                losses.append(check_losses(task, sides, folder, work))
            table.append(cells(task, sides, names))
        loads.append(os.getloadavg()[0])
        show(table[-1:])
    versions = [f"{package} {importlib.metadata.version(package)}" for package in ("torch", "transformers")]
    versions += [f"{TITLES[name]} {version(python, name)}" for name, python in pythons.items() if name in PACKAGES]
    busy = "" if max(loads) < LOADED_AT else " (a busy machine: a first look, not the last word)"
    load = f"load average {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores{busy}"
    lines = [f"{', '.join(versions)}; {args.steps} steps; {load}."]
    lines += ["", *markdown(table), *after]
    if losses:
        lines += ["", "Largest difference of the first ten losses, as a share: " + "; ".join(losses) + "."]
    if absent or failed:
        lines += ["", f"Absent: {', '.join(absent) or 'none'}. Failed: {', '.join(failed) or 'none'}."]
    return lines


def version(python: Path, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{PACKAGES[name]}'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def markdown(table: list[list[str]]) -> list[str]:
    rule = "|".join(["---"] * len(table[0]))
    return [f"| {' | '.join(table[0])} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in table[1:])]


def show(rows: list[list[str]]) -> None:
    for row in rows:
        print("  " + " | ".join(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="MathSE beside TRL, LLaMA-Factory, ms-swift and a loop by hand")
    parser.add_argument("--sides", default=",".join(TITLES), help=f"of {','.join(TITLES)}")
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"of {','.join(TASKS)}")
    parser.add_argument("--venvs", type=Path, help="folder of the peers' environments: trl, llamafactory, swift")
    parser.add_argument("--steps", type=int, default=12, help=f"of each side, after {WARM_UP} that are not counted")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    args = parser.parse_args()
    args.tasks, sides = args.tasks.split(","), args.sides.split(",")
    if unknown := [*({*args.tasks} - {*TASKS}), *({*sides} - {*TITLES})]:
        parser.error(f"there is no task or side {unknown[0]!r}")
    if "ours" not in sides:
        parser.error("--sides needs ours, which the others are compared with")
    if args.steps < COMPARED - WARM_UP:
        parser.error(f"--steps is at least {COMPARED - WARM_UP}: the losses of {COMPARED} steps are compared")
    pythons, absent = {}, []
    for name in (name for name in TITLES if name in sides):
        python = Path(sys.executable) if name not in PACKAGES else (args.venvs or HERE) / name / "bin" / "python"
        if python.exists():
            pythons[name] = python
        else:
            absent.append(TITLES[name])
    with tempfile.TemporaryDirectory() as work:
        lines = compare(args, pythons, absent, Path(work))
    print(*lines, sep="\n")
    if args.write:
        text = README.read_text()
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        README.write_text("\n".join([before, "", *lines, "", after]))


if __name__ == "__main__":
    main()
