"""What a published InternVL2.5 folder (``internvl_chat``) says, as transformers' own objects: config, processor, end of
a response. The weights are in ``weights.py``; none of the code that such a folder brings along is run.

Source of the facts: the published ``config.json``, conversation template and ``InternVLChatModel``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    GenerationConfig,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from mathse.errors import CheckpointError
from mathse.models.checkpoint import read_config
from mathse.models.internvl2_5.tokenizer import END, IMAGE, START, build_tokenizer
from mathse.runs.store import read_json

MODEL_TYPE = "internvl_chat"
TEMPLATE = "internvl2_5"  # of conversations; earlier InternVL checkpoints talk in others
PIXEL_SHUFFLE = "v2"

# The published default of conversation template internvl2_5: "You are InternVL, a multimodal large language model,
# developed by Shanghai AI Laboratory, Tsinghua University and partners."
SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
# ImageNet's, where the checkpoint has no preprocessor_config.json
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_BICUBIC = 3


class Language(NamedTuple):
    """A language model that published folders come with."""

    architecture: str  # its name in llm_config
    checkpoint: str  # one that has it, for messages
    text_config: Callable[[dict[str, Any]], dict[str, Any]]  # of a published llm_config
    tokenizer: Callable[[Path], PreTrainedTokenizerFast]  # of a published folder


def read_published(folder: Path, language: Language) -> tuple[InternVLConfig, InternVLProcessor, GenerationConfig]:
    """Config, processor and generation settings of a published folder; no weight is read.

    Raises CheckpointError for a setting that is missing, wrong or of another InternVL, and for a tokenizer that is
    damaged or does not fit the embedding.
    """
    published = read_config(folder)
    config = native_config(published, language, image_token_id=0, where=str(folder / "config.json"))
    tokenizer = language.tokenizer(folder)
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    rows = config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows; the tokenizer's files "
            "and config.json do not belong together, download them again"
        )
    return config, build_processor(folder, published, tokenizer), generation_config(folder, tokenizer)


# --- config.json -----------------------------------------------------------------------------------------------------


def native_config(published: dict[str, Any], language: Language, *, image_token_id: int, where: str) -> InternVLConfig:
    """The native config that says what a published ``config.json`` says.

    Raises CheckpointError, with ``where`` as the file's name, for a setting that is missing or that transformers'
    InternVL does not have.
    """
    try:
        vision, text = published["vision_config"], published["llm_config"]
        for setting, value, supported in (
            ("llm_config.architectures", text.get("architectures"), [language.architecture]),
            ("template", published["template"], TEMPLATE),
            ("ps_version", published["ps_version"], PIXEL_SHUFFLE),
            ("use_thumbnail", published.get("use_thumbnail", True), True),
            ("dynamic_image_size", published.get("dynamic_image_size", True), True),
            ("vision_config.hidden_act", vision.get("hidden_act", "gelu"), "gelu"),
        ):
            if value != supported:
                raise CheckpointError(
                    f"{where}: {setting} is {value!r}, and only {supported!r} is supported; name {language.checkpoint}"
                )
        # Settings that transformers' class takes for granted were refused above; what is left goes over by name.
        return InternVLConfig(
            vision_config=_vision(vision),
            text_config=language.text_config(text),
            image_token_id=image_token_id,
            image_seq_length=tokens_per_tile(published),
            downsample_ratio=float(published["downsample_ratio"]),
            vision_feature_layer=published.get("select_layer", -1),
            tie_word_embeddings=text.get("tie_word_embeddings", False),
            architectures=["InternVLForConditionalGeneration"],
        )
    except KeyError as e:
        raise CheckpointError(f"{where}: the setting {e} is missing; download the file again") from None
    except CheckpointError:
        raise
    except (TypeError, ValueError, AttributeError, StrictDataclassError) as e:
        raise CheckpointError(f"{where}: a setting cannot be used ({' '.join(str(e).split())[:300]})") from None


def tile_size(published: dict[str, Any]) -> int:
    """Side of a tile in pixels."""
    return published.get("force_image_size") or published["vision_config"]["image_size"]


def tokens_per_tile(published: dict[str, Any]) -> int:
    """256 in the 8B checkpoint: 32 x 32 patches, of which the pixel shuffle makes 16 x 16 tokens."""
    patches = tile_size(published) // published["vision_config"]["patch_size"]
    return int((patches * published["downsample_ratio"]) ** 2)


def _vision(published: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": published["hidden_size"],
        "intermediate_size": published["intermediate_size"],
        "num_hidden_layers": published["num_hidden_layers"],
        "num_attention_heads": published["num_attention_heads"],
        # where these four are missing, the published class's own defaults
        "attention_bias": published.get("qkv_bias", False),
        "use_qk_norm": published.get("qk_normalization", True),
        "norm_type": published.get("norm_type", "rms_norm"),
        "layer_norm_eps": published.get("layer_norm_eps", 1e-6),
        "hidden_act": "gelu",
        "hidden_dropout_prob": published.get("dropout", 0.0),
        "attention_dropout": published.get("attention_dropout", 0.0),
        "initializer_range": published.get("initializer_range", 0.02),
        "image_size": published["image_size"],
        "patch_size": published["patch_size"],
        "num_channels": published.get("num_channels", 3),
        "layer_scale_init_value": float(published.get("initializer_factor", 0.1)),
        "use_mean_pooling": True,  # the published tower has no norm after its last layer; False would add one
    }


def decoder_sizes(published: dict[str, Any]) -> dict[str, Any]:
    """The settings that InternLM2 and Qwen2 have in common with transformers' decoders."""
    return {
        "vocab_size": published["vocab_size"],
        "hidden_size": published["hidden_size"],
        "intermediate_size": published["intermediate_size"],
        "num_hidden_layers": published["num_hidden_layers"],
        "num_attention_heads": published["num_attention_heads"],
        "num_key_value_heads": published.get("num_key_value_heads") or published["num_attention_heads"],
        "hidden_act": published["hidden_act"],
        "max_position_embeddings": published["max_position_embeddings"],
        "initializer_range": published.get("initializer_range", 0.02),
        "rms_norm_eps": published["rms_norm_eps"],
        "rope_parameters": _rope(published),
        "pad_token_id": published.get("pad_token_id"),
        "bos_token_id": published.get("bos_token_id"),
        "eos_token_id": published.get("eos_token_id"),
        "tie_word_embeddings": published.get("tie_word_embeddings", False),
    }


def _internlm2(published: dict[str, Any]) -> dict[str, Any]:
    # InternLM2 is Llama with its queries, keys and values in one matrix; see weights.py
    return {
        "model_type": "llama",
        **decoder_sizes(published),
        "attention_bias": published.get("bias", True),  # of wqkv and wo; the published class has it on by default
        "mlp_bias": False,
    }


INTERNLM2 = Language(
    "InternLM2ForCausalLM",
    "an InternVL2.5 checkpoint with an InternLM2.5 language model, such as OpenGVLab/InternVL2_5-8B",
    _internlm2,
    build_tokenizer,
)


def _rope(published: dict[str, Any]) -> dict[str, Any]:
    # "dynamic" with a factor: angles change only beyond max_position_embeddings
    scaling = published.get("rope_scaling") or {}
    parameters: dict[str, Any] = {
        "rope_type": scaling.get("type", scaling.get("rope_type", "default")),
        "rope_theta": float(published["rope_theta"]),
    }
    if "factor" in scaling:
        parameters["factor"] = float(scaling["factor"])
    return parameters


# --- conversation and pictures ---------------------------------------------------------------------------------------


def chat_template(system: str = SYSTEM, image: str = IMAGE) -> str:
    """The published conversation as a Jinja template that writes ``<s>`` itself, so that a server does too.

    ``system`` stands where a conversation does not begin with a system message of its own; ``image`` is the mark of a
    picture, the processor's ``image_token``.
    """
    quoted = system.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return (
        "{{ bos_token }}"
        "{% if messages[0]['role'] != 'system' %}"
        f"{{{{ '{START}system\\n{quoted}{END}\\n' }}}}"
        "{% endif %}"
        "{% for message in messages %}"
        f"{{{{ '{START}' + message['role'] + '\\n' }}}}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{{{{ '{image}\\n' }}}}"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        f"{{{{ '{END}\\n' }}}}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
    )


def build_processor(folder: Path, published: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> InternVLProcessor:
    """The native processor that says what a published folder says about tiles and pixels."""
    file = folder / "preprocessor_config.json"
    pixels = read_json(file) if file.is_file() else {}
    side = tile_size(published)
    # pictures and videos are cut alike; the video processor is there because transformers' processor wants one
    same: dict[str, Any] = {
        "size": {"height": side, "width": side},
        "image_mean": pixels.get("image_mean", _MEAN),
        "image_std": pixels.get("image_std", _DEVIATION),
        "resample": pixels.get("resample", _BICUBIC),
    }
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            **same,
            crop_to_patches=True,
            min_patches=published.get("min_dynamic_patch", 1),
            max_patches=published.get("max_dynamic_patch", 12),
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**same),
        image_seq_length=tokens_per_tile(published),
        chat_template=chat_template(),
    )


def generation_config(folder: Path, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Where a response ends: as the published file says, else at the end of a turn; the config's own id is wrong."""
    file = folder / "generation_config.json"
    published = read_json(file) if file.is_file() else {}
    ends = published.get("eos_token_id") or tokenizer.convert_tokens_to_ids([END, START])
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends,
        pad_token_id=published.get("pad_token_id", tokenizer.pad_token_id),
    )
