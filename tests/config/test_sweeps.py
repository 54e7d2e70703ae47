"""Sweeps: where jobs live, which sweeps are refused, and what conf/sweep, hydra/sweeper and hydra/launcher hold."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import fields

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mathse.commands.slurm.settings import SlurmSettings
from mathse.config import sweeps
from mathse.config.extras import is_installed
from mathse.config.options import CONF, list_options
from mathse.config.register import register
from mathse.config.schema import EvaluateConfig
from mathse.errors import DataError
from mathse.runs.store import write_json

GRIDS = [name for name in list_options("sweep") if name != "search"]
TPE = {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", "direction": "maximize"}


def node(*overrides):
    """Hydra's own part of what train.py composes."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True).hydra


def never(config, folder):
    raise AssertionError("the task must not start")


def test_a_job_is_named_by_what_makes_it_different():
    assert sweeps.name_job_folder(["seed=1", "evolution.rounds=2"]) == "seed=1,evolution.rounds=2"
    assert sweeps.name_job_folder(["+sweep=lr", "name=x", "progress=off", "resume=branch"]) == "defaults"


def test_a_name_that_no_folder_can_have_is_cut_and_told_apart():
    long = [f"data.path=/far/away/{'x' * 300}.jsonl", "seed=1"]
    first, second = sweeps.name_job_folder(long), sweeps.name_job_folder([*long[:1], "seed=2"])
    assert first != second and "/" not in first and len(first) < 220
    assert sweeps.name_job_folder(["data.path=a/b"]) != sweeps.name_job_folder(["data.path=a?b"])


@pytest.mark.parametrize("others", [4, 24])
def test_a_long_name_still_shows_the_one_value_in_which_jobs_differ(others):
    settings = [f"some.section.with_settings.number_{k}={k}" for k in range(others)]
    for position in (0, others // 2, others):
        names = [sweeps.name_job_folder([*settings[:position], f"seed={n}", *settings[position:]]) for n in (1, 2)]
        assert (
            "seed=1" in names[0] and "seed=2" in names[1] and all(len(name) < 220 and name[0] != "." for name in names)
        )


def test_a_sweep_ends_with_a_table_of_its_jobs(command, monkeypatch):
    def task(config, folder):
        if config.seed == 3:
            raise DataError("this job cannot")
        write_json(folder / "run.json", {})
        stages = [{"stage": "final", "accuracy": 0.5, "ci95": [0.4, 0.6]}]
        write_json(folder / "summary.json", {"status": "finished", "metric": config.seed / 4, "stages": stages})
        return config.seed / 4

    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert command(task, "-m", "seed=1,2,3", "name=x", "sft.max_steps=5")[0] == 1
    rows = [line.split() for line in sys.stdout.getvalue().splitlines() if line.startswith(("job ", "seed="))]
    assert rows == [
        ["job", "last", "stage", "test", "accuracy", "dev", "accuracy"],
        ["seed=1", "final", "50.0%", "[40.0,", "60.0]", "25.0%"],
        ["seed=2", "final", "50.0%", "[40.0,", "60.0]", "50.0%"],
        ["seed=3", "failed", "-", "-"],
    ]


def test_a_sweep_of_which_no_job_began_leaves_no_folder(command, tmp_path):
    assert command(never, "-m", "seed=-1,-2", "name=x")[0] == 1
    assert [*tmp_path.iterdir()] == []


SLURM_FROM_ANOTHER_FOLDER = """
import importlib.machinery, importlib.util, sys

class Finder:  # as of an editable install: names, and no folder that could be searched
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "hydra_plugins":
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = ["no folder"]
            return spec
        if name not in ("mathse", "hydra_plugins.mathse_slurm"):
            return None
        folder = ROOT + "/" + name.replace(".", "/")
        return importlib.util.spec_from_file_location(
            name, folder + "/__init__.py", submodule_search_locations=[folder]
        )

ROOT = sys.argv.pop(1)
sys.path[:] = [p for p in sys.path if p not in ("", ROOT)]
sys.meta_path.insert(0, Finder)
from mathse.__main__ import main
sys.exit(main())
"""


def test_slurm_is_found_from_another_folder_than_an_editable_install_s(root, tmp_path):
    command = ["train", "-m", "hydra/launcher=slurm", "seed=1,2", "name=x"]
    environment = {"PATH": "", "MATHSE_TRACEBACK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SLURM_FROM_ANOTHER_FOLDER, str(root), *command],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.startswith("error: hydra/launcher=slurm: there is no sbatch on this machine's path"), done.stderr
    assert [*tmp_path.iterdir()] == []


def test_the_same_command_comes_to_the_same_folders_and_a_further_value_to_one_more(command, tmp_path):
    seen = []
    for values in ("1,2", "1,2", "1,2,3"):
        assert command(lambda config, folder: seen.append(folder), "-m", f"seed={values}", "name=x")[0] == 0
    folders = [tmp_path / "multirun" / "x" / f"seed={seed}" for seed in (1, 2, 3)]
    assert seen == [*folders[:2], *folders[:2], *folders]


@pytest.mark.parametrize("name", GRIDS)
def test_a_sweep_offers_values_of_a_setting_that_all_parse(read, name):
    chosen = node(f"+sweep={name}")
    ((key, values),) = chosen.sweeper.params.items()
    override = OverridesParser.create().parse_override(f"{key}={values}")
    each = [*override.sweep_string_iterator()]
    assert len(each) > 2 and chosen.sweep.dir == f"outputs/sweeps/{name}/run"
    assert len({repr(read(f"+sweep={name}", f"{key}={value}")) for value in (each[0], each[-1])}) == 2


def test_a_search_is_by_optuna_for_the_best_dev_accuracy(read):
    sweeper = node("+sweep=search").sweeper
    assert (sweeper._target_, sweeper.direction, sweeper.storage) == (TPE["_target_"], "maximize", None)
    assert sweeper.sampler.seed is not None  # the same command must ask for the same jobs
    for key, space in sweeper.params.items():
        assert OverridesParser.create().parse_override(f"{key}={space}").is_interval_sweep()
        read(f"{key}=0.5")  # there is such a setting


def test_a_sweep_without_m_is_refused(command):
    status, said = command(never, "+sweep=lr")
    assert (status, said) == (1, "error: +sweep=lr: tries several values, which is a sweep; pass -m too\n")


def test_a_sweep_that_there_is_not_is_told_with_those_that_there_are(command):
    status, said = command(never, "-m", "+sweep=rate")
    assert status == 1 and "sweep=rate: no such option; available: lora_rank, lr, orm_threshold" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.dev=0"], "data.dev = 0: the dev problems choose among a sweeper's settings; leave some"),
        (["task=orm"], "must not choose a setting"),
        (["task=distill"], "task = 'distill': has no number"),
    ],
)
def test_what_has_no_dev_accuracy_cannot_be_chosen_by(read, settings, said):
    assert [*sweeps.refuse_choice(read(), TPE)] == []
    (sentence,) = sweeps.refuse_choice(read(*settings), TPE)
    assert said in sentence


def test_a_test_score_or_the_lowest_accuracy_chooses_nothing(read):
    (sentence,) = sweeps.refuse_choice(EvaluateConfig(), TPE)
    assert "evaluate.py scores test problems" in sentence
    (sentence,) = sweeps.refuse_choice(read(), {**TPE, "direction": "minimize"})
    assert "hydra/sweeper=tpe maximizes it" in sentence


@pytest.mark.skipif(is_installed("optuna"), reason="the plugin is installed")
@pytest.mark.parametrize("settings", [["+sweep=search"], ["seed=1,2", "hydra/sweeper=tpe"]])
def test_a_sweeper_that_is_not_installed_is_told_in_a_sentence(command, settings):
    status, said = command(never, "-m", *settings)
    assert status == 1 and said.splitlines()[-1] == (
        "error: hydra: needs Hydra's optuna plugin, which is not installed; pip install '.[optuna]'"
    )


@pytest.mark.skipif(is_installed("joblib"), reason="the plugin is installed")
def test_a_launcher_that_is_not_installed_is_told_in_a_sentence(command):
    status, said = command(never, "-m", "seed=1,2", "hydra/launcher=joblib")
    assert status == 1 and "hydra/launcher=joblib: needs Hydra's joblib plugin" in said


STARTS_A_WORKER = """
import multiprocessing, sys, time
from mathse.training import launch

def work():
    launch.end_with_sweep()
    print("at work", flush=True)
    time.sleep(60)
    print("still there", flush=True)

if __name__ == "__main__":
    launch.end_with_sweep()
    multiprocessing.get_context("spawn").Process(target=work).start()
"""


def test_a_worker_of_a_sweep_that_was_killed_ends_too(tmp_path):
    """Its standard output closes only when it is gone."""
    (tmp_path / "sweep.py").write_text(STARTS_A_WORKER)
    with subprocess.Popen([sys.executable, tmp_path / "sweep.py"], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None and sweep.stdout.readline() == "at work\n"
        sweep.kill()
        assert sweep.stdout.read() == ""


def test_slurm_has_a_job_for_each_of_a_sweep_and_a_task_a_gpu_on_several_nodes():
    launcher = node("+sweep=lr", "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "name=x").launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.partition, launcher.name) == (1, 1, "gpu", "mathse-x")
    several = node("hydra/launcher=slurm_nodes").launcher
    assert (several.nodes, several.tasks_per_node, several.gpus_per_node) == (2, 8, 8)
    assert {*launcher} == {*several} == {"_target_", *(field.name for field in fields(SlurmSettings))}


def test_tpe_settings_are_those_that_the_plugin_takes():
    plugin = pytest.importorskip("hydra_plugins.hydra_optuna_sweeper.config", reason="pip install '.[optuna]'")
    known = set(plugin.OptunaSweeperConf.__dataclass_fields__) - {"defaults"}
    assert set(OmegaConf.to_container(node("hydra/sweeper=tpe").sweeper)) == known
