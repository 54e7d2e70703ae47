"""What docs/scaling.md promises of SLURM, on a real one: sweeps, several ranks, requeue, and what the terminal says."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.runs import ROOT, contents

from cluster.conftest import ON_THIS_CLUSTER, SETTINGS, TWO, Cluster, interrupt, wait_for
from cluster.one_machine import NODES
from mathse.config.options import CONF

pytestmark = pytest.mark.cluster
JOB = CONF / "hydra" / "launcher" / "job.sh"
Whole = Callable[..., Path]


def steps(run: Path) -> int:
    log = run / "distill" / "train_log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_sweep_ends_with_the_bytes_of_its_jobs_and_the_same_command_submits_nothing(
    cluster: Cluster, whole: Whole
) -> None:
    said = cluster.sweep("hydra.sweep.dir=sweep", "seed=0,1")
    assert "sweep: 2 jobs: 0 finished before, 0 running, 2 submitted" in said
    assert said.count("finished: sweep/") == 2 and "Traceback" not in said
    (run,) = [f.parent for f in cluster.place.rglob("run.json") if '"seed": 0' in f.read_text()]
    assert contents(run) == contents(whole())
    again = cluster.sweep("hydra.sweep.dir=sweep", "seed=0,1")
    assert again.splitlines()[0] == "sweep: 2 jobs: 2 finished before, 0 running, 0 submitted"
    assert "submitted" not in "".join(again.splitlines()[1:]) and [*said.splitlines()[-3:]] == again.splitlines()[-3:]


def test_ctrl_c_leaves_the_jobs_and_the_same_command_joins_them(cluster: Cluster, whole: Whole) -> None:
    sweep = ("-m", *ON_THIS_CLUSTER, *SETTINGS, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=run")
    first = cluster.train(*sweep)
    wait_for(lambda: steps(cluster.place / "sweep" / "run"), first)
    said = interrupt(first)
    (job,) = cluster.jobs("running")
    number = job.split()[0]
    assert first.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == (
        f"jobs {number} continue; the same command watches them again, `scancel {number}` stops them"
    )
    joined, _ = (second := cluster.train(*sweep)).communicate()
    assert second.returncode == 0 and "0 finished before, 1 running, 0 submitted" in joined
    assert contents(cluster.place / "sweep" / "run") == contents(whole())


def test_scancel_is_one_sentence_and_the_same_command_goes_on(cluster: Cluster, whole: Whole) -> None:
    sweep = ("-m", *ON_THIS_CLUSTER, *SETTINGS, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=run")
    process = cluster.train(*sweep)
    wait_for(lambda: steps(cluster.place / "sweep" / "run") > 3, process)
    (job,) = cluster.jobs("running")
    cluster.run("scancel", job.split()[0])
    said, _ = process.communicate()
    errors = [line for line in said.splitlines() if "error" in line]
    assert process.returncode == 1 and "Traceback" not in said
    assert len(errors) == 1 and "was cancelled; the same command submits it again" in errors[0]
    assert list((cluster.place / "sweep" / "run" / "distill" / "fit").glob("point_*"))  # SIGTERM came first
    assert "1 submitted" in cluster.sweep("hydra.sweep.dir=sweep", "hydra.sweep.subdir=run")
    assert contents(cluster.place / "sweep" / "run") == contents(whole())


def test_a_job_that_fails_says_why_and_where_its_log_is(cluster: Cluster) -> None:
    (cluster.place / "problems.jsonl").write_text('{"id": "1"}\n')
    wrong = ("data=jsonl", "data.path=problems.jsonl", "teacher=replay", "backbone=tiny")
    settings = [setting for setting in SETTINGS if not setting.startswith("data.")]
    said = cluster.run(
        sys.executable, ROOT / "train.py", "-m", *ON_THIS_CLUSTER, *settings, *wrong, "hydra.sweep.dir=sweep", code=1
    )
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    (error,) = errors
    assert "exit code 1: error: " in error and "problems.jsonl" in error
    assert error.endswith("log: sweep/.slurm/0/0.log") and (cluster.place / "sweep/.slurm/0/0.log").exists()
    assert "Traceback" not in said and "Error executing" not in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["hydra.launcher.partition=nowhere"], "sbatch refuses the jobs: invalid partition specified: nowhere"),
        (["sft.max_steps=many"], "sft.max_steps = 'many'"),
        (["hydra.launcher.nodes=2"], "trainer.devices = 1"),
        (["plan=true"], "hydra/launcher=slurm would submit every job"),
    ],
)
def test_what_cannot_be_submitted_is_refused_in_a_sentence(
    cluster: Cluster, settings: list[str], sentence: str
) -> None:
    before = len(cluster.jobs())
    nodes = "hydra.launcher.tasks_per_node=2" if "nodes" in settings[0] else "hydra.launcher.tasks_per_node=1"
    said = cluster.sweep(*settings, nodes, code=1)
    assert sentence in said and said.startswith("error: ") and len(said.splitlines()) == 1
    assert len(cluster.jobs()) == before


def test_a_job_whose_time_is_over_is_queued_again_and_ends_with_the_same_bytes(cluster: Cluster, whole: Whole) -> None:
    """Its loader worker gets the signal too."""
    sweep = ("-m", *ON_THIS_CLUSTER, *SETTINGS, "trainer.workers=1", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=run")
    process = cluster.train(*sweep)
    run = cluster.place / "sweep" / "run"
    wait_for(lambda: steps(run) > 3, process)
    (job,) = cluster.jobs("running")
    cluster.run("scancel", "--batch", "--signal=USR1", job.split()[0])  # as SLURM itself does before the end
    said, _ = process.communicate()
    log = (cluster.place / "sweep/.slurm/0/0.log").read_text()
    assert process.returncode == 0, said
    assert "SIGUSR1: stopping after this step's resume point" in log and "stopped by SIGUSR1" in log
    assert log.count("queued again") == 1 and "Traceback" not in log
    assert contents(run) == contents(whole())


def test_a_job_that_makes_room_is_queued_again(cluster: Cluster, whole: Whole) -> None:
    sweep = ("-m", *ON_THIS_CLUSTER, *SETTINGS, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=run")
    process = cluster.train(*sweep)
    run = cluster.place / "sweep" / "run"
    wait_for(lambda: steps(run) > 3, process)
    cluster.run("srun", "--partition=first", "--nodes=2", "--exclusive", "sleep", "1")
    said, _ = process.communicate()
    log = (cluster.place / "sweep/.slurm/0/0.log").read_text()
    assert process.returncode == 0 and log.count("queued again") == 1 and "stopped by SIGTERM" in log, said
    assert contents(run) == contents(whole())


def test_srun_starts_two_ranks_that_make_the_run_of_our_own_two(cluster: Cluster, whole: Whole) -> None:
    said = cluster.run("srun", "-n", "2", sys.executable, ROOT / "train.py", *SETTINGS, *TWO, "hydra.run.dir=run")
    assert "Traceback" not in said
    assert contents(cluster.place / "run") == contents(whole(*TWO))


def test_srun_without_ranks_to_fill_is_refused_in_a_sentence(cluster: Cluster) -> None:
    said = cluster.run("srun", "-n", "2", sys.executable, ROOT / "train.py", *SETTINGS, "hydra.run.dir=run", code=1)
    assert "trainer.devices = 1, and 2 processes were started; pass trainer=ddp" in said and "Traceback" not in said


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_ddp_fit_is_queued_again_with_both_its_ranks(cluster: Cluster, whole: Whole, tasks: int) -> None:
    """Whoever starts the ranks: the job itself, or srun."""
    sweep = ("-m", *ON_THIS_CLUSTER, *SETTINGS, *TWO, f"hydra.launcher.tasks_per_node={tasks}")
    process = cluster.train(*sweep, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=run")
    run = cluster.place / "sweep" / "run"
    wait_for(lambda: steps(run) > 3, process)
    (job,) = cluster.jobs("running")
    cluster.run("scancel", "--batch", "--signal=USR1", job.split()[0])
    said, _ = process.communicate()
    log = (cluster.place / "sweep/.slurm/0/0.log").read_text()
    assert process.returncode == 0, said + log
    assert log.count("queued again") == 1 and "Traceback" not in log
    assert contents(run) == contents(whole(*TWO))


def test_a_run_on_two_nodes_is_submitted_by_hand(cluster: Cluster, whole: Whole) -> None:
    one_each = ("trainer=ddp", "trainer.devices=1", "trainer.accelerator=cpu", "trainer.workers=0")
    command = (sys.executable, ROOT / "train.py", *SETTINGS, *one_each, "hydra.run.dir=run")
    options = ("--parsable", "--wait", "--nodes=2", "--ntasks-per-node=1", "--output=run.log", "--export=ALL")
    environment = {
        **cluster.environment,
        "MASTER_ADDR": "127.0.0.1",
    }  # these nodes have no addresses
    Cluster(cluster.place, environment).run("sbatch", *options, JOB, *command)
    assert contents(cluster.place / "run") == contents(whole(*TWO))


def test_an_engine_is_started_on_the_node_and_the_run_is_told_its_address(cluster: Cluster) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    engine = f"{sys.executable} -m http.server {port}"  # anything that answers
    options = ("--parsable", "--wait", f"--nodelist={NODES[0]}", "--output=run.log", "--export=ALL")
    environment = {**cluster.environment, "MATHSE_ENGINE": engine, "MATHSE_ENGINE_PORT": str(port)}
    Cluster(cluster.place, environment).run("sbatch", *options, JOB, "echo", "run")
    log = (cluster.place / "run.log").read_text()
    assert f"run generator.base_urls=[http://{NODES[0]}:{port}/v1]" in log
