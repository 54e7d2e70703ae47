"""``benchmark=orm_test``: an Outcome Reward Model judges labelled paths and is measured against the labels.

    python evaluate.py benchmark=orm_test checkpoint=ORM_DIR benchmark.orm_test.paths=FILE

``mathse.data.labelled_paths`` has the format of FILE. The benchmark's folder has:

    verdicts.jsonl       the ORM's verdicts, appended batch by batch; another threshold reuses them
    judged.jsonl         a row for each path: id, problem_id, subject, length, label, verdict, accepted, right
    disagreements.jsonl  the paths that the ORM judged wrongly, the most confident verdicts first
    metrics.json         see ``mathse.evaluation.orm_test.metrics``
    report.html
"""

from __future__ import annotations

from pathlib import Path

from mathse.config.evaluation import ORMTest as Settings
from mathse.config.schema import EvaluateConfig
from mathse.errors import ConfigError


class ORMTest:
    """The file of labelled paths, and the least P(correct) of an accepted path."""

    name = "orm_test"
    title = "ORM test"

    def __init__(self, settings: Settings) -> None:
        if settings.paths is None:
            raise ConfigError("benchmark.orm_test.paths is not set; give a file of labelled paths")
        self.paths, self.threshold = Path(settings.paths), settings.threshold

    @staticmethod
    def evaluate(config: EvaluateConfig, folder: Path) -> float | None:
        """Measure the ORM of ``checkpoint``, write the results into ``folder``, and return its overall accuracy."""
        from mathse.evaluation.orm_test.task import measure  # here: settings are checked before torch is imported

        return measure(config, folder)
