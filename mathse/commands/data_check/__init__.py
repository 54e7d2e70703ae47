"""``mathse data check OVERRIDES``: check the training data of ``mathse train OVERRIDES``, before any training.

    mathse data check data=jsonl data.path=FILE backbone=qwen2vl hydra.run.dir=check

Every row is read, every picture decoded, and every prompt measured by the chosen backbone. The results are in
hydra.run.dir:

    bad_rows.jsonl     the rows that cannot be used: {"file", "line", "id", "reason"}
    warnings.jsonl     used rows to look at: repeated rows, answers that contradict each other
    decontamination.jsonl   with decontaminate.against: rows of a benchmark
    data_check.json    "rows" = "used" + "listed", and counts by source, language, answer, length, picture size
    data_check.html    all results as a page, with samples

With ``data.on_bad_row=error`` (the default) a bad row ends the command with an error that names file and line; with
``skip`` it does not. A prompt too long for the backbone is listed and never an error, as in a run. The check opens only
the part of a backbone that writes its prompts, and no weight (tiny, cogvlm2 and your own families: the whole backbone).
If the backbone is not on this machine, everything else is checked, and a note says so. The check needs no teacher. A
class that is not an option of MathSE is imported only if the environment variable MATHSE_TRUST names it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.config.compose import train_config
from mathse.config.options import FLAG, look_in
from mathse.config.program import program
from mathse.config.rules.run import teacher_can_solve_the_data
from mathse.config.trust import only_looking
from mathse.data.decontamination.benchmark_files import problems_of
from mathse.data.decontamination.hash_lists import lines
from mathse.errors import DataError


def main(argv: Sequence[str]) -> int:
    """Run the subcommand and return its exit code. Raises DataError for a bad row if data.on_bad_row=error."""
    parser = argparse.ArgumentParser(prog=program("data"), description="Look at data before training on it.")
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser("check", help="read all training data, and write the results")
    checking.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py: data=jsonl data.path=FILE")
    checking.add_argument(FLAG, metavar="DIR", help="a folder of your own options, with the structure of conf/")
    hashing = actions.add_parser(
        "hashes", help="write a hash list of a benchmark's questions, to keep them out of training"
    )
    hashing.add_argument("benchmark", type=Path, metavar="FILE", help="its problems: JSON or JSONL")
    hashing.add_argument("list", type=Path, metavar="LIST.txt", help="the list to write")
    arguments = parser.parse_args(argv)
    if arguments.action == "hashes":
        return _write_hashes(arguments.benchmark, arguments.list)
    look_in(arguments.config_dir)
    with only_looking():
        config, folder = train_config(
            arguments.overrides, but=(teacher_can_solve_the_data,)
        )  # the check needs no teacher
        from mathse.commands.data_check.check import check  # loads torch, after the settings have been checked

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
