"""The folder that a benchmark is evaluated in: the names of its files, and the settings its answers were made with.

Answers are appended to ``predictions.jsonl`` and kept for the next start, so ``identity.json`` records what they were
made with: a rerun with other settings must not continue them. Files that training runs have too are named by
``mathse.runs.layout``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.config import flatten
from mathse.config.generators import ServerGeneratorConfig
from mathse.config.schema import EvaluateConfig
from mathse.data.content_hashes import prompt_hashes
from mathse.errors import SettingsChanged
from mathse.runs.class_names import with_recorded_names
from mathse.runs.settings import config_slice, without_later_of_classes
from mathse.runs.store import make_folder, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from mathse.evaluation.opened import OpenedBenchmark

UNASKED = "unasked.jsonl"  # {id, reason}: problems that the model cannot take
SCORED = "scored.jsonl"  # a row a problem: the answer that counts
SAMPLES = "samples.jsonl"  # a row an answer, where n_samples > 1
DISAGREEMENTS = "disagreements.jsonl"  # rows of SCORED on which math-verify's verdict differs
CONTAMINATED = "contamination.jsonl"  # pairs of a training row and a problem
JUDGED = "judged.jsonl"  # of benchmark=orm_test
IDENTITY = "identity.json"
SETTINGS = "evaluation.json"  # in the output folder


def keep_identity(
    config: EvaluateConfig, folder: Path, benchmarks: Sequence[OpenedBenchmark], decoding: Mapping[str, Any] | None
) -> None:
    """Record what each benchmark's answers are made with; ``decoding``: how they are decoded; None where they come from
    a file.

    Raises SettingsChanged, before anything is written, where the folder holds answers of other settings.
    """
    flat = without_later_of_classes(flatten(config))
    # Whose answers they are.
    answered_by: dict[str, Any]
    if decoding is None:
        answered_by = {
            "predictions_sha256": sha256_file(Path(str(config.predictions))),
            "n_samples": config.n_samples,
        }
    else:
        if isinstance(config.generator, ServerGeneratorConfig):
            answered_by = {"server_model": config.generator.model, "prompt_style": config.generator.style}
        else:
            checkpoint = config.checkpoint or (None if isinstance(config.backbone, dict) else config.backbone.path)
            answered_by = {
                "checkpoint": config.checkpoint,
                "checkpoint_sha256": fingerprint(checkpoint),
                **{key: value for key, value in flat.items() if key.startswith("backbone.")},
            }
        answered_by |= decoding
    # What was asked: the rows by their content. Without a published data set, ``data`` decides what the rows are.
    data = {key: value for key, value in flat.items() if key.startswith("data.")} | domain_settings(config)
    keep_identities(
        {
            opened.folder / IDENTITY: {
                **answered_by,
                "problems": len(opened.items),
                "problems_sha256": opened.digest(),
                "prompt": opened.bench.prompt,
                **(data if opened.bench.hub is None else {}),
            }
            for opened in benchmarks
        },
        folder,
    )


def domain_settings(config: EvaluateConfig) -> dict[str, Any]:
    """What prompts and answers go by; nothing where that is mathematics, as in evaluations of earlier versions."""
    return config_slice(flatten(config), ("task_domain",)) | prompt_hashes(config.task_domain)


def keep_identities(identities: Mapping[Path, Mapping[str, Any]], folder: Path) -> None:
    """Write each identity into its file; SettingsChanged, before any is written, if one differs from the file there."""
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
    """The SHA-256 of a checkpoint's weights, of several shards a line of all; None where none lie on this disk."""
    shards = sorted(Path(checkpoint).glob("*.safetensors")) if checkpoint else []
    if len(shards) < 2:
        return sha256_file(shards[0]) if shards else None
    return " ".join(f"{shard.name}:{sha256_file(shard)[:16]}" for shard in shards)
