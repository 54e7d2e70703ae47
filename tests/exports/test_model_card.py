"""``python -m mathse export RUN --what model``: a checkpoint that opens, with a card of what is known of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.runs import TINY, rows, run
from huggingface_hub import ModelCard
from run_builder import build_run, record_again

from mathse.__main__ import main
from mathse.commands.export.model_card import render_model_card
from mathse.runs.reader import read_run
from mathse.runs.store import read_json, sha256_file, write_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder, *TINY, "evolution.init=previous", "evolution.reflect.init=previous", "trainer.precision=fastest")
    return folder


def made_up(folder: Path) -> Path:
    """A made-up run whose stages have weights by name."""
    build_run(folder, size=40)
    for manifest in folder.rglob("stage.json"):
        (manifest.parent / "checkpoint").mkdir()
        (manifest.parent / "checkpoint" / "model.safetensors").write_bytes(b"0")
    record_again(folder)
    return folder


def table(card: str, first: str) -> list[list[str]]:
    """The cells of the table whose first column is ``first``, head included."""
    lines = card.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([text.strip() for text in line.strip("|").split("|")])
    return [found[0], *found[2:]]


def test_the_exported_checkpoint_opens_as_the_run_s_own(finished: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    out = tmp_path / "model"
    assert main(["export", str(finished), "--what", "model", "--out", str(out)]) == 0
    one, other = (AutoModelForImageTextToText.from_pretrained(str(f)) for f in (out, finished / "final/checkpoint"))
    theirs = other.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())
    digest = sha256_file(finished / "final" / "checkpoint" / "model.safetensors")
    assert f"sha256 `{digest}`" in (out / "README.md").read_text(encoding="utf-8")


def test_its_table_is_the_run_s(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "run")
    head, *lines = table(render_model_card(read_run(folder), "final"), "stage")
    entries = read_json(folder / "summary.json")["stages"]
    assert [line[0] for line in lines] == ["base", "distilled", "round 1", "round 2", "**final**"]
    for line, entry in zip(lines, entries, strict=True):
        said = dict(zip(head, line, strict=True))
        low, high = entry["ci95"]
        assert said["test accuracy"] == f"{100 * entry['accuracy']:.1f}"
        assert said["95 % interval"] == f"{100 * low:.1f} to {100 * high:.1f}"
        assert said["rows of D_SFT"] == str(entry["train_rows"])
        accepted, precision = entry["accepted"], entry["acceptance_precision"]
        assert said["accepted"] == ("" if accepted is None else str(accepted))
        assert said["precision"] == ("" if precision is None else f"{100 * precision:.1f}")


def test_hubs_read_its_figures_as_a_model_index(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "run")
    summary = read_json(folder / "summary.json")
    data = ModelCard(render_model_card(read_run(folder), "final")).data
    assert (data.license, data.pipeline_tag) == ("other", "image-text-to-text")
    (result,) = data.eval_results
    entry = summary["stages"][-1]
    assert (result.metric_type, result.metric_value) == ("accuracy", round(100 * entry["accuracy"], 2))
    assert result.metric_args == {"n": entry["n"], "ci95": [round(100 * end, 2) for end in entry["ci95"]]}
    judged = {
        r.metric_name: r.metric_value for r in ModelCard(render_model_card(read_run(folder), "orm")).data.eval_results
    }
    assert judged["wrong rejected"] == round(100 * summary["orm"]["negative_accuracy"], 2)
    assert ModelCard(render_model_card(read_run(folder), "reflection")).data.eval_results is None


def test_the_orm_s_figures_stand_with_their_intervals(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "run")
    head, *lines = table(render_model_card(read_run(folder), "orm"), "paths by")
    orm = read_json(folder / "summary.json")["orm"]
    low, high = orm["ci95"]["overall_accuracy"]
    assert lines[0][0] == "its own weak students" and [line[0] for line in lines[1:]][:1] == ["distilled"]
    overall = f"{100 * orm['overall_accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert lines[0][head.index("overall")] == overall


def test_the_rows_are_counted_by_writer_stage_and_source(finished: Path) -> None:
    train = [row["lineage"] for row in rows(finished / "round_01" / "train.jsonl")]
    card = render_model_card(read_run(finished), "round_01")
    assert "trained on `round_01/train.jsonl` of the run, starting from `distill/checkpoint`" in card
    found = {(by, value): int(number) for by, value, number in table(card, "by")[1:]}
    students = sum(made["origin"] == "student" for made in train)
    assert students and found == {
        ("written by", "student: distill/checkpoint"): students,
        ("written by", "teacher: symbolic"): len(train) - students,
        ("in stage", "distill"): len(train) - students,
        ("in stage", "round_01"): students,
        ("source", "synthetic"): len(train),
    }


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("base", "It is the model before any training."),
        ("orm", "trained on `orm/feedback.jsonl` of the run, starting from `orm/solver/checkpoint`"),
        (
            "orm/solver",
            "trained on `solutions of the ORM-training problems` of the run, starting from `base/checkpoint`",
        ),
        ("final", "trained on `final/train.jsonl` of the run, starting from `round_01/checkpoint`"),
    ],
)
def test_each_checkpoint_tells_how_it_came_about(finished: Path, stage: str, says: str) -> None:
    card = render_model_card(read_run(finished), stage)
    assert says in card
    settings = {line[0]: line[1] for line in table(card, "setting")[1:]} if stage != "base" else {}
    assert stage == "base" or settings[f"`{'orm.fit' if stage == 'orm' else 'sft'}.max_steps`"] == "2"
    if stage != "base":  # what ``fastest`` came to on this machine
        precision = read_json(finished / stage / "trained.json")["precision"]
        assert precision in ("32-true", "bf16-mixed") and settings["`trainer.precision`"] == precision
    assert f"config hash `{read_json(finished / stage / 'stage.json')['identity']}`" in card


def test_a_student_carried_on_says_whose_it_is(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "run")
    write_json(folder / "final" / "skipped_fit.json", {"reason": "nothing new was accepted", "carried_on": "round_02"})
    record_again(folder)
    assert "it is the same as `round_02/checkpoint`" in render_model_card(read_run(folder), "final")


def test_licences_of_backbone_and_data_are_named(finished: Path) -> None:
    read = read_run(finished)
    card = render_model_card(read, "final")
    assert "| the data, synthetic |" in card and "CC BY 4.0" in card
    read.config["backbone"].update({"_target_": "mathse.models.cogvlm2.load", "path": "zai-org/cogvlm2"})  # type: ignore[attr-defined]
    card = render_model_card(read, "final")
    assert "base_model: zai-org/cogvlm2" in card and "Llama 3 Community License (Built with Meta Llama 3)" in card
    assert "mathse.models.load('cogvlm2', 'FOLDER')" in card


def test_a_stage_without_weights_names_those_that_have_some(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["export", str(finished), "--what", "model", "--out", str(tmp_path / "out"), "--stage"]
    assert main([*how, "reflection"]) == 1
    assert "--stage base or orm/student_8 or orm/solver or orm or distill" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
