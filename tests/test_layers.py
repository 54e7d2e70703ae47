"""Twelve rooms, each importing only from rooms below it; a core and its wings; each outer library in few rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "mathse").rglob("*.py"))

# From the ground up. Beside them only types, errors and seeds, which every room may import, and __main__ on top;
# __init__ offers what commands/ has, and imports it late.
ROOMS = (
    "scoring",  # is an answer right, and how sure are we
    "runs",  # the run folder: stages, identity, durable rows
    "config",  # typed settings, all mistakes in one answer
    "data",  # problems in, checked, kept out of benchmarks
    "models",  # the only room that knows transformers and peft
    "training",  # a fit on whatever devices there are
    "inference",  # text out of models, here or behind an engine
    "judges",  # verdicts and feedback
    "reporting",  # pages, logs, progress, dashboards
    "evolution",  # Algorithm 1
    "evaluation",  # benchmarks scored as their authors do; runs compared
    "commands",  # one file or folder a verb
)
# Packages and modules that hang on the core, and how a user reaches each: by an option, whose ``_target_`` lies there,
# or by a subcommand. Nothing in the core imports them (test_wings.py); docs/design.md draws them.
WINGS = {
    "models.cogvlm2": "backbone=cogvlm2",
    "models.internvl2_5": "backbone=internvl2_5",
    "models.internvl3": "backbone=internvl3",
    "models.qwen2_5_vl": "backbone=qwen2_5_vl",
    "models.qwen3_vl": "backbone=qwen3_vl",
    "models.packaged": "backbone=smollm2, backbone=smollm2_vision",
    "models.tiny_hf": "mathse tiny",
    "reporting.dashboard": "mathse dashboard",
    "reporting.loggers.wandb": "logger=wandb",
    "reporting.study": "mathse study",
    "evaluation.benchmarks": "benchmark=mathvista, benchmark=mathverse, benchmark=mathvision, benchmark=wemath, "
    "benchmark=mathvl_test, benchmark=dynamath, benchmark=logicvista, benchmark=mmmu_pro",
    "evaluation.compare": "mathse compare",
    "evaluation.orm_test": "benchmark=orm_test",
    "commands.control": "mathse control",
    "commands.convert": "mathse convert",
    "commands.convert_data": "mathse convert-data",
    "commands.export": "mathse export",
    "commands.lineage": "mathse lineage",
    "commands.plan": "mathse plan",
    "commands.replay": "mathse replay",
    "commands.reward_server": "mathse reward-server",
    "commands.slurm": "hydra/launcher=slurm",
    "commands.tiny": "mathse tiny",
}
GROUND = ("errors", "types", "seeds")
HEIGHT = {name: height for height, name in enumerate((*GROUND, *ROOMS, "__main__", "__init__"))}
KNOWN_TO = {
    "hydra": {"config", "commands"},
    "omegaconf": {"config", "commands"},
    "transformers": {"models"},
    "peft": {"models"},
    "openai": {"inference"},
    "pytorch_lightning": {"training", "reporting", "evolution"},
    "torch": {"models", "training", "inference", "judges", "evolution", "evaluation"},
}
STDLIB_ONLY = {*GROUND, "runs"}
STRING_IMPORT = re.compile(r"mathse((?:\.\w+)+)")


def room(path: Path) -> str:
    """The name below mathse/ that a file belongs to: mathse/data/row_validation.py -> data."""
    return path.relative_to(ROOT / "mathse").with_suffix("").parts[0]


@cache
def imports(path: Path) -> list[str]:
    return list(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in it; a string that is handed to ``import_module``, or
    that is nothing but a dotted name of ours, is an import too, but for the configs' ``_target_`` and the verbs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "mathse" else [node.module]
        elif isinstance(node, ast.Call) and "import_module" in (
            getattr(node.func, "id", None),
            getattr(node.func, "attr", None),
        ):
            yield from (m[0] for inner in ast.walk(node) if (m := _dotted(inner)))


def _dotted(node: ast.AST) -> re.Match[str] | None:
    return STRING_IMPORT.match(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("mathse.")} - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_room_imports_only_what_stands_below_it(path: Path) -> None:
    assert [name for name in ours(path) if HEIGHT[name] > HEIGHT[room(path)]] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_outer_library_is_known_to_its_rooms_only(path: Path) -> None:
    outer = {name.partition(".")[0] for name in imports(path)} - {"mathse"}
    assert [lib for lib in outer if lib in KNOWN_TO and room(path) not in KNOWN_TO[lib]] == []
    if room(path) in STDLIB_ONLY:
        of_records = {"pydantic", "pydantic_core"} if room(path) == "types" else set()  # it checks their rows
        assert outer <= {*sys.stdlib_module_names, *of_records}


def test_top_of_the_package_holds_the_rooms_and_the_ground() -> None:
    top = {p.stem for p in (ROOT / "mathse").iterdir() if not p.name.startswith(("__pycache__", "."))}
    assert top == {"__init__", "__main__", "py", *GROUND, *ROOMS}


def test_every_room_says_what_it_is_for_in_its_first_line() -> None:
    for name in ROOMS:
        docstring = ast.get_docstring(ast.parse((ROOT / "mathse" / name / "__init__.py").read_text(encoding="utf-8")))
        assert docstring, name


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import mathse, sys; print(*(m for m in ('torch', 'transformers', 'hydra', 'numpy') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
