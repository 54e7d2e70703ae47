"""What surrounds the weights of a converted checkpoint: chat template, processor, generation settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, InternVLProcessor, InternVLVideoProcessor, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from mathse.models.internvl2_5 import layout
from mathse.models.internvl2_5.tokenizer import END, IMAGE, START
from mathse.runs.store import read_json

# The published default of conversation template internvl2_5: "You are InternVL, a multimodal large language model,
# developed by Shanghai AI Laboratory, Tsinghua University and partners."
SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
# ImageNet's, where the checkpoint has no preprocessor_config.json
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_BICUBIC = 3


def chat_template(system: str = SYSTEM, image: str = IMAGE) -> str:
    """The published conversation as a Jinja template that writes ``<s>`` itself, so that a server does too.

    ``system`` is said where a conversation does not begin with a system message of its own; ``image`` is the mark of a
    picture, the processor's ``image_token``.
    """
    said = system.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return (
        "{{ bos_token }}"
        "{% if messages[0]['role'] != 'system' %}"
        f"{{{{ '{START}system\\n{said}{END}\\n' }}}}"
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
    side = layout.tile_size(published)
    same: dict[str, Any] = {
        "size": {"height": side, "width": side},
        "image_mean": pixels.get("image_mean", _MEAN),
        "image_std": pixels.get("image_std", _DEVIATION),
        "resample": pixels.get("resample", _BICUBIC),
    }
    tiles = {
        "crop_to_patches": True,
        "min_patches": published.get("min_dynamic_patch", 1),
        "max_patches": published.get("max_dynamic_patch", 12),
    }
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(**same, **tiles),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**same),
        image_seq_length=layout.tokens_per_tile(published),
        chat_template=chat_template(),
    )


def pil_tiles(folder: Path) -> GotOcr2ImageProcessorPil:
    """The image processor of a native folder, on Pillow.

    Its pixels are the published ones; the torchvision one that AutoProcessor opens is off by 1 or 2 of 255 levels, at
    single pixels of reduced images by 20.
    """
    return GotOcr2ImageProcessorPil.from_pretrained(folder, local_files_only=True)


def write_bos(processor: InternVLProcessor) -> None:
    """Have the chat template write ``<s>`` where it leaves that to the tokenizer.

    Prompts are encoded as servers do it, without what the tokenizer adds, so the template is the one that writes it.
    """
    tokenizer, template = processor.tokenizer, processor.chat_template
    if not isinstance(template, str) or tokenizer.bos_token_id is None:
        return
    adds = tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
    rendered = processor.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    if adds and not rendered.startswith(tokenizer.bos_token):
        processor.chat_template = "{{ bos_token }}" + template


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
