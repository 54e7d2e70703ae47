"""``data=word_problems``: the problems of published sets of word problems, without repetitions.

The sets share equal and nearly equal problems, and a problem of the test split must not be in the training data under
another id. So the rows pass the decontamination search before the split: the first of nearly equal rows stays, in the
order of ``data.sets``, and the others are listed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from mathse.config.data import WordProblemsConfig, WordSet
from mathse.data.decontamination import ComparedRow, Index
from mathse.data.json_records import BadRow
from mathse.data.problems import REPEATS, FileData
from mathse.data.row_validation import ValidatedRow, validate
from mathse.data.words.equation import Earlier, Operand, Operation
from mathse.data.words.published import SETS, files_of, records_of, row_of
from mathse.data.words.solution import check, check_sums, corrupt
from mathse.errors import ConfigError, DataError
from mathse.types import Problem, Verdict

OURS = Path(__file__).with_name("problems")  # its README.md describes contents and terms


class WordProblems(FileData):
    """Word problems below ``root``, at any depth; None: the subset that the project contains.

    Raises DataError for a set of ``data.sets`` without a file there.
    """

    def __init__(self, settings: WordProblemsConfig) -> None:
        root = Path(settings.root) if settings.root is not None else OURS
        super().__init__(str(root) if settings.root is not None else "the word problems that come along", settings)
        if not settings.sets or not root.is_dir():
            raise ConfigError(f"data.root = {settings.root!r}, data.sets = {settings.sets}: name a folder, and a set")
        self.lists_repeats = True
        self._longer = 0  # rows with more than most_steps steps
        rows = {name: list(self._rows(name, root, settings)) for name in settings.sets}
        repeated: Counter[WordSet] = Counter()
        for name, once in without_repeats(rows, settings.similarity):
            repeated[name] += sum(str(row.reason).startswith(REPEATS) for row in once)
            self._take(once, f"{root} ({name})")
        terms = "; ".join(f"{name}: {SETS[name].licence}" for name in settings.sets)
        near = ", ".join(f"{count:,} of {name}" for name, count in repeated.items() if count)
        longer = f"; {self._longer:,} have more than {settings.most_steps} steps" if self._longer else ""
        self.notes = (
            f"Word problems of {', '.join(settings.sets)} ({terms}). Left out before the split, since they repeat an "
            f"earlier row word for word or nearly: {near or 'none'}{longer}.",
        )
        self._refuse_bad_rows()

    def _rows(self, name: WordSet, root: Path, settings: WordProblemsConfig) -> Iterator[ValidatedRow]:
        files = files_of(name, root)
        if not files:
            looked_for = " or ".join(SETS[name].patterns)
            raise DataError(
                f"{root}: no file of {name} (looked for {looked_for}); leave it out of data.sets, or name another "
                "folder with data.root"
            )
        for file in files:
            for record in records_of(file):
                try:
                    if record.values is None:
                        raise BadRow(record.reason)
                    values = row_of(name, record.values, settings.solutions, settings.most_steps)
                except BadRow as error:
                    yield ValidatedRow(str(file), record.line, None, None, str(error), record.number)
                    continue
                if values is None:
                    self._longer += 1
                    continue
                yield validate(record._replace(values=values), str(file), root, self.images, name)

    def check(self, problem: Problem, text: str) -> Verdict:
        """Check a path by the problem's equation. The verdict labels the ORM's training paths and measures judges; it
        never judges in a judge=orm run."""
        return check(operations(problem), text).to_verdict(judge="checker")

    def check_steps(self, problem: Problem, text: str) -> Verdict:
        """Check the sums of a path without equation and reference answer (``judge=checked``)."""
        result = check_sums(text)
        return Verdict("", "unparsed") if result is None else result.to_verdict()

    def corrupt(self, problem: Problem, draw: random.Random) -> str:
        """Write a path for ``problem`` with a made-up error, to augment the ORM's training rows."""
        return corrupt(operations(problem), draw)


def without_repeats(
    rows: Mapping[WordSet, Sequence[ValidatedRow]], similarity: float
) -> Iterator[tuple[WordSet, list[ValidatedRow]]]:
    """Yield the rows set by set. A row that nearly repeats an earlier row has a reason in place of its problem."""
    everything: list[ValidatedRow] = []
    for of_set in rows.values():
        everything += of_set
    # Index all rows before the first search: a growing index is slow to search.
    index = Index(text_similarity=similarity)
    for number, row in enumerate(everything):
        if row.problem is not None:
            index.add(row.file, replace(row.problem, id=str(number)))
    left_out: set[int] = set()
    number = -1
    for name, of_set in rows.items():
        once = []
        for row in of_set:
            number += 1
            if row.problem is not None:
                # The first earlier row that the search pairs with this row, and that was not left out itself.
                for pair in index.pairs(ComparedRow.of(row.problem)):
                    earlier = int(pair.against_id)
                    if pair.counts and earlier < number and earlier not in left_out:
                        left_out.add(number)
                        first = everything[earlier]
                        position = f"{Path(first.file).name}:{first.line}"
                        reason = f"{REPEATS} {position} (similarity {pair.similarity:g})"
                        row = ValidatedRow(row.file, row.line, row.problem.id, None, reason, row.record)
                        break
            once.append(row)
        yield name, once


def operations(problem: Problem) -> Sequence[Operation]:
    """Read the steps of a word problem's equation from its metadata."""
    try:
        return [Operation(sign, _operand(a), _operand(b)) for a, sign, b in problem.metadata["operations"]]
    except (KeyError, ValueError, TypeError):
        raise DataError(f"problem {problem.id!r} is not one of data=word_problems") from None


def _operand(text: str) -> Operand:
    return Earlier(int(text[1:]) - 1) if text.startswith("#") else Fraction(text)
