"""What a run came to: is anything lost, or there twice, and what did it cost, stage by stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine import RECORD
from lives import AT_THE_END, STAGES, Watched

TIMED = "train_log.jsonl"  # tokens a second stand in it
WITH_TRAIN = ("distill", "round_01", "round_02", "reflection", "final")


def checked(run: Path, answered: Sequence[Path], stored: Path) -> dict[str, Any]:
    """Counts of paths, rows and answers. Raises SystemExit where something is lost, or there twice.

    Args:
        answered: the stand-ins' records, see engine.py.
        stored: the folder of answers by their requests.
    """
    wrong: list[str] = []
    paths_of: dict[str, int] = {}
    for paths in sorted(run.rglob("paths.jsonl")):
        ids = [row["id"] for row in _rows(paths)]
        paths_of[str(paths.parent.relative_to(run))] = len(ids)
        if len(set(ids)) < len(ids):
            wrong.append(f"{paths}: a path twice")
        verdicts = paths.with_name("verdicts.jsonl")
        if verdicts.exists() and sorted(row["path_id"] for row in _rows(verdicts)) != sorted(ids):
            wrong.append(f"{verdicts}: not one verdict for each of {paths}")

    # D_SFT grows, a problem once, and no round tries what is solved.
    before: set[str] = set()
    train_rows: dict[str, int] = {}
    for name in WITH_TRAIN:
        file = run / name / "train.jsonl"
        problems = [row["problem_id"] for row in _rows(file)]
        train_rows[name] = len(problems)
        if len(set(problems)) < len(problems):
            wrong.append(f"{file}: a problem twice")
        if not before <= set(problems):
            wrong.append(f"{file}: rows of the stage before are gone")
        if name.startswith("round") and any(row["problem_id"] in before for row in _rows(run / name / "paths.jsonl")):
            wrong.append(f"{name}: a solved problem is tried again")
        before = set(problems)

    # What was answered twice was under way when the client was killed, or its engine: its first answer came to nobody.
    answers: Counter[bytes] = Counter()
    for file in answered:
        data = file.read_bytes() if file.exists() else b""
        answers.update(data[k : k + RECORD] for k in range(0, len(data) - RECORD + 1, RECORD))
    count = sum(1 for file in stored.glob("??/*.json"))
    if count != len(answers):
        wrong.append(f"{stored}: {count:,} answers are stored, and {len(answers):,} different ones were given")
    if wrong:
        raise SystemExit("\n".join(wrong))
    return {
        "paths": paths_of,
        "train_rows": train_rows,
        "answers": answers.total(),
        "answered_twice": answers.total() - len(answers),
    }


def by_stage(run: Path, watched: Watched, slots: int) -> list[dict[str, Any]]:
    """A line a stage. ``slots``: of all engines."""
    lines = []
    for stage in (*STAGES, AT_THE_END):
        file = run / stage / "stage.json"
        recorded = json.loads(file.read_text())["time_s"] if file.exists() else {}
        wall = watched.wall[stage]
        lines.append(
            {
                "stage": stage,
                "wall_s": round(wall, 1),
                **{f"{kind}_s": round(seconds, 1) for kind, seconds in recorded.items()},
                "answers": watched.answers[stage],
                "slots_busy": round(watched.busy[stage] / (slots * wall), 3) if wall else None,
                "client_cpu_s": round(watched.cpu[stage], 1),
                "client_MiB": watched.memory.get(stage, 0) // 2**20,
            }
        )
    return lines


def size(folder: Path) -> dict[str, float]:
    """Files, and the gigabytes that they take on the disk."""
    states = [file.stat() for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    taken = {(state.st_dev, state.st_ino): state.st_blocks * 512 for state in states}
    return {"files": len(states), "GB": round(sum(taken.values()) / 1e9, 3)}


def compared(run: Path, other: Path) -> dict[str, Any]:
    """The files that stages of two runs list, checkpoints among them: how many, and which of them differ."""
    one, two = _outputs(run), _outputs(other)
    names = sorted(one.keys() | two.keys())
    return {
        "files_compared": len(names),
        "files_that_differ": [name for name in names if one.get(name) != two.get(name)],
    }


def _outputs(run: Path) -> dict[str, Any]:
    return {
        f"{stage}/{name}": output
        for stage in STAGES
        for name, output in json.loads((run / stage / "stage.json").read_text())["outputs"].items()
        if name != TIMED
    }


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, encoding="utf-8") as lines:
        yield from map(json.loads, lines)
