"""The whole loop on real diagrams, with the tiny backbone and the replay teacher; accuracy is chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.runs import SIZES, problems_of, rows, run

from mathse.__main__ import main
from mathse.errors import ConfigError

REAL = (*SIZES, "teacher=replay", "judge=random", "distill.judge=answer")
BENCHMARKS = {"mathvision": "mathvision", "mathverse": "mathverse_site", "dynamath": "dynamath"}


def test_geometry3k_runs_through_every_stage(tmp_path: Path, fixtures: Path) -> None:
    root = fixtures / "datasets" / "geometry3k_samples"
    summary = run(tmp_path / "run", *REAL, "data=geometry3k", f"data.root={root}")
    assert [e["stage"] for e in summary["stages"]] == ["base", "distill", "round_01", "final"]
    assert all(i.startswith("geometry3k/") for i in problems_of(tmp_path / "run" / "final" / "train.jsonl"))
    assert any("licence: MIT" in note for note in summary["notes"])


@pytest.mark.parametrize(
    "format", ["mathverse", *(pytest.param(name, marks=pytest.mark.slow) for name in BENCHMARKS if name != "mathverse")]
)
def test_a_benchmark_s_rows_run_after_conversion(tmp_path: Path, fixtures: Path, format: str) -> None:
    source, own = fixtures / "datasets" / BENCHMARKS[format], tmp_path / "own.jsonl"
    assert main(["convert-data", str(source), str(own), "--format", format]) == 0
    against = f"decontaminate.against=[{source / 'records.jsonl'}]"
    summary = run(tmp_path / "run", *REAL, "data=jsonl", f"data.path={own}", against)
    assert [e["stage"] for e in summary["stages"]] == ["base", "distill", "round_01", "final"]
    found = {(row["id"], f"{format}/{row['against_id']}") for row in rows(tmp_path / "run" / "decontamination.jsonl")}
    looked_at = {i for i, _ in found}
    assert looked_at and all((i, i) in found for i in looked_at), "every row is found in the benchmark it is from"
    assert not any(row["dropped"] for row in rows(tmp_path / "run" / "decontamination.jsonl"))


def test_mathvista_is_not_trained_on(tmp_path: Path, fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = fixtures / "datasets" / "mathvista_notebook"
    assert main(["convert-data", str(source), str(tmp_path / "own.jsonl"), "--format", "mathvista"]) == 1
    assert "MathVista's licence forbids training on it" in capsys.readouterr().err
    assert not (tmp_path / "own.jsonl").exists()
    with pytest.raises(ConfigError, match="MathVista's licence forbids training on it"):
        run(tmp_path / "run", *REAL, "data=hf", "data.root=AI4Math/MathVista")
