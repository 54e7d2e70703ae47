"""A run's files as tables, for SQL: ``--query "SELECT stage, count(*) FROM train GROUP BY stage"``.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from mathse.errors import DataError
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
SAID = ("status", "error_step", "error_analysis", "score", "judge", "raw")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of half a character, or what looks like one


def _struct(fields: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name} {kind}' for name, kind in fields.items())})"


def _path(of: str = "") -> str:
    """The columns of a path, from a column that holds one or from the row itself."""
    own = (f"{of}{name} AS {name}" for name in ("id", "problem_id", "text"))
    made = {"origin": "origin", "stage": "made_in", "model": "model", "parent": "parent", "seed": "seed",
            "prompt": "prompt"}  # fmt: skip
    return ", ".join([*own, *(f"{of}lineage.{name} AS {column}" for name, column in made.items())])


def _said() -> str:
    """The columns of a verdict, from a column that holds one."""
    return ", ".join(f"verdict.{name} AS {name}" for name in SAID)


# view -> (file, its columns as they stand there, the columns of the view)
VIEWS: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "paths": (PATHS, PATH, _path()),
    "held_paths": (HELD_PATHS, PATH, _path()),
    "train": (TRAIN, PATH, _path()),
    "verdicts": (VERDICTS, VERDICT, ", ".join(VERDICT)),
    "incorrect": (
        INCORRECT,
        {"path": _struct(PATH), "verdict": _struct(VERDICT)},
        f"{_path('path.')}, {_said()}",
    ),
    "feedback": (
        FEEDBACK,
        {"path": _struct(PATH), "verdict": _struct(VERDICT)},
        f"{_path('path.')}, {_said()}",
    ),
    "orm_held": (
        ORM_HELD,
        {"path": _struct(PATH), "label": _struct(VERDICT), "verdict": _struct(VERDICT)},
        f"{_path('path.')}, {_said()}, label.status AS label_status, label.error_step AS label_step",
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
           "unparsed": "BIGINT", "acceptance_precision": "DOUBLE", "step_precision": "DOUBLE"}  # fmt: skip
NAMES = (*VIEWS, "stages")
MEMORY, THREADS, LONGEST = "1GB", 4, 64 << 20  # DuckDB's share; it spills to a temporary folder. Bytes of a row


@contextmanager
def opened(run: Run) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views over a run's finished stages.

    DuckDB sees each file under a number in a temporary folder, so that no name in a run's path is taken for a pattern.
    Raises DataError for what DuckDB cannot do, a damaged file included.
    """
    with tempfile.TemporaryDirectory(prefix="mathse-") as temporary:
        database = duckdb.connect(":memory:", config=_settings(Path(temporary)))
        files: dict[str, str] = {}  # what DuckDB calls a file -> its own name
        try:
            for view in VIEWS:
                database.execute(f"CREATE VIEW {view} AS {_union(run, view, Path(temporary), files)}")
            _stages(database, run)
            yield database
        except duckdb.Error as error:
            raise DataError(_in_one_line(error, files)) from None
        finally:
            database.close()


def _union(run: Run, view: str, links: Path, files: dict[str, str]) -> str:
    """The rows of all stages."""
    file, columns, shown = VIEWS[view]
    parts = []
    for stage in run.stages:
        if stage.has(file):
            link, name = links / f"{len(files)}.jsonl", f"{stage.name}/{file}"
            _readable(stage.path(file), link)
            files |= {str(link): name, str(link.resolve()): name}
            parts.append(_rows(stage.name, str(link), columns, shown))
    return " UNION ALL ".join(parts) or _no_rows(columns, shown)


def _readable(file: Path, link: Path) -> None:
    """A link to the file; a copy where it has lone surrogates, which are JSON and which DuckDB refuses: "?" there."""
    with open(file, "rb") as rows:
        empty = os.fstat(rows.fileno()).st_size == 0
        if empty or not SURROGATE.search(mmap.mmap(rows.fileno(), 0, access=mmap.ACCESS_READ)):
            link.symlink_to(file.resolve())
            return
        with open(link, "wb") as copy:
            copy.writelines(map(_whole, rows))


def _whole(line: bytes) -> bytes:
    """The row with a "?" for each half of a character; a line that is no JSON as it is."""
    if not SURROGATE.search(line):
        return line
    try:
        row = json.loads(line)
    except ValueError:
        return line
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _in_one_line(error: duckdb.Error, files: Mapping[str, str]) -> str:
    """The error with the run's own names of its files, on one line."""
    text = " ".join(str(error).split())
    for path, name in files.items():
        text = text.replace(path, name)
    return f"{text[:500]}; the tables are {', '.join(NAMES)}; --query alone lists their columns"


def _settings(links: Path) -> dict[str, Any]:
    return {
        "python_enable_replacements": "false",  # a table's name is never a variable of this program
        "memory_limit": MEMORY,
        "threads": str(min(THREADS, os.cpu_count() or 1)),
        "temp_directory": str(links / "spilled"),
    }


def _rows(stage: str, file: str, columns: Mapping[str, str], shown: str) -> str:
    typed = ", ".join(f"{_quoted(name)}: {_quoted(kind)}" for name, kind in columns.items())
    how = f"format = 'newline_delimited', columns = {{{typed}}}, maximum_object_size = {LONGEST}"
    rows = f"read_json({_quoted(file)}, {how})"
    return f"SELECT {_quoted(stage)} AS stage, row_number() OVER () AS line, {shown} FROM {rows}"


def _no_rows(columns: Mapping[str, str], shown: str) -> str:
    nulls = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns.items())
    return f"SELECT ''::VARCHAR AS stage, 0::BIGINT AS line, {shown} FROM (SELECT {nulls}) WHERE false"


def _stages(database: duckdb.DuckDBPyConnection, run: Run) -> None:
    columns = STAGES | FIGURES
    database.execute(f"CREATE TABLE stages ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
    for stage in run.stages:
        own = {**stage.manifest, "config_hash": stage.identity}
        values = [own.get(name) for name in STAGES] + [stage.summary.get(name) for name in FIGURES]
        database.execute(f"INSERT INTO stages VALUES ({', '.join('?' * len(columns))})", values)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
