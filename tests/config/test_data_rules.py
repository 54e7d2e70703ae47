"""Settings of data sources and of the gate: what is refused before anything is read."""

from __future__ import annotations

import pytest


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    return path


def mixture(rows, *more):
    return ["data=mixture", "teacher=replay", "+data@data.sources.own=jsonl", f"data.sources.own.path={rows}", *more]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data=chartqa"], "data.root = null: data=chartqa needs the set's folder or a hub id; pass data.root=DIR"),
        (["data=hf"], "data.root = null: data=hf needs the set's folder or a hub id; pass data.root=DIR"),
        (["data=mavis", "data.root=nowhere"], "data.root = 'nowhere': neither a folder that exists nor a hub id of the "
                                              "form org/name; pass one of them"),
        (["data=geometry3k", "data.root=org/name", "data.split=dev"],
         "data.split = 'dev': must be one of train, val, test, all"),
        (["data=hf", "data.root=AI4Math/MathVista"],
         "data.root = 'AI4Math/MathVista': MathVista's licence forbids training on it; use it as a benchmark, and keep "
         "it out of your training data with decontaminate.against=[FILE]"),
        (["data=hf", "data.root=org/name", "data.columns.answr=x"],
         "data.columns.answr: no such setting; did you mean data.columns.answer?"),
        (["data=mixture"], "data.sources = {}: a mixture needs sources; pass +data@data.sources.NAME=jsonl, for "
                           "instance"),
        (["data=hf", "data.root=org/name", "data.test_share=0.9"],
         "data.test_share + data.dev_share + data.orm_share = 1.2: must stay below 1, or no problem is left to learn "
         "from"),
    ],
)  # fmt: skip
def test_settings_of_a_source_that_cannot_work_are_refused(refusal, overrides, sentence):
    plus = [o if "answr" not in o else f"+{o}" for o in overrides]
    assert refusal(*plus, "teacher=replay") == [sentence]


def test_a_mixture_s_sources_are_checked_like_any_source(refusal, read, rows, tmp_path):
    assert refusal(*mixture(rows)) == [
        "data.weights and data.counts: exactly one is set; pass 'data.weights={NAME: 1, ...}', for instance"
    ]
    assert refusal(*mixture("gone.jsonl", "data.counts={own: 1}")) == [
        "data.sources.own.path = 'gone.jsonl': no such file; it has one JSON object a line"
    ]
    geo = ("+data@data.sources.geo=geometry3k", "data.sources.geo.split=dev", f"data.sources.geo.root={tmp_path}")
    assert refusal(*mixture(rows, *geo, "data.weights={own: 1, geo: 2}")) == [
        "data.sources.geo.split = 'dev': must be one of train, val, test, all"
    ]
    config = read(*mixture(rows, "data.weights={own: 1}", "seed=4"))
    assert config.data.sources["own"].path == str(rows) and config.data.seed == 4


def test_without_the_datasets_library_a_hub_id_is_refused_with_the_remedy(refusal, monkeypatch, tmp_path, read):
    monkeypatch.setattr("mathse.config.extras.is_installed", lambda extra: False)
    for overrides in (["data=hf", f"data.root={tmp_path}"], ["data=chartqa", "data.root=org/name"]):
        (said,) = refusal(*overrides, "teacher=replay")
        assert said.endswith("needs the datasets library, which is not installed; pip install '.[hub]'")
    assert read("data=chartqa", f"data.root={tmp_path}", "teacher=replay").data.name == "chartqa"


def test_benchmarks_to_keep_out_must_be_there(refusal, rows, read):
    (said,) = refusal(f"decontaminate.against=[{rows},gone.jsonl]")
    assert said.startswith("decontaminate.against: 'gone.jsonl': no such file")
    (said,) = refusal("decontaminate.against=['stored:mathvista','stored:mathvision']")
    assert said == (
        "decontaminate.against: 'stored:mathvista': no such list; there are mathvision, mathverse (stored:NAME)"
    )
    assert read(f"decontaminate.against=[{rows}]").decontaminate.action == "drop"


def test_the_gate_drops_by_default_and_smoke_reports(read):
    assert (read().decontaminate.action, read().decontaminate.against) == ("drop", [])
    assert read("experiment=smoke").decontaminate.action == "report"
