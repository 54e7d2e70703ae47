"""Derive the properties of a model of an unknown family: its linear layers, its end of a turn, its chat template.

``backbone=hf`` and ``backbone=causal_lm`` open models that this package has no class for. The properties that another
family defines in its class are derived from the model and the tokenizer, and are shown before the first step. A setting
overrides each of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig

from mathse.config.backbones import AnyModel
from mathse.config.mistakes import show
from mathse.errors import CheckpointError, ConfigError
from mathse.models.chat import ChatBackbone
from mathse.models.checkpoint import BROKEN, as_dtype, open_model, read_config, resolve, summarize_error
from mathse.models.row import TurnPart
from mathse.models.trial import try_template

# Settings of a config that change the logits after the head's product, which is all that our losses compute.
LOGIT_SETTINGS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "logits_soft_cap",
    "output_logit_soft_cap",
)


def open_any_model(auto: Any, settings: Any, weights: bool, no_such_model: str) -> tuple[Path, Any]:
    """Return the folder that the settings name, and its model.

    Args:
        auto: a class ``AutoModelFor...`` of transformers, which has the model's class for the folder's config.
        weights: False: only for prompts, see ``mathse.models.prompt_reader``.
        no_such_model: end of the message for a config without such a class, with the option to choose instead.

    Raises CheckpointError for such a config, and for a model with scaled logits.
    """
    folder = resolve(settings.path, settings.revision, weights)
    config, model_class = read_class(auto, folder, no_such_model)
    _refuse_scaled_logits(folder, config.get_text_config())
    model = open_model(
        model_class,
        folder,
        dtype=as_dtype(settings.dtype),
        attention=settings.attention,
        config=config,
        weights=weights,
    )
    return folder, model


def read_class(auto: Any, folder: Path, no_such_model: str) -> tuple[Any, Any]:
    """Return a folder's config and the class that ``auto`` has for it. Raises CheckpointError if it has none."""
    model_type = read_config(folder).get("model_type")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return config, auto._model_mapping[type(config)]
    except StrictDataclassError as e:
        raise CheckpointError(f"{folder}: its config.json describes no model ({summarize_error(e)})") from None
    except (KeyError, ValueError, OSError):
        raise CheckpointError(
            f"{folder}: its config.json has model_type = {model_type!r}, and transformers has no {no_such_model}"
        ) from None
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its config.json describes no model ({summarize_error(e)})") from None


def _refuse_scaled_logits(folder: Path, config: Any) -> None:
    """Raise CheckpointError for a text model that scales or bounds the logits after the head."""
    if scaled := [name for name in LOGIT_SETTINGS if getattr(config, name, None) not in (None, 1, 1.0)]:
        raise CheckpointError(
            f"{folder}: its config.json has {scaled[0]} = {getattr(config, scaled[0])}, so its logits are not only "
            "the head's product; such a family needs a backbone of its own (CONTRIBUTING.md, Add a backbone)"
        )


def derive_lora_pattern(model: Any, part: nn.Module) -> str:
    """Return a pattern over ``model``'s module names for the linear layers of ``part``, a module of the model.

    The list of modules with the most parameters is taken as the layers of the part. A head is outside of this list and
    gets no adapter. Without such a list the pattern is empty and matches no module.
    """
    names = {id(module): name for name, module in model.named_modules()}
    lists = [
        module
        for module in part.modules()
        if isinstance(module, nn.ModuleList) and not re.search(r"merger|projector", names[id(module)])
    ]
    if not lists:
        return ""
    layers = max(lists, key=lambda module: sum(p.numel() for p in module.parameters()))
    prefix = names[id(layers)]
    # Names of linear modules within a layer; the numbers of experts become a pattern.
    inside = set()
    for layer in layers:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                inside.add(re.sub(r"(?<=\.)\d+(?=\.)", r"\\d+", re.escape(name).replace(r"\.", ".")))
    escaped = "|".join(name.replace(".", r"\.") for name in sorted(inside))
    return rf"{re.escape(prefix)}\.\d+\.({escaped})" if inside else ""


def apply_settings(backbone: ChatBackbone, settings: AnyModel, path: str) -> None:
    """Set the prompt style, the chat template, the system prompt and the end of a response.

    Args:
        path: of the checkpoint, for messages.

    Raises ConfigError for a template that cannot be read, and CheckpointError if there is no template or no end token.
    """
    backbone.prompt_style = settings.prompt_style
    processor, tokenizer = backbone.processor, backbone.tokenizer
    if settings.chat_template is not None:
        try:
            processor.chat_template = Path(settings.chat_template).read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise ConfigError(
                f"backbone.chat_template = {show(settings.chat_template)}: cannot be read ({summarize_error(e)}); name "
                "a file with a Jinja template"
            ) from None
        try_template(settings.chat_template, processor.chat_template)
    if not processor.chat_template:
        raise CheckpointError(
            f"{path}: has no chat template, so the form of its prompts is unknown; name a checkpoint that was trained "
            "to answer, or pass backbone.chat_template=FILE, a Jinja template"
        )
    if settings.system is not None:
        processor.chat_template = with_system(processor.chat_template, settings.system)
    # The end of a response: the setting, else the token that the template writes after an assistant's turn, else the
    # tokenizer's, else the first that the model's generation config stops at.
    ends = backbone.model.generation_config.eos_token_id if backbone.model.can_generate() else None
    stops = [ends] if isinstance(ends, int) else list(ends or [])
    end: int | None = tokenizer.eos_token_id
    if settings.end_token is not None:
        end = _encode_end_token(tokenizer, settings.end_token)
    elif (turn := _find_end_of_turn(backbone)) is not None:
        end = turn
    elif end is None and stops:
        end = stops[0]
    if end is None:
        raise CheckpointError(
            f"{path}: neither its chat template nor its tokenizer has a token that ends a response; pass "
            "backbone.end_token=TOKEN"
        )
    backbone.end_id, backbone.end_ids = end, list(dict.fromkeys([end, *stops]))
    if tokenizer.pad_token_id is None:
        backbone.pad_id = end


def with_system(template: str, text: str) -> str:
    """Return a chat template that adds the system prompt ``text`` to conversations without a system prompt."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    turn = f"[{{'role': 'system', 'content': '{quoted}'}}]"
    condition = "{%- if messages[0]['role'] != 'system' %}"
    return f"{condition}{{%- set messages = {turn} + messages %}}{{%- endif %}}{template}"


def _find_end_of_turn(backbone: ChatBackbone) -> int | None:
    """Return the first mark that the chat template writes after an assistant's turn; None if it writes none."""
    answer = "4711"  # a text that no template has
    messages = [
        {"role": "user", "content": backbone.content([TurnPart(text="?")])},
        {"role": "assistant", "content": backbone.content([TurnPart(text=answer)])},
    ]
    behind = backbone.processor.apply_chat_template(messages, tokenize=False).rpartition(answer)[2]
    ids: list[int] = backbone.tokenizer(behind, add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in backbone.marks.ids), None)


def _encode_end_token(tokenizer: Any, text: str) -> int:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ConfigError(f"backbone.end_token = {text!r}: is {len(ids)} tokens; name a token of the tokenizer")
    return ids[0]
