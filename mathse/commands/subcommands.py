"""The table of subcommands: the module of each, and its purpose.

A subcommand's module is imported only when a user calls it. This table is the only place where the core names the
subcommands that are wings (docs/design.md).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

# name -> (module with main(argv) -> exit code, purpose)
SUBCOMMANDS = {
    "train": ("mathse.commands.train", "train a student, or one part of it; --help shows all settings, -m sweeps"),
    "evaluate": ("mathse.commands.evaluate", "score a model, or a file of its answers, on benchmarks"),
    "report": ("mathse.reporting.report", "one HTML page about a run, or several side by side"),
    "compare": ("mathse.evaluation.compare", "runs on the same problems: differences, transitions, the paper's tables"),
    "tiny": ("mathse.commands.tiny", "write a tiny random-weight checkpoint of a family"),
    "convert": ("mathse.commands.convert", "convert a published InternVL2.5 folder to transformers' layout"),
    "control": ("mathse.commands.control", "a finished run's controls: the distilled rows with as much compute"),
    "plan": ("mathse.commands.plan", "the stages, requests and costs of a run, before it starts"),
    "replay": ("mathse.commands.replay", "decide a finished run's rounds again, from stored verdicts"),
    "study": ("mathse.reporting.study", "a study's finished runs as the table and the picture of its README"),
    "lineage": ("mathse.commands.lineage", "the origin of a training row, and the rows that descend from a problem"),
    "dashboard": ("mathse.reporting.dashboard", "the W&B workspace and report of a project or a study"),
    "data": ("mathse.commands.data_check", "check: look at training data before training"),
    "export": (
        "mathse.commands.export",
        "a run's data for LLaMA-Factory, ms-swift, TRL, the hub; a model with its card",
    ),
    "reward-server": ("mathse.commands.reward_server", "a run's ORM as a reward over HTTP, for TRL, verl and others"),
    "convert-data": (
        "mathse.commands.convert_data",
        "convert published records (Geometry3K, MATH-V, MMPR, ...) to data=jsonl",
    ),
}
ALIASES = {"whatif": "replay"}  # former names


def import_subcommand(name: str) -> ModuleType:
    """Import the module of a subcommand."""
    return import_module(SUBCOMMANDS[name][0])
