"""SQL over a run's files as tables: ``--query "SELECT stage, count(*) FROM train GROUP BY stage"``.

=============  ====================================================================================================
paths          what teacher and students wrote: id, problem_id, text, origin, made_in, model, parent, seed, prompt
held_paths     the same of the problems that the ORM is measured on
train          D_SFT of each stage: the columns of paths
verdicts       path_id, status, error_step, error_analysis, score, judge, raw
incorrect      R_incorrect of each stage: the columns of paths, and the verdict's
feedback       what the ORM was fitted on: the same columns, of the label
orm_held       what the ORM was measured on: the same columns, of its verdict; label_status, label_step
reflections    the rewrites: the columns of paths; draft_id, draft_text; feedback_status, feedback_step,
               feedback_analysis
predictions    answers to the test problems: id, response, prediction, answer, correct
sources        the problems: problem_id, split, file, file_line, source, images, image_sha256
stages         a row a finished stage: config_hash, seed, git, started, finished, wall_s, and figures of summary.json
=============  ====================================================================================================

Each is named after its file, and begins with ``stage`` (``made_in`` is the stage that wrote a path) and ``line``, the
row's line in that stage's file. The views only read them; the user's SQL may join other files.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb

from mathse.errors import DataError
from mathse.reporting.progress.wording import align_columns, clean
from mathse.runs.layout import (
    FEEDBACK,
    HELD_PATHS,
    INCORRECT,
    ORM_HELD,
    PATHS,
    PREDICTIONS,
    REFLECTIONS,
    SOURCES,
    TRAIN,
    VERDICTS,
)
from mathse.runs.reader import Run

TEXT, LINEAGE = (
    "VARCHAR",
    "STRUCT(origin VARCHAR, stage VARCHAR, model VARCHAR, parent VARCHAR, seed BIGINT, prompt VARCHAR)",
)
PATH = {"id": TEXT, "problem_id": TEXT, "text": TEXT, "lineage": LINEAGE}
VERDICT = {"path_id": TEXT, "status": TEXT, "error_step": TEXT, "error_analysis": TEXT, "score": "DOUBLE",
           "judge": TEXT, "raw": TEXT}  # fmt: skip
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of half a character, or what looks like one


def _struct(fields: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name} {kind}' for name, kind in fields.items())})"


def _path(column: str = "") -> str:
    """The columns of a path, from a column that holds one ("path.") or from the row itself."""
    names = {name: name for name in ("id", "problem_id", "text")}
    names |= {f"lineage.{name}": name for name in ("origin", "stage", "model", "parent", "seed", "prompt")}
    names["lineage.stage"] = "made_in"
    return ", ".join(f"{column}{name} AS {shown}" for name, shown in names.items())


# The columns of a verdict, from a column that holds one.
_JUDGED = ", ".join(f"verdict.{name} AS {name}" for name in VERDICT if name != "path_id")


# view -> (file, its columns as they stand there, the columns of the view)
VIEWS: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "paths": (PATHS, PATH, _path()),
    "held_paths": (HELD_PATHS, PATH, _path()),
    "train": (TRAIN, PATH, _path()),
    "verdicts": (VERDICTS, VERDICT, ", ".join(VERDICT)),
    "incorrect": (
        INCORRECT,
        {"path": _struct(PATH), "verdict": _struct(VERDICT)},
        f"{_path('path.')}, {_JUDGED}",
    ),
    "feedback": (
        FEEDBACK,
        {"path": _struct(PATH), "verdict": _struct(VERDICT)},
        f"{_path('path.')}, {_JUDGED}",
    ),
    "orm_held": (
        ORM_HELD,
        {"path": _struct(PATH), "label": _struct(VERDICT), "verdict": _struct(VERDICT)},
        f"{_path('path.')}, {_JUDGED}, label.status AS label_status, label.error_step AS label_step",
    ),
    "reflections": (
        REFLECTIONS,
        {"draft": _struct(PATH), "feedback": _struct(VERDICT), "revised": _struct(PATH)},
        f"{_path('revised.')}, draft.id AS draft_id, draft.text AS draft_text, "
        "feedback.status AS feedback_status, feedback.error_step AS feedback_step, "
        "feedback.error_analysis AS feedback_analysis",
    ),
    "predictions": (
        PREDICTIONS,
        {"id": TEXT, "response": TEXT, "prediction": TEXT, "answer": TEXT, "correct": "BOOLEAN"},
        "id, response, prediction, answer, correct",
    ),
    "sources": (
        SOURCES,
        {"problem_id": TEXT, "split": TEXT, "file": TEXT, "line": "BIGINT", "source": TEXT,
         "images": f"{TEXT}[]", "image_sha256": f"{TEXT}[]"},
        "problem_id, split, file, \"line\" AS file_line, source, images, image_sha256",
    ),
}  # fmt: skip
STAGES = {"stage": TEXT, "config_hash": TEXT, "seed": "BIGINT", "git": TEXT, "started": TEXT, "finished": TEXT,
          "wall_s": "DOUBLE"}  # fmt: skip
FIGURES = {"accuracy": "DOUBLE", "n": "BIGINT", "train_rows": "BIGINT", "accepted": "BIGINT", "rejected": "BIGINT",
           "unparsed": "BIGINT", "acceptance_precision": "DOUBLE", "step_precision": "DOUBLE",
           "asked_of_teacher": "BIGINT"}  # fmt: skip
NAMES = (*VIEWS, "stages")
MEMORY, THREADS, LONGEST = "1GB", 4, 64 << 20  # DuckDB's share; it spills to a temporary folder. Bytes of a row
# A list of the tables, for --query without SQL.
TABLES = """
SELECT table_name AS "table", string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns GROUP BY table_name ORDER BY table_name
"""
CHUNK = 2_000  # rows fetched at a time
SHOWN, CELL = 200, 60  # rows of a printed table, characters of its cells


@contextmanager
def opened(run: Run) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views over a run's finished stages.

    DuckDB sees each file under a number in a temporary folder, so that no name in a run's path is taken for a pattern.
    Raises DataError for what DuckDB cannot do, a damaged file included.
    """
    with tempfile.TemporaryDirectory(prefix="mathse-") as temporary:
        settings: dict[str, Any] = {
            "python_enable_replacements": "false",  # a table's name is never a variable of this program
            "memory_limit": MEMORY,
            "threads": str(min(THREADS, os.cpu_count() or 1)),
            "temp_directory": str(Path(temporary) / "spilled"),
        }
        database = duckdb.connect(":memory:", config=settings)
        files: dict[str, str] = {}  # what DuckDB calls a file -> its own name
        try:
            for view in VIEWS:
                database.execute(f"CREATE VIEW {view} AS {_union(run, view, Path(temporary), files)}")
            columns = STAGES | FIGURES
            database.execute(f"CREATE TABLE stages ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
            for stage in run.stages:
                manifest = {**stage.manifest, "config_hash": stage.identity}
                values = [manifest.get(name) for name in STAGES] + [stage.summary.get(name) for name in FIGURES]
                database.execute(f"INSERT INTO stages VALUES ({', '.join('?' * len(columns))})", values)
            yield database
        except duckdb.Error as error:
            text = " ".join(str(error).split())  # on one line, with the run's own names of its files
            for link, name in files.items():
                text = text.replace(link, name)
            names = ", ".join(NAMES)
            raise DataError(f"{text[:500]}; the tables are {names}; --query alone lists their columns") from None
        finally:
            database.close()


def answer(run: Run, sql: str) -> Iterator[dict[str, Any]]:
    """The rows that one statement gives, as JSON values by column. Raises DataError for SQL that fails."""
    with opened(run) as database:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise DataError(f"--query {clean(sql)!r}: write one statement; the tables are {', '.join(NAMES)}")
        result = database.execute(statements[0])
        seen: Counter[str] = Counter()
        columns = []
        for name, *_ in result.description:  # as keys: a name that comes again gets a number
            seen[name] += 1
            columns.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
        while rows := result.fetchmany(CHUNK):
            for row in rows:
                yield dict(zip(columns, map(_json_value, row), strict=True))


def tables_as_text(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A table a line with all its columns, as ``answer(run, TABLES)`` gives them."""
    return (f"{row['table']:<13} {row['columns']}" for row in rows)


def answer_as_text(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A table of the first rows."""
    first = list(islice(rows, SHOWN))
    if not first:
        yield "no rows"
        return
    yield from align_columns([tuple(first[0]), *(tuple(_cell(value) for value in row.values()) for row in first)])
    if more := sum(1 for _ in rows):
        yield f"... and {more:,} more rows; --json writes them all"


def _union(run: Run, view: str, links: Path, files: dict[str, str]) -> str:
    """The SQL that reads a view's rows of all stages; ``files`` gets the names that DuckDB knows them by."""
    file, columns, shown = VIEWS[view]
    typed = ", ".join(f"{_quoted(name)}: {_quoted(kind)}" for name, kind in columns.items())
    form = f"format = 'newline_delimited', columns = {{{typed}}}, maximum_object_size = {LONGEST}"
    parts = []
    for stage in run.stages:
        if stage.has(file):
            link, name = links / f"{len(files)}.jsonl", f"{stage.name}/{file}"
            _readable(stage.path(file), link)
            files |= {str(link): name, str(link.resolve()): name}
            rows = f"read_json({_quoted(str(link))}, {form})"
            parts.append(f"SELECT {_quoted(stage.name)} AS stage, row_number() OVER () AS line, {shown} FROM {rows}")
    if parts:
        return " UNION ALL ".join(parts)
    nulls = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns.items())
    return f"SELECT ''::VARCHAR AS stage, 0::BIGINT AS line, {shown} FROM (SELECT {nulls}) WHERE false"


def _readable(file: Path, link: Path) -> None:
    """A link to the file; a copy where it has lone surrogates, which are JSON and which DuckDB refuses: "?" there."""
    with open(file, "rb") as rows:
        empty = os.fstat(rows.fileno()).st_size == 0
        if empty or not SURROGATE.search(mmap.mmap(rows.fileno(), 0, access=mmap.ACCESS_READ)):
            link.symlink_to(file.resolve())
            return
        with open(link, "wb") as copy:
            for line in rows:
                if SURROGATE.search(line):
                    with suppress(ValueError):  # a line that is no JSON is copied, for DuckDB to say so
                        line = json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                copy.write(line)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _json_value(value: Any) -> Any:
    """A value of DuckDB as JSON has it."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime, date, time, timedelta)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _cell(value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else "-" if value is None else clean(str(value))
    return shown if len(shown) <= CELL else f"{shown[: CELL - 4]} ..."
