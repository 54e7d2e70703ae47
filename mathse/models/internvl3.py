"""InternVL3: InternVL2.5's tower, tiles and conversation around a Qwen2.5 language model, in transformers' layout and
in the published one (``internvl_chat``).

Source of the facts: the published ``config.json`` and tokenizer; Zhu et al. 2025, "InternVL3" (arXiv 2504.10479). The
published 9B checkpoint has another language model (InternLM3) and is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from mathse.config.backbones import InternVL3BackboneConfig
from mathse.errors import CheckpointError
from mathse.models.architecture import Architecture
from mathse.models.checkpoint import BROKEN, summarize_error, wrap_library_errors
from mathse.models.internvl2_5 import InternVL25Backbone
from mathse.models.internvl2_5.backbone import open_family, read_architecture
from mathse.models.internvl2_5.published import Language, convert_sizes
from mathse.models.internvl2_5.tiny import build_model
from mathse.models.internvl2_5.tokenizer import IMAGE, IMAGE_END, IMAGE_START, NEEDED
from mathse.models.trial import try_tokenizer
from mathse.runs.store import read_json

# The processor wants a token for videos, which InternVL3 reads as images: one of Qwen2.5's that no prompt holds.
VIDEO = "<|video_pad|>"


def convert_qwen2(published: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of transformers' Qwen2, whose weights have the same names in a published folder."""
    return {"model_type": "qwen2", **convert_sizes(published)}


def build_qwen2_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the published tokenizer: Qwen2.5's with tokens for pictures behind its own.

    Raises CheckpointError for files that are missing or damaged, and where a token of pictures has no id.
    """
    try_tokenizer(folder)
    if not (folder / "tokenizer.json").is_file():
        expect_pieces(folder)
    try:
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its tokenizer cannot be opened ({summarize_error(e)})") from None
    vocabulary = tokenizer.get_vocab()
    if missing := [token for token in (*NEEDED, VIDEO) if token not in vocabulary]:
        raise CheckpointError(
            f"{folder}: {missing[0]} is no token of its tokenizer; download tokenizer_config.json, added_tokens.json, "
            "vocab.json and merges.txt again"
        )
    names = {"start_image_token": IMAGE_START, "end_image_token": IMAGE_END, "context_image_token": IMAGE}
    tokenizer._set_model_specific_special_tokens({**names, "video_token": VIDEO})
    tokenizer.padding_side = "left"
    return tokenizer


def expect_pieces(folder: Path) -> None:
    """Raise CheckpointError unless vocab.json and merges.txt are those of one tokenizer: its library says of others no
    more than that there is an error."""
    try:
        vocabulary = read_json(folder / "vocab.json")
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(
            f"{folder}: its tokenizer cannot be read ({summarize_error(e)}); download it again"
        ) from None
    if not isinstance(vocabulary, dict) or not all(type(index) is int and index >= 0 for index in vocabulary.values()):
        raise CheckpointError(f"{folder / 'vocab.json'} is no object of tokens and their numbers; download it again")
    for number, line in enumerate(lines, start=1):
        left, _, right = line.partition(" ")
        if line and not line.startswith("#version") and not {left, right, left + right} <= vocabulary.keys():
            raise CheckpointError(
                f"{folder / 'merges.txt'}:{number}: {line[:80]!r} joins tokens that vocab.json does not have; download "
                "both again"
            )


class InternVL3Backbone(InternVL25Backbone):
    """An ``InternVLForConditionalGeneration`` with a Qwen2 decoder."""

    family: ClassVar[str] = "internvl3"
    language: ClassVar[Language] = Language(
        "Qwen2ForCausalLM",
        "an InternVL3 checkpoint with a Qwen2.5 language model, such as OpenGVLab/InternVL3-8B",
        convert_qwen2,
        build_qwen2_tokenizer,
    )


def architecture(settings: InternVL3BackboneConfig) -> Architecture:
    """Return the model of a folder's config.json in either layout, without weights."""
    return read_architecture(InternVL3Backbone, settings)


@wrap_library_errors
def load(settings: InternVL3BackboneConfig, weights: bool = True) -> InternVL3Backbone:
    """Open an InternVL3 checkpoint, in the published layout or in transformers'.

    ``weights`` False: only for prompts, see ``mathse.models.prompt_reader``.
    """
    return open_family(InternVL3Backbone, settings, weights)


def make_tiny(seed: int, heads: int = 4) -> InternVL3Backbone:
    """What ``mathse tiny internvl3 DST`` saves: a few hundred thousand random parameters, in transformers' layout."""
    return InternVL3Backbone(*build_model(seed, heads, "qwen2"), InternVL3BackboneConfig())
