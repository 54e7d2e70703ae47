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

GSM8K's test split is never read, because it is for measuring. The answer of a problem is the result of its equation; a
record with another answer is left out.
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
    Operand,
    Operation,
    check_count,
    evaluate_steps,
    number_of,
    number_text,
    operations_of,
    operations_of_prefix,
)
from mathse.data.words.solution import check, write_short_solution, write_solution
from mathse.errors import DataError
from mathse.scoring.answers import MARKER, same_answer

_CALCULATION = re.compile(r"<<([^<>=]{1,200})=([^<>=]{1,40})>>")
_PLAIN = re.compile(r"-?\d{1,12}(\.\d{1,6})?")
_SPACES = re.compile(r"\s+")
_BEFORE_MARK = re.compile(r"\s+([.,?!;:])")


@dataclass(frozen=True)
class WordProblem:
    """A parsed record. ``solution``: the set's own solution in prose, if it has one."""

    record_id: str | None
    question: str
    operations: Sequence[Operation]
    answer: str
    solution: str | None = None


@dataclass(frozen=True)
class WordProblemSet:
    """The files and the reader of a set. ``patterns``: globs below a folder; the matches of all patterns are read."""

    patterns: Sequence[str]
    read: Callable[[Values], WordProblem]
    home: str
    licence: str


def read_gsm8k(values: Values) -> WordProblem:
    """Read a record of GSM8K from the calculations <<48/2=24>> in its solution."""
    prose, _, answer = text_of(values, "answer").partition("####")
    calculations = _CALCULATION.findall(prose)
    if not calculations or not answer.strip():
        raise BadRow('"answer" has no calculation <<...>>, or no #### with the result')
    result = answer.strip().replace(",", "")
    operations: list[Operation] = []
    known: dict[Fraction, int] = {}  # step by its result
    for expression, _ in calculations:
        # <<24=24>> calculates nothing.
        if _PLAIN.fullmatch(expression.strip()):
            continue
        # The 24 in a later 48+24 is the result of an earlier line.
        first = len(operations)
        for operation in operations_of(expression):
            left, right = _link_operand(operation.left, first, known), _link_operand(operation.right, first, known)
            operations.append(Operation(operation.sign, left, right))
        check_count(operations)
        for k, (*_, number) in enumerate(evaluate_steps(operations)[first:], first):
            known[number] = k
    # Calculations behind the last step with the answer do not contribute to it.
    if _PLAIN.fullmatch(result):
        steps = [k for k, (*_, number) in enumerate(evaluate_steps(operations), 1) if number == Fraction(result)]
        operations = operations[: steps[-1]] if steps else operations
    if not operations:
        raise BadRow('"answer" calculates nothing')
    lines = [line.strip() for line in _CALCULATION.sub("", prose).splitlines() if line.strip()]
    lines.append(f"{MARKER} {answer.strip()}.")
    solution = "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))
    return WordProblem(None, text_of(values, "question"), operations, result, solution)


def _link_operand(operand: Operand, first: int, known: Mapping[Fraction, int]) -> Operand:
    """Link an operand of an expression to the steps of the problem.

    Args:
        first: number of the expression's first step.
        known: step by its result; an operand with this value becomes the result of that step.
    """
    if isinstance(operand, Earlier):
        return Earlier(operand.step + first)
    return Earlier(known[operand]) if operand in known else operand


def read_svamp(values: Values) -> WordProblem:
    """Read a record of SVAMP: a story, a question and an infix equation."""
    body = text_of(values, "Body").strip()
    question = text_of(values, "Question").strip()
    end = "" if body.endswith((".", "?", "!")) else "."
    story = f"{body}{end} {question}"
    return WordProblem(
        text_of(values, "ID"), story, operations_of(text_of(values, "Equation")), text_of(values, "Answer")
    )


def read_multiarith(values: Values) -> WordProblem:
    """Read a record of MultiArith: a question with a single infix equation."""
    equations, solutions = values.get("lEquations"), values.get("lSolutions")
    if not isinstance(equations, list) or not isinstance(solutions, list) or len(equations) != 1 or len(solutions) != 1:
        raise BadRow('"lEquations" and "lSolutions" are lists of one; this record has others')
    return WordProblem(
        text_of(values, "iIndex"), text_of(values, "sQuestion"), operations_of(str(equations[0])), str(solutions[0])
    )


def read_mawps(values: Values) -> WordProblem:
    """Read a record in the form of MultiArith, or a line of a table. Ids repeat between the parts of MAWPS, so they are
    dropped."""
    if "Numbers" not in values:
        record = read_multiarith(values)
        return WordProblem(None, record.question, record.operations, record.answer)
    numbers = text_of(values, "Numbers").split()
    question = text_of(values, "Question")
    for k in reversed(range(len(numbers))):  # number10 before number1
        question = question.replace(f"number{k}", number_text(number_of(numbers[k])))
    return WordProblem(
        None, question, operations_of_prefix(text_of(values, "Equation"), numbers), text_of(values, "Answer")
    )


SETS: dict[WordSet, WordProblemSet] = {
    "svamp": WordProblemSet(
        ("**/SVAMP.json", "**/SVAMP.json.gz"), read_svamp, "https://github.com/arkilpatel/SVAMP", "MIT"
    ),
    "gsm8k": WordProblemSet(
        ("**/grade_school_math/data/train.jsonl", "**/gsm*train*.jsonl", "**/gsm*train*.jsonl.gz"),
        read_gsm8k,
        "https://github.com/openai/grade-school-math",
        "MIT",
    ),
    "multiarith": WordProblemSet(
        ("**/MultiArith.json",), read_multiarith, "https://arxiv.org/abs/1608.01413", "not stated"
    ),
    "mawps": WordProblemSet(
        ("**/AddSub.json", "**/SingleEq.json", "**/mawps*.csv", "**/cv_mawps/**/*.csv", "**/mawps*/**/*.csv"),
        read_mawps,
        "https://aclanthology.org/N16-1136",
        "not stated; tables with ASDiv: CC BY-NC 4.0",
    ),
}


def files_of(name: WordSet, root: Path) -> list[Path]:
    """List a set's files below ``root``, in a fixed order, without links that lead out of it."""
    inside = root.resolve()
    files: set[Path] = set()
    for pattern in SETS[name].patterns:
        files.update(file for file in root.glob(pattern) if file.is_file())
    return sorted(file for file in files if file.resolve().is_relative_to(inside))


def records_of(file: Path) -> Iterator[JsonRecord]:
    """Yield a file's records, from JSON or from a CSV table with a heading."""
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
    """Make a row of our form; None for a record of more than ``most_steps`` steps. Raises BadRow for a bad record."""
    problem = SETS[name].read(values)
    worked = evaluate_steps(problem.operations)
    if most_steps is not None and len(worked) > most_steps:
        return None
    answer = number_text(worked[-1][3])
    if not same_answer(problem.answer, answer):
        raise BadRow(f"its equation comes to {answer}, and its answer is {problem.answer!r:.40}")
    # Tokenised sets have a blank before punctuation: "left ?".
    question = _BEFORE_MARK.sub(r"\1", _SPACES.sub(" ", problem.question)).strip()
    solution = write_short_solution(problem.operations) if solutions == "short" else write_solution(problem.operations)
    # The set's own solution is used if the check passes; the check cannot read the sums of some solutions.
    if solutions == "own" and problem.solution and check(problem.operations, problem.solution).error_step is None:
        solution = problem.solution
    return {
        "id": f"{name}/{problem.record_id or content_id(question, ())}",
        "question": question,
        "images": [],
        "answer": answer,
        "solution": solution,
        "set": name,
        "operations": [[_to_text(o.left), o.sign, _to_text(o.right)] for o in problem.operations],
    }


def _to_text(operand: Operand) -> str:
    """Write an operand for a problem's metadata: a number, or "#" and the number of an earlier step, from 1."""
    return str(operand) if isinstance(operand, Fraction) else f"#{operand.step + 1}"
