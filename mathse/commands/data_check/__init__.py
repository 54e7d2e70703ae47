"""``mathse data check OVERRIDES``: what ``mathse train`` with these overrides would learn from, before any training.

    mathse data check data=jsonl data.path=FILE backbone=qwen2vl hydra.run.dir=check

Every row is read, every picture decoded, every prompt measured by the chosen backbone. Written into hydra.run.dir:

    bad_rows.jsonl     the rows that cannot be used: {"file", "line", "id", "reason"}
    warnings.jsonl     rows to look at, which are used: repeated ones, answers that contradict each other
    decontamination.jsonl   with decontaminate.against: the rows that are in a benchmark
    data_check.json    "rows" = "used" + "listed", and counts by source, language, answer, length, picture size
    data_check.html    all of it as a page, with samples

``data.on_bad_row=error`` (the default) ends in an error that names file and line where there is a bad row; ``skip``
does not. A prompt too long for the backbone is listed and never an error, as in a run. Of a backbone only what writes
its prompts is opened, no weight (tiny, cogvlm2 and families of your own: the whole of it); where it is not here, all
else is checked and that is said. No teacher takes part, so none has to go with the data. A class that is no option of
MathSE's is imported only where the environment variable MATHSE_TRUST names it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.config.compose import compose_train
from mathse.config.options import FLAG, look_in
from mathse.config.program import format_command
from mathse.config.rules.run import teacher_can_solve_the_data
from mathse.config.trust import forbid_foreign_classes
from mathse.data.decontamination.benchmark_files import problems_of
from mathse.data.decontamination.hash_lists import lines
from mathse.errors import DataError


def main(argv: Sequence[str]) -> int:
    """Returns the exit code; a DataError where a row is bad and that is an error."""
    parser = argparse.ArgumentParser(prog=format_command("data"), description="Look at data before training on it")
    verbs = parser.add_subparsers(dest="verb", required=True)
    checking = verbs.add_parser("check", help="read all of the training data, and write what was found")
    checking.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py: data=jsonl data.path=FILE")
    checking.add_argument(FLAG, metavar="DIR", help="a folder of your own options, laid out as conf/ is")
    hashing = verbs.add_parser("hashes", help="a hash list of a benchmark's questions, to keep them out of training")
    hashing.add_argument("benchmark", type=Path, metavar="FILE", help="its problems: JSON or JSONL")
    hashing.add_argument("list", type=Path, metavar="LIST.txt", help="the list to write")
    arguments = parser.parse_args(argv)
    if arguments.verb == "hashes":
        return _write_hashes(arguments.benchmark, arguments.list)
    look_in(arguments.config_dir)
    with forbid_foreign_classes():
        config, folder = compose_train(arguments.overrides, but=(teacher_can_solve_the_data,))  # no teacher takes part
        from mathse.commands.data_check.check import check  # here: it loads torch, a wrong setting is refused before

        bad_rows = check(config, folder)
    if bad_rows is not None:
        raise DataError(bad_rows)
    return 0


def _write_hashes(benchmark: Path, target: Path) -> int:
    if target.suffix != ".txt":
        raise DataError(f"{target}: a hash list is a .txt file; give it such a name")
    written = list(lines(problems_of(benchmark), f"made from {benchmark.name}"))
    target.write_text("\n".join(written) + "\n", encoding="utf-8")
    print(f"{target}: {len(written) - 2:,} questions; decontaminate.against=[{target}]")
    return 0
