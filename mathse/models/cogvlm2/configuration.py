"""The config of CogVLM2, with the key names of the published config.json (which has no ``model_type``).

This module adds the values that the file lacks: the rotary base is a constant of the published code, and the id of the
image placeholder is the padding id. There is no ``from __future__ import annotations`` here, because ``strict`` reads
the annotations at run time and refuses a value of another type.
"""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

MERGE = 2  # patches on each side that the connector's convolution merges into a token
ROPE_PRECISIONS = ("float32", "model")


@strict
class CogVLM2VisionConfig(PreTrainedConfig):
    """The vision tower (EVA2-CLIP-E, post-norm), with the defaults of the 19B checkpoint."""

    model_type = "cogvlm2_vision"
    base_config_key = "vision_config"
    attribute_map: ClassVar[dict[str, str]] = {"num_attention_heads": "num_heads", "num_channels": "in_channels"}

    hidden_size: int = 1792
    intermediate_size: int = 15360
    num_hidden_layers: int = 63
    num_heads: int = 16
    in_channels: int = 3
    image_size: int = 1344
    patch_size: int = 14
    num_positions: int = 9217  # the patches and a class token
    hidden_act: str = "gelu"  # exact, by erf
    layer_norm_eps: float = 1e-6
    dropout_prob: float | int = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_positions != self.grid**2 + 1:
            raise ValueError(
                f"vision_config.num_positions = {self.num_positions}, but an image of {self.image_size} pixels in "
                f"patches of {self.patch_size} takes {self.grid**2 + 1}"
            )
        if self.hidden_size % self.num_heads:
            raise ValueError(f"vision_config: {self.num_heads} heads do not divide hidden_size = {self.hidden_size}")
        super().__post_init__(**kwargs)

    @property
    def grid(self) -> int:
        """Patches on each side."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        """Tokens of an image, with its begin and end token: 2306 for 1344 pixels."""
        return (self.grid // MERGE) ** 2 + 2


@strict
class CogVLM2Config(PreTrainedConfig):
    """CogVLM2: a Llama decoder with an expert for text and an expert for image tokens, and the vision tower.

    ``rope_precision``: ``float32`` computes rotary angles exactly; ``model`` computes them in the model's dtype, like
    the published code. In bfloat16 these are wrong by up to 0.9 rad below position 256, and by more above.
    """

    model_type = "cogvlm2"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]
    attribute_map: ClassVar[dict[str, str]] = {"num_key_value_heads": "num_multi_query_heads"}
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": CogVLM2VisionConfig}
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"vision_config": CogVLM2VisionConfig}  # the name since 5.24

    vocab_size: int = 128256
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_multi_query_heads: int = 8
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = 128000
    eos_token_id: int | list[int] | None = 128001
    pad_token_id: int = 128002  # also the placeholder of the image's features
    tie_word_embeddings: bool = False
    template_version: str = "chat"
    rope_theta: float | int = 500000.0
    rope_precision: str = "float32"
    vision_config: Any = None  # a CogVLM2VisionConfig or a dict

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None or isinstance(self.vision_config, dict):
            self.vision_config = CogVLM2VisionConfig(**(self.vision_config or {}))
        if self.rope_precision not in ROPE_PRECISIONS:
            raise ValueError(f"rope_precision = {self.rope_precision!r}: must be one of {', '.join(ROPE_PRECISIONS)}")
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_multi_query_heads:
            raise ValueError(
                f"{self.num_attention_heads} heads and {self.num_multi_query_heads} key and value heads do not fit "
                f"hidden_size = {self.hidden_size}"
            )
        kwargs.pop("auto_map", None)  # it names the program code of a published folder, which is never run
        super().__post_init__(**kwargs)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads
