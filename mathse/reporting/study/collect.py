"""Finds a study's runs, reads their figures, and computes the difference of two variants.

A cell without a finished run is an error: every cell of a table comes from a run.
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
from mathse.reporting.report.compare import comparable_settings
from mathse.reporting.study.design import Design, study_commands
from mathse.runs.layout import ORM_HELD, PREDICTIONS, SUMMARY
from mathse.runs.ledger import name_seconds
from mathse.runs.reader import FinishedStage, Run, find_runs, read_head, read_run
from mathse.scoring.metrics import Interval, accepted, mean_interval
from mathse.scoring.resampling import paired_interval
from mathse.types import Verdict

SECONDS = ("cpu_seconds", "gpu_seconds")  # read from the ledgers: equal runs have equal summaries, without times
BOOKKEEPING = ("study", "variant")  # settings that only name a run


@dataclass(frozen=True)
class Collected:
    """``runs``: variant -> its finished runs in the order of ``seeds``."""

    design: Design
    seeds: tuple[int, ...]
    runs: Mapping[str, Sequence[Run]]

    def values(self, variant: str, measure: str) -> list[float | None]:
        """Return a measure for each seed."""
        return [read_measure(run, measure) for run in self.runs[variant]]

    @cached_property
    def stages(self) -> list[FinishedStage]:
        """The stages of every run. A stage that several runs share appears in each of them."""
        runs = chain.from_iterable(self.runs.values())
        return list(chain.from_iterable(run.stages for run in runs))

    @cached_property
    def minutes(self) -> float:
        """The wall time of all stages. A stage that several runs share counts once."""
        seconds = {stage.identity: stage.manifest["wall_s"] for stage in self.stages}
        return sum(seconds.values()) / 60

    @cached_property
    def commits(self) -> list[str]:
        """The commits of MathSE that made the stages, the most frequent first."""
        commits = Counter(str(stage.manifest.get("git") or "?") for stage in self.stages)
        return [commit for commit, _ in commits.most_common()]

    @cached_property
    def differing(self) -> dict[str, dict[str, Any]]:
        """Variant -> its values of the settings in which the variants differ."""
        settings = {v: _settings(runs[0]) for v, runs in self.runs.items()}
        differing_keys = []
        for key in sorted(set(chain.from_iterable(settings.values()))):
            if len({repr(values.get(key, NONE)) for values in settings.values()}) > 1:
                differing_keys.append(key)
        return {v: {key: values[key] for key in differing_keys if key in values} for v, values in settings.items()}

    def as_json(self) -> dict[str, Any]:
        """Return ``results.json``: every figure by variant and seed, to check a table without the runs."""
        variants: dict[str, dict[str, Any]] = {}
        for variant, runs in self.runs.items():
            variants[variant] = {
                "settings": self.differing[variant],
                "measures": {name: self.values(variant, measure) for name, measure in self.design.measures.items()},
                "stages": {run.seed: run.entries for run in runs},
                "orm": {run.seed: run.summary.get("orm") for run in runs},
            }
        return {
            "study": self.design.name,
            "seeds": self.seeds,
            "minutes": round(self.minutes, 1),
            "commits": self.commits,
            "variants": variants,
        }


def collect(design: Design, root: Path, seeds: Sequence[int] | None = None) -> Collected:
    """Collect the study's runs below ``root``.

    Raises RunError for cells without a finished run (it names each), for two runs of a cell, and for runs of a variant
    with different settings.
    """
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
                f"{run.folder} ({_first_difference(cells[cell], run) or 'with equal settings'}); move one out of "
                f"{root}, or pass --runs"
            )
        cells[cell] = run

    chosen = tuple(seeds or sorted({seed for _, seed in cells}))
    missing = [f"{v}, seed {s}" for v, s in product(design.variants, chosen) if (v, s) not in cells]
    if missing or not chosen:
        raise RunError(
            f"study {design.name}: no finished run in {root} of {'; '.join(missing) or 'any variant'}; make them with: "
            f"{study_commands()[0]} '+experiment/{design.name}=glob(*)' seed={','.join(map(str, chosen)) or '1,2,3'}"
        )
    runs = {v: [cells[v, s] for s in chosen] for v in design.variants}
    for variant, members in runs.items():
        for run in members[1:]:
            if setting := _first_difference(members[0], run):
                raise RunError(
                    f"study {design.name}: {variant} was not run alike with seeds {members[0].seed} and {run.seed}: "
                    f"{setting}; run one of them again"
                )
    trains_only_orms = all(run.task == "orm" for run in chain.from_iterable(runs.values()))
    return Collected(design.with_default_measures(trains_only_orms), chosen, runs)


def read_measure(run: Run, measure: str) -> float | None:
    """Return a figure of a run: ``STAGE.KEY`` or ``orm.KEY`` of its summary, ``STAGE.cpu_seconds`` of its ledgers.

    Returns None if the run has no such stage, or the stage has no value. Raises RunError for a key that the stage does
    not have, or that is no number.
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
    """Return a stage's figures in the run's summary; ``last`` is the last stage. None: the run has no such stage."""
    for entry in run.entries:
        if entry["stage"] == stage:
            return entry
    return run.entries[-1] if stage == "last" and run.entries else None


def _first_difference(first: Run, second: Run) -> str:
    """Write the first setting in which two runs differ: "seed is 1 and 2"; empty if their settings are equal."""
    before, after = _settings(first), _settings(second)
    for key in sorted({*before, *after}):
        if before.get(key, NONE) != after.get(key, NONE):
            return f"{key} is {before.get(key, NONE)} and {after.get(key, NONE)}"
    return ""


def _settings(run: Run) -> dict[str, Any]:
    return {key: v for key, v in comparable_settings(run).items() if key not in BOOKKEEPING}


# --- differences ------------------------------------------------------------------------------------------------------
#
# Two variants are paired by seed, and by answer if the measure is a share of answers: two students answer the same test
# problems, and a paired interval is narrower than the interval of two independent shares. If the files with the answers
# are missing, only the seeds are paired.


@dataclass(frozen=True)
class PairedDifference:
    """The difference ``after`` - ``before`` of two means over seeds, of shares or of counts.

    ``interval``: 95 %; None for a single seed without its answers.
    """

    before: float
    after: float
    interval: Interval | None
    bootstrap: bool  # over seeds and answers; else Student's t over seeds


def compare_runs(
    before: Sequence[Run], after: Sequence[Run], measure: str, before_measure: str = ""
) -> PairedDifference | None:
    """Compare runs of equal seeds, in the same order. None: a run lacks the measure."""
    before_measure = before_measure or measure
    pairs = [(read_measure(b, before_measure), read_measure(a, measure)) for b, a in zip(before, after, strict=True)]
    known = [(b, a) for b, a in pairs if a is not None and b is not None]
    if len(known) < len(pairs):
        return None
    means = fmean(b for b, _ in known), fmean(a for _, a in known)
    _, by_seeds = mean_interval([a - b for b, a in known])

    # (gained, lost, all) for each pair of runs with the same problems. All pairs are read, so that an error names a
    # damaged file in any of them.
    counts = []
    for run_before, run_after in zip(before, after, strict=True):
        was, now = right_answers(run_before, before_measure), right_answers(run_after, measure)
        if was and now and was.keys() == now.keys():
            gained = sum(now[k] and not was[k] for k in was)
            lost = sum(was[k] and not now[k] for k in was)
            counts.append((gained, lost, len(was)))
    if len(counts) == len(pairs):
        return PairedDifference(*means, paired_interval(counts), bootstrap=True)
    return PairedDifference(*means, by_seeds, bootstrap=False)


def right_answers(run: Run, measure: str) -> dict[str, bool] | None:
    """Return problem (or held-out path) -> whether the answer (or the verdict) is right, for an accuracy.

    Returns None if the measure is no share of answers, or the files are missing. Raises RunError or DataError if a file
    does not hold the answers that the run's summary counts.
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
    right = stage.solved() if file == PREDICTIONS else _right_verdicts(stage, run.threshold)
    if len(right) != count:
        raise DataError(
            f"{stage.folder / file}: holds {len(right):,} answers, the run's {SUMMARY} counts {count:,}; copy it whole"
        )
    return right


def _right_verdicts(orm: FinishedStage, threshold: float) -> dict[str, bool]:
    """Return held-out path -> whether the ORM's decision agrees with its label."""
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
