"""``benchmark=orm_test``: an Outcome Reward Model judges labelled paths, and is measured against the labels.

    python evaluate.py benchmark=orm_test checkpoint=ORM_DIR benchmark.orm_test.paths=FILE

FILE has rows as ``mathse.data.labelled_paths`` reads them. In the benchmark's folder:

    verdicts.jsonl       the ORM's verdicts, appended batch by batch; another threshold makes none again
    judged.jsonl         a row a path: id, problem_id, subject, length, label, verdict, accepted, right
    disagreements.jsonl  those of them that the ORM got wrong, the most confident first
    metrics.json         see ``mathse.evaluation.orm_test.metrics``
    report.html
"""

from __future__ import annotations

from pathlib import Path

from mathse.config.evaluation import ORMTestConfig
from mathse.config.schema import EvaluateConfig
from mathse.errors import ConfigError


class ORMTest:
    """Where the labelled paths are, and from which P(correct) on a path counts as accepted."""

    name = "orm_test"
    title = "ORM test"

    def __init__(self, settings: ORMTestConfig) -> None:
        if settings.paths is None:
            raise ConfigError("benchmark.orm_test.paths is not set; give a file of labelled paths")
        self.paths, self.threshold = Path(settings.paths), settings.threshold

    @staticmethod
    def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
        """Measure the ORM of ``checkpoint`` into ``folder``; its overall accuracy, a fraction."""
        from mathse.evaluation.orm_test.task import measure  # here: it loads torch, and settings are checked before

        return measure(config, folder)
