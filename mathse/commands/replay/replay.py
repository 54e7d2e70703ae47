"""The merges of a run, made again: by the rules that it recorded, and by others. What merges is the loop's own code.

Two replays go over the same stored paths. The first must come to the rows that the run has in its train.jsonl files;
the second shows what would have been. A stage is exact while D_SFT and R_incorrect before it are the same in both.
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

MERGES = "MergeCorrectPaths"  # the callback that is replayed here
READS = (
    "judge.name",
    "judge.threshold",
    "distill.judge",
    "evolution.keep",
    "evolution.reflect.all_drafts",
    "evolution.reflect.tries",
    "data._target_",
)


@dataclass(frozen=True)
class Merge:
    """What a stage merged. ``precision``: the share of accepted paths that come to the reference answer."""

    judge: str
    paths: int
    accepted: int
    rejected: int
    unparsed: int
    precision: float | None
    merged: int  # rows that came to D_SFT
    train_rows: int  # of D_SFT after it


@dataclass(frozen=True)
class StageChange:
    """A stage by the run's own rules and by the others; ``gained`` and ``lost`` are ids of rows of D_SFT after it.

    ``missing``: problems that would be open again (in a reflection: drafts) and have no path here. ``unused``: stored
    paths that would not have been made.
    """

    stage: str
    then: Merge
    now: Merge
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    exact: bool
    missing: int
    unused: int


@dataclass(frozen=True)
class ReplayResult:
    """All stages, and the rows that D_SFT would hold after the last of them."""

    run: Path
    then: Rules
    now: Rules
    stages: tuple[StageChange, ...]
    train: Sequence[ReasoningPath]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """whatif.json."""
        return {
            "then": asdict(self.then),
            "now": asdict(self.now),
            "stages": [asdict(stage) for stage in self.stages],
            "notes": list(self.notes),
        }


def decide_again(folder: Path, overrides: Sequence[str] = ()) -> ReplayResult:
    """The run's merges by its own rules and by those of ``overrides``.

    Raises RunError for a folder that is no run, ConfigError for an override, DataError for files that do not tell.
    """
    run = read_run(folder)
    if missing := [key for key in READS if key not in run.settings]:
        raise DataError(
            f"{run.folder / RUN}: records no {', '.join(missing)}, by which its merges were made; put the file "
            "back, or pass another run"
        )
    then = Rules.of_run(run.config)
    now = then.changed(overrides)
    callbacks = run.config.get("callbacks") or {}
    targets = [str(section.get("_target_", "")) for section in callbacks.values()]
    if targets and not any(target.endswith(f".{MERGES}") for target in targets):
        raise DataError(f"{run.folder}: ran without the callback {MERGES}, so it merged nothing that could be replayed")
    notes: list[str] = []
    decider = Decider(_problems(run, notes), int(run.config["seed"]), then.rate)
    stored = list(_stored(run))
    if not stored:
        raise DataError(f"{folder}: no stage with judged paths is finished; run the loop up to its distillation first")
    problems = tuple(dict.fromkeys(item.path.problem_id for stage in stored for item in stage.items))
    before, after = Replay(run, then, decider, problems), Replay(run, now, decider, problems)
    stages = []
    for one in stored:
        stages.append(_change(before, after, one))
        rows = [row["id"] for row in one.stage.rows(TRAIN)]
        if one.stage.has(TRAIN) and [path.id for path in before.state.train] != rows:
            notes.append(
                f"{one.stage.name}: its {TRAIN} holds other rows than its settings and verdicts give; a callback of "
                "your own may have had its say, and is not replayed"
            )
    return ReplayResult(folder, then, now, tuple(stages), after.state.train, tuple(notes))


@dataclass(frozen=True)
class StoredStage:
    """A finished stage's paths with their verdicts; of a reflection ``tries`` says which try a rewrite was."""

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
        self.resamples = run.config["evolution"].get("resample", "never") != "never"  # runs before it did not
        self.state = EvolutionState(problems)
        self.missing = self.unused = 0  # of the last stage

    @property
    def solved(self) -> set[str]:
        return {path.problem_id for path in self.state.train}

    @property
    def rows(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of D_SFT and of R_incorrect."""
        return tuple(p.id for p in self.state.train), tuple(i.path.id for i in self.state.incorrect)

    def accepts(self, verdict: Verdict) -> bool:
        return accepted(verdict, self.rules.threshold)

    def stage(self, stored: StoredStage) -> Merge:
        """Judge and merge a stage's paths."""
        judge = self.rules.distill_judge if stored.stage.name == "distill" else self.rules.judge
        keep: Keep = int(self.rules.keep) if self.rules.keep.isdigit() else self.rules.keep  # type: ignore[assignment]
        renew = self.resamples and not stored.is_reflection and stored.stage.name != "distill"
        if stored.is_reflection:
            judged = self._rewrites(judge, stored)
            keep = "all" if self.reflecting["all_drafts"] else keep
        elif renew:
            judged = [self._decided(judge, item) for item in stored.items]
        else:  # a problem that is solved already is not tried again
            solved = self.solved
            judged = [self._decided(judge, item) for item in stored.items if item.path.problem_id not in solved]
            self.missing = 0  # only the comparison with the run's own state tells
        before = len(self.state.train)
        self.state = self.state.absorb(judged, self.accepts, keep, renew)
        self.unused = len(stored.items) - len(judged)

        taken = [item.path for item in judged if self.accepts(item.verdict)]
        right = [known for path in taken if (known := self.decider.right(path)) is not None]
        decisions = Counter(decide(item.verdict, self.rules.threshold) for item in judged)
        return Merge(
            judge,
            paths=len(judged),
            accepted=decisions["accepted"],
            rejected=decisions["rejected"],
            unparsed=decisions["unparsed"],
            precision=round(sum(right) / len(right), 6) if right else None,
            merged=len(self.state.train) - before,
            train_rows=len(self.state.train),
        )

    def _decided(self, judge: str, item: Judged) -> Judged:
        return Judged(item.path, self.decider.decide(judge, self.rules, item.path, item.verdict))

    def _rewrites(self, judge: str, stored: StoredStage) -> list[Judged]:
        """Those of drafts that would be rewritten, try by try; a draft with an accepted rewrite is not tried again."""
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
                    judged.append(self._decided(judge, item))
        # In the order of D, which the stored paths alone do not tell.
        order = {item.path.id: k for k, item in enumerate(stored.items)}
        return sorted(judged, key=lambda item: order[item.path.id])


def _change(before: Replay, after: Replay, stored: StoredStage) -> StageChange:
    """Both replays go on by a stage."""
    same_start = before.rows == after.rows
    reopened = len(before.solved - after.solved)
    then, now = before.stage(stored), after.stage(stored)
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


# --- what the run has -------------------------------------------------------------------------------------------------


def _stored(run: Run) -> Iterator[StoredStage]:
    """The finished stages that merge, in the order in which the loop made them."""
    for stage in run.stages:
        if stage.name.startswith("orm"):
            continue
        paths: list[ReasoningPath] = list(stage.rows(PATHS, ReasoningPath))
        tries: list[int] = []
        if stage.has(REFLECTIONS):
            rewrites: list[Reflection] = list(stage.rows(REFLECTIONS, Reflection))
            paths = [rewrite.revised for rewrite in rewrites]
            count: Counter[str] = Counter()
            for rewrite in rewrites:  # the file has them try by try
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


def _problems(run: Run, notes: list[str]) -> Any:
    """(id -> Problem or None); nothing is known, and that is said, where the data cannot be opened."""
    try:
        lookup = problem_lookup(run.config)
    except (MathSEError, OSError) as error:
        notes.append(f"the run's data cannot be opened, so no precision is known: {error}")
        return lambda problem_id: None

    def problem_of(problem_id: str) -> Problem | None:
        try:
            return lookup(problem_id)
        except DataError:
            return None

    return problem_of
