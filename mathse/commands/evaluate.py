"""``mathse evaluate checkpoint=DIR [benchmark=NAME] [KEY=VALUE ...]``, also ``python evaluate.py``: score a model, or a
file of its answers.

Hydra composes conf/evaluate.yaml and ``mathse.config`` checks the settings. The answers are sampled or read, and scored
as the benchmarks' authors score them. ``--help`` shows all settings. Each benchmark has a folder of its name in the run
folder (the test split of ``data``: the name of its set):

    predictions.jsonl   one row per answer: id, response; appended as the answers come, and continued by a rerun
    scored.jsonl        one row per problem: id, response, extraction, prediction, answer, correct, decided_by, ...
    metrics.json        benchmark, split, correct, total, accuracy (a fraction), ci95, buckets, protocol, ...
    report.html

With benchmark=synthetic, the default, the run folder itself also has the two files of a training run's stages:
metrics.json {"accuracy", "correct", "total", "ci95"}, and predictions.jsonl with prediction, answer and correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mathse.commands import cli
from mathse.commands.missing import refuse_missing_program
from mathse.config.schema import EvaluateConfig


def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    """Score into ``folder``. Returns the mean accuracy over the benchmarks, a fraction, or None if one is unknown."""
    if config.predictions is None or config.judge.engine == "vllm":
        refuse_missing_program(config)
    from mathse.evaluation.task import evaluate as run  # loads torch, after the settings have been checked

    return run(config, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand. ``argv``: without the program and the subcommand. Exits with 1 after a user's mistake."""
    cli.main(evaluate, config_name="evaluate", schema=EvaluateConfig, arguments=argv)
    return 0
