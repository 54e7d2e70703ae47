"""The CogVLM2 reference fixture: a tiny checkpoint of the published names, and what the published code makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mathse.models.cogvlm2 import CogVLM2ForConditionalGeneration


class Reference:
    """``given("image")`` are the inputs of a case, ``expected`` all outputs, ``model()`` a fresh model."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            pytest.skip(f"needs {folder}, which does not exist")
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "expected.safetensors")
        self.tolerance: float = self.meta["tolerance"]

    def model(self, **options: Any) -> CogVLM2ForConditionalGeneration:
        return CogVLM2ForConditionalGeneration.from_pretrained(
            self.folder, **{"dtype": torch.float32, **options}
        ).eval()

    def given(self, case: str, labels: bool = False) -> dict[str, Tensor]:
        found = {k.removeprefix(f"{case}_"): v.clone() for k, v in self.inputs.items() if k.startswith(f"{case}_")}
        return found if labels else {k: v for k, v in found.items() if k != "labels"}

    @torch.no_grad()
    def differences(self, model: CogVLM2ForConditionalGeneration, **changed: Any) -> dict[str, float]:
        """The largest difference from the published code's outputs: image features, and logits of each case.

        ``changed``: name of an input -> function of a case's inputs that gives another value for it.
        """
        features = model.get_image_features(self.inputs["vision_pixel_values"])
        found = {
            "tower": apart(features.last_hidden_state, self.expected["vision_tower"]),
            "vision": apart(features.pooler_output, self.expected["vision_features"]),
        }
        for case in ("image", "text", "batch"):
            inputs = self.given(case)
            logits = model(**{**inputs, **{name: change(inputs) for name, change in changed.items()}}).logits
            seen = inputs["attention_mask"].bool()
            found[case] = apart(logits[seen], self.expected[f"{case}_logits"][seen])
        return found


def apart(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return (one.float() - other.float()).abs().max().item()
