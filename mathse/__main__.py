"""``mathse VERB``, also ``python -m mathse VERB``: finds the verb's module and runs it, nothing else is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from mathse import __version__
from mathse.commands.mistakes import guarded

# verb -> (module with main(argv) -> exit code, what it does); imported only when asked for
VERBS = {
    "train": ("mathse.commands.train", "train a student, or one part of it; --help shows all settings, -m sweeps"),
    "evaluate": ("mathse.commands.evaluate", "score a model, or a file of its answers, on benchmarks"),
    "report": ("mathse.reporting.report", "one HTML page about a run, or several side by side"),
    "compare": ("mathse.evaluation.compare", "runs on the same problems: differences, transitions, the paper's tables"),
    "tiny": ("mathse.commands.tiny", "write a tiny random-weight checkpoint of a family"),
    "convert": ("mathse.commands.convert", "a published InternVL2.5 folder to transformers' layout"),
    "control": ("mathse.commands.control", "a finished run's controls: the distilled rows with as much compute"),
    "plan": ("mathse.commands.plan", "what a run will do, ask and cost, before it starts"),
    "replay": ("mathse.commands.replay", "decide a finished run's rounds anew, from stored verdicts"),
    "study": ("mathse.reporting.study", "a study's finished runs as the table and the picture of its README"),
    "lineage": ("mathse.commands.lineage", "where a training row comes from, and what descends from a problem"),
    "dashboard": ("mathse.reporting.dashboard", "the W&B workspace and report of a project or a study"),
    "data": ("mathse.commands.data_check", "check: look at training data before training"),
    "export": (
        "mathse.commands.export",
        "a run's data for LLaMA-Factory, ms-swift, TRL, the hub; a model with its card",
    ),
    "reward-server": ("mathse.commands.reward_server", "a run's ORM as a reward over HTTP, for TRL, verl and others"),
    "convert-data": (
        "mathse.commands.convert_data",
        "published records (Geometry3K, MATH-V, MMPR, ...) as own rows",
    ),
}
ALIASES = {"whatif": "replay"}  # former names


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):

        def show_help() -> int:
            print("usage: mathse VERB ...\n")
            print("\n".join(f"  {verb:<13} {purpose}" for verb, (_, purpose) in VERBS.items()))
            return 0 if arguments else 2

        return guarded(show_help)
    verb, *rest = arguments
    if verb in ("-V", "--version"):
        print(f"mathse {__version__}")
        return 0
    verb = ALIASES.get(verb, verb)
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"error: no such verb: {verb}; there are {', '.join(VERBS)}{hint}", file=sys.stderr)
        return 2
    run: Callable[[Sequence[str]], int] = import_module(VERBS[verb][0]).main
    return guarded(lambda: run(rest))


def command() -> int:
    """The console command ``mathse``: like ``python -m``, it finds a user's own modules in the current folder."""
    if not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # last, so that no folder of theirs hides a library
    return main()


if __name__ == "__main__":
    sys.exit(main())
