"""``mathse evaluate checkpoint=DIR [benchmark=NAME] [KEY=VALUE ...]``, also ``python evaluate.py``: score a model, or a
file of its answers.

Hydra composes conf/evaluate.yaml, ``mathse.config`` reads it strictly, the answers are made or read, and scored as the
benchmarks' authors score them; ``--help`` shows all settings. Each benchmark gets a folder in the run folder, called by
its name (the test split of ``data`` by the name of its set):

    predictions.jsonl   a row an answer: id, response; appended as they come, and a rerun goes on
    scored.jsonl        a row a problem: id, response, extraction, prediction, answer, correct, decided_by, ...
    metrics.json        benchmark, split, correct, total, accuracy (a fraction), ci95, buckets, protocol, ...
    report.html

With the default, benchmark=synthetic, the run folder itself also has the two files that the stages of a training run
have: metrics.json {"accuracy", "correct", "total", "ci95"} and predictions.jsonl with prediction, answer and correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mathse.commands import cli
from mathse.commands.missing import refuse_missing_program
from mathse.config.schema import EvaluateConfig


def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    """Scores into ``folder``. The mean accuracy over the benchmarks, a fraction; None where one is not known."""
    if config.predictions is None or config.judge.engine == "vllm":
        refuse_missing_program(config)
    from mathse.evaluation.task import evaluate as run  # here: a wrong setting is refused before anything is loaded

    return run(config, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; ``argv``: without the program and the verb. Exits with 1 after a user's mistake."""
    cli.main(evaluate, config_name="evaluate", schema=EvaluateConfig, arguments=argv)
    return 0
