"""Reads what a run gave to W&B back from its offline files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def written_out() -> None:
    """Wait until W&B has written all that it was given in this process: its own end may come a moment before."""
    import wandb

    wandb.teardown()


def history(run: Path) -> list[dict[str, Any]]:
    """Every row that W&B was given, in order, over all processes of the run."""
    rows = [r.history for r in wandb_records(run) if r.WhichOneof("record_type") == "history"]
    return [unflatten(row.item) for row in rows]


def unflatten(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in wandb_records(run):
        if record.WhichOneof("record_type") == "summary":
            found |= unflatten(record.summary.update)
    return found


def artifacts(run: Path, kind: str) -> list[Any]:
    records = [r.artifact for r in wandb_records(run) if r.WhichOneof("record_type") == "artifact"]
    return [a for a in records if a.type == kind]


def wandb_records(run: Path) -> Iterator[Any]:
    """The records in a run's .wandb files: LevelDB's log format, blocks of 32 KiB, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted(run.glob("wandb/*run-*/*.wandb")):
        if file.parent.is_symlink():
            continue
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            left = 32768 - at % 32768
            if left < 7:  # padding
                at += left
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            whole = (b"" if kind in (1, 2) else whole) + data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # a whole record, or its last piece
                yield wandb_internal_pb2.Record.FromString(whole)


def table_of(run: Path, stage: str) -> list[dict[str, Any]]:
    """The samples of a stage as W&B would upload them; an image as the file it lies in, inside the run folder."""
    manifest = next(a.manifest for a in artifacts(run, "run_table") if f"samples{stage}-" in a.name)
    files = {entry.path: Path(entry.local_path) for entry in manifest.contents}
    table = json.loads(next(p for name, p in files.items() if name.endswith(".table.json")).read_text())
    rows = [dict(zip(table["columns"], values, strict=True)) for values in table["data"]]
    assert all(file.is_relative_to(run.resolve()) for file in files.values())
    return [{**row, "image": files[row["image"]["path"]]} for row in rows]
