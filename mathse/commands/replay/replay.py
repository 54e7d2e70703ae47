"""Repeat the merges of a run, by its recorded rules and by other rules, with the code of the evolution loop.

Two replays read the same stored paths. The first must give the rows of the run's train.jsonl files. The second shows
the effect of the other rules. A stage is exact as long as D_SFT and R_incorrect before it are the same in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mathse.commands.replay.rules import Decider, Rules
from mathse.data.sources import problem_lookup
from mathse.errors import DataError, MathSEError
from mathse.evolution.state import EvolutionState, Judged, Keep, join_verdicts, select_pending
from mathse.runs.layout import PATHS, REFLECTIONS, RUN, TRAIN, VERDICTS
from mathse.runs.reader import FinishedStage, Run, read_run
from mathse.scoring.metrics import accepted, decide
from mathse.types import Problem, ReasoningPath, Reflection, Verdict

MERGE_CALLBACK = "MergeCorrectPaths"  # the callback that is replayed here
REQUIRED_SETTINGS = (
    "judge.name",
    "judge.threshold",
    "distill.judge",
    "evolution.keep",
    "evolution.reflect.all_drafts",
    "evolution.reflect.tries",
    "data._target_",
)


@dataclass(frozen=True)
class MergeCounts:
    """Counts of one merge. ``precision``: the share of accepted paths with the reference answer."""

    judge: str
    paths: int
    accepted: int
    rejected: int
    unparsed: int
    precision: float | None
    merged: int  # rows added to D_SFT
    train_rows: int  # rows of D_SFT after the merge


@dataclass(frozen=True)
class StageChange:
    """A stage by the recorded rules (``then``) and by the other rules (``now``).

    Attributes:
        gained, lost: ids of rows of D_SFT after the stage that only one of the two has.
        missing: problems (in a reflection: drafts) that would be open again and have no stored path.
        unused: stored paths that would not have been made.
    """

    stage: str
    then: MergeCounts
    now: MergeCounts
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    exact: bool
    missing: int
    unused: int


@dataclass(frozen=True)
class ReplayResult:
    """All stages, and the rows of D_SFT after the last stage."""

    run: Path
    then: Rules
    now: Rules
    stages: tuple[StageChange, ...]
    train: Sequence[ReasoningPath]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the contents of whatif.json."""
        return {
            "then": asdict(self.then),
            "now": asdict(self.now),
            "stages": [asdict(stage) for stage in self.stages],
            "notes": list(self.notes),
        }


def replay_run(folder: Path, overrides: Sequence[str] = ()) -> ReplayResult:
    """Repeat the run's merges by its recorded rules and by those of ``overrides``.

    Raises RunError for a folder without a run, ConfigError for an override, DataError for incomplete files.
    """
    run = read_run(folder)
    if missing := [key for key in REQUIRED_SETTINGS if key not in run.settings]:
        raise DataError(
            f"{run.folder / RUN}: records no {', '.join(missing)}, by which its merges were made; put the file "
            "back, or pass another run"
        )
    then = Rules.of_run(run.config)
    now = then.apply(overrides)
    # A run without the merge callback has no merges to replay.
    callbacks = run.config.get("callbacks") or {}
    targets = [str(section.get("_target_", "")) for section in callbacks.values()]
    if targets and not any(target.endswith(f".{MERGE_CALLBACK}") for target in targets):
        raise DataError(
            f"{run.folder}: ran without the callback {MERGE_CALLBACK}, so it merged nothing that could be replayed"
        )
    notes: list[str] = []
    decider = Decider(_open_problems(run, notes), int(run.config["seed"]), then.rate)
    stored = list(_read_stages(run))
    if not stored:
        raise DataError(f"{folder}: no stage with judged paths is finished; continue the run to its distillation first")
    # All problems with a path, in the order of their first path.
    problem_ids: dict[str, None] = {}
    for stage in stored:
        problem_ids |= dict.fromkeys(item.path.problem_id for item in stage.items)
    problems = tuple(problem_ids)
    before, after = Replay(run, then, decider, problems), Replay(run, now, decider, problems)
    # The first replay must give the rows of the run's own files.
    stages = []
    for stage in stored:
        stages.append(_replay_stage(before, after, stage))
        rows = [row["id"] for row in stage.stage.rows(TRAIN)]
        if stage.stage.has(TRAIN) and [path.id for path in before.state.train] != rows:
            notes.append(
                f"{stage.stage.name}: its {TRAIN} has other rows than its settings and verdicts give; a callback of "
                "your own may have changed them, and is not replayed"
            )
    return ReplayResult(folder, then, now, tuple(stages), after.state.train, tuple(notes))


@dataclass(frozen=True)
class StoredStage:
    """A finished stage's paths with their verdicts. ``tries``: in a reflection, the number of each rewrite's try."""

    stage: FinishedStage
    items: tuple[Judged, ...]
    tries: tuple[int, ...] = ()

    @property
    def is_reflection(self) -> bool:
        return self.stage.has(REFLECTIONS)


class Replay:
    """The state of Algorithm 1 under ``rules``, from stage to stage."""

    def __init__(self, run: Run, rules: Rules, decider: Decider, problems: tuple[str, ...]) -> None:
        self.rules, self.decider = rules, decider
        self.reflecting: Mapping[str, Any] = run.config["evolution"]["reflect"]
        self.resamples = run.config["evolution"].get("resample", "never") != "never"
        self.state = EvolutionState(problems)
        self.missing = self.unused = 0  # in the last stage

    @property
    def solved(self) -> set[str]:
        return {path.problem_id for path in self.state.train}

    @property
    def rows(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of D_SFT and of R_incorrect."""
        return tuple(p.id for p in self.state.train), tuple(i.path.id for i in self.state.incorrect)

    def accepts(self, verdict: Verdict) -> bool:
        return accepted(verdict, self.rules.threshold)

    def merge(self, stored: StoredStage) -> MergeCounts:
        """Judge and merge a stage's paths."""
        judge = self.rules.distill_judge if stored.stage.name == "distill" else self.rules.judge
        keep: Keep = int(self.rules.keep) if self.rules.keep.isdigit() else self.rules.keep  # type: ignore[assignment]
        renew = self.resamples and not stored.is_reflection and stored.stage.name != "distill"
        if stored.is_reflection:
            judged = self._judge_rewrites(judge, stored)
            keep = "all" if self.reflecting["all_drafts"] else keep
        elif renew:
            judged = [self._decide(judge, item) for item in stored.items]
        else:  # a solved problem gets no further paths
            solved = self.solved
            judged = [self._decide(judge, item) for item in stored.items if item.path.problem_id not in solved]
            self.missing = 0  # only the comparison with the run's own state shows them
        before = len(self.state.train)
        self.state = self.state.absorb(judged, self.accepts, keep, renew)
        self.unused = len(stored.items) - len(judged)

        # The reference answers decide which accepted paths are right.
        taken = [item.path for item in judged if self.accepts(item.verdict)]
        right = [is_right for path in taken if (is_right := self.decider.is_right(path)) is not None]
        decisions = Counter(decide(item.verdict, self.rules.threshold) for item in judged)
        return MergeCounts(
            judge,
            paths=len(judged),
            accepted=decisions["accepted"],
            rejected=decisions["rejected"],
            unparsed=decisions["unparsed"],
            precision=round(sum(right) / len(right), 6) if right else None,
            merged=len(self.state.train) - before,
            train_rows=len(self.state.train),
        )

    def _decide(self, judge: str, item: Judged) -> Judged:
        return Judged(item.path, self.decider.decide(judge, self.rules, item.path, item.verdict))

    def _judge_rewrites(self, judge: str, stored: StoredStage) -> list[Judged]:
        """Judge the rewrites of drafts that would be rewritten, try by try. An accepted rewrite ends the tries."""
        written = {
            (item.path.lineage.parent, attempt): item for item, attempt in zip(stored.items, stored.tries, strict=True)
        }
        drafts = self.state.to_reflect(bool(self.reflecting["all_drafts"]))
        judged: list[Judged] = []
        self.missing = 0
        for attempt in range(int(self.reflecting["tries"])):
            for draft in select_pending(drafts, judged, self.accepts):
                if (item := written.get((draft.path.id, attempt))) is None:
                    self.missing += 1
                else:
                    judged.append(self._decide(judge, item))
        # Sort by the position in the run's own file.
        order = {item.path.id: k for k, item in enumerate(stored.items)}
        return sorted(judged, key=lambda item: order[item.path.id])


def _replay_stage(before: Replay, after: Replay, stored: StoredStage) -> StageChange:
    """Merge a stage in both replays, and return the change."""
    # Problems that only the recorded rules had solved would be open again.
    same_start = before.rows == after.rows
    reopened = len(before.solved - after.solved)
    then, now = before.merge(stored), after.merge(stored)
    missing = after.missing if stored.is_reflection else reopened
    old, new = before.rows[0], after.rows[0]
    gained, lost = set(new) - set(old), set(old) - set(new)
    return StageChange(
        stored.stage.name,
        then,
        now,
        gained=tuple(i for i in new if i in gained),
        lost=tuple(i for i in old if i in lost),
        exact=same_start and (missing, after.unused) == (before.missing, before.unused),
        missing=missing,
        unused=after.unused,
    )


# --- the run's files --------------------------------------------------------------------------------------------------


def _read_stages(run: Run) -> Iterator[StoredStage]:
    """Yield the finished stages with a merge, in the order of the loop."""
    for stage in run.stages:
        if stage.name.startswith("orm"):
            continue
        paths: list[ReasoningPath] = list(stage.rows(PATHS, ReasoningPath))
        tries: list[int] = []
        if stage.has(REFLECTIONS):
            rewrites: list[Reflection] = list(stage.rows(REFLECTIONS, Reflection))
            paths = [rewrite.revised for rewrite in rewrites]
            count: Counter[str] = Counter()
            for rewrite in rewrites:  # the file is in the order of the tries
                tries.append(count[rewrite.draft.id])
                count[rewrite.draft.id] += 1
        elif not stage.has(PATHS):
            continue
        try:
            judged = tuple(join_verdicts(paths, list(stage.rows(VERDICTS, Verdict))))
        except KeyError as error:
            raise DataError(
                f"{stage.folder / VERDICTS}: has no verdict on {error.args[0]}; the run's files were changed"
            ) from None
        yield StoredStage(stage, judged, tuple(tries))


def _open_problems(run: Run, notes: list[str]) -> Any:
    """Return a lookup from an id to a Problem or None. Data that cannot be opened adds a note, and has no problem."""
    try:
        lookup = problem_lookup(run.config)
    except (MathSEError, OSError) as error:
        notes.append(f"the run's data cannot be opened, so precision is unknown: {error}")
        return lambda problem_id: None

    def problem_of(problem_id: str) -> Problem | None:
        try:
            return lookup(problem_id)
        except DataError:
            return None

    return problem_of
