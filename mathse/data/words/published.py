"""The records of four published sets of word problems, each as a row of our own form with its equation.

set         source                                         licence       files
gsm8k       Cobbe et al. 2021, arXiv 2110.14168,           MIT           grade_school_math/data/train.jsonl,
            github.com/openai/grade-school-math                          gsm*train*.jsonl
svamp       Patel et al. 2021, arXiv 2103.07191,           MIT           SVAMP.json
            github.com/arkilpatel/SVAMP
multiarith  Roy and Roth 2015, arXiv 1608.01413            not stated    MultiArith.json
mawps       Koncel-Kedziorski et al. 2016, NAACL           not stated;   AddSub.json, SingleEq.json, mawps*.csv,
            (AddSub, SingleEq and others in one form;      ASDiv, which  cv_mawps/**/*.csv, mawps*/**/*.csv
            SVAMP's repository has it as tables with       some tables
            numbers abstracted, some together with ASDiv)  hold: CC
                                                           BY-NC 4.0

    {"question": "Natalia sold clips to 48 of her ...", "answer": "Natalia sold 48/2 = <<48/2=24>>24 ...\\n#### 72"}
    {"ID": "chal-1", "Body": "Each pack of dvds costs 76 dollars. ...", "Question": "How much ...?",
     "Equation": "( 76.0 - 25.0 )", "Answer": 51.0}
    {"iIndex": 0, "sQuestion": "...", "lEquations": ["X=((32.0+42.0)-35.0)"], "lSolutions": [39.0]}
    Question,Numbers,Equation,Answer: "... number0 books in each of his number1 ...", 56.0 9.0, * number0 number1, 504.0

GSM8K's test split is never read: train on the one, measure on the other. A problem's answer is what its equation comes
to; where the record says another one it is left out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mathse.config.data import WordSet
from mathse.data.json_records import BadRow, JsonRecord, read_records
from mathse.data.readers.base import Values, content_id, text_of
from mathse.data.words.equation import (
    Earlier,
    Operation,
    check_count,
    number_of,
    number_text,
    operations_of,
    operations_of_prefix,
    worked_out,
)
from mathse.data.words.solution import check, written, written_short
from mathse.errors import DataError
from mathse.scoring.answers import MARKER, same_answer

_CALCULATION = re.compile(r"<<([^<>=]{1,200})=([^<>=]{1,40})>>")
_PLAIN = re.compile(r"-?\d{1,12}(\.\d{1,6})?")
_SPACES = re.compile(r"\s+")
_BEFORE_MARK = re.compile(r"\s+([.,?!;:])")


@dataclass(frozen=True)
class WordProblem:
    """A record as it is read: ``operations`` in their order; ``solution``: in the set's own prose, where it has one."""

    record_id: str | None
    question: str
    operations: Sequence[Operation]
    answer: str
    solution: str | None = None


@dataclass(frozen=True)
class Published:
    """Where a set's files lie below a folder, and how a record of them is read. ``patterns``: of each that matches, all
    files are read."""

    patterns: Sequence[str]
    read: Callable[[Values], WordProblem]
    home: str
    licence: str


def gsm8k(values: Values) -> WordProblem:
    prose, _, answer = text_of(values, "answer").partition("####")
    calculations = _CALCULATION.findall(prose)
    if not calculations or not answer.strip():
        raise BadRow('"answer" has no calculation <<...>>, or no #### with the result')
    result = answer.strip().replace(",", "")
    operations: list[Operation] = []
    known: dict[Fraction, int] = {}  # results, by the step that came to them
    for expression, _ in calculations:
        if _PLAIN.fullmatch(expression.strip()):  # <<24=24>> names a number
            continue
        # 48+24 of a later line names the 24 that an earlier line came to
        first = len(operations)
        for operation in operations_of(expression):
            moved = (_shifted(o, first, known) for o in (operation.left, operation.right))
            operations.append(Operation(operation.sign, *moved))
        check_count(operations)
        for k, (*_, number) in enumerate(worked_out(operations)[first:], first):
            known[number] = k
    # What a solution works out behind its answer is not on the way to it.
    steps = [
        k
        for k, (*_, number) in enumerate(worked_out(operations), 1)
        if _PLAIN.fullmatch(result) and number == Fraction(result)
    ]
    operations = operations[: steps[-1]] if steps else operations
    if not operations:
        raise BadRow('"answer" calculates nothing')
    lines = [line.strip() for line in _CALCULATION.sub("", prose).splitlines() if line.strip()]
    lines.append(f"{MARKER} {answer.strip()}.")
    solution = "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))
    return WordProblem(None, text_of(values, "question"), operations, result, solution)


def _shifted(operand: Any, first: int, known: Mapping[Fraction, int]) -> Any:
    """An operand of an expression whose operations begin at ``first``: a number that was worked out before (``known``:
    its step) is that step's result."""
    if isinstance(operand, Earlier):
        return Earlier(operand.step + first)
    return Earlier(known[operand]) if operand in known else operand


def svamp(values: Values) -> WordProblem:
    body = text_of(values, "Body").strip()
    question = text_of(values, "Question").strip()
    story = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {question}"
    return WordProblem(
        text_of(values, "ID"), story, operations_of(text_of(values, "Equation")), text_of(values, "Answer")
    )


def multiarith(values: Values) -> WordProblem:
    equations, solutions = values.get("lEquations"), values.get("lSolutions")
    if not isinstance(equations, list) or not isinstance(solutions, list) or len(equations) != 1 or len(solutions) != 1:
        raise BadRow('"lEquations" and "lSolutions" are lists of one; this record has others')
    return WordProblem(
        text_of(values, "iIndex"), text_of(values, "sQuestion"), operations_of(str(equations[0])), str(solutions[0])
    )


def mawps(values: Values) -> WordProblem:
    """A record as MultiArith's, without its id (each part of MAWPS counts anew); or a line of a table."""
    if "Numbers" not in values:
        record = multiarith(values)
        return WordProblem(None, record.question, record.operations, record.answer)
    numbers = text_of(values, "Numbers").split()
    question = text_of(values, "Question")
    for k in reversed(range(len(numbers))):  # number10 before number1
        question = question.replace(f"number{k}", number_text(number_of(numbers[k])))
    return WordProblem(
        None, question, operations_of_prefix(text_of(values, "Equation"), numbers), text_of(values, "Answer")
    )


SETS: dict[WordSet, Published] = {
    "svamp": Published(("**/SVAMP.json", "**/SVAMP.json.gz"), svamp, "https://github.com/arkilpatel/SVAMP", "MIT"),
    "gsm8k": Published(
        ("**/grade_school_math/data/train.jsonl", "**/gsm*train*.jsonl", "**/gsm*train*.jsonl.gz"),
        gsm8k,
        "https://github.com/openai/grade-school-math",
        "MIT",
    ),
    "multiarith": Published(("**/MultiArith.json",), multiarith, "https://arxiv.org/abs/1608.01413", "not stated"),
    "mawps": Published(
        ("**/AddSub.json", "**/SingleEq.json", "**/mawps*.csv", "**/cv_mawps/**/*.csv", "**/mawps*/**/*.csv"),
        mawps,
        "https://aclanthology.org/N16-1136",
        "not stated; tables with ASDiv: CC BY-NC 4.0",
    ),
}


def files_of(name: WordSet, root: Path) -> list[Path]:
    """A set's files below ``root``, in an order that does not change."""
    inside = root.resolve()
    files = {file for pattern in SETS[name].patterns for file in root.glob(pattern) if file.is_file()}
    return sorted(file for file in files if file.resolve().is_relative_to(inside))  # no link that leads out


def records_of(file: Path) -> Iterator[JsonRecord]:
    """A file's records, of JSON or of a table with a heading."""
    if file.suffix != ".csv":
        yield from read_records(file, key="ID")
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error}); fetch the file again") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for values in table:
            yield JsonRecord(table.line_num, {key: value for key, value in values.items() if key and value})
    except csv.Error as error:
        raise DataError(f"{file}:{table.line_num + 1}: {error}; correct the line, or fetch the file again") from None


def row_of(name: WordSet, values: Values, solutions: str, most_steps: int | None) -> dict[str, Any] | None:
    """A record as a row of our form; None where it has more steps than wanted. Raises BadRow for what makes none."""
    problem = SETS[name].read(values)
    worked = worked_out(problem.operations)
    if most_steps is not None and len(worked) > most_steps:
        return None
    answer = number_text(worked[-1][3])
    if not same_answer(problem.answer, answer):
        raise BadRow(f"its equation comes to {answer}, and its answer is {problem.answer!r:.40}")
    question = _BEFORE_MARK.sub(r"\1", _SPACES.sub(" ", problem.question)).strip()  # "left ?" of tokenised sets
    solution = written_short(problem.operations) if solutions == "short" else written(problem.operations)
    # An own solution in which the check finds nothing wrong: some write their sums in a way that it does not read.
    if solutions == "own" and problem.solution and check(problem.operations, problem.solution).error_step is None:
        solution = problem.solution
    return {
        "id": f"{name}/{problem.record_id or content_id(question, ())}",
        "question": question,
        "images": [],
        "answer": answer,
        "solution": solution,
        "set": name,
        "operations": [stored(operation) for operation in problem.operations],
    }


def stored(operation: Operation) -> list[str]:
    """An operation in a problem's metadata: its operands, a number or "#" and an earlier step from 1, and its sign."""
    return [_stored(operation.left), operation.sign, _stored(operation.right)]


def _stored(operand: Any) -> str:
    return str(operand) if isinstance(operand, Fraction) else f"#{operand.step + 1}"
