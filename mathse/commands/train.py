"""``mathse train [GROUP=OPTION ...] [KEY=VALUE ...]``, also ``python train.py``: train a student.

Hydra composes conf/train.yaml, ``mathse.config`` reads it strictly, and one task runs in a run folder of its own:

    task=evolve    the whole of Algorithm 1: ORM, distillation, rounds, reflection, the final student (default)
    task=distill   the teacher solves, the judge filters: distill/train.jsonl, no fit
    task=orm       the Outcome Reward Model and its figures
    task=sft       one fit on sft.train=FILE

``--help`` shows all settings. With ``plan=true`` it prints what it would do, ask and cost, and does nothing
(``mathse plan`` has options). With ``-m`` it runs a sweep, and the returned number is what a sweeper optimises.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from mathse.commands import cli
from mathse.commands.engine_choice import with_engine
from mathse.commands.missing import refuse_incomplete
from mathse.commands.subcommands import module_of
from mathse.config.schema import TrainConfig
from mathse.runs.reader import read_finished_summary


def train(config: TrainConfig, folder: Path) -> float | None:
    """Runs ``config.task`` in ``folder``; the metric, a fraction in [0, 1], or None where the task has none."""
    if HydraConfig.initialized():
        overrides = HydraConfig.get().overrides.task
        if config.plan:
            plan = module_of("plan")
            plan.show(plan.with_data(config, overrides))
            return None
        if read_finished_summary(folder) is None:
            refuse_incomplete(config, overrides)
        config = with_engine(config, folder, overrides)
    from mathse.evolution.tasks import run_task  # here: it loads torch, and a wrong setting is refused before that

    return run_task(config, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; ``argv``: without the program and the verb. Exits with 1 after a user's mistake."""
    cli.main(train, config_name="train", schema=TrainConfig, arguments=argv)
    return 0
