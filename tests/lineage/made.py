"""Finished runs whose lineage tests look into; each is the smallest of its kind, and every stage merges something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.runs import SIZES, TINY, killed, run
from small import picture

from mathse.runs.store import write_jsonl

CHANCE = (*SIZES, "judge=random", "distill.judge=random", "judge.rate=0.6", "distill.size=8")


def own_problems(folder: Path, count: int = 40) -> Path:
    """A file of problems with one picture, two pictures or none, with ids that need care."""
    folder.mkdir(parents=True)
    for k in range(5):
        picture(56, 28 + 28 * (k % 2), seed=k).save(folder / f"{k}.png")
    write_jsonl(folder / "own.jsonl", [_row(k) for k in range(count)])
    return folder / "own.jsonl"


def _row(k: int) -> dict[str, Any]:
    shown = [[f"{k % 5}.png"], [f"{k % 5}.png", f"{(k + 1) % 5}.png"], []][k % 3]
    name = ["angle", 'an "angle"', "角", "a\\b"][k % 4]
    return {"id": f"{name}/{k}", "question": f"What is angle {k}?", "images": shown, "answer": str(k)}


def embedded(folder: Path) -> Path:
    """Two rounds with a reflection after each, two tries at a rewrite, written by the student."""
    how = ("evolution.rounds=2", "evolution.reflect.when=every", "evolution.reflect.tries=2")
    run(folder, *TINY, *how, "evolution.reflect.writer=student")
    return folder


def own(problems: Path) -> tuple[str, ...]:
    return (*CHANCE, "data=jsonl", f"data.path={problems}", "teacher=replay", "evolution.reflect.feedback=orm")


def killed_twice(folder: Path, problems: Path) -> Path:
    """A run over own problems, whose process dies in its base stage and in a later one."""
    for writes in (40, 150):
        assert killed(lambda: run(folder, *own(problems)), at=writes)
        assert not (folder / "summary.json").exists()
    run(folder, *own(problems))
    return folder


def branched(folder: Path, source: Path, problems: Path) -> Path:
    """A run that takes all stages but the last from another one's folder."""
    run(folder, *own(problems), "evolution.reflect.all_drafts=true", "resume=branch", f"resume_from=[{source}]")
    return folder


def nothing_merged(folder: Path) -> Path:
    """The judge accepts no path of a student, so the distilled one is carried on to the end."""
    run(folder, *TINY, "judge.rate=0")
    return folder


def mixed(folder: Path, problems: Path, geometry: Path) -> Path:
    """A mixture of a published set and own problems; the student teaches itself."""
    run(
        folder,
        *CHANCE,
        "teacher=student",
        "data=mixture",
        "+data@data.sources.geo=geometry3k",
        f"data.sources.geo.root={geometry}",
        "+data@data.sources.own=jsonl",
        f"data.sources.own.path={problems}",
        "data.weights={geo: 1, own: 2}",
    )
    return folder
