"""``mathse replay RUN OVERRIDES``: decide the finished rounds of a run again, from its stored files.

    mathse replay outputs/demo/seed_0 judge.threshold=0.8 judge=orm_and_answer

The command reads paths, verdicts with P(correct), and reference answers. It loads no model, samples nothing, and does
not change the run. The overrides are ``judge=orm|orm_and_answer|answer|random|noisy`` (or ``judge.name``),
``judge.threshold``, ``judge.rate``, ``distill.judge`` and ``evolution.keep``. ``distill.judge`` follows ``judge`` if
both are the same in the run. (``whatif``, the former name of the subcommand, still works.)

The first stage is exact, and so is each later stage until a stage changes. After a change the stored paths are those of
a student that was trained on other rows, and problems that are open again have no stored paths. Such a stage is marked
"conditional", with the number of missing paths. ``--out DIR`` writes whatif.json, and train.jsonl with the rows that
would have been merged, for ``task=sft sft.train=FILE``. DIR must not be inside a run folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from mathse.commands.replay.replay import ReplayResult, StageChange, replay_run
from mathse.commands.replay.rules import Rules
from mathse.config.program import program
from mathse.errors import ConfigError
from mathse.reporting.progress.wording import align_columns
from mathse.runs.layout import TRAIN
from mathse.runs.reader import find_run_above
from mathse.runs.store import make_folder, write_json, write_jsonl

__all__ = ["main", "replay_run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code. Raises MathSEError if the run's files do not allow the decisions."""
    parser = argparse.ArgumentParser(
        prog=program("replay"), description="Decide a run's finished rounds again, from stored verdicts."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="judge.threshold=0.8 judge=orm_and_answer")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write whatif.json and train.jsonl to this folder")
    arguments = parser.parse_args(argv)
    out: Path | None = arguments.out
    if out is not None and (run := find_run_above(out)):  # train.jsonl must not overwrite rows of a run
        raise ConfigError(f"--out = {out}: is in the run {run}, which must not change; pass another folder")
    result = replay_run(arguments.run, arguments.overrides)
    if out is not None:
        make_folder(out)
        write_json(out / "whatif.json", result.to_json())
        write_jsonl(out / TRAIN, result.train)
    print("\n".join(format_replay(result)))
    return 0


def format_replay(result: ReplayResult) -> Iterator[str]:
    """Yield the table, then its limits."""
    yield f"{result.run}: {_format_rules(result.then)}; now: {_format_rules(result.now)}"
    heading = ("stage", "paths", "accepted", "precision", "merged", "rows of D_SFT", "gained", "lost", "how sure")
    yield from (f"  {line}" for line in align_columns([heading, *map(_format_stage, result.stages)]))
    conditional = [stage for stage in result.stages if not stage.exact]
    for stage in conditional:
        open_again = "drafts would be rewritten" if "reflection" in stage.stage else "problems would be open again"
        yield (
            f"{stage.stage}: {stage.missing:,} {open_again} for which no path is stored; {stage.unused:,} stored paths "
            "would not have been made"
        )
    if conditional:
        yield (
            "conditional: the rows before this stage differ, so its student would be another student; the counts are "
            "those of the stored paths"
        )
    yield "No student was trained on these rows: accuracy is unknown. --out DIR writes them for task=sft."
    yield from result.notes


def _format_rules(rules: Rules) -> str:
    distill = f", distill.judge={rules.distill_judge}" if rules.distill_judge != rules.judge else ""
    return f"judge={rules.judge}{distill}, judge.threshold={rules.threshold:g}, evolution.keep={rules.keep}"


def _format_stage(stage: StageChange) -> tuple[str, ...]:
    then, now = stage.then, stage.now
    pairs = (
        (then.paths, now.paths),
        (then.accepted, now.accepted),
        (_format_share(then.precision), _format_share(now.precision)),
        (then.merged, now.merged),
        (then.train_rows, now.train_rows),
    )
    certainty = "exact" if stage.exact else "conditional"
    counts = (f"{len(stage.gained):,}", f"{len(stage.lost):,}")
    return stage.stage, *(_format_pair(*pair) for pair in pairs), *counts, certainty


def _format_pair(then: int | str, now: int | str) -> str:
    """Return "12 -> 9", or the value if both are equal."""
    before, after = (value if isinstance(value, str) else f"{value:,}" for value in (then, now))
    return before if before == after else f"{before} -> {after}"


def _format_share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
