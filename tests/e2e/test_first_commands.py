"""The first commands of five kinds of use, in the order in which somebody types them: nothing but what README,
CONTRIBUTING and docs/ show, in environments that know the repository as a user's does.

Every command is looked up in the pages and fails the test if it no longer stands there. Some get smaller sizes so that
they end; which, is said at each.

    python -m pytest -m slow tests/e2e/test_first_commands.py
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from api_server import ApiServer
from docs.desk import TRAIN
from docs.pages import PAGES, ROOT, blocks, inline_commands
from docs.test_contributing import sections
from installed import build_wheel, clean_environment, install
from PIL import Image

from e2e.runs import SIZES, WORLD
from mathse.runs.store import read_json, write_jsonl

Say = Callable[..., str]


# --- the pages --------------------------------------------------------------------------------------------------------


@cache
def shown() -> list[list[str]]:
    """Every command of the pages: of their blocks, run or not, and of their sentences."""
    of_blocks = [
        words for page in PAGES for block in blocks(page) if block.language == "bash" for words in block.commands
    ]
    return of_blocks + [words for page in PAGES for words in inline_commands(page)]


def documented(command: str) -> list[str]:
    """The words of a command, which must stand in a page."""
    words = shlex.split(command)
    assert words in shown(), f"no page shows: {command}"
    return words


def with_sizes(words: Sequence[str], sizes: Sequence[str]) -> list[str]:
    """The command with settings added that it does not have itself."""
    chosen = {word.partition("=")[0] for word in words}
    return [*words, *(size for size in sizes if size.partition("=")[0] not in chosen)]


def test_every_command_of_the_five_stands_in_a_page() -> None:
    calls = re.findall(r'documented\(\s*((?:"[^"]*"\s*)+|\'[^\']*\')\s*\)', Path(__file__).read_text(encoding="utf-8"))
    assert len(calls) > 8
    for call in calls:
        documented(ast.literal_eval(f"({call})"))


# --- who types them ---------------------------------------------------------------------------------------------------


def shell(programs: Path, folder: Path) -> Say:
    """``say("mathse", "train", ...)`` types a command in ``folder``, with ``programs`` first in the path; it must end
    well, and what it said comes back."""
    environment = clean_environment(programs) | {"WANDB_MODE": "", "WANDB_SILENT": ""}
    environment = {name: value for name, value in environment.items() if value and name != "PYTEST_CURRENT_TEST"}

    def say(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    return say


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where MathSE was installed from a wheel: ``pip wheel . --no-deps`` and ``pip install`` in another environment."""
    assert "`pip wheel . --no-deps`" in (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")
    return install(build_wheel(tmp_path_factory.mktemp("wheel")), tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def say(programs: Path, tmp_path: Path) -> Say:
    return shell(programs, tmp_path)


# --- 1. clone and demo ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_clones_the_repository_and_runs_the_demo(tmp_path: Path) -> None:
    """With the demo's task and models at their smallest; the environment has the libraries of this one."""
    clone = tmp_path / "mathse"
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout, and this is none")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    programs = as_make_installs(clone)
    sizes = [*TRAIN, *WORLD]
    say = shell(programs, clone)
    say(*documented("make demo"), f"SETTINGS={shlex.join(sizes)}")
    summary = read_json(clone / "outputs" / "demo" / "seed_0" / "summary.json")
    assert summary["stages"][-1]["stage"] == "final"
    say("sh", "-c", f"{shlex.join(documented('mathse report outputs/demo/*')[:-1])} outputs/demo/*")
    say(*documented("mathse report --all"))
    assert (clone / "outputs" / "index.html").is_file()
    say(*documented("mathse lineage outputs/demo/seed_0 final/train.jsonl:2"))
    say(*documented("mathse export outputs/demo/seed_0 --what model"))
    assert (clone / "outputs/demo/seed_0/exports/model-final/model.safetensors").is_file()
    assert say(*documented("make demo"), f"SETTINGS={shlex.join(sizes)}")  # again: it is finished
    assert subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True).stdout == b""


def as_make_installs(clone: Path) -> Path:
    """``make install`` in a clone without a download: its .venv, with the libraries of this environment."""
    environment = clone / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(f"{clone}\n{sysconfig.get_path('purelib')}\n")  # first the clone, as `-e .`
    program = environment / "bin" / "mathse"
    program.write_text(
        f"#!{environment}/bin/python\nimport sys\nfrom mathse.__main__ import command\nsys.exit(command())\n"
    )
    program.chmod(0o755)
    (environment / ".installed").touch()
    return environment / "bin"


# --- 2. own rows, a local server as teacher ---------------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_trains_on_rows_of_their_own_with_a_model_on_a_server_of_their_own(say: Say, tmp_path: Path) -> None:
    """With a model at its smallest. The server's address stands for the page's."""
    rows = []
    for k in range(40):
        Image.new("RGB", (28, 28), (6 * k, 0, 0)).save(tmp_path / f"{k}.png")
        rows.append(
            {"id": f"own/{k}", "question": f"How much is {k} plus one?", "images": [f"{k}.png"], "answer": str(k + 1)}
        )
    write_jsonl(tmp_path / "problems.jsonl", rows)
    say(*documented("mathse data check data=jsonl data.path=problems.jsonl hydra.run.dir=check"))
    assert read_json(tmp_path / "check" / "data_check.json")["used"] == 40
    say(*documented("mathse plan data=jsonl data.path=problems.jsonl teacher=openai teacher.model=gpt-4o-2024-08-06"))
    with ApiServer(key=None) as server:
        words = documented(
            "mathse train data=jsonl data.path=problems.jsonl teacher=openai teacher.base_url=http://localhost:8000/v1 "
            "teacher.model=NAME teacher.api_key_env=null"
        )
        words = [word.replace("http://localhost:8000/v1", server.url) for word in words]
        sizes = [size for size in SIZES if not size.startswith("experiment=")]
        # Nothing is learnt in two steps, so the reference answers judge, and the ORM is left out.
        say(*with_sizes(words, [*sizes, "judge=answer", "distill.judge=answer", "hydra.run.dir=own"]))
        assert server.billed
    summary = read_json(tmp_path / "own" / "summary.json")
    assert summary["stages"][-1]["stage"] == "final"


# --- 3. a new benchmark -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_adds_a_benchmark_and_scores_a_checkpoint_on_it(say: Say, tmp_path: Path) -> None:
    say(*documented("mathse train experiment=smoke"))
    (summary,) = tmp_path.glob("outputs/smoke/*/summary.json")
    checkpoint = summary.parent / "final" / "checkpoint"
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project" / "__init__.py").touch()
    section = sections()["benchmark"]
    for block in section:
        if block.language in ("python", "yaml"):
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    write_jsonl(
        tmp_path / "words.jsonl",
        [{"id": str(k), "question": f"What is {k} + 1?", "answer": str(k + 1)} for k in range(3)],
    )
    (words,) = [words for block in section if block.language == "bash" for words in block.commands]
    say(*(word.replace("CHECKPOINT", str(checkpoint)) for word in words))
    (metrics,) = tmp_path.glob("outputs/evaluate/*/word_problems/metrics.json")
    assert read_json(metrics)["total"] == 3


# --- 4. a sweep, logged to W&B without a network ----------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_sweeps_over_seeds_and_logs_offline(say: Say, tmp_path: Path) -> None:
    say(*documented("mathse train -m experiment=smoke seed=1,2 logger=wandb logger.mode=offline logger.group=seeds"))
    runs = [file.parent for file in (tmp_path / "multirun").rglob("summary.json")]
    assert sorted(read_json(run / "run.json")["seed"] for run in runs) == [1, 2]
    for run in runs:
        assert list(run.glob("wandb/offline-run-*/run-*.wandb"))


# --- 5. a wheel in a notebook -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_installs_a_wheel_and_runs_the_notebook(say: Say, tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "notebook.ipynb", tmp_path)
    (tmp_path / "cells.py").write_text(
        "import json\n"
        "cells = json.load(open('notebook.ipynb', encoding='utf-8'))['cells']\n"
        "names = {'__name__': '__main__'}\n"
        "for cell in cells:\n"
        "    if cell['cell_type'] == 'code':\n"
        "        exec(''.join(cell['source']), names)\n"
        "import mathse\n"
        "print(json.dumps({'home': mathse.__file__, 'total': names['scored'].summary['synthetic']['total']}))\n"
    )
    last = json.loads(say("python", "cells.py").splitlines()[-1])
    assert last["total"] == 20 and not Path(last["home"]).is_relative_to(ROOT)
    assert (tmp_path / "notebook" / "run" / "report.html").is_file()
