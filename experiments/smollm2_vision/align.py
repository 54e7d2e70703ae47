"""Before a fit: pull the connector of ``backbone=smollm2_vision`` to the embeddings of the digits' words.

    python experiments/smollm2_vision/align.py outputs/smollm2_vision_aligned

LLaVA's first stage trains the connector through the frozen language model, on captions. Here each patch of a digit's
picture has one word, so the connector is fitted to that word's embedding itself, and the language model is not run: a
matter of seconds. It sees handwriting of the training split alone. Prints how many unseen digits (dev) are nearest to
their own word, over all patches of a digit, and writes the checkpoint that ``backbone.path`` then names.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mathse.config import build
from mathse.config.backbones import SmolLM2Vision
from mathse.data.synthetic import digits
from mathse.models import silence_transformers
from mathse.models.packaged.smollm2_vision import SmolLM2VisionBackbone

TRAINING, UNSEEN = 1500, 200  # pictures of three digits
STEPS, BATCH, LR = 600, 64, 2e-3


def main(folder: Path) -> None:
    silence_transformers()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    began = time.process_time()
    backbone = build(SmolLM2Vision())
    draw = random.Random(0)
    training, unseen = seen(backbone, "train", TRAINING, draw), seen(backbone, "dev", UNSEEN, draw)
    ids = [backbone.tokenizer(str(digit), add_special_tokens=False)["input_ids"][0] for digit in range(10)]
    words = backbone.model.get_input_embeddings().weight.detach()[ids]  # (10, H)
    connector = backbone.model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(connector.parameters(), LR, weight_decay=0.01)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 - step / STEPS)
        rows = torch.randint(len(training[0]), (BATCH,))
        loss = F.mse_loss(connector(training[0][rows]), words[training[1][rows]]) / words.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tokens = connector(unseen[0])  # (N, patches, H)
        apart = torch.cdist(tokens, words.expand(len(tokens), -1, -1)).square()  # (N, patches, 10)
        by_patch = (apart.argmin(-1) == unseen[1]).float().mean()
        right = torch.stack(
            [
                apart[:, patches].mean(1).argmin(-1) == unseen[1][:, patches[0]]
                for patches in patches_of(unseen[1].shape[1])
            ]
        )
    print(
        f"loss {loss.item():.3f}; of {right.numel()} unseen digits {100 * right.float().mean():.1f} % are nearest to "
        f"their word, of their patches {100 * by_patch:.1f} %; {time.process_time() - began:.0f} CPU seconds"
    )
    backbone.save(folder)


def seen(backbone: SmolLM2VisionBackbone, split: str, count: int, draw: random.Random) -> tuple[Tensor, Tensor]:
    """What the tower makes of pictures (N, patches, C), and the digit that each patch belongs to (N, patches)."""
    indices = [int(i) for i in digits.split_indices()[split]]
    features, labels = [], []
    for _ in range(count):
        chosen = (draw.choice(indices), draw.choice(indices), draw.choice(indices))
        [picture] = backbone.prepare([digits.render(digits.reference(chosen))])
        with torch.no_grad():
            features.append(backbone.tower(picture))
        of_patches = torch.zeros(features[0].shape[1], dtype=torch.long)
        for index, patches in zip(chosen, patches_of(len(of_patches)), strict=True):
            of_patches[patches] = digits.label(index)
        labels.append(of_patches)
    return torch.cat(features), torch.stack(labels)


def patches_of(count: int) -> list[list[int]]:
    """The patches of each of the three digits, which stand side by side: rows of patches, six a row."""
    across = count // (SmolLM2Vision().image_height // 14)
    return [[i for i in range(count) if i % across // (across // 3) == digit] for digit in range(3)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
