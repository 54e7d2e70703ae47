"""One SQL statement over a run's tables, and its rows as JSON values or as a printed table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from math import isfinite
from typing import Any

import duckdb

from mathse.commands.lineage.tables import NAMES, opened
from mathse.errors import DataError
from mathse.reporting.progress.wording import aligned, clean
from mathse.runs.reader import Run

TABLES = """
SELECT table_name AS "table", string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns GROUP BY table_name ORDER BY table_name
"""
CHUNK = 2_000  # rows fetched at a time
SHOWN, CELL = 200, 60  # rows of a printed table, characters of its cells


def answer(run: Run, sql: str) -> Iterator[dict[str, Any]]:
    """The rows that one statement gives, as JSON values by column. Raises DataError for SQL that fails."""
    with opened(run) as database:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise DataError(f"--query {clean(sql)!r}: write one statement; the tables are {', '.join(NAMES)}")
        found = database.execute(statements[0])
        columns = _distinct([column[0] for column in found.description])
        while rows := found.fetchmany(CHUNK):
            for row in rows:
                yield dict(zip(columns, map(_plain, row), strict=True))


def tables_in_words(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A table a line with all its columns, as ``answer(run, TABLES)`` gives them."""
    return (f"{row['table']:<13} {row['columns']}" for row in rows)


def answer_in_words(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A table of the first rows."""
    first = list(islice(rows, SHOWN))
    if not first:
        yield "no rows"
        return
    yield from aligned([tuple(first[0]), *(tuple(_cell(value) for value in row.values()) for row in first)])
    if more := sum(1 for _ in rows):
        yield f"... and {more:,} more rows; --json writes them all"


def _distinct(names: Sequence[str]) -> list[str]:
    """Column names as keys: one that comes again gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found


def _plain(value: Any) -> Any:
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
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _cell(value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else "-" if value is None else clean(str(value))
    return shown if len(shown) <= CELL else f"{shown[: CELL - 4]} ..."
