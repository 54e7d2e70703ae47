"""A replay as ``mathse replay`` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from mathse.commands.replay.replay import ReplayResult, StageChange
from mathse.commands.replay.rules import Rules
from mathse.reporting.progress.wording import align_columns

HEADING = ("stage", "paths", "accepted", "precision", "merged", "rows of D_SFT", "gained", "lost", "how sure")


def replay_as_text(result: ReplayResult) -> Iterator[str]:
    """The table, then what limits it."""
    yield f"{result.run}: {_rules(result.then)}; asked now: {_rules(result.now)}"
    yield from (f"  {line}" for line in align_columns([HEADING, *map(_cells, result.stages)]))
    conditional = [stage for stage in result.stages if not stage.exact]
    for stage in conditional:
        open_again = "drafts would be rewritten" if "reflection" in stage.stage else "problems would be open again"
        yield (
            f"{stage.stage}: {stage.missing:,} {open_again} for which no path is stored; {stage.unused:,} stored paths "
            "would not have been made"
        )
    if conditional:
        yield (
            "conditional: rows before it are others, so its student would be another one; shown is what happens to the "
            "paths that are stored"
        )
    yield "No student was fitted on these rows: accuracy is not known. --out DIR writes them for task=sft."
    yield from result.notes


def _rules(rules: Rules) -> str:
    apart = f", distill.judge={rules.distill_judge}" if rules.distill_judge != rules.judge else ""
    return f"judge={rules.judge}{apart}, judge.threshold={rules.threshold:g}, evolution.keep={rules.keep}"


def _cells(stage: StageChange) -> tuple[str, ...]:
    then, now = stage.then, stage.now
    pairs = (
        (then.paths, now.paths),
        (then.accepted, now.accepted),
        (_share(then.precision), _share(now.precision)),
        (then.merged, now.merged),
        (then.train_rows, now.train_rows),
    )
    sure = "exact" if stage.exact else "conditional"
    return stage.stage, *(_pair(*pair) for pair in pairs), f"{len(stage.gained):,}", f"{len(stage.lost):,}", sure


def _pair(then: int | str, now: int | str) -> str:
    """ "12 -> 9", or the one value where nothing changes."""
    one, other = (value if isinstance(value, str) else f"{value:,}" for value in (then, now))
    return one if one == other else f"{one} -> {other}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
