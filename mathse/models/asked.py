"""What a backbone of no family of ours is asked for: its linear layers, its end of a turn, its words for a role.

``backbone=hf`` and ``backbone=causal_lm`` open models that nobody here has seen. What a family of ours says of itself
is found out from model and tokenizer instead, and shown before the first step; a setting says it by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig

from mathse.config.backbones import AnyBackboneConfig
from mathse.config.mistakes import show
from mathse.errors import CheckpointError, ConfigError
from mathse.models.chat import ChatBackbone
from mathse.models.checkpoint import BROKEN, as_dtype, open_model, read_config, reason_of, resolve
from mathse.models.row import Part
from mathse.models.trial import try_template

_ANSWER = "4711"
# Settings of a config with which logits are more than the head's product, which is all that our losses make of them.
SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_soft_cap", "output_logit_soft_cap")


def open_asked(auto: Any, family: str, settings: Any, weights: bool, no_such_model: str) -> tuple[Path, Any]:
    """The folder that the settings name, and its model.

    Args:
        auto: transformers' ``AutoModelFor...``; the model is of the class that it has for the folder's config.
        weights: False: for prompts alone, see ``mathse.models.prompt_reader``.
        family: the backbone's name, for messages.
        no_such_model: what transformers lacks where it has none, and what to choose instead.

    Raises CheckpointError there, and for a model whose logits our losses cannot make.
    """
    folder = resolve(settings.path, settings.revision, weights)
    config, model_class = read_class(auto, folder, no_such_model)
    refuse_scaled_logits(folder, config.get_text_config())
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
    """The config of a folder, and the class that ``auto`` has for it. Raises CheckpointError where there is none."""
    model_type = read_config(folder).get("model_type")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return config, auto._model_mapping[type(config)]
    except StrictDataclassError as e:
        raise CheckpointError(f"{folder}: its config.json describes no model ({reason_of(e)})") from None
    except (KeyError, ValueError, OSError):
        raise CheckpointError(
            f"{folder}: its config.json says model_type = {model_type!r}, and transformers has no {no_such_model}"
        ) from None
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its config.json describes no model ({reason_of(e)})") from None


def refuse_scaled_logits(folder: Path, config: Any) -> None:
    """Raise CheckpointError for a text model that scales or bounds its logits behind the head."""
    if scaled := [name for name in SCALED if getattr(config, name, None) not in (None, 1, 1.0)]:
        raise CheckpointError(
            f"{folder}: its config.json has {scaled[0]} = {getattr(config, scaled[0])}, so its logits are not its "
            "head's product alone; such a family needs a backbone of its own (CONTRIBUTING.md, Add a backbone)"
        )


def lora_pattern_of(model: Any, part: nn.Module) -> str:
    """A pattern over ``model``'s module names: the linear modules of the layers of ``part``, which is a part of it. The
    largest list of modules in there counts as its layers, and a head, which lies outside of them, gets no adapter.

    Empty, which matches no module, where there are no such layers.
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
    inside = {
        re.sub(r"(?<=\.)\d+(?=\.)", r"\\d+", re.escape(name).replace(r"\.", "."))  # experts by number
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    escaped = "|".join(name.replace(".", r"\.") for name in sorted(inside))
    return rf"{re.escape(prefix)}\.\d+\.({escaped})" if inside else ""


def apply_settings(backbone: ChatBackbone, settings: AnyBackboneConfig, path: str) -> None:
    """Prompts as the settings say: their style, the chat template, the system's words; then how a response ends.

    ``path``: of the checkpoint, for messages.
    """
    backbone.prompt_style = settings.prompt_style
    processor, tokenizer = backbone.processor, backbone.tokenizer
    if settings.chat_template is not None:
        try:
            processor.chat_template = Path(settings.chat_template).read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise ConfigError(
                f"backbone.chat_template = {show(settings.chat_template)}: cannot be read ({reason_of(e)}); name a "
                "file, a Jinja template"
            ) from None
        try_template(settings.chat_template, processor.chat_template)
    if not processor.chat_template:
        raise CheckpointError(
            f"{path}: has no chat template, so nothing says how a question is put to it; name a checkpoint "
            "that was trained to answer, or pass backbone.chat_template=FILE, a Jinja template"
        )
    if settings.system is not None:
        processor.chat_template = with_system(processor.chat_template, settings.system)
    ends = backbone.model.generation_config.eos_token_id if backbone.model.can_generate() else None
    stops = [ends] if isinstance(ends, int) else list(ends or [])
    end: int | None = tokenizer.eos_token_id
    if settings.end_token is not None:
        end = _token(tokenizer, settings.end_token)
    elif (turn := _end_of_turn(backbone)) is not None:
        end = turn
    elif end is None and stops:
        end = stops[0]
    if end is None:
        raise CheckpointError(
            f"{path}: neither its chat template nor its tokenizer says how a response ends; pass "
            "backbone.end_token=TOKEN"
        )
    backbone.end_id, backbone.end_ids = end, list(dict.fromkeys([end, *stops]))
    if tokenizer.pad_token_id is None:
        backbone.pad_id = end


def with_system(template: str, text: str) -> str:
    """A chat template that begins a conversation without a system's turn with one that says ``text``."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    turn = f"[{{'role': 'system', 'content': '{quoted}'}}]"
    condition = "{%- if messages[0]['role'] != 'system' %}"
    return f"{condition}{{%- set messages = {turn} + messages %}}{{%- endif %}}{template}"


def _end_of_turn(backbone: ChatBackbone) -> int | None:
    """The first mark that the chat template puts behind an assistant's turn; None where it puts none."""
    messages = [
        {"role": "user", "content": backbone.content([Part(text="?")])},
        {"role": "assistant", "content": backbone.content([Part(text=_ANSWER)])},
    ]
    behind = backbone.processor.apply_chat_template(messages, tokenize=False).rpartition(_ANSWER)[2]
    ids: list[int] = backbone.tokenizer(behind, add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in backbone.marks.ids), None)


def _token(tokenizer: Any, text: str) -> int:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ConfigError(f"backbone.end_token = {text!r}: is {len(ids)} tokens here; name one that the tokenizer has")
    return ids[0]
