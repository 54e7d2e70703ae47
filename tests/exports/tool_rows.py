"""Rows as a tool has them, handed from its interpreter to the test; imports nothing of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARK = "ROWS "  # the line that holds them


def tool_row(ids: Sequence[int], labels: Sequence[int], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """``inputs``: where there are pictures, Qwen2-VL's pixel_values (patches, 1176) and image_grid_thw (n, 3)."""
    shown = inputs.get("pixel_values")
    pixels = b"" if shown is None else shown.float().cpu().numpy().astype("<f4").tobytes()
    grids = [] if shown is None else inputs["image_grid_thw"].tolist()
    return {"ids": list(ids), "labels": list(labels), "grids": grids, "pixels": base64.b64encode(pixels).decode()}


def hand_over(rows: Iterable[dict[str, Any]]) -> None:
    print(MARK + json.dumps(list(rows)))


def handed_over(output: str) -> list[dict[str, Any]]:
    """The rows in a tool's standard output."""
    line = next(line for line in output.splitlines() if line.startswith(MARK))
    rows: list[dict[str, Any]] = json.loads(line.removeprefix(MARK))
    return rows
