"""Hashes of the files of a data section or a task domain, recorded beside its settings.

A resumed run must use the same data and prompts, and equal paths do not guarantee it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathse.config.data import HubDataConfig, JsonlDataConfig, MixtureDataConfig, PublicDataConfig, WordProblemsConfig
from mathse.config.task_domains import TaskDomainConfig
from mathse.data.domains.domain import texts_in
from mathse.data.readers import find_set
from mathse.data.readers.source import files_of, is_table
from mathse.data.words import published
from mathse.runs.store import sha256_file


def content_hashes(data: Any, key: str = "data") -> dict[str, str]:
    """Hash the files of a data section, by setting ("data.path_sha256").

    For a published set the annotation files are hashed, and for a table the names and sizes in its folder; images are
    not read. Raises DataError for a folder without a file of the set.
    """
    if isinstance(data, MixtureDataConfig):
        digests: dict[str, str] = {}
        for name, section in data.sources.items():
            digests |= content_hashes(section, f"{key}.sources.{name}")
        return digests
    if isinstance(data, JsonlDataConfig):
        paths = {"path": data.path, "test_path": data.test_path}
        return {f"{key}.{name}_sha256": sha256_file(Path(path)) for name, path in paths.items() if path}
    if isinstance(data, WordProblemsConfig) and data.root is not None:
        root = Path(data.root)
        lines = []
        for name in data.sets:
            lines += [f"{file.relative_to(root)} {sha256_file(file)}\n" for file in published.files_of(name, root)]
        return {f"{key}.root_sha256": hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()}
    if isinstance(data, (PublicDataConfig, HubDataConfig)) and data.root is not None and Path(data.root).exists():
        digest = hashlib.sha256()
        for line in _describe_files(data, Path(data.root)):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return {f"{key}.root_sha256": digest.hexdigest()}
    return {}


def prompt_hashes(domain: Any) -> dict[str, str]:
    """Hash the prompts of a task domain. MathSE's own prompts need no hash, because their names hold their versions."""
    if not isinstance(domain, TaskDomainConfig) or domain.texts.startswith("mathse."):
        return {}
    lines = [
        f"{job} {language} {text.version} {text.template}" for (job, language), text in texts_in(domain.texts).items()
    ]
    return {"task_domain.texts_sha256": hashlib.sha256("\n".join(sorted(lines)).encode("utf-8")).hexdigest()}


def _describe_files(data: PublicDataConfig | HubDataConfig, root: Path) -> Iterator[str]:
    """Yield a line for each file: its name below ``root``, and the hash or size of its contents."""
    if isinstance(data, PublicDataConfig) and not is_table(root):
        for wanted in filter(None, (data.train_split, data.test_split)):
            for split, file in files_of(find_set(data.name), root, wanted):
                yield f"{split} {file.relative_to(root) if root.is_dir() else file.name} {sha256_file(file)}"
    else:
        for file in sorted(root.rglob("*") if root.is_dir() else [root]):
            if file.is_file():
                yield f"{file.relative_to(root) if root.is_dir() else file.name} {file.stat().st_size}"
