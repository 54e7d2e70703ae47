"""The package as a user installs it: what the wheel holds, what it declares, what its parts load."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import invalidate_caches
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from installed import build_wheel

import mathse
from mathse.__main__ import main
from mathse.commands.subcommands import SUBCOMMANDS
from mathse.config.extras import EXTRAS, Extra, explain_missing

# Stands in the package as a wheel of its own (third_party/); what it runs on is declared.
BROUGHT = {"latex2sympy2": "antlr4-python3-runtime", "pydantic_core": "pydantic"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_the_wheel_holds_every_file_of_the_package_and_the_configs(root: Path, wheel: zipfile.ZipFile) -> None:
    names = {n.removeprefix("mathse/") for n in wheel.namelist() if n.startswith("mathse/")}
    expected = files_below(root / "mathse") | {f"conf/{name}" for name in files_below(root / "conf")}
    expected |= {f"experiments/{f.parent.name}/study.yaml" for f in (root / "experiments").glob("*/study.yaml")}
    assert names == expected
    assert "hydra_plugins/mathse_slurm/__init__.py" in wheel.namelist()


def test_the_wheel_has_the_command_and_the_licences(wheel: zipfile.ZipFile) -> None:
    (about,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "mathse = mathse.__main__:command" in wheel.read(f"{about}/entry_points.txt").decode()
    licences = {name.rpartition("/")[2] for name in wheel.namelist() if f"{about}/licenses/" in name}
    assert licences == {"LICENSE", "latex2sympy2-LICENSE.txt", "SVAMP-LICENSE.txt", "grade-school-math-LICENSE.txt"}


def imports(root: Path) -> Iterator[tuple[str, str]]:
    """(top module, file) of every import in mathse/, those by ``import_module("name")`` too."""
    for file in sorted((root / "mathse").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
                names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from ((name.partition(".")[0], file.relative_to(root).as_posix()) for name in names)


def declared(requirements: list[str]) -> set[str]:
    """Names of distributions, as PyPA writes them."""
    heads = (r.replace("[", "<").replace(">", "<").replace("=", "<").partition("<")[0] for r in requirements)
    return {head.strip().lower().replace("_", "-") for head in heads}


def test_every_import_is_declared_as_core_or_as_an_extra(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        requirements for name, requirements in project["optional-dependencies"].items() if name not in ("dev", "docs")
    ]
    known = declared([*project["dependencies"], *(r for requirements in extras for r in requirements)])
    distributions = packages_distributions()
    undeclared = {
        f"{module} in {file}"
        for module, file in imports(root)
        if module not in sys.stdlib_module_names and module not in ("mathse", "hydra_plugins")
        if not known & declared([BROUGHT[module]] if module in BROUGHT else distributions.get(module, [module]))
    }
    assert undeclared == set()


def test_dev_has_what_tests_import_and_every_extra_has_its_sentence(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"dev", "docs"}
    for name in ("hub", "lineage", "dashboards", "server"):
        assert set(extras[name]) <= set(extras["dev"]), name


def test_nowhere_a_name_on_an_index_is_advised(root: Path) -> None:
    texts = [
        p for d in ("mathse", "conf", "docs") for p in (root / d).rglob("*") if p.suffix in (".py", ".yaml", ".md")
    ]
    texts += [p for p in root.glob("*.md") if p.name != "CHANGELOG.md"]
    assert [str(p) for p in texts if "mathse[" in p.read_text(encoding="utf-8")] == []


def test_a_folder_of_a_librarys_name_is_not_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, "lineage", Extra("no_such_library", "duckdb"))
    assert explain_missing("lineage") == "needs duckdb, which is not installed; pip install '.[lineage]'"
    (tmp_path / "no_such_library" / "__init__.py").write_text("")
    invalidate_caches()
    assert explain_missing("lineage") is None


def test_a_wheel_advises_extras_of_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "lineage", Extra("no_such_library", "duckdb"))
    monkeypatch.setattr("mathse.config.extras.SOURCE", tmp_path)  # site-packages: no source of ours
    package = mathse.__name__
    assert explain_missing("lineage") == f"needs duckdb, which is not installed; pip install '{package}[lineage]'"


def test_the_command_knows_its_version_and_a_misspelt_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"mathse {mathse.__version__}\n"
    assert main(["trian"]) == 2 and capsys.readouterr().err.endswith("; did you mean train?\n")


def test_help_loads_neither_torch_nor_the_library_of_an_extra() -> None:
    """train and evaluate have a test of their own, in tests/config."""
    verbs = [verb for verb in SUBCOMMANDS if verb not in ("train", "evaluate", "convert")]
    heavy = ("torch", "transformers", "wandb", *(extra.module for extra in EXTRAS.values()))
    script = (
        "import sys\nfrom mathse.__main__ import main\nmain(['--help'])\n"
        f"for verb in {verbs!r}:\n"
        "    try:\n        main([verb, '--help'])\n    except SystemExit as e:\n        assert not e.code, verb\n"
        f"    assert not {{*{heavy!r}}} & sys.modules.keys(), verb\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_a_run_loads_what_asks_servers_and_fits_adapters_only_when_it_does() -> None:
    script = "import sys, mathse.evolution.evolution_run\nassert not {'openai', 'peft', 'wandb'} & sys.modules.keys()\n"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_train_and_evaluate_come_with_the_package_and_only_when_asked_for() -> None:
    script = (
        "import sys, mathse\nassert 'mathse.commands' not in sys.modules\n"
        "from mathse import Finished, evaluate, train\nassert 'torch' not in sys.modules\n"
        "try:\n    mathse.trian\nexcept AttributeError:\n    pass\nelse:\n    sys.exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_citation_names_the_paper_and_this_version(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mathse.__version__
    paper = citation["preferred-citation"]
    assert paper["url"].endswith("2511.06805") and len(paper["authors"]) == 5
