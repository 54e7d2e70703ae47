"""Reading a run folder runs no code that the folder names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mathse.data.sources import problem_lookup
from mathse.errors import ConfigError, DataError


def touching(file: Path) -> dict[str, object]:
    return {"_target_": "subprocess.check_output", "args": ["touch", str(file)]}


def test_class_that_a_run_folder_names_is_not_called(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'subprocess.check_output' is no data option of MathSE's.*MATHSE_TRUST="):
        problem_lookup({"data": touching(tmp_path / "called")})
    assert not (tmp_path / "called").exists()


def test_class_inside_a_mixture_is_not_called_either(tmp_path: Path) -> None:
    sources = {"a": touching(tmp_path / "called")}
    with pytest.raises(DataError, match="subprocess.check_output"):
        problem_lookup({"data": {"_target_": "mathse.data.mixture.MixtureData", "sources": sources}})
    assert not (tmp_path / "called").exists()


def test_own_class_is_called_where_its_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHSE_TRUST", "types.SimpleNamespace, other.Thing")
    assert problem_lookup({"data": {"_target_": "types.SimpleNamespace", "get": str.upper}})("a") == "A"


def test_data_section_without_a_class_is_an_error_of_the_file() -> None:
    with pytest.raises(DataError, match=r"run.json: data must be a section with a _target_"):
        problem_lookup({"data": None})


def test_what_an_earlier_version_did_not_record_has_its_default(tmp_path: Path) -> None:
    rows = [{"id": f"p/{k}", "question": f"{k} + 1?", "images": [], "answer": str(k + 1)} for k in range(9)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    old = {"_target_": "mathse.data.problems.JsonlData", "path": str(tmp_path / "own.jsonl"), "seed": 3}
    assert problem_lookup({"data": old})("p/3").answer == "4"
    mixture = {"_target_": "mathse.data.mixture.MixtureData", "sources": {"a": old}, "counts": {"a": 9}, "seed": 3}
    assert problem_lookup({"data": mixture})("p/3").answer == "4"


def test_a_setting_that_there_is_not_is_an_error_of_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^data.colour: no such setting"):
        problem_lookup({"data": {"_target_": "mathse.data.synthetic.SyntheticData", "colour": 3}})
