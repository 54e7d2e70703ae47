"""python -m mathse study: its figures and its errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from run_builder import Builder, record_again

from mathse.__main__ import main
from mathse.config.compose import train_config
from mathse.config.options import look_in
from mathse.config.sections import plain
from mathse.errors import ConfigError, DataError, RunError
from mathse.reporting.charts import LETTER_WIDTH, Point, means, means_by_cost
from mathse.reporting.study import draw_picture
from mathse.reporting.study import main as study
from mathse.reporting.study.collect import PairedDifference, collect
from mathse.reporting.study.design import EXPERIMENTS, read_design
from mathse.reporting.study.readme import BEGIN, END, difference_text
from mathse.runs.store import read_json, write_json

GAINS = {"none": 0.0, "teacher": -0.2, "orm": -0.1}


def made_up(root: Path, variant: str, seed: int, name: str = "table3_reflection", **how: Any) -> Path:
    settings = {"study": name, "variant": variant, "evolution": {"rounds": 2}, **how.pop("settings", {})}
    folder = root / f"{name}.{variant}.seed_{seed}"
    return Builder(folder, seed, name="study", gain=GAINS.get(variant, 0.0), settings=settings, **how).build()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    for variant in GAINS:
        for seed in (1, 2, 3):
            made_up(root, variant, seed)
    made_up(root, "mathse", 1, name="table1_stages")
    made_up(root, "mathse", 2, name="table1_stages")
    return root


def final_accuracy(runs: Path, variant: str, seed: int) -> float:
    summary = read_json(runs / f"table3_reflection.{variant}.seed_{seed}" / "summary.json")
    return float(summary["stages"][-1]["accuracy"])


def test_a_new_readme_has_table_picture_and_headings_and_later_only_its_block_changes(runs, tmp_path, capsys):
    arguments = ["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)]
    assert study(arguments) == 0
    printed, readme = capsys.readouterr().out.strip(), tmp_path / "README.md"
    assert printed in readme.read_text() and "![table3_reflection](result.svg)" in readme.read_text()
    assert (tmp_path / "result.svg").read_text().startswith("<svg")
    headings = [line for line in readme.read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## Results", "## Conclusions and limits"]
    readme.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nMy words.\n")
    assert study(arguments) == 0
    text = readme.read_text()
    assert text.startswith("# Mine\n") and text.endswith("\n\nMy words.\n") and "old" not in text and printed in text


def test_a_readme_without_a_place_for_results_is_left_alone(runs, tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    with pytest.raises(DataError, match="has no place for the results"):
        study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == "# Mine\n" and not (tmp_path / "results.json").exists()


def test_a_picture_of_other_results_does_not_stay(runs, tmp_path):
    (tmp_path / "study.yaml").write_text("measures: {rows: last.train_rows}\n")  # no share: nothing is drawn
    (tmp_path / "result.svg").write_text("old")
    study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)])
    assert not (tmp_path / "result.svg").exists() and "result.svg" not in (tmp_path / "README.md").read_text()


def test_cells_are_means_over_seeds_and_differences_are_paired(runs, tmp_path, capsys):
    study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| ORM's feedback |"))
    none, orm = ([final_accuracy(runs, v, seed) for seed in (1, 2, 3)] for v in ("none", "orm"))
    assert row.startswith(f"| ORM's feedback | {100 * mean(orm):.1f} [") and row.endswith("| 64.70 |")
    saved = read_json(tmp_path / "results.json")
    assert saved["variants"]["orm"]["measures"]["test accuracy"] == pytest.approx(orm)
    assert saved["seeds"] == [1, 2, 3]
    text = (tmp_path / "README.md").read_text()
    assert f"| {100 * (mean(orm) - mean(none)):+.1f} [" in text


def test_seeds_can_be_chosen(runs, tmp_path):
    study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path), "--seeds", "1,3"])
    assert read_json(tmp_path / "results.json")["seeds"] == [1, 3]


def test_a_cell_without_a_finished_run_is_refused_with_the_command_that_makes_it(tmp_path):
    made_up(tmp_path, "none", 1)
    made_up(tmp_path, "orm", 1, stop_after="round_01")
    with pytest.raises(RunError) as refused:
        study(["table3_reflection", "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "no finished run" in str(refused.value) and "teacher, seed 1; orm, seed 1" in str(refused.value)
    assert "python train.py -m '+experiment/table3_reflection=glob(*)' seed=1" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_no_run_at_all_is_refused(tmp_path, capsys):
    assert main(["study", "table3_reflection", "--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no finished run" in capsys.readouterr().err


def test_two_runs_for_one_cell_are_refused(runs, tmp_path):
    design = read_design("table1_stages", tmp_path)
    made_up(tmp_path / "a", "mathse", 1, name="table1_stages")
    made_up(tmp_path / "b", "mathse", 1, name="table1_stages")
    with pytest.raises(RunError, match=r"two finished runs of mathse, seed 1: .*\(with equal settings\)"):
        collect(design, tmp_path)
    other = {"generator": {"top_p": 0.9}}
    shutil.rmtree(tmp_path / "b")
    made_up(tmp_path / "b", "mathse", 1, name="table1_stages", settings=other)
    with pytest.raises(RunError, match=r"generator.top_p is 1.0 and 0.9"):
        collect(design, tmp_path)


def test_seeds_run_with_other_settings_are_refused(tmp_path):
    made_up(tmp_path, "mathse", 1, name="table1_stages")
    made_up(tmp_path, "mathse", 2, name="table1_stages", settings={"evolution": {"rounds": 3}})
    with pytest.raises(RunError, match=r"not run alike with seeds 1 and 2: evolution.rounds is 2 and 3"):
        collect(read_design("table1_stages", tmp_path), tmp_path)


def test_a_run_before_a_setting_came_a_logger_and_a_seed_in_a_path_make_no_difference(tmp_path):
    settings = {"judge": {"checkpoint": "outputs/orm.seed_1/orm/checkpoint"}}
    old = made_up(tmp_path, "mathse", 1, name="table1_stages", settings=settings)
    head = read_json(old / "run.json")
    del head["config"]["evolution"]["reflect"]["row"], head["config"]["orm"]["train"]
    head["config"]["logger"] = {"_target_": "mathse.reporting.loggers.CsvLogger"}
    write_json(old / "run.json", head)
    settings = {"judge": {"checkpoint": "outputs/orm.seed_2/orm/checkpoint"}}
    made_up(tmp_path, "mathse", 2, name="table1_stages", settings=settings)
    assert len(collect(read_design("table1_stages", tmp_path), tmp_path).runs["mathse"]) == 2


def test_a_measure_that_no_stage_has_is_refused(runs, tmp_path):
    (tmp_path / "study.yaml").write_text("measures: {a: last.acuracy}\n")
    with pytest.raises(RunError, match=r"summary.json: last.acuracy is no figure of a run; .*accuracy"):
        study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)])
    assert not (tmp_path / "README.md").exists() and not (tmp_path / "results.json").exists()


def test_answers_that_are_not_all_there_are_refused(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    file = tmp_path / "runs" / "table3_reflection.none.seed_2" / "final" / "predictions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(RunError, match=r"seed_2/final/predictions.jsonl has .* bytes, not the recorded"):
        study(["table3_reflection", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    record_again(tmp_path / "runs")
    with pytest.raises(DataError, match=r"seed_2/final/predictions.jsonl: holds .* answers, the run's summary"):
        study(["table3_reflection", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("name", ["run.json", "summary.json", "final/stage.json", "final/predictions.jsonl"])
@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"status": "finished", "stages": [{}]}', "{"])
def test_a_damaged_file_of_a_run_is_named(runs, tmp_path, name, text):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "table3_reflection.none.seed_2" / name).write_text(text + "\n")
    with pytest.raises((RunError, DataError), match=rf"none.seed_2/{name}"):
        study(["table3_reflection", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])


def test_the_command_has_what_all_runs_were_given_besides_their_variant_s_file(tmp_path, capsys):

    for variant in ("binary", "generative"):
        overrides = [
            f"+experiment/table5_orm={variant}",
            "seed=1",
            "data.pool=40",
            "orm.students=[60]",
            "sft.max_steps=3",
        ]
        overrides += ["generator.top_p=0.9"] if variant == "binary" else []
        folder = made_up(tmp_path / "runs", variant, 1, name="table5_orm")
        write_json(folder / "run.json", {**read_json(folder / "run.json"), "config": plain(train_config(overrides)[0])})
    assert study(["table5_orm", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    besides = "seed=1 data.pool=40 'orm.students=[60]' sft.max_steps=3"
    assert f"python train.py -m '+experiment/table5_orm=glob(*)' {besides}\n" in printed
    assert "`generator.top_p`" in printed  # a setting of one variant is in the table of settings


def test_stages_are_rows_where_the_study_says_so(runs, tmp_path, capsys):
    said = "rows: stages\nmeasures: {test accuracy: last.accuracy, rows: last.train_rows}\npaper: {final: 64.7}\n"
    (tmp_path / "study.yaml").write_text(said)
    assert study(["table1_stages", "--runs", str(runs), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| round 1 |" in printed and "| 64.70 |" in printed and "| to | stays right |" in printed
    entries = [read_json(runs / f"table1_stages.mathse.seed_{s}" / "summary.json")["stages"] for s in (1, 2)]
    rows = mean(run[1]["train_rows"] for run in entries)
    assert f"| {rows:,.0f} |" in next(line for line in printed.splitlines() if line.startswith("| distilled |"))
    assert "staircase" in (tmp_path / "result.svg").read_text() or "stairs" in (tmp_path / "result.svg").read_text()


def test_variants_on_lines_are_drawn_over_what_they_spent(runs, tmp_path):
    (tmp_path / "study.yaml").write_text(
        "measures: {test accuracy: last.accuracy, rows: last.train_rows}\n"
        "over: rows\nlines: {reflected: [teacher, orm], not reflected: [none]}\n"
    )
    assert study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)]) == 0
    drawing = (tmp_path / "result.svg").read_text()
    assert ">reflected<" in drawing and ">not reflected<" in drawing and drawing.count("<title>") == 9
    rows = [
        read_json(runs / f"table3_reflection.none.seed_{s}/summary.json")["stages"][-1]["train_rows"] for s in (1, 2, 3)
    ]
    assert f"with {mean(rows):,.0f}" in drawing  # read out, too


def test_a_difference_is_that_of_the_figures_shown_beside_it(runs, tmp_path, capsys):
    assert study(["table3_reflection", "--runs", str(runs), "--out", str(tmp_path)]) == 0
    assert study(["table1_stages", "--runs", str(runs), "--out", str(tmp_path / "stages")]) == 0
    for folder in (tmp_path, tmp_path / "stages"):
        head, *rows = read_json(folder / "results.json")["table"]
        at = next(k for k, name in enumerate(head) if name.startswith("against"))
        shown = {row[0]: float(row[1].split()[0]) for row in rows}
        before = None if "stage before" in head[at] else rows[0]
        for one, row in zip(rows, rows[1:], strict=False):
            difference = shown[row[0]] - shown[(before or one)[0]]
            assert row[at].split()[0] == f"{difference + 0.0:+.1f}"
    half = difference_text(PairedDifference(0.51625, 0.7675, None, False), "last.accuracy")
    assert half == "+25.2", "51.6 and 76.8 are shown"
    assert difference_text(PairedDifference(928.6, 978.4, None, False), "last.teacher_calls") == "+49"


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*/results.json")), ids=lambda file: file.parent.name)
def test_the_picture_of_a_study_here_is_drawn_from_its_results(file):
    drawn = draw_picture(read_design(file.parent.name, file.parent), read_json(file))
    again = f"out of date; run: python -m mathse study {file.parent.name} --redraw"
    assert (file.parent / "result.svg").read_text(encoding="utf-8") == drawn, again


def test_a_picture_is_drawn_again_without_the_runs(runs, tmp_path):
    arguments = ["table3_reflection", "--out", str(tmp_path)]
    with pytest.raises(DataError, match=r"results\.json: is not there; make it from the runs"):
        study([*arguments, "--redraw"])
    assert study([*arguments, "--runs", str(runs)]) == 0
    drawing = tmp_path / "result.svg"
    before = drawing.read_text()
    drawing.write_text("damaged")
    assert study([*arguments, "--redraw"]) == 0
    assert drawing.read_text() == before


def test_long_names_of_variants_do_not_run_together():
    names = ["short fits from the student before", "long fits from the base", "distilled alone"]
    drawn = means({name: [0.551, 0.62] for name in names}, "test accuracy", None)
    texts = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="name"[^>]*>([^<]+)</text>', drawn)
    middle_of = {line: float(x) for x, line in texts}
    assert " ".join(line for _, line in texts) == " ".join(names)
    step = sorted(set(middle_of.values()))[1] - min(middle_of.values())
    assert max(map(len, middle_of)) * LETTER_WIDTH <= step


@pytest.mark.parametrize("shares", [[0.86, 0.88], [0.17, 0.2], [1.0, 1.0], [0.0, 0.0]])
def test_every_picture_of_shares_begins_at_zero(shares):
    lines = {"one": [Point([100, 120], shares)], "other": [Point([200, 210], [0.3, 0.31])]}
    for drawn in (means({"a": shares, "b": [0.3, 0.31]}, "accuracy", None), means_by_cost(lines, "accuracy", "calls")):
        ticks = [float(t) for t in re.findall(r'class="tick" text-anchor="end">([\d.]+)<', drawn)]
        assert min(ticks) == 0 and max(ticks) <= 100


def test_variants_on_lines_are_drawn_over_a_currency_of_their_ledgers(tmp_path, capsys):
    spent = {"none": 4.5e15, "teacher": 1.2e16, "orm": 3.3e16}
    for variant, flops in spent.items():
        for seed in (1, 2):
            file = made_up(tmp_path / "runs", variant, seed) / "summary.json"
            summary = read_json(file)
            summary["stages"][-1] |= {"flops": int(flops * seed), "trained_tokens": 5, "sampled_tokens": 6}
            summary["stages"][-1]["prefilled_tokens"] = 7
            write_json(file, summary)
    said = "measures: {test accuracy: last.accuracy}\nover: flops\nlines: {reflected: [teacher, orm], not: [none]}\n"
    (tmp_path / "study.yaml").write_text(said)
    command = ["table3_reflection", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert study(command) == 0
    assert "| 6.75 P |" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| none |"))
    drawing = (tmp_path / "result.svg").read_text()
    assert "with 6.75 P" in drawing and ">10 P<" in drawing

    # A run of an earlier version recorded no ledger: no figure is made up for it, and nothing is drawn over it.
    summary["stages"][-1]["flops"] = None
    write_json(file, summary)
    assert study(command) == 0
    assert "| not recorded |" in capsys.readouterr().out and not (tmp_path / "result.svg").exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("measure: {}", "measure: no such key"),
        ("variants: [none]", "must be those of conf/experiment/table3_reflection"),
        ("against: nobody", "against = 'nobody': must be a variant"),
        ("rows: stages", "rows = 'stages': must be variants"),
        ("measures: {accuracy: accuracy}", "must be STAGE.KEY"),
        ("measures: [accuracy]", "measures = ['accuracy']: must be a mapping"),
        ("measures: {a: 5.5}", "measures.a = 5.5: must be STAGE.KEY"),
        ("measures: {1: last.accuracy}", "measures.1 = 'last.accuracy': must be STAGE.KEY"),
        ("variants: 5", "variants = 5: must be a list"),
        ("variants:", "variants = None: must be a list"),
        ("axis: [1, 2]", "axis = [1, 2]: must be text"),
        ("over: rows", "over = 'rows': must be a column of measures"),
        ("lines: {a: [none]}", "over = None: must be a column of measures"),
        ("measures: {n: last.n}\nover: n\nlines: {a: [nobody]}", "lines.a = ['nobody']: must be a list of variants"),
        ("paper: {none: '62'}", "paper.none = '62': must be a number"),
        ("paper: {none: }", "paper.none = None: must be a number"),
        ("names: {nobody: No One}", "names.nobody = 'No One': must be text, of a variant"),
        ("names: {none: 5}", "names.none = 5: must be text"),
        ("paper: {nobody: 5}", "paper.nobody: must be a variant"),
        ("a: [1", "is no YAML"),
        ("- 1", "must be a mapping"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(said, reason, tmp_path):
    (tmp_path / "study.yaml").write_text(said)
    with pytest.raises(ConfigError) as refused:
        read_design("table3_reflection", tmp_path)
    assert reason in str(refused.value) and "study.yaml" in str(refused.value)


def test_an_unknown_study_is_told_with_its_neighbour(tmp_path):
    with pytest.raises(ConfigError, match="did you mean table3_reflection"):
        read_design("table3_reflections", tmp_path)


def test_every_study_here_is_described_by_a_file_that_fits():
    from mathse.config.options import groups
    from mathse.reporting.study.design import EXPERIMENTS

    names = [g.removeprefix("experiment/") for g in groups() if g.startswith("experiment/")]
    described = [name for name in names if (EXPERIMENTS / name / "study.yaml").is_file()]
    for name in described:
        assert read_design(name, EXPERIMENTS / name).variants
    assert "table3_reflection" in described


def test_results_hold_no_not_a_number(runs, tmp_path):
    study(["table1_stages", "--runs", str(runs), "--out", str(tmp_path)])
    json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_a_study_of_the_users_own_is_collected_with_the_command_that_makes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    variants = tmp_path / "conf" / "experiment" / "mine"
    variants.mkdir(parents=True)
    for variant in ("none", "orm"):
        (variants / f"{variant}.yaml").write_text(f"# @package _global_\nstudy: mine\nvariant: {variant}\n")
        for seed in (1, 2, 3):
            made_up(tmp_path / "runs", variant, seed, name="mine")
    try:
        assert study(["mine", "--config-dir", "conf", "--runs", "runs", "--out", "out"]) == 0
    finally:
        look_in(None)
    assert "mathse train -m --config-dir conf '+experiment/mine=glob(*)' seed=1,2,3" in capsys.readouterr().out
