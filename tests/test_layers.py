"""Imports point downward, and each outer library is known to its own layer only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "mathse").rglob("*.py"))

# From the ground up; a part may import its own layer and those below.
LAYERS = (
    {"errors", "types", "seeds", "store", "folder_lock", "answers", "prompts", "metrics", "ledger", "manifest",
     "images", "config", "launch", "ranks", "paper", "resampling", "published", "rows"},
    {"backbones", "llm"},
    {"data", "decontaminate", "world", "modules", "teachers", "fit", "strategies"},
    {"generate", "judges", "serving", "orm", "progress", "loggers", "benchmarks"},
    {"evolution", "report", "contamination"},
    {"tasks", "data_check", "evaluation", "compare", "plan", "whatif", "exports", "lineage", "study",
     "dashboard", "cli", "__main__"},
)  # fmt: skip
STDLIB_ONLY = {
    "errors",
    "types",
    "seeds",
    "store",
    "folder_lock",
    "answers",
    "prompts",
    "metrics",
    "ledger",
    "manifest",
    "launch",
    "published",
    "rows",
}
KNOWN_TO = {
    "hydra": {"config", "cli"},
    "omegaconf": {"config", "cli"},
    "transformers": {"backbones"},
    "peft": {"backbones"},
    "openai": {"llm"},
    "pytorch_lightning": {"modules", "data", "generate", "fit", "evolution", "loggers", "progress", "tasks",
                          "strategies"},
    "torch": {"backbones", "modules", "data", "generate", "judges", "fit", "orm", "evolution", "loggers", "tasks",
              "ranks", "strategies", "evaluation"},
}  # fmt: skip


def part(path: Path) -> str:
    """The name below mathse/ that a file belongs to: mathse/data/sft.py -> data."""
    return path.relative_to(ROOT / "mathse").with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "mathse" else [node.module]


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_outer_library_is_known_to_its_own_layer_only(path):
    outer = {name.partition(".")[0] for name in imports(path)} - {"mathse"}
    assert [lib for lib in outer if lib in KNOWN_TO and part(path) not in KNOWN_TO[lib]] == []
    if part(path) in STDLIB_ONLY:
        assert outer <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    if part(path) == "__init__":
        assert not [name for name in imports(path) if name.startswith("mathse.")]
        return
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("mathse.")} - {"__version__"}
    assert [name for name in ours if layer(name) > layer(part(path))] == []


def test_every_part_has_its_place_in_the_layers():
    assert {part(path) for path in FILES} - {"__init__"} <= set().union(*LAYERS)


def test_importing_the_package_loads_nothing_heavy():
    script = "import mathse, sys; print(*(m for m in ('torch', 'transformers', 'hydra', 'numpy') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
