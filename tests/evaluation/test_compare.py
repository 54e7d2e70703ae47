"""``python -m mathse compare``: differences, McNemar's p, Figure 2's transitions, and the paper's tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_builder import record_again

from evaluation.cases import TINY, metrics, run, write_rows
from mathse.__main__ import main as mathse
from mathse.errors import RunError
from mathse.evaluation.compare.pairs import compare
from mathse.evaluation.compare.results import RunResults, Scores, read_results
from mathse.evaluation.compare.tables import error_rows, p_text, table_1, table_2
from mathse.runs.store import read_json, write_json
from mathse.scoring import paper

Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The output of ``compare`` for these arguments."""

    def of(*arguments: object) -> str:
        capsys.readouterr()
        assert mathse(["compare", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return of


def line(printed: str, start: str) -> list[str]:
    """The cells of the first line that starts like this."""
    (found, *_) = [text for text in printed.splitlines() if text.strip().startswith(start)]
    return found.split()


@pytest.fixture
def two(tmp_path: Path, files: Path) -> tuple[Path, Path]:
    """Two evaluations of MATH-Vision: the second learns problem 1 and unlearns 5 and 6."""
    right = {"before": {2, 3, 5, 6}, "after": {1, 2, 3}}
    for name, known in right.items():
        given = [{"id": str(k), "response": str(k) if k in known else "none"} for k in range(1, 7)]
        file = write_rows(tmp_path / f"{name}.jsonl", given)
        problems = f"benchmark.mathvision.problems={files}/mathvision.jsonl"
        run(tmp_path / name, "benchmark=mathvision", problems, f"predictions={file}")
    return tmp_path / "before", tmp_path / "after"


def test_two_runs_are_compared_problem_by_problem(two: tuple[Path, Path], said: Said) -> None:
    printed = said(*two)
    assert line(printed, str(two[0]))[1:6] == ["66.67%", "[30.0,", "90.3]", "4", "6"]
    assert line(printed, str(two[1]))[1:6] == ["50.00%", "[18.8,", "81.2]", "3", "6"]
    assert "test, a file's answers, marker as it stands" in printed
    (changes,) = [text for text in printed.splitlines() if "−16.67" in text]
    assert changes.split()[1:] == ["−16.67", "−66.67", "to", "+33.33", "1.0000", "2", "2", "1", "1", "6", "0"]
    # difference, its interval, p, stays right, right to wrong, wrong to right, stays wrong, problems, left out


def test_a_run_without_a_right_answer_has_the_interval_of_its_own_table(
    tmp_path: Path, files: Path, said: Said
) -> None:
    given = [{"id": str(k), "response": "none"} for k in range(1, 7)]
    problems = f"benchmark.mathvision.problems={files}/mathvision.jsonl"
    predictions = write_rows(tmp_path / "answers.jsonl", given)
    run(tmp_path / "run", "benchmark=mathvision", problems, f"predictions={predictions}")
    assert metrics(tmp_path / "run", "mathvision")["ci95"] == [0.0, pytest.approx(0.390, abs=0.001)]
    assert line(said(tmp_path / "run"), str(tmp_path / "run"))[1:6] == ["0.00%", "[0.0,", "39.0]", "0", "6"]


def test_one_run_is_shown_alone(two: tuple[Path, Path], said: Said) -> None:
    printed = said(two[0])
    assert "66.67%" in printed and "McNemar" not in printed


def test_only_problems_that_both_were_scored_on_count() -> None:
    old = RunResults("old", {"b": Scores({"1": True, "2": False, "3": None, "4": True})})
    new = RunResults("new", {"b": Scores({"1": False, "2": True, "3": True, "5": True})})
    pair = compare(old, new, "b", 0)
    assert pair is not None
    assert (pair.problems, pair.left_out, pair.difference) == (2, 3, 0.0)
    assert pair.changes == {"correct_correct": 0, "correct_wrong": 1, "wrong_correct": 1, "wrong_wrong": 0}
    assert compare(old, RunResults("x", {"b": Scores({"9": True})}), "b", 0) is None


@pytest.mark.parametrize(("p", "text"), [(0.5, "0.5000"), (0.03125, "0.0312"), (1e-9, "< 0.0001")])
def test_small_p_are_bounds(p: float, text: str) -> None:
    assert p_text(p) == text


# --- folders of runs --------------------------------------------------------------------------------------------------


def test_the_last_student_of_a_training_run_and_its_stages_can_be_compared(tmp_path: Path, said: Said) -> None:
    for stage, right in (("distill", "1"), ("final", "12")):
        rows = [{"id": i, "response": "", "prediction": i, "answer": i, "correct": i in right} for i in "123"]
        write_rows(tmp_path / "run" / stage / "predictions.jsonl", rows)
        recorded = {"stage": stage, "identity": stage, "config": {}, "keys": [], "after": {}, "summary": {}}
        write_json(tmp_path / "run" / stage / "stage.json", recorded)
    record_again(tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {})
    assert read_results(str(tmp_path / "run")).scores["synthetic"].marks == {"1": True, "2": True, "3": False}
    printed = said(f"first={tmp_path / 'run' / 'distill'}", f"last={tmp_path / 'run'}")
    assert line(printed, "last")[:2] == ["last", "66.67%"]
    costs = printed.split("costs of the students")[1]
    assert costs.count("not recorded") == 11, "an earlier version made them; that a final fit asks no teacher is known"
    recorded = read_json(tmp_path / "run" / "final" / "stage.json")
    own = {"data._target_": "mathse.data.problems.JsonlData", "data.path": "sets/plants.jsonl"}
    write_json(tmp_path / "run" / "final" / "stage.json", {**recorded, "config": own})
    assert [*read_results(str(tmp_path / "run")).scores] == ["plants"]  # as mathse evaluate calls it


def test_an_evaluation_of_the_embedded_world_is_one_side(tmp_path: Path, checkpoint: Path, said: Said) -> None:
    run(tmp_path / "run", *TINY, f"checkpoint={checkpoint}")
    assert said(tmp_path / "run").startswith("synthetic\n")
    assert "Table" not in said(tmp_path / "run")
    assert "Table 2" in said(tmp_path / "run", "--tables")


@pytest.mark.parametrize("kind", ["nothing", "empty", "half"])
def test_a_folder_without_scored_answers_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    if kind != "nothing":
        folder.mkdir()
    if kind == "half":
        write_rows(folder / "scored.jsonl", [{"id": "1", "correct": True}])
    assert mathse(["compare", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}") and error.count("\n") == 1
    assert ("has no metrics.json" if kind == "half" else "holds no scored answers") in error


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence that ``compare`` refuses these arguments with."""
    assert mathse(["compare", *map(str, arguments)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "nowhere", "--out", tmp_path)
    assert f"--out {tmp_path}: a folder; name the page's file, such as {tmp_path}/comparison.html" in said
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in refused(capsys, "nowhere", "--out", tmp_path / "file" / "deep" / "page.html")


def test_two_runs_of_one_name_are_refused(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, f"A={two[0]}", f"A={two[1]}")
    assert f"A: names {two[0]} and {two[1]}; give each run a name of its own" in said
    assert "give each run a name of its own" in refused(capsys, two[0], two[0])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("metrics.json", "[]", "metrics.json: no JSON object; run the command that wrote it again"),
        ("metrics.json", '{"tot', "metrics.json: "),
        ("scored.jsonl", "", "scored.jsonl: holds 0 problems, and metrics.json beside it counts 6"),
        ("scored.jsonl", '{"id": "1", "correct": true}\n', "scored.jsonl: holds 1 problems, and metrics.json"),
        ("scored.jsonl", '{"id": "1", "correct": "no"}\n', "\"correct\" of '1' is true, false or null"),
        ("scored.jsonl", "7\n", "rows have id and correct"),
    ],
)
def test_a_damaged_folder_is_refused(
    name: str, content: str, sentence: str, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (two[0] / "mathvision" / name).write_text(content)
    assert sentence in refused(capsys, *two)


def test_a_name_may_stand_before_a_folder_whose_own_name_has_an_equals_sign(two: tuple[Path, Path]) -> None:
    odd = two[0].with_name("a=b")
    two[0].rename(odd)
    assert read_results(str(odd)).label == str(odd)
    assert read_results(f"mine={odd}").label == "mine"
    with pytest.raises(RunError):
        read_results("mine=nowhere")


# --- the paper's tables -----------------------------------------------------------------------------------------------


def vista(correct: int, gps: int) -> Scores:
    """A whole MathVista evaluation."""
    buckets: dict[str, Any] = {"task": {"geometry problem solving": {"accuracy": gps / 208, "correct": gps,
                                                                     "total": 208}}}  # fmt: skip
    return Scores({}, {"accuracy": correct / 1000, "total": 1000, "buckets": buckets})


def whole(benchmark: str, accuracy: float) -> Scores:
    return Scores({}, {"accuracy": accuracy, "total": paper.SIZES[benchmark], "buckets": {}})


def test_the_paper_s_tables_hold_what_it_prints() -> None:
    assert paper.TABLE_1["QVQ-72B"] == (52.25,) and len(paper.TABLE_1) == 17
    assert paper.TABLE_2["MathSE-InternVL"] == (74.52, 61.60, 43.65, 22.70, 50.62) and len(paper.TABLE_2) == 23
    means = {name: sum(row[:4]) / 4 for name, row in paper.TABLE_2.items() if None not in row}  # type: ignore[arg-type]  # checked
    off = {name for name, mean in means.items() if abs(mean - (paper.TABLE_2[name][4] or 0)) > 0.011}
    assert off == {"Qwen2-VL-7B base", "Math-LLaVA-13B"}  # the notes on the paper's slips
    assert all(99 < sum(shares) < 101.5 for shares in paper.FIGURE_4.values())


def test_a_run_named_like_a_row_stands_under_it_and_others_at_the_end() -> None:
    full = {"mathvista": vista(560, 130), "mathverse": whole("mathverse", 0.4), "mathvision": whole("mathvision", 0.2)}
    rows = table_2([RunResults("mathse-qwen", full), RunResults("mine", {"mathvista": vista(500, 104)})])
    place = [row[:2] for row in rows].index(["MathSE-Qwen", "ours"])
    assert rows[place - 1][:3] == ["MathSE-Qwen", "paper", "69.71"]
    assert rows[place][2:] == ["62.50", "56.00", "40.00", "20.00", "44.62"]
    assert rows[-1] == ["mine", "ours", "50.00", "50.00", "–", "–", "–"]
    table = table_1([RunResults("x", {"mathvl_test": whole("mathvl_test", 0.5)})])
    assert table[-1] == ["x", "ours", "50.00"] and ["QVQ-72B", "paper", "52.25"] in table


def test_a_part_of_a_benchmark_stands_in_no_table_of_the_paper() -> None:
    part = Scores({}, {"accuracy": 0.9, "total": 10, "buckets": {}})
    unscored = Scores({}, {"accuracy": None, "total": 3940, "not_scored": 3, "buckets": {}})
    rows = table_2([RunResults("x", {"mathvision": part, "mathverse": unscored})])
    assert rows[-1] == ["x", "ours", "–", "–", "–", "–", "–"]


def test_kinds_of_mistakes_stand_beside_the_paper_s() -> None:
    counts = {"reasoning": 6, "knowledge": 1, "calculation": 1, "question": 1, "vision": 0, "unclear": 1, "total": 10}
    rows = error_rows([RunResults("x", {"mathvision": Scores({}, {"error_types": counts})})])
    assert rows[1][:3] == ["MathSE-CogVLM2", "paper", "63.1"]
    assert rows[-1] == ["x, mathvision", "ours", "60.0", "10.0", "10.0", "10.0", "0.0", "10.0", "10"]


def test_the_page_draws_the_transitions(two: tuple[Path, Path], said: Said, tmp_path: Path) -> None:
    said(*two, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('<svg class="chart"') == 2, "one for wide screens and one for narrow ones"
    assert "2 problems correct to wrong" in page and "QVQ-72B" in page
