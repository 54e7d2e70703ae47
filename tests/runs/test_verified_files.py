"""Large files of a finished stage are compared with their hash once, and again when they were written anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mathse.errors import RunError
from mathse.runs import manifest
from mathse.runs.store import sha256_file


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, dict[str, object]]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(manifest, "MAX_HASHED_BYTES", 100)
    weights = tmp_path / "orm" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(1000))
    return weights, {weights.name: {"sha256": sha256_file(weights), "bytes": 1000}}


def test_a_large_file_is_read_once_and_then_measured(stage) -> None:
    weights, outputs = stage
    read: list[Path] = []

    def digest(file: Path) -> str:
        read.append(file)
        return sha256_file(file)

    for _ in range(3):
        manifest.verify(weights.parent, outputs, digest)
    assert read == [weights]
    os.utime(weights, (2**31, 2**31))  # written anew, with the same contents
    manifest.verify(weights.parent, outputs, digest)
    assert read == [weights, weights]


def test_a_large_file_with_a_flipped_byte_is_noticed(stage) -> None:
    weights, outputs = stage
    manifest.verify(weights.parent, outputs)
    before = weights.stat()
    weights.write_bytes(bytes(500) + b"\1" + bytes(499))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(RunError, match="model.safetensors has other contents than recorded"):
        manifest.verify(weights.parent, outputs)


def test_without_a_cache_a_large_file_is_read_each_time(stage, tmp_path: Path) -> None:
    weights, outputs = stage
    (tmp_path / "cache").write_text("no folder")
    manifest.verify(weights.parent, outputs)
    weights.write_bytes(b"\1" * 1000)
    with pytest.raises(RunError, match="other contents"):
        manifest.verify(weights.parent, outputs)
