"""Decided anew from stored files: as the loop itself would have decided, with no model and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.runs import TINY, run
from run_builder import Builder, record_again
from small import orm_and_answer

from mathse.__main__ import main
from mathse.commands.replay import replay_run
from mathse.config import build, judges
from mathse.config.data import SyntheticData
from mathse.errors import ConfigError, DataError, RunError
from mathse.evolution.state import EvolutionState, Judged
from mathse.judges.answer import AnswerJudge
from mathse.judges.controls import RandomJudge
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.scoring.metrics import accepted
from mathse.seeds import rng
from mathse.types import Problem, ReasoningPath, Verdict

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it, judged by an ORM with scores."""
    return Builder(tmp_path_factory.mktemp("made_up") / "run", size=300).build()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``real("judge.threshold=0.8")``: a real run of all stages whose judge is chance, with a score."""

    def scored(self: RandomJudge, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        draws = {path.id: rng(self.seed, "judge", path.id) for path in paths}
        return [
            Verdict(path_id, "correct" if draw.random() < 0.7 else "wrong", score=draw.random(), judge=self.name)
            for path_id, draw in draws.items()
        ]

    made: dict[tuple[str, ...], Path] = {}

    def start(*settings: str) -> Path:
        if settings not in made:
            folder = tmp_path_factory.mktemp("real") / "run"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(RandomJudge, "judge", scored)
                run(folder, *TINY, "evolution.reflect.feedback=none", "judge.threshold=0.2", *settings)
            made[settings] = folder
        return made[settings]

    return start


def ids(file: Path) -> list[str]:
    return [row["id"] for row in read_jsonl(file)]


def merged(folder: Path, stage: str) -> list[str]:
    return ids(folder / stage / "train.jsonl")


def judged(folder: Path, stage: str) -> tuple[list[ReasoningPath], list[Verdict]]:
    said = {v.path_id: v for v in read_jsonl(folder / stage / "verdicts.jsonl", Verdict)}
    paths = list(read_jsonl(folder / stage / "paths.jsonl", ReasoningPath))
    return paths, [said[path.id] for path in paths]


def test_without_an_override_nothing_changes_and_everything_is_exact(tiny_like: Path) -> None:
    found = replay_run(tiny_like)
    assert [s.stage for s in found.stages] == ["distill", "round_01", "reflection"]
    assert all(s.exact and s.then == s.now and not s.gained and not s.lost for s in found.stages)
    assert [path.id for path in found.train] == merged(tiny_like, "final") and found.notes == ()


@pytest.fixture
def tiny_like(real: Run) -> Path:
    return real("distill.judge=answer")


def test_a_threshold_decides_the_first_stage_as_a_real_rerun_does(real: Run) -> None:
    low, high = real("distill.judge=random"), real("distill.judge=random", "judge.threshold=0.7")
    assert merged(low, "distill") != merged(high, "distill")
    for folder, asked, other in ((low, 0.7, high), (high, 0.2, low)):
        first = replay_run(folder, [f"judge.threshold={asked}"]).stages[0]
        assert first.exact and first.now.train_rows == len(merged(other, "distill"))
        assert {*merged(folder, "distill")} - {*first.lost} | {*first.gained} == {*merged(other, "distill")}
        line = read_json(other / "summary.json")["stages"][1]
        assert (first.now.accepted, first.now.rejected, first.now.precision) == (
            line["accepted"],
            line["rejected"],
            line["acceptance_precision"],
        )


def test_a_round_is_exact_where_nothing_before_it_changes(real: Run) -> None:
    low, high = real("distill.judge=answer"), real("distill.judge=answer", "judge.threshold=0.7")
    assert merged(low, "round_01") != merged(high, "round_01")
    distill, first, reflection = replay_run(low, ["judge.threshold=0.7"]).stages
    assert distill.exact and first.exact and not reflection.exact
    assert {*merged(low, "round_01")} - {*first.lost} | {*first.gained} == {*merged(high, "round_01")}
    assert first.now.train_rows == len(merged(high, "round_01"))
    # problems that the run had solved are open again, and their new drafts were never rewritten
    assert reflection.missing == len(first.lost) > 0


def test_another_judge_decides_as_a_run_with_it_does(real: Run) -> None:
    by_chance, by_answer = real("distill.judge=random"), real("distill.judge=answer")
    first = replay_run(by_chance, ["distill.judge=answer"]).stages[0]
    assert {*merged(by_chance, "distill")} - {*first.lost} | {*first.gained} == {*merged(by_answer, "distill")}
    assert first.lost and first.gained and first.now.precision == 1.0


def test_orm_and_answer_is_the_judge_of_that_name_over_the_stored_words(made_up: Path) -> None:
    paths, verdicts = judged(made_up, "round_01")
    problems = [build(SyntheticData(seed=0)).get(path.problem_id) for path in paths]

    class Stored:
        name = "orm"

        def judge(self, problems: object, paths: object) -> list[Verdict]:
            return verdicts

    said = orm_and_answer(Stored(), 0.5).judge(problems, paths)
    assert sum(accepted(v, 0.5) for v in verdicts) > sum(accepted(v, 0.5) for v in said)
    before = EvolutionState.load(made_up / "distill", [p.id for p in problems])
    after = before.absorb(list(map(Judged, paths, said)), lambda v: accepted(v, 0.5))
    first = replay_run(made_up, ["judge=orm_and_answer"]).stages[1]
    assert first.exact and first.lost and not first.gained and first.now.precision == 1.0
    assert {*merged(made_up, "round_01")} - {*first.lost} == {path.id for path in after.train}
    answers = [v.status == "correct" for v in AnswerJudge().judge(problems, paths)]
    assert replay_run(made_up, ["judge=answer"]).stages[1].now.accepted == sum(answers)


def test_what_the_orm_said_is_read_back_from_under_orm_and_answer(made_up: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    head = read_json(made_up / "run.json")
    head["config"]["judge"] |= {"name": "orm_and_answer", "threshold": 0.98}
    head["config"]["distill"]["judge"] = "orm_and_answer"
    write_json(folder / "run.json", head)
    paths, verdicts = judged(made_up, "distill")
    problems = [build(SyntheticData(seed=0)).get(path.problem_id) for path in paths]
    raw = [replace(v, raw=json.dumps({"status": {"correct": "CORRECT"}.get(v.status, "WRONG")})) for v in verdicts]

    class Stored:
        name = "orm"

        def judge(self, problems: object, paths: object) -> list[Verdict]:
            return raw

    both = orm_and_answer(Stored(), 0.98).judge(problems, paths)
    assert any(a.status != b.status for a, b in zip(raw, both, strict=True))
    (folder / "distill").mkdir()
    write_jsonl(folder / "distill" / "paths.jsonl", paths)
    write_jsonl(folder / "distill" / "verdicts.jsonl", both)
    write_json(folder / "distill" / "stage.json", read_json(made_up / "distill" / "stage.json"))
    record_again(folder)
    found = replay_run(folder, ["judge=orm", "judge.threshold=0.5"]).stages[0]
    assert found.now.accepted == sum(accepted(v, 0.5) for v in raw)
    answers = AnswerJudge().judge(problems, paths)
    lower = replay_run(folder, ["judge.threshold=0.2"]).stages[0]  # what 0.98 refused is looked at again
    assert lower.now.accepted == sum(
        accepted(v, 0.2) and a.status == "correct" for v, a in zip(raw, answers, strict=True)
    )


def test_a_stage_after_a_change_is_conditional_and_says_what_is_missing(made_up: Path) -> None:
    distill, first, second, _ = replay_run(made_up, ["judge.threshold=0.99"]).stages
    assert distill.exact and not first.exact and not second.exact
    assert first.missing == len(distill.lost) > 0
    assert second.missing > first.missing
    assert second.now.paths == second.then.paths


def test_a_solved_problem_is_not_tried_again(made_up: Path) -> None:
    """What the ORM refused wrongly is solved earlier by the answer, and its later paths would not have been made."""
    found = replay_run(made_up, ["judge=answer"])
    second = found.stages[2]
    assert second.stage == "round_02" and second.unused == second.then.paths - second.now.paths > 0
    problems = [path.problem_id for path in found.train]
    assert len(problems) == len(set(problems))


def test_all_accepted_paths_of_a_problem_can_be_kept(real: Run) -> None:
    one = real("distill.judge=answer", "evolution.samples_per_problem=3")
    every = real("distill.judge=answer", "evolution.samples_per_problem=3", "evolution.keep=all")
    first = replay_run(one, ["evolution.keep=all"]).stages[1]
    assert first.exact and first.gained
    assert {*merged(one, "round_01")} | {*first.gained} == {*merged(every, "round_01")}


def test_a_second_try_is_judged_only_where_the_first_was_refused(real: Run) -> None:
    folder = real("distill.judge=answer", "evolution.reflect.tries=2")
    assert replay_run(folder).stages[2].exact
    again = replay_run(folder, ["judge.threshold=0"])
    last = again.stages[2]
    assert last.now.paths < last.then.paths and last.unused > 0


def test_the_rows_can_be_written_for_a_fit(made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    before = {f: f.read_bytes() for f in made_up.rglob("*") if f.is_file()}
    assert main(["replay", str(made_up), "judge.threshold=0.8", "--out", str(out)]) == 0
    rows = list(read_jsonl(out / "train.jsonl", ReasoningPath))
    told = read_json(out / "whatif.json")
    assert len(rows) == told["stages"][-1]["now"]["train_rows"] > 0 and told["now"]["threshold"] == 0.8
    printed = capsys.readouterr().out
    assert "distill" in printed and "exact" in printed and "conditional: the rows before this stage differ" in printed
    assert before == {f: f.read_bytes() for f in made_up.rglob("*") if f.is_file()}


@pytest.mark.parametrize("inside", [".", "round_01", "whatif/new", "../link/distill"])
def test_rows_are_not_written_over_those_of_a_run(
    made_up: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    link = made_up.parent / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(made_up)
    before = {f: f.read_bytes() for f in made_up.rglob("*") if f.is_file()}
    out = made_up / inside
    assert main(["replay", str(made_up), "judge.threshold=0.8", "--out", str(out)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: --out = {out}: is in the run {made_up.resolve()}, which must not change")
    assert before == {f: f.read_bytes() for f in made_up.rglob("*") if f.is_file()}


def test_no_torch_is_loaded(made_up: Path) -> None:
    script = (
        "import sys; from mathse.__main__ import main; "
        f"code = main(['replay', {str(made_up)!r}, 'judge.threshold=0.8', 'judge=orm_and_answer']); "
        "print(code, [m for m in ('torch', 'transformers', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("judge.threshold=1.2", "must be a number in [0, 1]"),
        ("judge.threshold=high", "must be a number in [0, 1]"),
        ("judge=teacher", "must be one of orm, orm_and_answer, answer"),
        ("judge.treshold=0.8", "did you mean judge.threshold"),
        ("sft.optimizer.lr=1", "stored verdicts can be decided again by KEY=VALUE"),
        ("judge", "stored verdicts can be decided again by KEY=VALUE"),
        ("evolution.keep=some", "must be one of one, all"),
    ],
)
def test_a_wrong_override_is_told(made_up: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        replay_run(made_up, [override])
    assert said in str(told.value)


def test_a_score_that_is_not_stored_is_not_made_up(tiny_like: Path) -> None:
    with pytest.raises(DataError, match="no ORM's score of it is stored"):
        replay_run(tiny_like, ["judge=orm"])


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        replay_run(tmp_path)


def test_a_run_json_without_the_settings_is_told(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"name": "x", "task": "evolve", "seed": 0, "config": {"judge": {"name": "orm"}}})
    with pytest.raises(DataError, match=r"run.json: records no judge.threshold, distill.judge, evolution.keep, "):
        replay_run(tmp_path)


def test_without_the_data_precision_is_not_known_and_the_answer_cannot_judge(made_up: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "distill").mkdir(parents=True)
    head = read_json(made_up / "run.json")
    head["config"]["data"] = {"_target_": "mathse.data.problems.JsonlData", "path": str(tmp_path / "gone.jsonl")}
    write_json(folder / "run.json", head)
    for name in ("paths.jsonl", "verdicts.jsonl", "stage.json", "train.jsonl"):
        (folder / "distill" / name).write_bytes((made_up / "distill" / name).read_bytes())
    record_again(folder)
    found = replay_run(folder, ["judge.threshold=0.8"])
    assert found.stages[0].now.precision is None and "gone.jsonl" in found.notes[0]
    with pytest.raises(DataError, match="its reference answer is not known"):
        replay_run(folder, ["judge=answer"])


def test_the_verbs_former_name_is_understood(made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for verb in ("replay", "whatif"):
        assert main([verb, str(made_up), "judge.threshold=0.8"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_chance_decides_by_the_seed_of_the_run(made_up: Path) -> None:
    paths, _ = judged(made_up, "distill")
    first = replay_run(made_up, ["judge=random", "judge.rate=0.9"]).stages[0]
    by_chance = RandomJudge(judges.RandomJudge(rate=0.9), read_json(made_up / "run.json")["seed"])
    verdicts = by_chance.judge([], paths)
    assert first.exact and first.now.accepted == sum(accepted(v, 0.5) for v in verdicts) > 0
