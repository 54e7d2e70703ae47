"""A run folder is a resume point: stages are whole or absent, and are reused only where their settings still hold."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mathse.errors import DataError, RunError
from mathse.runs.reader import read_finished_summary
from mathse.runs.stage_cache import RunFolder, Stage, find_newest_unfinished, name_branch
from mathse.runs.store import BatchLog, read_json, write_json, write_jsonl

ROOT = Path(__file__).parents[1]
CONFIG: dict[str, Any] = {
    "seed": 0,
    "progress": "auto",
    "orm.lr": 1e-3,
    "orm.students": (300, 600),
    "distill.size": None,
    "evolution.rounds": 2,
    "evolution.init": "base",
}
# stage -> (keys, stages before it)
GRAPH: dict[str, tuple[list[str], list[str]]] = {
    "base": (["seed"], []),
    "orm/solver": (["seed", "orm.lr"], ["base"]),
    "orm": (["seed", "orm"], ["base", "orm/solver"]),
    "distill": (["seed", "distill"], ["base", "orm"]),
    "round_01": (["seed", "evolution.init"], ["distill", "orm"]),
    "final": (["seed", "evolution"], ["round_01"]),
}


def open_run(path: Path, **changes: Any) -> RunFolder:
    config = {**CONFIG, **{key.replace("__", "."): value for key, value in changes.items()}}
    return RunFolder.open(path, config, name="demo", task="evolve", seed=0, nested={"seed": 0})


def stages(run: RunFolder) -> Iterator[Stage]:
    made: dict[str, Stage] = {}
    for name, (keys, after) in GRAPH.items():
        made[name] = run.stage(name, keys, [made[a] for a in after])
        yield made[name]


def make(stage: Stage) -> None:
    stage.begin()
    write_jsonl(stage.path / "paths.jsonl", [stage.name, 1, 2])
    write_json(stage.path / "checkpoint" / "config.json", {"stage": stage.name})
    stage.finish({"accuracy": 0.5})


def make_all(path: Path, **changes: Any) -> None:
    with open_run(path, **changes) as run:
        for stage in stages(run):
            if not stage.done:
                make(stage)


def contents(path: Path) -> dict[str, bytes]:
    """The files of a run but for its manifests (which hold times) and lock."""
    files = (p for p in path.rglob("*") if p.is_file() and p.name not in ("stage.json", ".lock"))
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


# --- a stage and its manifest ---------------------------------------------------------------------------------------


def test_a_finished_stage_is_done_with_its_summary_when_the_run_is_opened_again(tmp_path: Path) -> None:
    make_all(tmp_path)
    before = contents(tmp_path)
    with open_run(tmp_path, progress="off") as run:
        assert [(s.name, s.done, s.summary) for s in stages(run)] == [(n, True, {"accuracy": 0.5}) for n in GRAPH]
    assert contents(tmp_path) == before


def test_the_manifest_holds_what_the_stage_was_made_from_and_what_it_made(tmp_path: Path) -> None:
    outside = tmp_path / "train.jsonl"
    write_jsonl(outside, [1])
    with open_run(tmp_path / "run") as run:
        base = run.stage("base", ["seed"])
        make(base)
        orm = run.stage("orm", ["orm"], [base])
        assert (orm.done, orm.path.is_dir()) == (False, True)
        orm.begin()
        write_json(orm.path / "metrics.json", {})
        orm.finish({"n": 3}, inputs=[base.path / "checkpoint", outside])
    manifest = read_json(orm.path / "stage.json")
    assert manifest["stage"] == "orm"
    assert manifest["config"] == {"orm.lr": 1e-3, "orm.students": [300, 600]}
    assert manifest["keys"] == ["orm"]
    assert manifest["after"] == {"base": base.identity}
    assert set(manifest["inputs"]) == {"base/checkpoint/config.json", str(outside)}
    assert manifest["outputs"].keys() == {"metrics.json"}
    assert manifest["outputs"]["metrics.json"]["bytes"] == 3
    assert manifest["summary"] == {"n": 3}
    assert manifest["seed"] == 0
    assert {"python", "mathse", "torch", "transformers", "pytorch_lightning"} == manifest["versions"].keys()
    assert {"git", "started", "finished", "wall_s", "time_s", "identity"} <= manifest.keys()


def test_outputs_leave_out_nested_stages_scratch_and_what_killed_writers_left(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        solver = run.stage("orm/solver", ["orm.lr"])
        make(solver)
        run.stage("orm/other", ["orm.lr"]).begin()
        orm = run.stage("orm", ["orm"], [solver])
        orm.begin()
        write_json(orm.path / "fit" / "deep" / "last.json", 1)
        write_json(orm.path / ".metrics.json.partial", 1)
        write_json(orm.path / "checkpoint" / "config.json", 1)
        orm.finish({})
    assert read_json(orm.path / "stage.json")["outputs"].keys() == {"checkpoint/config.json"}
    assert sorted(os.listdir(orm.path)) == ["checkpoint", "other", "solver", "stage.json"]
    assert sorted(os.listdir(solver.path)) == ["checkpoint", "paths.jsonl", "stage.json"]


def test_seconds_are_counted_by_kind_and_go_on_after_a_kill(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        stage = run.stage("base", ["seed"])
        stage.begin()
        with stage.time("fit"):
            pass
    begun = read_json(stage.path / "stage.begun.json")
    begun["time_s"]["fit"], begun["wall_s"] = 100.0, 150.0
    write_json(stage.path / "stage.begun.json", begun)
    with open_run(tmp_path) as run:
        stage = run.stage("base", ["seed"])
        stage.begin()
        with stage.time("judge"):
            pass
        stage.finish({})
    manifest = read_json(stage.path / "stage.json")
    assert manifest["started"] == begun["started"]
    assert manifest["wall_s"] >= 150
    assert manifest["time_s"]["fit"] == 100
    assert manifest["time_s"].keys() == {"fit", "sample", "judge", "other"}
    assert sum(manifest["time_s"].values()) == pytest.approx(manifest["wall_s"], abs=0.01)


def test_a_stage_that_cannot_be_written_down_is_not_finished(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        stage = run.stage("base", ["seed"])
        stage.begin()
        with pytest.raises(DataError, match="finite"):
            stage.finish({"accuracy": float("nan")})
        assert not stage.done
        assert os.listdir(stage.path) == ["stage.begun.json"]
        assert not run.stage("base", ["seed"]).done


def test_misuse_by_the_caller_is_an_error(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        stage = run.stage("base", ["seed"])
        with pytest.raises(RuntimeError, match="before begin"):
            stage.finish({})
        with pytest.raises(RuntimeError, match="no summary"):
            _ = stage.summary
        with pytest.raises(ValueError, match="scratch"):
            run.stage("orm/fit", ["orm"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_text("shorter"), "has 7 bytes, not the recorded"),
        (lambda file: file.write_bytes(bytes(file.stat().st_size)), "has other contents"),
    ],
    ids=["missing", "cut", "changed"],
)
def test_a_damaged_output_is_named_with_its_remedy(tmp_path: Path, damage: Any, said: str) -> None:
    make_all(tmp_path)
    file = tmp_path / "distill" / "paths.jsonl"
    damage(file)
    with open_run(tmp_path) as run, pytest.raises(RunError, match=rf"{file} {said}.*remove {file.parent} "):
        list(stages(run))


def test_the_named_remedy_for_a_damaged_stage_works(tmp_path: Path) -> None:
    make_all(tmp_path)
    before = contents(tmp_path)
    shutil.rmtree(tmp_path / "orm")
    make_all(tmp_path)
    assert contents(tmp_path) == before


def test_a_foreign_or_broken_manifest_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "orm" / "stage.json", {"stage": "orm"})
    with pytest.raises(RunError, match=r"orm/stage\.json is not a stage's manifest"):
        open_run(tmp_path)
    (tmp_path / "orm" / "stage.json").write_text('{"stage"')
    with pytest.raises(DataError, match=r"orm/stage\.json"):
        open_run(tmp_path)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_source_tree_and_says_when_files_changed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "mathse", tree / "mathse", ignore=shutil.ignore_patterns("__pycache__"))

    def commit() -> str:
        code = "from mathse.runs.provenance import read_git_commit; print(read_git_commit())"
        return subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True).stdout.strip()

    def git(*command: str) -> str:
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *user, *command], cwd=tree, capture_output=True, text=True, check=True).stdout

    git("init", "-q", str(tmp_path))
    assert commit() == "None"  # a repository around the tree is not the tree's own
    git("init", "-q", ".")
    assert commit() == "None"  # no commit yet
    git("add", "mathse/runs/manifest.py")
    git("commit", "-q", "-m", "first")
    assert commit() == git("rev-parse", "HEAD").strip()
    (tree / "mathse" / "runs" / "manifest.py").open("a").write("# changed\n")
    assert commit() == git("rev-parse", "HEAD").strip() + "-dirty"


# --- other settings -------------------------------------------------------------------------------------------------


def test_every_changed_key_is_refused_with_both_values_and_nothing_is_written(tmp_path: Path) -> None:
    make_all(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RunError) as refusal:
        open_run(tmp_path, evolution__rounds=3, distill__size=20, progress="off")
    message = str(refusal.value)
    assert "evolution.rounds: recorded 2, now 3 (stages made with it: final)" in message
    assert "distill.size: recorded null, now 20 (stages made with it: distill)" in message
    assert "progress" not in message
    assert "hydra.run.dir" in message
    assert "resume=branch" in message
    assert contents(tmp_path) == before
    open_run(tmp_path).close()  # the refusal gave the lock back


def test_a_key_that_comes_or_goes_below_a_recorded_prefix_is_a_change(tmp_path: Path) -> None:
    make_all(tmp_path)
    with pytest.raises(RunError, match=r"orm\.see_answer: recorded not set, now false \(stages made with it: orm\)"):
        open_run(tmp_path, orm__see_answer=False)
    fewer = {key: value for key, value in CONFIG.items() if key != "orm.students"}
    with pytest.raises(RunError, match=r"orm\.students: recorded \[300, 600\], now not set"):
        RunFolder.open(tmp_path, fewer, name="demo", task="evolve", seed=0, nested={})
    open_run(tmp_path, orm_two=1).close()  # not below the prefix "orm"


@pytest.mark.parametrize("value", [1, 1.0, True, "1"])
def test_values_that_python_calls_equal_are_still_told_apart(tmp_path: Path, value: Any) -> None:
    with open_run(tmp_path, seed=1) as run:
        make(run.stage("base", ["seed"]))
    if type(value) is int:
        open_run(tmp_path, seed=value).close()
    else:
        with pytest.raises(RunError, match="seed: recorded 1, now"):
            open_run(tmp_path, seed=value)


def test_a_setting_that_came_later_changes_nothing_at_the_value_that_runs_before_it_had(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        make(run.stage("final", ["evolution"]))
    with open_run(tmp_path, evolution__reflect__row="question") as run:
        assert run.stage("final", ["evolution"]).done
    with pytest.raises(RunError, match=r'evolution\.reflect\.row: recorded "question", now "draft"'):
        open_run(tmp_path, evolution__reflect__row="draft")


@pytest.mark.parametrize("text", ["[]", "{}", "null", "1"])
def test_a_manifest_of_another_shape_is_named(tmp_path: Path, text: str) -> None:
    with open_run(tmp_path) as run:
        make(run.stage("base", ["seed"]))
    (tmp_path / "base" / "stage.json").write_text(text)
    with pytest.raises(RunError, match=r"base/stage.json is not a stage's manifest"):
        open_run(tmp_path)


@pytest.mark.parametrize("work", ["paths.jsonl", "predictions.jsonl", "fit/point_20/point.json"])
def test_a_stage_that_was_begun_and_holds_work_refuses_other_settings_too(tmp_path: Path, work: str) -> None:
    with open_run(tmp_path) as run:
        run.stage("orm", ["orm"]).begin()
    write_json(tmp_path / "orm" / work, {"id": 1})
    with pytest.raises(RunError, match=r"orm\.lr: recorded 0\.001, now 0\.5"):
        open_run(tmp_path, orm__lr=0.5)


def test_a_first_attempt_that_made_nothing_does_not_stand_in_the_way_of_its_correction(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        make(run.stage("base", ["seed"]))
        run.stage("orm", ["orm"]).begin()
    BatchLog(tmp_path / "orm" / "paths.jsonl", [2])  # opened, and no batch has come
    write_json(tmp_path / "orm" / "checkpoint" / "config.json", {})
    with open_run(tmp_path, orm__lr=0.5) as run:
        assert run.stage("base", ["seed"]).done, "what is finished stays"
        assert not contents(tmp_path / "orm"), "nothing of the first attempt is mixed with the second"
        orm = run.stage("orm", ["orm"])
        make(orm)
    assert read_json(tmp_path / "orm" / "stage.json")["config"]["orm.lr"] == 0.5


def test_a_start_that_fails_before_its_first_stage_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError), open_run(tmp_path / "new"):
        raise DataError("the data cannot be read")
    assert not [*(tmp_path / "new").iterdir()]
    with open_run(tmp_path / "old") as run:
        make(run.stage("base", ["seed"]))
    before = contents(tmp_path / "old")
    with pytest.raises(DataError), open_run(tmp_path / "old"):
        raise DataError("the data cannot be read")
    assert contents(tmp_path / "old") == before


def test_a_stage_asked_for_with_other_dependencies_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        base = run.stage("base", ["seed"])
        make(base)
        run.stage("orm", ["orm"]).begin()
        with pytest.raises(RunError, match="identity of stage base: recorded not set"):
            run.stage("orm", ["orm"], [base])
        with pytest.raises(RunError, match=r"distill\.size: recorded not set, now null"):
            run.stage("base", ["seed", "distill"])


def test_run_json_describes_the_run_and_is_left_alone_while_it_holds(tmp_path: Path) -> None:
    open_run(tmp_path).close()
    written = (tmp_path / "run.json").stat()
    assert read_json(tmp_path / "run.json") == {"name": "demo", "task": "evolve", "seed": 0, "config": {"seed": 0}}
    open_run(tmp_path).close()
    assert (tmp_path / "run.json").stat().st_ino == written.st_ino


def made_from(run: RunFolder, text: str) -> Stage:
    """distill with ``text`` in its rows, and round_01 made from them."""
    distill = run.stage("distill", ["seed"])
    if not distill.done:
        distill.begin()
        (distill.path / "train.jsonl").write_text(text)
        distill.finish({})
    after = run.stage("round_01", ["seed"], [distill])
    if not after.done:
        after.begin()
        (after.path / "train.jsonl").write_text(text + " and more")
        after.finish({}, inputs=[distill.path / "train.jsonl"])
    return after


def test_a_stage_made_from_what_has_been_made_anew_since_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        made_from(run, "a teacher's words")
    with open_run(tmp_path) as run:
        assert made_from(run, "not asked again").done
    shutil.rmtree(tmp_path / "distill")
    with (
        open_run(tmp_path) as run,
        pytest.raises(
            RunError, match=r"round_01 in .* was made from another distill/train.jsonl than is in the folder now"
        ),
    ):
        made_from(run, "other words of the same teacher")


def test_a_branch_takes_no_stage_made_from_other_contents(tmp_path: Path) -> None:
    with open_run(tmp_path / "old") as run:
        made_from(run, "a teacher's words")
    shutil.copytree(tmp_path / "old", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "round_01")
    shutil.rmtree(tmp_path / "other" / "distill")
    with open_run(tmp_path / "other") as run:
        run.stage("distill", ["seed"]).begin()
        (tmp_path / "other" / "distill" / "train.jsonl").write_text("other words")
        run.stage("distill", ["seed"]).begin()
    with open_run(tmp_path / "other") as run:
        run.branch_from([tmp_path / "old"])
        distill = run.stage("distill", ["seed"])
        distill.begin()
        distill.finish({})
        assert not run.stage("round_01", ["seed"], [distill]).done


# --- branches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ({}, ["base", "orm/solver", "orm", "distill", "round_01", "final"]),
        ({"evolution__rounds": 3}, ["base", "orm/solver", "orm", "distill", "round_01"]),
        ({"distill__size": 5}, ["base", "orm/solver", "orm"]),
        ({"orm__students": [9]}, ["base", "orm/solver"]),
        ({"orm__new": 1}, ["base", "orm/solver"]),
        ({"orm__lr": 0.5}, ["base"]),
        ({"seed": 7}, []),
    ],
    ids=str,
)
def test_a_branch_reuses_what_its_settings_would_make_again(
    tmp_path: Path, change: dict[str, Any], reused: list[str]
) -> None:
    make_all(tmp_path / "old")
    with open_run(tmp_path / "new", **change) as run:
        run.branch_from([tmp_path / "old"])
        made = list(stages(run))
        assert [s.name for s in made if s.done] == reused
        for stage in made:
            if not stage.done:
                make(stage)
    make_all(tmp_path / "straight", **change)
    ours, theirs = contents(tmp_path / "new"), contents(tmp_path / "straight")
    assert ours == theirs


def test_a_branch_joins_stages_of_several_runs_and_shares_their_files(tmp_path: Path) -> None:
    with open_run(tmp_path / "one") as run:
        for stage in list(stages(run))[:3]:
            make(stage)
    make_all(tmp_path / "two", orm__lr=0.5, distill__size=3)
    make_all(tmp_path / "three", evolution__rounds=9)
    for stage in ("base", "orm"):
        shutil.rmtree(tmp_path / "three" / stage)
    with open_run(tmp_path / "new") as run:
        run.branch_from([tmp_path / "two", tmp_path / "three", tmp_path / "one"])
        taken = [stage.name for stage in stages(run) if stage.done]
        assert sorted(taken) == ["base", "distill", "orm", "orm/solver", "round_01"]
    assert (tmp_path / "new/orm/paths.jsonl").samefile(tmp_path / "one/orm/paths.jsonl")


def test_a_stage_is_taken_over_by_its_identity_whatever_became_of_those_before_it(tmp_path: Path) -> None:
    make_all(tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "orm")
    with open_run(tmp_path / "new") as run:
        run.branch_from([tmp_path / "old"])
        assert [s.name for s in stages(run) if not s.done] == ["orm/solver", "orm"]


def test_a_branch_holds_no_stage_that_it_did_not_ask_for(tmp_path: Path) -> None:
    make_all(tmp_path / "old")
    with open_run(tmp_path / "new") as run:
        run.branch_from([tmp_path / "old"])
        assert run.stage("base", ["seed"]).done
    assert not (tmp_path / "new" / "orm").exists()


def test_a_branch_is_a_copy_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    make_all(tmp_path / "old")
    monkeypatch.setattr(os, "link", no_links)
    with open_run(tmp_path / "new") as run:
        run.branch_from([tmp_path / "old"])
        assert all(stage.done for stage in stages(run))


def test_a_damaged_source_is_refused_before_anything_of_the_stage_is_taken(tmp_path: Path) -> None:
    make_all(tmp_path / "old")
    (tmp_path / "old/base/paths.jsonl").write_text("")
    with open_run(tmp_path / "new") as run, pytest.raises(RunError, match=r"old/base/paths\.jsonl has 0 bytes"):
        run.branch_from([tmp_path / "old"])
        run.stage("base", ["seed"])
    assert not (tmp_path / "new" / "base").exists()


def test_a_branch_source_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path / "new") as run, pytest.raises(RunError, match="is not a run folder"):
        run.branch_from([tmp_path])


def test_making_a_taken_over_stage_anew_leaves_the_source_alone(tmp_path: Path) -> None:
    make_all(tmp_path / "old")
    before = contents(tmp_path / "old")
    with open_run(tmp_path / "new") as run:
        run.branch_from([tmp_path / "old"])
        assert run.stage("base", ["seed"]).done
    with open_run(tmp_path / "new") as run:
        (tmp_path / "new/base/stage.json").unlink()
        BatchLog(tmp_path / "new/base/paths.jsonl", [1, 1, 2]).append([8, 9])
        make(run.stage("base", ["seed"]))
    assert contents(tmp_path / "old") == before


# --- which run ------------------------------------------------------------------------------------------------------


def test_the_newest_unfinished_run_of_a_name_is_found(tmp_path: Path) -> None:
    assert find_newest_unfinished(tmp_path, "demo") is None
    for number, name in enumerate(["demo/b", "demo/a", "demo/c", "other/d"]):
        open_run(tmp_path / name).close()
        os.utime(tmp_path / name / "run.json", (number, number))
    (tmp_path / "demo" / "empty").mkdir()
    write_json(tmp_path / "demo/c/summary.json", {"status": "finished", "stages": []})
    write_json(tmp_path / "demo/b/summary.json", {"status": "failed"})
    assert find_newest_unfinished(tmp_path, "demo") == tmp_path / "demo" / "a"
    assert read_finished_summary(tmp_path / "demo/c") == {"status": "finished", "stages": []}
    assert read_finished_summary(tmp_path / "demo/b") is None
    assert read_finished_summary(tmp_path / "demo/a") is None


def test_branches_are_numbered_beside_the_run(tmp_path: Path) -> None:
    run = tmp_path / "2025-01-01"
    assert name_branch(run) == tmp_path / "2025-01-01-branch-01"
    name_branch(run).mkdir()
    assert name_branch(run) == tmp_path / "2025-01-01-branch-02"
    assert name_branch(tmp_path / "2025-01-01-branch-01") == tmp_path / "2025-01-01-branch-02"


# --- kills ----------------------------------------------------------------------------------------------------------

# Makes all stages; argv: repository, run folder, the file operation to die at (0: none), a branch's source or nothing.
MAKER = """
import os, signal, sys
from pathlib import Path
import tests.test_stage_cache as t
folder, die_at, source = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
seen = 0
def count(event, args):
    global seen
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"):
        if str(folder) in str(args[0]) or str(folder) in str(args[1:2]):
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.addaudithook(count)
if source:
    with t.open_run(folder) as run:
        run.branch_from([Path(source[0])])
        list(t.stages(run))
t.make_all(folder)
"""


def run_maker(*args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKER, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def whole(path: Path) -> set[str]:
    """The stages that stand in ``path``; each must list all its files, and they must be as listed."""
    with open_run(path) as run:
        done = [stage for stage in stages(run) if stage.done]
    for stage in done:
        assert read_json(stage.path / "stage.json")["outputs"].keys() == {"paths.jsonl", "checkpoint/config.json"}
    return {stage.name for stage in done}


def test_a_kill_at_any_file_operation_leaves_whole_stages_and_the_same_end(tmp_path: Path) -> None:
    make_all(tmp_path / "straight")
    run = tmp_path / "killed"
    draw = random.Random(3)
    before: set[str] = set()
    for _ in range(12):
        maker = run_maker(run, draw.randrange(10, 90))
        maker.communicate()
        assert maker.returncode in (0, -signal.SIGKILL)
        assert before <= (before := whole(run))
        if maker.returncode == 0:
            break
    else:
        make_all(run)
    assert contents(run) == contents(tmp_path / "straight")


def test_a_kill_while_branching_is_repaired_by_the_same_command(tmp_path: Path) -> None:
    make_all(tmp_path / "old")
    for die_at in range(2, 120, 17):
        run = tmp_path / f"branch-{die_at}"
        killed = run_maker(run, die_at, tmp_path / "old")
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        with open_run(run) as folder:
            folder.branch_from([tmp_path / "old"])
            assert all(stage.done for stage in stages(folder))
        assert contents(run) == contents(tmp_path / "old")


def test_a_kill_at_a_random_moment_frees_the_folder_and_leaves_whole_stages(tmp_path: Path) -> None:
    draw = random.Random(4)
    for number in range(6):
        maker = run_maker(tmp_path / str(number), 0)
        assert maker.stdout
        maker.stdout.readline()
        time.sleep(draw.uniform(0, 0.05))
        maker.kill()
        maker.communicate()
        whole(tmp_path / str(number))
        make_all(tmp_path / str(number))
    assert all(contents(tmp_path / str(n)) == contents(tmp_path / "0") for n in range(6))


def test_a_second_process_in_the_run_folder_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path):
        code = "import sys, tests.test_stage_cache as t; from pathlib import Path; t.open_run(Path(sys.argv[1]))"
        second = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert f"RunError: run folder {tmp_path} is in use by process {os.getpid()}" in second.stderr


def test_the_stage_cache_loads_no_package_beyond_the_standard_library() -> None:
    code = "import sys, mathse.runs.stage_cache; print({'torch', 'omegaconf', 'hydra', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"
