"""The folder of a benchmark's evaluation: the names of its files, and the settings that made its answers.

Answers are appended to ``predictions.jsonl`` and kept for the next start. ``identity.json`` records the settings that
made them: a rerun with other settings must not continue them. ``mathse.runs.layout`` names the files that training runs
have too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config import flatten
from mathse.config.generators import ServerGenerator
from mathse.config.schema import EvaluateConfig
from mathse.data.content_hashes import prompt_hashes
from mathse.errors import SettingsChanged
from mathse.runs.class_names import with_recorded_names
from mathse.runs.settings import config_slice, without_later_of_classes
from mathse.runs.store import make_folder, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from mathse.evaluation.opened import OpenedBenchmark

UNASKED = "unasked.jsonl"  # {id, reason}: problems that the model cannot take
SCORED = "scored.jsonl"  # a row for each problem: the answer that counts
SAMPLES = "samples.jsonl"  # a row for each answer, if n_samples > 1
DISAGREEMENTS = "disagreements.jsonl"  # rows of SCORED on which math-verify's verdict differs
CONTAMINATED = "contamination.jsonl"  # pairs of a training row and a problem
JUDGED = "judged.jsonl"  # paths and verdicts of benchmark=orm_test
IDENTITY = "identity.json"
SETTINGS = "evaluation.json"  # all settings, in the output folder


def keep_identity(
    config: EvaluateConfig, folder: Path, benchmarks: Sequence[OpenedBenchmark], decoding: Mapping[str, Any] | None
) -> None:
    """Record the settings that make each benchmark's answers.

    Args:
        config: all settings.
        folder: the run folder.
        benchmarks: the benchmarks with their rows.
        decoding: the decoding's settings. None: the answers come from a file.

    Raises SettingsChanged, before anything is written, if the folder has answers of other settings.
    """
    flat = without_later_of_classes(flatten(config))
    # 1. The source of the answers: a file, a server's model, or a checkpoint.
    source: dict[str, Any]
    if decoding is None:
        source = {
            "predictions_sha256": sha256_file(Path(str(config.predictions))),
            "n_samples": config.n_samples,
        }
    else:
        if isinstance(config.generator, ServerGenerator):
            source = {"server_model": config.generator.model, "prompt_style": config.generator.style}
        else:
            checkpoint = config.checkpoint or (None if isinstance(config.backbone, dict) else config.backbone.path)
            source = {
                "checkpoint": config.checkpoint,
                "checkpoint_sha256": fingerprint(checkpoint),
                **{key: value for key, value in flat.items() if key.startswith("backbone.")},
            }
        source |= decoding
    # 2. The rows, by their content. Rows without a published data set come from ``data``.
    data = {key: value for key, value in flat.items() if key.startswith("data.")} | domain_settings(config)
    identities = {}
    for opened in benchmarks:
        identities[opened.folder / IDENTITY] = {
            **source,
            "problems": len(opened.items),
            "problems_sha256": opened.digest(),
            "prompt": opened.bench.prompt,
            **(data if opened.bench.hub is None else {}),
        }
    keep_identities(identities, folder)


def domain_settings(config: EvaluateConfig) -> dict[str, Any]:
    """Return the settings of prompts and answer rules; empty for mathematics, as in evaluations of earlier versions."""
    return config_slice(flatten(config), ("task_domain",)) | prompt_hashes(config.task_domain)


def keep_identities(identities: Mapping[Path, Mapping[str, Any]], folder: Path) -> None:
    """Write each identity into its file.

    Raises SettingsChanged, before any file is written, if an existing file has another identity.
    """
    current = {file: with_recorded_names(identity) for file, identity in identities.items()}
    for file, identity in current.items():
        before = read_json(file) if file.exists() else identity
        if changed := sorted(key for key in {*identity, *before} if identity.get(key) != before.get(key)):
            raise SettingsChanged(
                f"{folder} holds an evaluation with other settings ({', '.join(changed)}); choose another hydra.run.dir"
            )
    for file, identity in current.items():
        make_folder(file.parent)
        write_json(file, identity)


def fingerprint(checkpoint: str | None) -> str | None:
    """Return the SHA-256 of a checkpoint's weights, or a line of all shards; None without weights on this disk."""
    shards = sorted(Path(checkpoint).glob("*.safetensors")) if checkpoint else []
    if len(shards) < 2:
        return sha256_file(shards[0]) if shards else None
    return " ".join(f"{shard.name}:{sha256_file(shard)[:16]}" for shard in shards)
