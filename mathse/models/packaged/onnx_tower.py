"""A vision tower in an ONNX file as transformers' ``Dinov2Model``.

The exporter names a weight by its module, except for the matrices of linear layers, which it has turned and numbered:
those are found by the node that multiplies with them. Position embeddings, cut in two (of the class token, of the
patches), are found by their shape. Only tensors are read; nothing of the graph is run.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

from mathse.errors import CheckpointError

INSIDE = "backbone."  # what the exported model calls the tower
# modules by the names that transformers 4 gave them -> those of version 5
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def read_tower(file: Path, config: Dinov2Config) -> Dinov2Model:
    """The tower, in float32. Raises CheckpointError where the file does not hold exactly its tensors."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except (DecodeError, OSError) as e:
        raise CheckpointError(f"{file} cannot be opened as an ONNX file ({e})") from None
    tensors = {  # a tensor in a file of its own would be read from wherever that file's name points to
        stored.name: torch.from_numpy(numpy_helper.to_array(stored).copy())
        for stored in graph.initializer
        if stored.data_location != TensorProto.EXTERNAL
    }
    weights = {name.removeprefix(INSIDE): tensor for name, tensor in tensors.items() if name.startswith(INSIDE)}
    for node in graph.node:  # /backbone/encoder/layer.0/mlp/fc1/MatMul
        module = node.name.strip("/").replace("/", ".")
        if node.op_type == "MatMul" and module.startswith(INSIDE) and node.input[1] in tensors:
            name = module.removeprefix(INSIDE).removesuffix(".MatMul")
            weights[f"{name}.weight"] = tensors[node.input[1]].T.contiguous()
    positions = (config.image_size // config.patch_size) ** 2
    unnamed = {tuple(tensor.shape): tensor for name, tensor in tensors.items() if name.startswith("onnx::")}
    halves = [unnamed.get((1, count, config.hidden_size)) for count in (1, positions)]
    if all(half is not None for half in halves):
        weights["embeddings.position_embeddings"] = torch.cat([half for half in halves if half is not None], dim=1)

    with torch.device("meta"):
        tower = Dinov2Model(config)
    try:
        tower.load_state_dict({_renamed(name): tensor for name, tensor in weights.items()}, assign=True)
    except RuntimeError as e:
        reason = " ".join(str(e).split())[:300]
        raise CheckpointError(f"{file}: holds no tower as DINOv2's are built ({reason})") from None
    return tower


def _renamed(name: str) -> str:
    for before, now in RENAMED.items():
        name = name.replace(before, now)
    return name
