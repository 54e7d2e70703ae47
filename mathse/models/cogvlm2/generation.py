"""Hooks of ``generate`` for CogVLM2: positions, a padding id that is also the image's, images encoded once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mathse.models.cogvlm2.layout import compute_positions


class CogVLM2GenerationMixin(GenerationMixin):
    """``GenerationMixin`` with the hooks that differ. They are the same in transformers 5.16 to 5.24."""

    def _prepare_attention_mask_for_generation(self, inputs_tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return ones: a mask derived from the padding id would hide the image. Padded rows need an explicit mask."""
        return torch.ones(inputs_tensor.shape[:2], dtype=torch.long, device=inputs_tensor.device)

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        """Return positions (B, T). Each further token has the last position plus one."""
        ids = model_kwargs.get("input_ids")
        length = (inputs_tensor if ids is None or not ids.shape[1] else ids).shape[:2]
        types = model_kwargs.get("token_type_ids")
        if types is None:
            types = torch.zeros(length, dtype=torch.long, device=inputs_tensor.device)
        return compute_positions(types, model_kwargs.get("attention_mask"))

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat each row for n samples or beams. The image is encoded here, once, and its features are repeated.

        A row has at most one image, so repeating each image n times in place keeps the order of the rows.
        """
        pixels = model_kwargs.pop("pixel_values", None)
        image = (model_kwargs.pop("mm_encoder_outputs", None) or {}).get("image")
        if pixels is not None:
            image = self.get_image_features(pixels)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if image is not None:
            features = image.pooler_output.repeat_interleave(expand_size, dim=0)
            model_kwargs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=features)}
        return input_ids, model_kwargs

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if not is_first_iteration and kwargs.get("use_cache", True):
            kwargs.pop("mm_encoder_outputs", None)  # the cache has the image already
        return super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
