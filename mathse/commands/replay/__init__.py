"""``mathse replay RUN OVERRIDES``: the finished rounds of a run, decided anew from what is stored.

    mathse replay outputs/demo/seed_0 judge.threshold=0.8 judge=orm_and_answer

Paths, verdicts with P(correct), and reference answers are read; no model is loaded, nothing is sampled, and the run is
left as it is. The overrides are ``judge=orm|orm_and_answer|answer|random|noisy`` (or ``judge.name``),
``judge.threshold``, ``judge.rate``, ``distill.judge`` and ``evolution.keep``. ``distill.judge`` follows ``judge`` where
both are the same in the run. (``whatif`` is the verb's former name, and still understood.)

The first stage is exact, and so is each one after it as long as nothing before it has changed. After a change the
stored paths are those of a student who was fitted on other rows, and problems that are open again have none: such a
stage is marked "conditional", with what is missing. ``--out DIR`` writes whatif.json and train.jsonl, the rows that
would have been merged, which ``task=sft sft.train=FILE`` can fit on; DIR is no run folder and not in one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.commands.replay.replay import decide_again
from mathse.commands.replay.table import replay_as_text
from mathse.config.program import format_command
from mathse.errors import ConfigError
from mathse.runs.layout import TRAIN
from mathse.runs.reader import run_above
from mathse.runs.store import make_folder, write_json, write_jsonl

__all__ = ["decide_again", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises MathSEError for what cannot be decided from the run's files."""
    parser = argparse.ArgumentParser(
        prog=format_command("replay"), description="Decide a run's finished rounds anew, from stored verdicts"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="judge.threshold=0.8 judge=orm_and_answer")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write whatif.json and train.jsonl there")
    arguments = parser.parse_args(argv)
    out: Path | None = arguments.out
    if out is not None and (run := run_above(out)):  # the rows must not be written over those of a run
        raise ConfigError(f"--out = {out}: the run {run} stands there, and is left as it is; pass another folder")
    result = decide_again(arguments.run, arguments.overrides)
    if out is not None:
        make_folder(out)
        write_json(out / "whatif.json", result.to_json())
        write_jsonl(out / TRAIN, result.train)
    print("\n".join(replay_as_text(result)))
    return 0
