"""CogVLM2 over two processes, one of which has images and the other text alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mathse.models.cogvlm2.tiny import tiny_cogvlm2
from mathse.models.row import Row

pytestmark = pytest.mark.slow


def rows(rank: int) -> list[Row]:
    image = Image.new("RGB", (30, 50), "red")
    seen = Row(question="What?", images=[image], response="Three.")
    return [seen if rank == 0 else Row(question="3 + 4?", images=[], response="7")]


def step(rank: int, port: int, how: str, frozen: bool, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    backbone = tiny_cogvlm2(0)
    model = backbone.model.train()
    if frozen:
        model.model.vision.requires_grad_(False)
    batch = backbone.collate(rows(rank))
    if how == "ddp":
        wrapped = DistributedDataParallel(model)
        wrapped(**batch).loss.backward()
    else:
        for layer in (*model.model.vision.transformer.layers, *model.model.layers):
            fully_shard(layer)
        fully_shard(model)
        model(**batch).loss.backward()
    whole = {n: _whole(p.grad) for n, p in model.named_parameters() if p.grad is not None}
    if rank == 0:
        torch.save(whole, out)
    if how == "fsdp":
        with torch.no_grad():
            model.eval()(**batch)  # as a validation step does
    dist.barrier()
    dist.destroy_process_group()


def _whole(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("frozen", [False, True], ids=["free", "frozen"])
def test_ranks_with_and_without_images_step_together(tmp_path: Path, how: str, frozen: bool) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    out = tmp_path / "gradients.pt"
    mp.spawn(step, args=(port, how, frozen, str(out)), nprocs=2)
    found = torch.load(out, weights_only=True)
    backbone = tiny_cogvlm2(0)
    model = backbone.model.train()
    for rank in range(2):
        (model(**backbone.collate(rows(rank))).loss / 2).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if not (frozen and n.startswith("model.vision."))}
    assert found.keys() == expected.keys()
    assert max((found[n] - expected[n]).abs().max().item() for n in expected) <= 1e-5
