"""Finds a study's runs, takes from each what is shown, and says how far two variants are apart.

A cell without a finished run is an error: a table must not say more than was run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.errors import DataError, RunError
from mathse.reporting.pages import NONE
from mathse.reporting.report.compare import comparable
from mathse.reporting.study.design import Design, programs
from mathse.runs.layout import ORM_HELD, PREDICTIONS, SUMMARY
from mathse.runs.ledger import name_seconds
from mathse.runs.reader import FinishedStage, Run, find_runs, read_head, read_run
from mathse.scoring.metrics import Interval, accepted, mean_interval
from mathse.scoring.resampling import paired_interval
from mathse.types import Verdict

SECONDS = ("cpu_seconds", "gpu_seconds")  # no part of a summary: two equal runs have equal ones
BOOKKEEPING = ("study", "variant")  # settings that name a run


@dataclass(frozen=True)
class Collected:
    """``runs``: variant -> its finished runs in the order of ``seeds``."""

    design: Design
    seeds: tuple[int, ...]
    runs: Mapping[str, Sequence[Run]]

    def values(self, variant: str, measure: str) -> list[float | None]:
        """A measure by seed."""
        return [value(run, measure) for run in self.runs[variant]]

    @cached_property
    def stages(self) -> list[FinishedStage]:
        """The stages of every run; a stage that several runs share comes once a run."""
        runs = chain.from_iterable(self.runs.values())
        return list(chain.from_iterable(run.stages for run in runs))

    @cached_property
    def minutes(self) -> float:
        """The time of all stages behind the table; a stage that several runs share counts once."""
        seconds = {stage.identity: stage.manifest["wall_s"] for stage in self.stages}
        return sum(seconds.values()) / 60

    @cached_property
    def commits(self) -> list[str]:
        """The versions of the program that made the stages, the most frequent first."""
        commits = Counter(str(stage.manifest.get("git") or "?") for stage in self.stages)
        return [commit for commit, _ in commits.most_common()]

    @cached_property
    def differing(self) -> dict[str, dict[str, Any]]:
        """variant -> the settings in which the variants are not all alike."""
        settings = {v: _settings(runs[0]) for v, runs in self.runs.items()}
        keys = sorted(set(chain.from_iterable(settings.values())))
        unlike = [k for k in keys if len({repr(s.get(k, NONE)) for s in settings.values()}) > 1]
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
                    "measures": {name: self.values(variant, measure) for name, measure in self.design.measures.items()},
                    "stages": {run.seed: run.entries for run in runs},
                    "orm": {run.seed: run.summary.get("orm") for run in runs},
                }
                for variant, runs in self.runs.items()
            },
        }


def collect(design: Design, root: Path, seeds: Sequence[int] | None = None) -> Collected:
    """The study's runs below ``root``. Raises RunError that names each cell without a finished run, two runs for one
    cell, and runs of a variant whose settings differ."""
    cells: dict[tuple[str, int], Run] = {}  # (variant, seed) -> its finished run
    for folder in find_runs([root]):
        config = read_head(folder)["config"]
        if config.get("study") != design.name or config.get("variant") not in design.variants:
            continue
        run = read_run(folder)
        if not run.finished:
            continue
        cell = (str(config["variant"]), run.seed)
        if cell in cells:
            raise RunError(
                f"study {design.name}: two finished runs of {cell[0]}, seed {cell[1]}: {cells[cell].folder} and "
                f"{run.folder} ({_unlike(cells[cell], run) or 'with equal settings'}); move one out of {root}, or pass "
                "--runs"
            )
        cells[cell] = run

    chosen = tuple(seeds or sorted({seed for _, seed in cells}))
    missing = [f"{v}, seed {s}" for v, s in product(design.variants, chosen) if (v, s) not in cells]
    if missing or not chosen:
        raise RunError(
            f"study {design.name}: no finished run in {root} of {'; '.join(missing) or 'any variant'}; make them with: "
            f"{programs()[0]} '+experiment/{design.name}=glob(*)' seed={','.join(map(str, chosen)) or '1,2,3'}"
        )
    runs = {v: [cells[v, s] for s in chosen] for v in design.variants}
    for variant, members in runs.items():
        for run in members[1:]:
            if unlike := _unlike(members[0], run):
                raise RunError(
                    f"study {design.name}: {variant} was not run alike with seeds {members[0].seed} and {run.seed}: "
                    f"{unlike}; run one of them again"
                )
    of_orms = all(run.task == "orm" for run in chain.from_iterable(runs.values()))
    return Collected(design.measured(of_orms), chosen, runs)


def value(run: Run, measure: str) -> float | None:
    """``STAGE.KEY`` or ``orm.KEY`` of a run's summary, or ``STAGE.cpu_seconds`` and ``gpu_seconds`` of its ledgers;
    None where the run has no such stage, or no such figure of it.

    Raises RunError for a key that no stage has, or that is no number.
    """
    stage, _, key = measure.partition(".")
    figures = run.summary.get("orm") if stage == "orm" else entry_of(run, stage)
    if figures is None:
        return None
    if key in SECONDS and stage != "orm":
        return name_seconds(figures["stage"], run.stages).get(key)
    number = figures.get(key)
    if key not in figures or not (number is None or isinstance(number, int | float)):
        known = ", ".join(k for k, v in figures.items() if isinstance(v, int | float))
        raise RunError(f"{run.folder / SUMMARY}: {measure} is no figure of a run; name one of {stage}'s: {known}")
    return float(number) if number is not None else None


def entry_of(run: Run, stage: str) -> Mapping[str, Any] | None:
    """A stage's figures in the run's summary (``last``: the last one's), or None."""
    entries = run.entries
    return next((e for e in entries if e["stage"] == stage), entries[-1] if stage == "last" and entries else None)


def _unlike(one: Run, other: Run) -> str:
    """The first setting in which they differ, as a sentence; empty where there is none."""
    before, after = _settings(one), _settings(other)
    key = next((k for k in sorted({*before, *after}) if before.get(k, NONE) != after.get(k, NONE)), None)
    return f"{key} is {before.get(key, NONE)} and {after.get(key, NONE)}" if key else ""


def _settings(run: Run) -> dict[str, Any]:
    return {key: v for key, v in comparable(run).items() if key not in BOOKKEEPING}


# --- differences ------------------------------------------------------------------------------------------------------
#
# Two variants are paired by seed, and answer by answer where a measure is a share of answers: two students answer the
# same test problems, and a paired interval is narrower than that of two independent shares. Where the run's files were
# not copied with it, the seeds alone are paired.


@dataclass(frozen=True)
class PairedDifference:
    """``after`` less ``before``: means over seeds, of shares or of counts. ``interval``: 95 %; None for a single seed
    without its answers."""

    before: float
    after: float
    interval: Interval | None
    bootstrap: bool  # over seeds and answers; else Student's t over seeds


def difference(
    before: Sequence[Run], after: Sequence[Run], measure: str, before_measure: str = ""
) -> PairedDifference | None:
    """Between runs of equal seeds, in that order; None where one side lacks the measure."""
    before_measure = before_measure or measure
    pairs = [(value(b, before_measure), value(a, measure)) for b, a in zip(before, after, strict=True)]
    known = [(b, a) for b, a in pairs if a is not None and b is not None]
    if len(known) < len(pairs):
        return None
    means = fmean(b for b, _ in known), fmean(a for _, a in known)
    _, by_seeds = mean_interval([a - b for b, a in known])

    # (gained, lost, all) of each pair of runs that answered the same; all pairs are read, so that a damaged file of any
    # is named.
    counts = []
    for run_before, run_after in zip(before, after, strict=True):
        was, now = right_answers(run_before, before_measure), right_answers(run_after, measure)
        if was and now and was.keys() == now.keys():
            counts.append((sum(now[k] and not was[k] for k in was), sum(was[k] and not now[k] for k in was), len(was)))
    if len(counts) == len(pairs):
        return PairedDifference(*means, paired_interval(counts), bootstrap=True)
    return PairedDifference(*means, by_seeds, bootstrap=False)


def right_answers(run: Run, measure: str) -> dict[str, bool] | None:
    """Problem or held-out path -> whether it was answered or judged rightly: what an accuracy is a share of.

    None where a measure is no share of answers, or the run's files are not here. Raises RunError or DataError where a
    file does not hold the answers that the run's summary counts.
    """
    name, _, key = measure.partition(".")
    if name == "orm" and key == "overall_accuracy":
        stage, file, count = run.stage("orm"), ORM_HELD, run.summary["orm"]["n"]
    elif key == "accuracy" and (entry := entry_of(run, name)) is not None:
        stage, file, count = run.stage(entry["stage"]), PREDICTIONS, entry["n"]
    else:
        return None
    if stage is None or not stage.is_here(file):
        return None
    right = stage.solved() if file == PREDICTIONS else _judged_rightly(stage, run.threshold)
    if len(right) != count:
        raise DataError(
            f"{stage.folder / file}: holds {len(right):,} answers, the run's {SUMMARY} counts {count:,}; copy it whole"
        )
    return right


def _judged_rightly(orm: FinishedStage, threshold: float) -> dict[str, bool]:
    """Held-out path -> whether the ORM accepts a right one or refuses a wrong one."""
    right = {}
    for number, row in orm.lines(ORM_HELD):
        try:
            is_right = row["label"]["status"] == "correct"
            right[row["path"]["id"]] = accepted(Verdict.from_json(row["verdict"]), threshold) == is_right
        except (KeyError, TypeError) as e:
            raise DataError(
                f"{orm.folder / ORM_HELD}:{number}: is no judged path as a run writes it ({e!r}); put the file back"
            ) from None
    return right
