"""Hashes of the files that a data section or a task domain names, recorded beside its settings: a run that is resumed
must meet the same data and prompts, and a path alone does not say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathse.config.data import HubData, JsonlData, MixtureData, PublicData, WordProblems
from mathse.config.task_domains import TaskDomain
from mathse.data.domains.texts import texts_in
from mathse.data.readers import find_set
from mathse.data.readers.source import files_of, is_table
from mathse.data.words import published
from mathse.runs.store import sha256_file


def content_hashes(data: Any, key: str = "data") -> dict[str, str]:
    """Hash by setting ("data.path_sha256") of the files that a data section names. Raises DataError for a folder that
    has none of the set's files.

    Of a published set the annotation files are hashed, of a table's folder names and sizes; images are not read.
    """
    if isinstance(data, MixtureData):
        parts = [content_hashes(section, f"{key}.sources.{name}") for name, section in data.sources.items()]
        return {name: digest for part in parts for name, digest in part.items()}
    if isinstance(data, JsonlData):
        paths = {"path": data.path, "test_path": data.test_path}
        return {f"{key}.{name}_sha256": sha256_file(Path(path)) for name, path in paths.items() if path}
    if isinstance(data, WordProblems) and data.root is not None:
        root = Path(data.root)
        files = [file for name in data.sets for file in published.files_of(name, root)]
        lines = [f"{file.relative_to(root)} {sha256_file(file)}\n" for file in files]
        return {f"{key}.root_sha256": hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()}
    if isinstance(data, (PublicData, HubData)) and data.root is not None and Path(data.root).exists():
        digest = hashlib.sha256()
        for line in _file_lines(data, Path(data.root)):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return {f"{key}.root_sha256": digest.hexdigest()}
    return {}


def prompt_hashes(domain: Any) -> dict[str, str]:
    """The same of a task domain's prompts; none of MathSE's own, whose names say their versions."""
    if not isinstance(domain, TaskDomain) or domain.texts.startswith("mathse."):
        return {}
    lines = [
        f"{job} {language} {text.version} {text.template}" for (job, language), text in texts_in(domain.texts).items()
    ]
    return {"task_domain.texts_sha256": hashlib.sha256("\n".join(sorted(lines)).encode("utf-8")).hexdigest()}


def _file_lines(data: PublicData | HubData, root: Path) -> Iterator[str]:
    """A line a file: its name below ``root``, and the hash or size of its contents."""
    if isinstance(data, PublicData) and not is_table(root):
        for wanted in filter(None, (data.train_split, data.test_split)):
            for split, file in files_of(find_set(data.name), root, wanted):
                yield f"{split} {file.relative_to(root) if root.is_dir() else file.name} {sha256_file(file)}"
    else:
        for file in sorted(root.rglob("*") if root.is_dir() else [root]):
            if file.is_file():
                yield f"{file.relative_to(root) if root.is_dir() else file.name} {file.stat().st_size}"
