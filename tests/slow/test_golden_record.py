"""What a run makes, byte for byte: a change that is meant to change no result must leave this record as it is.

The bytes hold for one kind of processor and one version of torch and transformers, so the record is kept per machine;
elsewhere the tests skip. After a change that is meant to change results, or for another machine, make it anew:

    MATHSE_GOLDEN=record python -m pytest -m slow tests/slow/test_golden_record.py
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("golden_record.json")
FAMILIES = ("qwen2vl", "internvl2_5", "cogvlm2")
# One short fit and greedy answers before and after it.
ONE_FIT = (
    "task=sft",
    "sft.method=full",
    "sft.max_steps=4",
    "sft.batch_size=4",
    "sft.micro_batch_size=4",
    "evaluation.max_new_tokens=8",
    "evaluation.limit=16",
    "data.dev=8",
    "decontaminate.action=off",
)


def machine() -> str:
    """What the bytes depend on besides the program: processor, torch, transformers."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in lines.items()}
        cpu = " ".join(named.get(key, "?") for key in ("model name", "cpu family", "model", "stepping"))
    return f"{cpu}, torch {version('torch')}, transformers {version('transformers')}"


def mathse(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)


def hashes(run: Path) -> dict[str, str]:
    """sha256 of a run's rows and weights, by name: train, paths, verdicts and predictions of every stage."""
    kinds = ("*train.jsonl", "*paths.jsonl", "*verdicts.jsonl", "*predictions.jsonl", "*.safetensors")
    files = sorted(file for kind in kinds for file in run.rglob(kind))
    return {file.relative_to(run).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "smoke"
    mathse("train.py", "experiment=smoke", f"hydra.run.dir={folder}", "progress=plain")
    return folder


def compare(name: str, made: dict[str, str]) -> None:
    """Against the record of this machine; with MATHSE_GOLDEN=record the record is made."""
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if os.environ.get("MATHSE_GOLDEN") == "record":
        records.setdefault(machine(), {})[name] = made
        RECORD.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    if name not in records.get(machine(), {}):
        pytest.skip(f"no record was made on this machine ({machine()}); MATHSE_GOLDEN=record makes one")
    assert made == records[machine()][name]


@pytest.mark.slow
def test_smoke_run_makes_the_recorded_bytes(smoke: Path) -> None:
    compare("smoke", hashes(smoke))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fit_and_answers_of_a_family_are_the_recorded_bytes(family: str, smoke: Path, tmp_path: Path) -> None:
    mathse("-m", "mathse", "tiny", family, str(tmp_path / family))
    rows = smoke / "distill" / "train.jsonl"
    checkpoint = f"backbone.path={tmp_path / family}"
    settings = (f"backbone={family}", checkpoint, f"sft.train={rows}", *ONE_FIT)
    mathse("train.py", "experiment=smoke", *settings, f"hydra.run.dir={tmp_path / 'run'}", "progress=plain")
    compare(family, hashes(tmp_path / "run"))
