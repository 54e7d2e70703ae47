"""Convert a published InternVL2.5 folder (``internvl_chat``) to transformers' objects: config, processor, generation.

``weights.py`` has the weights. The program code in such a folder is never run.

Source: the published ``config.json``, conversation template and ``InternVLChatModel``.
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
TEMPLATE = "internvl2_5"  # conversation template; earlier InternVL checkpoints have others
PIXEL_SHUFFLE = "v2"

# The published default of conversation template internvl2_5: "You are InternVL, a multimodal large language model,
# developed by Shanghai AI Laboratory, Tsinghua University and partners."
SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
# ImageNet's, for a checkpoint without preprocessor_config.json.
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_BICUBIC = 3


class Language(NamedTuple):
    """A language model of published folders.

    Attributes:
        architecture: its name in llm_config.
        checkpoint: a checkpoint with this language model, for messages.
        convert_config: converts the published llm_config to settings of transformers' class.
        build_tokenizer: builds the tokenizer of a published folder.
    """

    architecture: str
    checkpoint: str
    convert_config: Callable[[dict[str, Any]], dict[str, Any]]
    build_tokenizer: Callable[[Path], PreTrainedTokenizerFast]


def read_published(folder: Path, language: Language) -> tuple[InternVLConfig, InternVLProcessor, GenerationConfig]:
    """Return config, processor and generation settings of a published folder. No weight is read.

    Raises CheckpointError for a setting that is missing, wrong or of another InternVL, and for a tokenizer that is
    damaged or does not match the embedding.
    """
    published = read_config(folder)
    config = build_native_config(published, language, image_token_id=0, where=str(folder / "config.json"))
    tokenizer = language.build_tokenizer(folder)
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    rows = config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows; the tokenizer's files "
            "and config.json do not belong together, download them again"
        )
    return config, build_processor(folder, published, tokenizer), build_generation_config(folder, tokenizer)


# --- config.json -----------------------------------------------------------------------------------------------------


def build_native_config(
    published: dict[str, Any], language: Language, *, image_token_id: int, where: str
) -> InternVLConfig:
    """Return the settings of a published ``config.json`` as transformers' config.

    Args:
        where: name of the file, for messages.

    Raises CheckpointError for a setting that is missing or that transformers' InternVL does not have.
    """
    try:
        # Settings for which transformers' class has a single fixed value.
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
        return InternVLConfig(
            vision_config=_convert_vision(vision),
            text_config=language.convert_config(text),
            image_token_id=image_token_id,
            image_seq_length=count_tokens_per_tile(published),
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


def find_tile_size(published: dict[str, Any]) -> int:
    """Return the side of a tile in pixels."""
    return published.get("force_image_size") or published["vision_config"]["image_size"]


def count_tokens_per_tile(published: dict[str, Any]) -> int:
    """Return the tokens of a tile: 256 in the 8B checkpoint, 16 x 16 after the pixel shuffle of 32 x 32 patches."""
    patches = find_tile_size(published) // published["vision_config"]["patch_size"]
    return int((patches * published["downsample_ratio"]) ** 2)


def _convert_vision(published: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": published["hidden_size"],
        "intermediate_size": published["intermediate_size"],
        "num_hidden_layers": published["num_hidden_layers"],
        "num_attention_heads": published["num_attention_heads"],
        # The defaults of the next four are those of the published class.
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
        "use_mean_pooling": True,  # the published tower has no norm after its last layer, and False would add it
    }


def convert_sizes(published: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the configs of InternLM2 and Qwen2 have in common."""
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
        "rope_parameters": _convert_rope(published),
        "pad_token_id": published.get("pad_token_id"),
        "bos_token_id": published.get("bos_token_id"),
        "eos_token_id": published.get("eos_token_id"),
        "tie_word_embeddings": published.get("tie_word_embeddings", False),
    }


def _convert_internlm2(published: dict[str, Any]) -> dict[str, Any]:
    # InternLM2 is Llama with queries, keys and values in a common matrix; see weights.py.
    return {
        "model_type": "llama",
        **convert_sizes(published),
        "attention_bias": published.get("bias", True),  # of wqkv and wo; the published class's default
        "mlp_bias": False,
    }


INTERNLM2 = Language(
    "InternLM2ForCausalLM",
    "an InternVL2.5 checkpoint with an InternLM2.5 language model, such as OpenGVLab/InternVL2_5-8B",
    _convert_internlm2,
    build_tokenizer,
)


def _convert_rope(published: dict[str, Any]) -> dict[str, Any]:
    # "dynamic" with a factor: the angles change only beyond max_position_embeddings.
    scaling = published.get("rope_scaling") or {}
    parameters: dict[str, Any] = {
        "rope_type": scaling.get("type", scaling.get("rope_type", "default")),
        "rope_theta": float(published["rope_theta"]),
    }
    if "factor" in scaling:
        parameters["factor"] = float(scaling["factor"])
    return parameters


# --- conversation and pictures ---------------------------------------------------------------------------------------


def build_chat_template(system: str = SYSTEM, image: str = IMAGE) -> str:
    """Return the published conversation as a Jinja template that writes ``<s>`` itself, so that servers write it too.

    Args:
        system: system prompt of a conversation without a system message.
        image: mark of a picture, the processor's ``image_token``.
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
    """Return transformers' processor with the tiles and pixels of a published folder."""
    file = folder / "preprocessor_config.json"
    pixels = read_json(file) if file.is_file() else {}
    side = find_tile_size(published)
    # Pictures and videos have the same settings. transformers' processor needs a video processor.
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
        image_seq_length=count_tokens_per_tile(published),
        chat_template=build_chat_template(),
    )


def build_generation_config(folder: Path, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Return the ids that end a response: the published file's, else the marks of a turn. config.json's is wrong."""
    file = folder / "generation_config.json"
    published = read_json(file) if file.is_file() else {}
    ends = published.get("eos_token_id") or tokenizer.convert_tokens_to_ids([END, START])
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends,
        pad_token_id=published.get("pad_token_id", tokenizer.pad_token_id),
    )
