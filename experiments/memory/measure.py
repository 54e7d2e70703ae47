"""The estimate of memory beside what a GPU really holds: a fit, a sampling batch and a judging batch of a random model.

    python experiments/memory/measure.py [--layers 28] [--method lora] [--rows 1] [--sequences 16]

The model is Qwen2-VL-7B with random weights, with fewer decoder layers where ``--layers`` says so. Prints a table:
estimated, measured (``torch.cuda.max_memory_allocated``), ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import DynamicCache, Qwen2VLForConditionalGeneration

from mathse.config.backbones import Qwen2VL
from mathse.config.fits import Fit
from mathse.config.schema import Trainer
from mathse.models import needs
from mathse.models.architecture import Architecture
from mathse.training.loss import cross_entropy

TEXT, ANSWER, NEW = 256, 768, 64  # tokens of question, of an answer that is learnt, of one that is written


def model_of(layers: int, dtype: torch.dtype) -> tuple[Any, Architecture]:
    """Qwen2-VL-7B of so many layers on the GPU, weights random, and the same model without numbers."""
    published = Path(needs.__file__).with_name("published") / needs.PUBLISHED[Qwen2VL().path] / "config.json"
    with TemporaryDirectory() as folder:
        sizes = {**json.loads(published.read_text()), "num_hidden_layers": layers}
        Path(folder, "config.json").write_text(json.dumps(sizes))
        planned = needs.find_architecture(Qwen2VL(path=folder))
    assert planned is not None
    config = planned.config
    config.image_token_id, config.vision_start_token_id = 9, 8
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda"):
            model = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)
    return model, planned


def batch_of(planned: Architecture, rows: int, text: int) -> dict[str, torch.Tensor]:
    """Rows of one picture of the most tokens and so many tokens of text, (rows, T)."""
    side = 2 * round((planned.patches[0] // 4) ** 0.5)  # patches
    ids = torch.cat([torch.full((rows, side * side // 4), 9), torch.full((rows, text), 5)], dim=1)
    return {
        "input_ids": ids.cuda(),
        "attention_mask": torch.ones_like(ids).cuda(),
        "mm_token_type_ids": (ids == 9).int().cuda(),
        "pixel_values": torch.randn(rows * side * side, planned.patch).cuda(),
        "image_grid_thw": torch.tensor([[1, side, side]] * rows).cuda(),
    }


def measured_fit(layers: int, fit: Fit) -> tuple[needs.Need, int]:
    """Two steps of AdamW in bf16-mixed; the first makes the moments."""
    full = fit.method == "full"
    model, planned = model_of(layers, torch.float32 if full else torch.bfloat16)
    if full:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith("model.visual"))
        fit = replace(fit, freeze=["tower", "connector"])
    else:
        from peft import LoraConfig, get_peft_model

        pattern = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
        settings = LoraConfig(r=fit.lora.rank, lora_dropout=fit.lora.dropout, target_modules=pattern)
        get_peft_model(model, settings)
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    batch = batch_of(planned, fit.micro_batch_size, TEXT + ANSWER)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            states = model.model(**batch, use_cache=False).last_hidden_state[:, -ANSWER - 1 : -1].flatten(0, 1)
            cross_entropy(model.lm_head, states, batch["input_ids"][:, -ANSWER:].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
    return needs.estimate_training(planned, fit, Trainer(accelerator="gpu"), needs.RowSize(TEXT, ANSWER)), _peak()


def measured_sampling(layers: int, sequences: int, text: int) -> tuple[needs.Need, int]:
    """Prefill and ``NEW`` greedy tokens for all sequences; a judge's prompt is longer by the path that it reads."""
    model, planned = model_of(layers, torch.bfloat16)
    batch = batch_of(planned, sequences, text)
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        cache = DynamicCache(config=model.config.get_text_config())
        model.generate(**batch, past_key_values=cache, do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW)
    row = needs.RowSize(text, NEW)
    return needs.estimate_sampling(planned, Trainer(accelerator="gpu"), True, sequences, sequences, row), _peak()


def _peak() -> int:
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=28, help="of the decoder; 28 is the 7B model")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--rows", type=int, default=1, help="of a fit's micro-batch")
    parser.add_argument("--sequences", type=int, default=16)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this measures a GPU's memory, and torch finds none here")
    fit = Fit(method=arguments.method, micro_batch_size=arguments.rows, activation_checkpointing=True)
    work = {
        "fit": lambda: measured_fit(arguments.layers, fit),
        "sample": lambda: measured_sampling(arguments.layers, arguments.sequences, TEXT),
        "judge": lambda: measured_sampling(arguments.layers, arguments.sequences, TEXT + ANSWER),
    }
    print(f"| {torch.cuda.get_device_name()} | estimated | measured | ratio | of it |\n|---|---|---|---|---|")
    for name, measure in work.items():
        need, peak = measure()
        terms = ", ".join(f"{term} {needs.format_bytes(count)}" for term, count in need.device.items())
        estimated = needs.format_bytes(need.on_device)
        print(
            f"| {name} | {estimated} | {needs.format_bytes(peak)} | {need.on_device / peak:.2f} | {terms} |", flush=True
        )
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
