"""Finds a study's runs, and takes from each what is shown. A cell without a finished run is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mathse.errors import RunError
from mathse.reporting.report.compare import MISSING, comparable
from mathse.reporting.study.design import Design, programs
from mathse.reporting.study.marks import entry_of
from mathse.runs.layout import SUMMARY
from mathse.runs.reader import Run, read_head, read_run, runs_below

BOOKKEEPING = ("study", "variant")  # settings that name a run


@dataclass(frozen=True)
class Collected:
    """``runs``: variant -> its finished runs in the order of ``seeds``."""

    design: Design
    seeds: tuple[int, ...]
    runs: Mapping[str, Sequence[Run]]

    def values(self, variant: str, place: str) -> list[float | None]:
        """A measure by seed."""
        return [value(run, place) for run in self.runs[variant]]

    @cached_property
    def minutes(self) -> float:
        """Of all stages behind the table; one that several runs share counts once."""
        stages = {s.identity: s.manifest["wall_s"] for r in self._every_run() for s in r.stages}
        return sum(stages.values()) / 60

    @cached_property
    def commits(self) -> list[str]:
        """The versions of the program that made the stages, the most frequent first."""
        made = Counter(str(s.manifest.get("git") or "?") for r in self._every_run() for s in r.stages)
        return [commit for commit, _ in made.most_common()]

    @cached_property
    def differing(self) -> dict[str, dict[str, Any]]:
        """variant -> the settings in which the variants are not all alike."""
        settings = {v: _settings(runs[0]) for v, runs in self.runs.items()}
        keys = sorted({key for s in settings.values() for key in s})
        unlike = [k for k in keys if len({repr(s.get(k, MISSING)) for s in settings.values()}) > 1]
        return {v: {k: s[k] for k in unlike if k in s} for v, s in settings.items()}

    def as_json(self) -> dict[str, Any]:
        """``results.json``: every figure by variant and seed, so that a table can be checked without the runs."""
        return {
            "study": self.design.name,
            "seeds": self.seeds,
            "minutes": round(self.minutes, 1),
            "commits": self.commits,
            "variants": {
                variant: {
                    "settings": self.differing[variant],
                    "measures": {name: self.values(variant, at) for name, at in self.design.measures.items()},
                    "stages": {run.seed: run.summary.get("stages") for run in runs},
                    "orm": {run.seed: run.summary.get("orm") for run in runs},
                }
                for variant, runs in self.runs.items()
            },
        }

    def _every_run(self) -> list[Run]:
        return [run for runs in self.runs.values() for run in runs]


def collect(design: Design, root: Path, seeds: Sequence[int] | None = None) -> Collected:
    """The study's runs below ``root``. Raises RunError that names each cell without a finished run, two runs for one
    cell, and runs of a variant whose settings differ."""
    found = _runs(design, root)
    wanted = tuple(seeds or sorted({seed for _, seed in found}))
    missing = [f"{v}, seed {s}" for v in design.variants for s in wanted if (v, s) not in found]
    if missing or not wanted:
        what = "; ".join(missing) or "any variant"
        listed = ",".join(map(str, wanted)) or "1,2,3"
        raise RunError(
            f"study {design.name}: no finished run in {root} of {what}; make them with: "
            f"{programs()[0]} '+experiment/{design.name}=glob(*)' seed={listed}"
        )
    runs = {v: [found[v, s] for s in wanted] for v in design.variants}
    for variant, members in runs.items():
        _check_alike(design.name, variant, members)
    of_orms = all(run.task == "orm" for members in runs.values() for run in members)
    return Collected(design.measured(of_orms), wanted, runs)


def value(run: Run, place: str) -> float | None:
    """``STAGE.KEY`` or ``orm.KEY`` of a run's summary; None where the run has no such stage, or no such figure of it.

    Raises RunError for a key that no stage has, or that is no number.
    """
    stage, _, key = place.partition(".")
    found = run.summary.get("orm") if stage == "orm" else entry_of(run, stage)
    if found is None:
        return None
    number = found.get(key)
    if key not in found or not (number is None or isinstance(number, int | float)):
        known = ", ".join(k for k, v in found.items() if isinstance(v, int | float))
        raise RunError(f"{run.folder / SUMMARY}: {place} is no figure of a run; name one of {stage}'s: {known}")
    return float(number) if number is not None else None


def _runs(design: Design, root: Path) -> dict[tuple[str, int], Run]:
    found: dict[tuple[str, int], Run] = {}
    for folder in runs_below([root]):
        config = read_head(folder)["config"]
        if config.get("study") != design.name or config.get("variant") not in design.variants:
            continue
        run = read_run(folder)
        cell = (str(config["variant"]), run.seed)
        if not run.finished:
            continue
        if cell in found:
            raise RunError(
                f"study {design.name}: two finished runs of {cell[0]}, seed {cell[1]}: {found[cell].folder} and "
                f"{run.folder} ({_unlike(found[cell], run) or 'with equal settings'}); move one out of {root}, or pass "
                "--runs"
            )
        found[cell] = run
    return found


def _unlike(one: Run, other: Run) -> str:
    """The first setting in which they differ, in words; empty where there is none."""
    before, after = _settings(one), _settings(other)
    key = next((k for k in sorted({*before, *after}) if before.get(k, MISSING) != after.get(k, MISSING)), None)
    return f"{key} is {before.get(key, MISSING)} and {after.get(key, MISSING)}" if key else ""


def _settings(run: Run) -> dict[str, Any]:
    return {key: v for key, v in comparable(run).items() if key not in BOOKKEEPING}


def _check_alike(study: str, variant: str, runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if unlike := _unlike(runs[0], run):
            raise RunError(
                f"study {study}: {variant} was not run alike with seeds {runs[0].seed} and {run.seed}: {unlike}; run "
                "one of them again"
            )
