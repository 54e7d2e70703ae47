"""Settings that a command line of evaluate.py sets and that would change nothing, which nobody expects who sets one."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mathse.config.evaluation import ORMTestConfig, OwnBenchmarkConfig
from mathse.config.generators import ServerGeneratorConfig
from mathse.config.schema import EvaluateConfig

UNREAD = ("generator.max_new_tokens",)  # by evaluate.py in any case
OF_SAMPLES = ("generator.temperature", "generator.top_p", "generator.top_k", "generator.batch_size")
OF_ANSWERS = ("evaluation.batch_size", "evaluation.max_new_tokens", "decoding", "generator")
OF_THE_FOLDER = ("backbone.path", "backbone.revision")


def settings_that_change_nothing(config: EvaluateConfig, given: Collection[str]) -> Iterator[str]:
    """``given``: the key paths that the command line sets."""
    sections = [
        section for section in config.benchmark.values() if isinstance(section, (OwnBenchmarkConfig, ORMTestConfig))
    ]
    measures_orm = any(isinstance(section, ORMTestConfig) for section in sections)
    from_file, served = config.predictions is not None, isinstance(config.generator, ServerGeneratorConfig)
    samples = config.decoding == "sampling" or config.n_samples > 1
    student_answers = not from_file and not measures_orm

    # (whether the settings are unused, the settings or their sections, why, with what to pass)
    unused: list[tuple[bool, tuple[str, ...], str]] = [
        (
            True,
            UNREAD,
            "greedy and sampled answers have one limit, which training has too; pass evaluation.max_new_tokens=N",
        ),
        (from_file, OF_ANSWERS, "the answers are those of predictions=FILE; leave it out"),
        (measures_orm, OF_ANSWERS, "an ORM's verdicts have judge.batch_size and judge.max_new_tokens; leave it out"),
        (
            student_answers and not samples,
            OF_SAMPLES,
            "answers are greedy, in batches of evaluation.batch_size; pass decoding=sampling too, or leave it out",
        ),
        (
            student_answers and samples,
            ("evaluation.batch_size",),
            "samples are drawn in batches of generator.batch_size; pass that",
        ),
        (
            config.judge.checkpoint is None and not measures_orm,
            ("judge",),
            "no ORM is asked; pass judge.checkpoint=DIR too, or leave it out",
        ),
        (served and config.judge.checkpoint is None, ("backbone",), "the server has the model; leave it out"),
        (config.checkpoint is not None, OF_THE_FOLDER, "the weights are those of checkpoint; pass one of them"),
        (not sections, ("data",), "no benchmark chosen asks it; pass benchmark=synthetic for data's own test split"),
    ]
    said: set[str] = set()
    for is_unused, names, reason in unused:
        for key in given:
            if is_unused and key not in said and any(f"{key}.".startswith(f"{name}.") for name in names):
                said.add(key)
                yield f"{key} is set and would change nothing: {reason}"
