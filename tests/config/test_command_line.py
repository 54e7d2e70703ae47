"""The way from a command line to a task and back to the shell."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import torch

from mathse.commands.mistakes import wants_traceback
from mathse.errors import ConfigError, DataError


def never(config, folder):
    raise AssertionError("the task must not start")


def failing(error):
    def task(config, folder):
        raise error

    return task


def test_task_gets_the_parsed_config_and_its_run_folder(command, tmp_path):
    seen = []
    code, said = command(lambda config, folder: seen.append((config.seed, folder)), "seed=3", "hydra.run.dir=out/here")
    assert (code, said) == (0, "")
    assert seen == [(3, tmp_path / "out/here")]
    assert (tmp_path / "out/here").is_dir()


def test_a_wrong_setting_ends_in_one_sentence_and_leaves_no_folder(command, tmp_path):
    assert command(never, "evolution.rounds=-1") == (1, "error: evolution.rounds = -1: must be >= 0\n")
    assert list(tmp_path.iterdir()) == []


def test_what_hydra_refuses_ends_in_one_sentence(command):
    said = (
        "error: judge=nobody: no such option; available: accept, answer, checked, checked_votes, majority, noisy, orm, "
        "orm_and_answer, orm_and_votes, random, teacher\n"
    )
    assert command(never, "judge=nobody") == (1, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "sft.optimiser.lr=1 seed=-1 evolution.round=2",
            ["seed = -1: must be >= 0", "sft.optimiser.lr: no such setting; ", "evolution.round = 2: is a group "],
        ),
        (
            "seed=-1 data=jsonk sft.batch_size=abc",
            ["data=jsonk: no such option; ", "seed = -1: must be >= 0", "sft.batch_size = 'abc': must be a whole"],
        ),
        (
            "resume=last name=no_such_run evolution.rounds=-1",
            ["resume = 'last': no unfinished run under ", "evolution.rounds = -1: must be >= 0"],
        ),
        ("logger=null seed=-1", ["logger=null: an option is chosen by its name", "seed = -1: must be >= 0"]),
    ],
)
def test_every_mistake_of_a_command_line_comes_in_one_answer(command, tmp_path, arguments, said):
    code, err = command(never, *arguments.split())
    lines = err.splitlines()
    assert code == 1 and len(lines) == len(said)
    assert all(line.startswith(f"error: {start}") for line, start in zip(lines, said, strict=True)), err
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_a_run_has_written_is_taken_back(command, tmp_path):
    def task(config, folder):
        (folder / "run.json").write_text("{}")
        raise DataError("rows.jsonl:3: broken")

    assert command(task, "hydra.run.dir=out") == (1, "error: rows.jsonl:3: broken\n")
    assert (tmp_path / "out/run.json").is_file()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "x/y: no space left on the device; free some"),
        (errno.EACCES, "x/y: permission denied; correct its permissions"),
        (errno.EROFS, "x/y: on a read-only file system; choose another place with hydra.run.dir=DIR"),
    ],
)
def test_a_disk_that_cannot_be_written_is_told_in_a_sentence(command, code, says):
    status, said = command(failing(OSError(code, "no", "x/y")))
    assert status == 1 and says in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "allocate", [lambda: bytearray(1 << 60), lambda: torch.empty(1 << 50), lambda: torch.ones(1 << 50)]
)
def test_memory_that_is_out_is_told_in_a_sentence(command, allocate):
    status, said = command(lambda *_: allocate())
    assert status == 1 and said.startswith("error: out of memory (") and "lower micro_batch_size" in said, said
    assert len(said.splitlines()) == 1


def test_a_bug_that_is_a_value_error_keeps_its_traceback(command):
    with pytest.raises(ValueError, match="a bug"):
        command(failing(ValueError("a bug")))


def test_a_file_in_the_place_of_the_run_folder_is_told_in_a_sentence(command, tmp_path):
    (tmp_path / "taken").write_text("")
    status, said = command(never, "hydra.run.dir=taken")
    assert status == 1 and "taken: is a file where a folder must be" in said


def test_a_bug_keeps_its_traceback(command):
    with pytest.raises(ZeroDivisionError):
        command(failing(ZeroDivisionError()))
    with pytest.raises(FileNotFoundError):
        command(failing(FileNotFoundError(errno.ENOENT, "no", "x")))


def test_a_flag_brings_the_traceback_back(command):
    with pytest.raises(DataError):
        command(failing(DataError("x")), MATHSE_TRACEBACK="1")


def test_hydras_own_flag_counts_unless_ours_is_set(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("MATHSE_TRACEBACK", raising=False)
    assert wants_traceback()
    monkeypatch.setenv("MATHSE_TRACEBACK", "0")
    assert not wants_traceback()


def test_ctrl_c_says_how_to_go_on(command):
    status, said = command(failing(KeyboardInterrupt()), "hydra.run.dir=out")
    assert (status, said) == (130, "stopped; the same command continues from here\n")
    status, said = command(failing(KeyboardInterrupt()))
    assert status == 130 and said.startswith("stopped; the same command with hydra.run.dir=outputs/run/")


def test_a_job_that_fails_does_not_stop_the_sweep(command, tmp_path):
    ran = []
    status, said = command(lambda config, folder: ran.append(folder.name), "-m", "seed=0,x,2", "hydra.sweep.dir=sweep")
    assert status == 1
    assert ran == ["seed=0", "seed=2"]
    assert "job 1: seed = 'x': must be a whole number" in said and "Traceback" not in said
    assert not (tmp_path / "sweep/1").exists()


def test_resume_last_is_refused_for_a_sweep(command):
    status, said = command(never, "-m", "resume=last", "seed=0,1")
    assert status == 1 and "this is a sweep (-m)" in said


def test_resume_last_without_a_run_is_told_in_a_sentence(command):
    status, said = command(never, "resume=last", "name=demo")
    assert status == 1 and said.startswith("error: resume = 'last': no unfinished run under outputs/demo")


@pytest.mark.parametrize("flags", [(), ("-m", "seed=1,2")], ids=["single", "sweep"])
def test_a_key_on_the_command_line_is_neither_shown_nor_stored(command, tmp_path, flags):
    key = "sk-test1234567890abcdef"
    status, said = command(never, *flags, "teacher=openai", f"teacher.api_key_env={key}")
    assert status == 1 and said.startswith("error: teacher.api_key_env: must be the name of an environment variable")
    assert key not in said and list(tmp_path.iterdir()) == []


def test_a_key_is_refused_where_tracebacks_are_asked_for_too(command, tmp_path):
    with pytest.raises(ConfigError, match="must be the name of an environment variable"):
        command(never, "-m", "seed=1,2", "teacher.api_key_env=1234-5678", MATHSE_TRACEBACK="1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train.py", "--help"], 0, "python train.py -m seed=1,2,3"),
        (["evaluate.py", "--help"], 0, "python evaluate.py checkpoint=DIR"),
        (["train.py", "evolution.round=2"], 1, "did you mean evolution.rounds?"),
        (["train.py", "backbone.path=nowhere"], 1, "neither a folder that exists nor a hub id"),
        (["evaluate.py", "checkpoint=nowhere"], 1, "there is no such folder"),
        (["evaluate.py", "llm.api_key_env=sk-test1234567890abcdef"], 1, "must be the name of an environment variable"),
    ],
)
def test_help_and_refusals_load_no_torch_and_help_takes_no_time(root, tmp_path, arguments, code, says):
    script = (
        "import runpy, sys, time\n"
        f"sys.argv, code = {[str(root / arguments[0]), *arguments[1:]]!r}, 0\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as e:\n    code = e.code or 0\n"
        "if '--help' in sys.argv and time.process_time() > 1.5:\n    sys.exit('help took too long')\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else code)\n"
    )
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_runs_begun_in_one_second_have_a_folder_each(command):
    folders = []
    for _ in range(2):
        command(lambda config, folder: folders.append(folder), "task=distill")
    assert folders[0] != folders[1]


def test_ranks_other_than_the_first_make_no_run_folder(command, tmp_path, monkeypatch):
    for key, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(key, value)
    command(lambda config, folder: None, "name=demo")
    assert list((tmp_path / "outputs").iterdir()) == []
    folders = []
    command(lambda config, folder: folders.append(folder), "hydra.run.dir=out/here")
    assert folders == [tmp_path / "out/here"]


def test_resume_last_goes_into_the_newest_unfinished_run_of_that_name(command, tmp_path):
    for run in ("outputs/demo/1", "outputs/demo/2", "outputs/other/3"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "run.json").write_text("{}")
    folders = []
    command(lambda config, folder: folders.append(folder), "resume=last", "name=demo")
    assert folders == [tmp_path / "outputs/demo/2"]
