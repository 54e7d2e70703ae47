"""The notebook of the documentation runs from its first cell to its last, and holds no output of anybody's machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.desk import small
from docs.pages import ROOT
from mathse.commands import functions

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def cells(kind: str) -> list[str]:
    return [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
        if cell["cell_type"] == kind
    ]


def run_cells() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(cells("code"), 1):
        exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    return names


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, run in (("train", functions.train), ("evaluate", functions.evaluate)):
        monkeypatch.setattr(functions, name, lambda *s, name=name, run=run, **f: run(*small(name, s), **f))
    names = run_cells()
    assert names["scored"].summary["synthetic"]["total"] == 8
    said = capsys.readouterr().out
    assert "written by teacher" in said and str(tmp_path / "notebook" / "run" / "report.html") in said
    assert (tmp_path / "notebook" / "run" / "report.html").is_file()


@pytest.mark.slow
def test_every_cell_runs_as_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cells()["scored"].summary["synthetic"]["total"] == 20


def test_it_is_a_notebook_of_version_4_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert [cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
