"""CPU time of a fit's step with a tower that trains, that is frozen, and whose features are kept.

    python experiments/towers/measure.py [TURNS]

Each side is a fit in a process of its own, the sides take turns, and a figure is the median over all steps of all turns
after the first epoch. What filling the store takes is given apart: it is paid once for all epochs, samplings and runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDES = ("trained", "frozen", "kept")
FAMILIES = ("qwen2vl", "cogvlm2")
PRECISIONS = ("32-true", "bf16-mixed")
ROWS, BATCH, EPOCHS = 8, 4, 4


def main(turns: int) -> None:
    print("| model | precision | trained | frozen | kept | filling, a picture | losses apart |")
    print("|---|---|---|---|---|---|---|")
    for family in FAMILIES:
        for precision in PRECISIONS:
            steps: dict[str, list[float]] = {side: [] for side in SIDES}
            losses, filling = {}, []
            for _ in range(turns):
                for side in SIDES:
                    done = subprocess.run([sys.executable, __file__, family, precision, side],
                                          check=True, capture_output=True, text=True)  # fmt: skip
                    result = json.loads(done.stdout.splitlines()[-1])
                    steps[side] += result["steps"]
                    losses[side] = result["losses"]
                    filling += [result["filling"] / ROWS] if side == "kept" else []
            trained, frozen, kept = (f"{statistics.median(steps[side]):,.0f}" for side in SIDES)
            apart = max(abs(a - b) / b for a, b in zip(losses["kept"], losses["frozen"], strict=True))
            print(f"| {family} | {precision} | {trained} | {frozen} | {kept} | {statistics.median(filling):,.0f} | "
                  f"{apart:.0e} |", flush=True)  # fmt: skip


def measure(family: str, precision: str, side: str) -> dict[str, Any]:
    """CPU ms of each step but the first epoch's, of filling the store, and each step's loss."""
    import pytorch_lightning as pl
    import torch

    from mathse.config.fits import Fit, Optimizer
    from mathse.config.schema import Trainer
    from mathse.models.feature_store import FeatureStore
    from mathse.models.tower_features import TowerFeatures
    from mathse.training.fit import FitJob, fit

    torch.set_num_threads(1)
    ends: list[float] = []
    losses: list[float] = []

    class Clock(pl.Callback):
        def on_train_start(self, *_: Any) -> None:
            ends.append(time.process_time())

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            ends.append(time.process_time())
            losses.append(float(outputs["loss"]))

    with tempfile.TemporaryDirectory() as made:
        backbone, rows = build(family, Path(made))
        frozen = [] if side == "trained" else ["tower"]
        settings = Fit(max_steps=EPOCHS * ROWS // BATCH, batch_size=BATCH, micro_batch_size=BATCH, freeze=frozen,
                       tower_features=side == "kept", optimizer=Optimizer(lr=1e-4))  # fmt: skip
        if side == "kept":
            backbone.tower_features = TowerFeatures(FeatureStore(Path(made, "store"), 2**30), ("tower",))
        begun = time.process_time()
        fit(backbone, FitJob(Path(made, "fit"), rows, 0, settings, Trainer(precision=precision)), [Clock()])
    steps = [1000 * (after - before) for before, after in zip(ends[:-1], ends[1:], strict=True)]
    return {"steps": steps[ROWS // BATCH :], "filling": 1000 * (ends[0] - begun), "losses": losses}


def build(family: str, folder: Path) -> tuple[Any, list[Any]]:
    """A random model whose tower's share of a step is about the real one's, and rows with a picture each."""
    import random

    from PIL import Image

    from mathse.models import tiny_tokenizer
    from mathse.models.tiny import draw_weights

    side = 448  # pixels: 32 x 32 patches, 256 image tokens
    draw = random.Random(0)
    rows = []
    for k in range(ROWS):
        Image.frombytes("RGB", (side, side), draw.randbytes(3 * side * side)).save(folder / f"{k}.png")
        words = " ".join(draw.choice(tiny_tokenizer.WORDS) for _ in range(80))
        rows.append({"question": words, "images": [str(folder / f"{k}.png")], "response": words})

    if family == "qwen2vl":
        from mathse.config.backbones import TinyBackbone
        from mathse.models.qwen2vl import Qwen2VLBackbone
        from mathse.models.tiny import TinyBackbone as Tiny

        small = Tiny(TinyBackbone(hidden_size=256, layers=4, heads=4, mlp_size=768, vision_size=128, vision_layers=4,
                                  max_pixels=side * side, attention="sdpa"))  # fmt: skip
        return Qwen2VLBackbone(small.model, small.processor), rows

    from mathse.models.cogvlm2.backbone import CogVLM2Backbone
    from mathse.models.cogvlm2.configuration import CogVLM2Config
    from mathse.models.cogvlm2.modeling import CogVLM2ForConditionalGeneration
    from mathse.models.cogvlm2.processing import CogVLM2Processor, make_square_image_processor

    tokenizer = tiny_tokenizer.build_tokenizer()
    tokenizer.bos_token = tiny_tokenizer.USER
    config = CogVLM2Config(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_multi_query_heads=2, max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        vision_config={"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_heads": 4,
                       "image_size": side, "patch_size": 14, "num_positions": (side // 14) ** 2 + 1},
    )  # fmt: skip
    model = draw_weights(0, lambda: CogVLM2ForConditionalGeneration(config))
    return CogVLM2Backbone(model, CogVLM2Processor(make_square_image_processor(side), tokenizer, 14)), rows


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 3)
