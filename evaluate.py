"""Score a checkpoint: ``python evaluate.py checkpoint=DIR [KEY=VALUE ...]``; ``--help`` shows all settings.

Hydra composes conf/evaluate.yaml, ``mathse.config`` reads it strictly, and the student answers the benchmark's problems
greedily. The run folder gets

    metrics.json        {"accuracy", "correct", "total", "ci95": [lo, hi]}, fractions in [0, 1]
    predictions.jsonl   a row a problem: id, response, prediction, answer, correct
"""

from __future__ import annotations

from pathlib import Path

from mathse import cli
from mathse.config.schema import EvaluateConfig


def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
    """Scores ``config.checkpoint`` into ``folder``; the accuracy, a fraction in [0, 1]."""
    from mathse.tasks import evaluate as run  # here: it loads torch, and a wrong setting is refused before that

    return run(config, folder)


if __name__ == "__main__":
    cli.main(evaluate, config_name="evaluate", schema=EvaluateConfig)
