"""CogVLM2's model classes for transformers 5, around its layers, with the published tensor names.

Written from the published shapes and semantics. The checkpoint's own code is neither included nor run.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from mathse.errors import DataError
from mathse.models.cogvlm2.configuration import MERGE, CogVLM2Config, CogVLM2VisionConfig
from mathse.models.cogvlm2.generation import CogVLM2GenerationMixin
from mathse.models.cogvlm2.language import CogVLM2DecoderLayer, CogVLM2RMSNorm, ExpertAttention, compute_rotary_angles
from mathse.models.cogvlm2.layout import IMAGE, Routing, check_images, compute_positions, find_expert_mask, route
from mathse.models.cogvlm2.licence import show_once
from mathse.models.cogvlm2.vision import Adapter, PatchEmbedding, Tower

# The name of the cache, as an argument and in the output, changed in transformers 5.24.
CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"


class CogVLM2PreTrainedModel(PreTrainedModel):
    config_class = CogVLM2Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["CogVLM2DecoderLayer", "CogVLM2TowerLayer"]
    _skip_keys_device_placement: ClassVar[list[str]] = [CACHE]
    # The published checkpoints store rotary frequencies, rounded to bfloat16.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"\.rotary_emb\.inv_freq$"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": CogVLM2DecoderLayer,
        "attentions": ExpertAttention,
    }

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, PatchEmbedding):
            init.normal_(module.cls_embedding, std=std)
        elif isinstance(module, CogVLM2VisionModel):
            init.normal_(module.boi, std=std)
            init.normal_(module.eoi, std=std)


class CogVLM2VisionModel(CogVLM2PreTrainedModel):
    """Tower and connector. A separate config lets them have another attention implementation than the decoder."""

    config_class = CogVLM2VisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: CogVLM2VisionConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__(config)
        self.patch_embedding = PatchEmbedding(config)
        self.transformer = Tower(config)
        self.conv = nn.Conv2d(config.hidden_size, config.hidden_size, MERGE, stride=MERGE)
        self.linear_proj = Adapter(config.hidden_size, hidden_size, intermediate_size)
        self.boi = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.post_init()

    def tower(self, pixel_values: Tensor) -> Tensor:
        """Convert (N, 3, S, S) to (N, 1 + patches, C). A frozen tower keeps no activations."""
        trains = is_trainable(self.patch_embedding) or is_trainable(self.transformer)
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return self.transformer(self.patch_embedding(pixel_values))

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """Return the outputs of tower (``last_hidden_state``) and connector (``pooler_output``, (N, tokens, H))."""
        seen = self.tower(pixel_values.to(self.dtype))
        return BaseModelOutputWithPooling(last_hidden_state=seen, pooler_output=self.connect(seen))

    def connect(self, seen: Tensor) -> Tensor:
        """Convert the tower's (N, 1 + patches, C) to (N, image tokens, H), with boi and eoi."""
        side = self.config.grid
        patches = seen[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # (N, C, rows, columns)
        tokens = self.linear_proj(self.conv(patches).flatten(2).transpose(1, 2))
        begin, end = (mark.expand(len(tokens), -1, -1) for mark in (self.boi, self.eoi))
        return torch.cat([begin, tokens, end], dim=1)


class CogVLM2Model(CogVLM2PreTrainedModel):
    """The model without its head."""

    def __init__(self, config: CogVLM2Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.vision = CogVLM2VisionModel(config.vision_config, config.hidden_size, config.intermediate_size)
        self.layers = nn.ModuleList(CogVLM2DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = CogVLM2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Convert (N, 3, S, S) to ``pooler_output`` (N, image tokens with boi and eoi, H)."""
        return self.vision(pixel_values)

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return the hidden states of each token.

        Args:
            input_ids: (B, T)
            attention_mask: (B, T) with 0 on padding; may be omitted if rows are padded on the right.
            token_type_ids: (B, T), 1 on image tokens, with boi and eoi; omitted: only text.
            pixel_values: (images, 3, S, S) of the rows with an image, in row order; at most one in a row.
            position_ids: (B, T); computed from token_type_ids if the cache is empty.
            cache, past_key_values: two names of the same cache.
            mm_encoder_outputs: ``{"image": get_image_features(pixel_values)}`` instead of pixel_values.

        Raises DataError if images and image tokens do not match.
        """
        cache = cache if cache is not None else past_key_values
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            image_features = (mm_encoder_outputs or {}).get("image")
            inputs_embeds = self.embed(input_ids, token_type_ids, pixel_values, image_features, cache)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        if self.training and self.gradient_checkpointing and torch.is_grad_enabled():
            cache = None  # each layer runs twice and would fill it twice
        if position_ids is None:
            position_ids = self.positions(inputs_embeds, token_type_ids, attention_mask, cache)
        routing = self.route(inputs_embeds, token_type_ids)
        angles = compute_rotary_angles(position_ids, self.config, inputs_embeds.dtype)
        # Without positions: the equal positions of an image would be read as packed rows.
        mask = create_causal_mask(
            config=self.config, inputs_embeds=inputs_embeds, attention_mask=attention_mask, **{CACHE: cache}
        )
        hidden = inputs_embeds
        for layer in self.layers:
            hidden = layer(hidden, angles=angles, mask=mask, routing=routing, cache=cache)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), **{CACHE: cache})

    def embed(
        self,
        input_ids: Any,
        token_type_ids: Tensor | None,
        pixel_values: Tensor | None,
        image_features: Any,
        cache: Any,
    ) -> Tensor:
        """Return (B, T, H): the embeddings of the ids, with the image's features where token_type_ids is 1."""
        embeds = self.embed_tokens(input_ids)
        if input_ids.shape[1] == 1 and pixel_values is None and image_features is None:
            return embeds  # a decoding step
        if pixel_values is None and image_features is None:
            pixel_values = self.make_empty_pixels(embeds)
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        check_images(types, None if image_features is None else image_features.pooler_output)
        if image_features is None or not len(image_features.pooler_output) and not torch.is_grad_enabled():
            return embeds
        if len(image_features.pooler_output) and cache is not None and cache.get_seq_length() > 0:
            raise DataError("an image must be read in one pass: start with an empty cache and no prefill_chunk_size")
        places = (types.flatten() == IMAGE).nonzero()[:, 0]
        features = image_features.pooler_output.flatten(0, 1).to(embeds.device, embeds.dtype)
        return embeds.flatten(0, 1).index_copy(0, places, features).unflatten(0, embeds.shape[:2])

    def make_empty_pixels(self, embeds: Tensor) -> Tensor | None:
        """Return pixels of zero images if a batch of text must go through the vision part; else None.

        It must while the vision part is trained, so that it gets zero gradients, which DDP waits for. It must also
        while FSDP shards it: another rank may have images, and gathering shards needs all ranks.
        """
        training = self.training and torch.is_grad_enabled()
        if not (training and is_trainable(self.vision)) and not is_sharded(self.vision.transformer):
            return None
        vision = self.config.vision_config
        return embeds.new_zeros(0, vision.in_channels, vision.image_size, vision.image_size)

    def positions(
        self, embeds: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None, cache: Any
    ) -> Tensor:
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError("a cache with tokens needs position_ids: the last ones plus one (see generate)")
        if token_type_ids is None:
            token_type_ids = embeds.new_zeros(embeds.shape[:2], dtype=torch.long)
        padding = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        return compute_positions(token_type_ids, padding)

    def route(self, embeds: Tensor, token_type_ids: Tensor | None) -> Routing | None:
        """Return None if all tokens are text. In training never None, so that the visual expert gets zero gradients."""
        training = torch.is_grad_enabled()
        if not training and (token_type_ids is None or embeds.shape[1] == 1):
            return None
        if token_type_ids is None:
            token_type_ids = embeds.new_zeros(embeds.shape[:2], dtype=torch.long)
        routing = route(find_expert_mask(token_type_ids))
        return routing if training or len(routing.vision) else None


class CogVLM2ForConditionalGeneration(CogVLM2PreTrainedModel, CogVLM2GenerationMixin):
    """CogVLM2 with its head: ``from_pretrained`` opens the published folder, ``save_pretrained`` writes its names."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: CogVLM2Config) -> None:
        super().__init__(config)
        self.model = CogVLM2Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        show_once()
        return super().from_pretrained(*args, **kwargs)

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Convert (N, 3, S, S) to ``pooler_output`` (N, image tokens with boi and eoi, H)."""
        return self.model.get_image_features(pixel_values)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, T, vocabulary); with ``labels`` (B, T) also the mean loss where they are not -100.

        ``num_items_in_batch`` replaces the number of labels as the divisor of the loss, for accumulated batches. See
        ``CogVLM2Model.forward`` for the other arguments.
        """
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            position_ids=position_ids,
            cache=cache,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        last = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, last])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            **{CACHE: out.get(CACHE)},
        )


def is_trainable(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def is_sharded(module: nn.Module) -> bool:
    """Return whether FSDP2 shards the module: then its parameters are DTensors."""
    return any(hasattr(p, "placements") for p in module.parameters())
