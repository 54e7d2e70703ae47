"""SQL over a run's files as tables: ``--query "SELECT stage, count(*) FROM train GROUP BY stage"``.

=============  ====================================================================================================
paths          texts of teacher and students: id, problem_id, text, origin, made_in, model, parent, seed, prompt
held_paths     the same for the problems that measure the ORM
train          D_SFT of each stage: the columns of paths
verdicts       path_id, status, error_step, error_analysis, score, judge, raw
incorrect      R_incorrect of each stage: the columns of paths, and the verdict's
feedback       training rows of the ORM: the same columns, with the label as verdict
orm_held       rows that measure the ORM: the same columns, with its verdict; label_status, label_step
reflections    the rewrites: the columns of paths; draft_id, draft_text; feedback_status, feedback_step,
               feedback_analysis
predictions    answers to the test problems: id, response, prediction, answer, correct
sources        the problems: problem_id, split, file, file_line, source, images, image_sha256
stages         the finished stages: config_hash, seed, git, started, finished, wall_s, and figures of summary.json
=============  ====================================================================================================

Each table has the name of its file. Its first columns are ``stage`` and ``line``, the row's line in the file of that
stage; ``made_in`` is the stage that wrote a path. The views only read the files. The user's SQL may join other files.
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
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of half a character, or a text that looks like one


def _make_struct(fields: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name} {kind}' for name, kind in fields.items())})"


def _select_path(column: str = "") -> str:
    """Return the SQL for the columns of a path, from a column with a path ("path.") or from the row itself."""
    names = {name: name for name in ("id", "problem_id", "text")}
    names |= {f"lineage.{name}": name for name in ("origin", "stage", "model", "parent", "seed", "prompt")}
    names["lineage.stage"] = "made_in"
    return ", ".join(f"{column}{name} AS {shown}" for name, shown in names.items())


# The SQL for the columns of a verdict, from a column with a verdict.
_JUDGED = ", ".join(f"verdict.{name} AS {name}" for name in VERDICT if name != "path_id")

# view -> (file, its columns, the columns of the view)
VIEWS: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "paths": (PATHS, PATH, _select_path()),
    "held_paths": (HELD_PATHS, PATH, _select_path()),
    "train": (TRAIN, PATH, _select_path()),
    "verdicts": (VERDICTS, VERDICT, ", ".join(VERDICT)),
    "incorrect": (
        INCORRECT,
        {"path": _make_struct(PATH), "verdict": _make_struct(VERDICT)},
        f"{_select_path('path.')}, {_JUDGED}",
    ),
    "feedback": (
        FEEDBACK,
        {"path": _make_struct(PATH), "verdict": _make_struct(VERDICT)},
        f"{_select_path('path.')}, {_JUDGED}",
    ),
    "orm_held": (
        ORM_HELD,
        {"path": _make_struct(PATH), "label": _make_struct(VERDICT), "verdict": _make_struct(VERDICT)},
        f"{_select_path('path.')}, {_JUDGED}, label.status AS label_status, label.error_step AS label_step",
    ),
    "reflections": (
        REFLECTIONS,
        {"draft": _make_struct(PATH), "feedback": _make_struct(VERDICT), "revised": _make_struct(PATH)},
        f"{_select_path('revised.')}, draft.id AS draft_id, draft.text AS draft_text, "
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
TABLE_NAMES = (*VIEWS, "stages")
DUCKDB_MEMORY, DUCKDB_THREADS = "1GB", 4  # beyond this memory it writes to a temporary folder
MAX_ROW_BYTES = 64 << 20
# For --query without SQL.
LIST_TABLES = """
SELECT table_name AS "table", string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns GROUP BY table_name ORDER BY table_name
"""
FETCH_ROWS = 2_000  # rows fetched at a time
MAX_PRINTED_ROWS, MAX_CELL_CHARS = 200, 60  # of a printed table


@contextmanager
def open_database(run: Run) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database with the views over a run's finished stages.

    DuckDB reads each file by a link with a number in a temporary folder, because it would take characters of a run's
    path for a pattern. Raises DataError for every error of DuckDB, such as a damaged file.
    """
    with tempfile.TemporaryDirectory(prefix="mathse-") as temporary:
        settings: dict[str, Any] = {
            "python_enable_replacements": "false",  # a table's name must not select a variable of this program
            "memory_limit": DUCKDB_MEMORY,
            "threads": str(min(DUCKDB_THREADS, os.cpu_count() or 1)),
            "temp_directory": str(Path(temporary) / "spilled"),
        }
        database = duckdb.connect(":memory:", config=settings)
        files: dict[str, str] = {}  # DuckDB's name of a file -> name in the run
        try:
            for view in VIEWS:
                database.execute(f"CREATE VIEW {view} AS {_build_union(run, view, Path(temporary), files)}")
            columns = STAGES | FIGURES
            database.execute(f"CREATE TABLE stages ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
            for stage in run.stages:
                manifest = {**stage.manifest, "config_hash": stage.identity}
                values = [manifest.get(name) for name in STAGES] + [stage.summary.get(name) for name in FIGURES]
                database.execute(f"INSERT INTO stages VALUES ({', '.join('?' * len(columns))})", values)
            yield database
        except duckdb.Error as error:
            text = " ".join(str(error).split())  # on one line, with the run's names of the files
            for link, name in files.items():
                text = text.replace(link, name)
            names = ", ".join(TABLE_NAMES)
            raise DataError(f"{text[:500]}; the tables are {names}; --query without SQL lists their columns") from None
        finally:
            database.close()


def run_query(run: Run, sql: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one SQL statement, as JSON values by column. Raises DataError for SQL that fails."""
    with open_database(run) as database:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise DataError(f"--query {clean(sql)!r}: write one statement; the tables are {', '.join(TABLE_NAMES)}")
        result = database.execute(statements[0])
        seen: Counter[str] = Counter()
        columns = []
        # Names are keys of a dict, so a repeated name gets a number.
        for name, *_ in result.description:
            seen[name] += 1
            columns.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
        while rows := result.fetchmany(FETCH_ROWS):
            for row in rows:
                yield dict(zip(columns, map(_to_json_value, row), strict=True))


def format_tables(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield one line per table with all its columns. ``rows``: the result of LIST_TABLES."""
    return (f"{row['table']:<13} {row['columns']}" for row in rows)


def format_result(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield a table of the first rows."""
    first = list(islice(rows, MAX_PRINTED_ROWS))
    if not first:
        yield "no rows"
        return
    table = [tuple(first[0])]
    for row in first:
        table.append(tuple(map(_format_cell, row.values())))
    yield from align_columns(table)
    if more := sum(1 for _ in rows):
        yield f"... and {more:,} more rows; --json writes them all"


def _build_union(run: Run, view: str, links: Path, files: dict[str, str]) -> str:
    """Return the SQL that reads a view's rows of all stages. ``files`` receives DuckDB's names of the files."""
    file, columns, selected = VIEWS[view]
    typed = ", ".join(f"{_quote(name)}: {_quote(kind)}" for name, kind in columns.items())
    form = f"format = 'newline_delimited', columns = {{{typed}}}, maximum_object_size = {MAX_ROW_BYTES}"
    parts = []
    for stage in run.stages:
        if stage.has(file):
            link, name = links / f"{len(files)}.jsonl", f"{stage.name}/{file}"
            _link_readable(stage.path(file), link)
            files |= {str(link): name, str(link.resolve()): name}
            rows = f"read_json({_quote(str(link))}, {form})"
            parts.append(f"SELECT {_quote(stage.name)} AS stage, row_number() OVER () AS line, {selected} FROM {rows}")
    if parts:
        return " UNION ALL ".join(parts)
    nulls = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns.items())
    return f"SELECT ''::VARCHAR AS stage, 0::BIGINT AS line, {selected} FROM (SELECT {nulls}) WHERE false"


def _link_readable(file: Path, link: Path) -> None:
    """Link to the file. DuckDB refuses lone surrogates, which JSON allows: such a file is copied with "?" for them."""
    with open(file, "rb") as rows:
        empty = os.fstat(rows.fileno()).st_size == 0
        if empty or not SURROGATE.search(mmap.mmap(rows.fileno(), 0, access=mmap.ACCESS_READ)):
            link.symlink_to(file.resolve())
            return
        with open(link, "wb") as copy:
            for line in rows:
                if SURROGATE.search(line):
                    with suppress(ValueError):  # DuckDB reports a line that is not JSON
                        line = json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                copy.write(line)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _to_json_value(value: Any) -> Any:
    """Convert a value of DuckDB to a JSON value."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime, date, time, timedelta)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _to_json_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json_value(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _format_cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else clean(str(value))
    return text if len(text) <= MAX_CELL_CHARS else f"{text[: MAX_CELL_CHARS - 4]} ..."
