"""A checkpoint that brings program code along: nobody is asked about it, and none of it runs."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mathse import models
from mathse.commands.tiny import BUILDERS
from mathse.commands.tiny import main as make
from mathse.errors import CheckpointError

FAMILIES = {**{name: name for name in BUILDERS}, "causal_lm": "causal_lm", "idefics3": "hf"}
CLASSES = {  # key of a checkpoint's files -> the class that its own code would have
    "model_type": "theirs",
    "tokenizer_class": "TheirTokenizer",
    "processor_class": "TheirProcessor",
    "image_processor_type": "TheirImages",
}
AUTO = (
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoProcessor",
    "AutoImageProcessor", "AutoTokenizer",
)  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param) / "checkpoint"
    assert make([request.param, str(folder)]) == 0
    return FAMILIES[request.param], folder


def with_code(folder: Path, out: Path, renamed: str | None) -> Path:
    """A copy of the checkpoint with code that makes the file ``out/ran``; each of its JSON files names it, and
    ``renamed``, a key of ``CLASSES``, names a class that transformers does not have."""
    copy = out / "checkpoint"
    shutil.copytree(folder, copy)
    code = (
        f"open({str(out / 'ran')!r}, 'w')\nTheirs = TheirTokenizer = TheirProcessor = TheirImages = generate = None\n"
    )
    (copy / "theirs.py").write_text(code)
    (copy / "custom_generate").mkdir()
    (copy / "custom_generate" / "generate.py").write_text(code)
    for file in copy.glob("*.json"):
        if file.name in ("tokenizer.json", "model.safetensors.index.json", "vocab.json"):
            continue
        content: dict[str, Any] = json.loads(file.read_text())
        content["auto_map"] = {auto: ["theirs.Theirs", None] if "Tok" in auto else "theirs.Theirs" for auto in AUTO}
        if renamed in content:
            content[renamed] = CLASSES[renamed]
        file.write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize("renamed", [None, *CLASSES])
def test_code_of_a_checkpoint_is_neither_run_nor_asked_about(
    family: tuple[str, Path], renamed: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or "y")
    name, folder = family
    copy = with_code(folder, tmp_path, renamed)
    for weights in (True, False) if name != "cogvlm2" else (True,):
        try:
            models.load(name, copy, weights=weights)
        except CheckpointError as error:
            assert "trust_remote_code" not in str(error) and "\n" not in str(error)
    assert not asked and not (tmp_path / "ran").exists()


def test_every_call_that_could_run_code_of_a_checkpoint_says_that_it_must_not(root: Path) -> None:
    """peft's calls are not among them: it opens adapters, whose files name no code."""
    for file in sorted((root / "mathse").rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if not name.endswith((".from_pretrained", ".from_config")) or name.startswith(("peft.", "super()")):
                continue
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            options = ast.unparse(call).endswith("**options)") and file.name == "gguf.py"
            assert options or said.get("trust_remote_code") == "False", f"{file}:{call.lineno}: {name}"
