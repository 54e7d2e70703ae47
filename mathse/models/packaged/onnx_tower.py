"""Read a vision tower from an ONNX file as transformers' ``Dinov2Model``.

The exporter names a weight by its module, except for the matrices of linear layers, which it has transposed and
numbered: they are found by the graph node that multiplies with them. The position embeddings are in two tensors (class
token, patches) and are found by their shape. Only tensors are read; nothing of the graph is run.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

from mathse.errors import CheckpointError

INSIDE = "backbone."  # prefix of the tower's modules in the exported model
# Names of modules in transformers 4 -> names in version 5.
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def read_tower(file: Path, config: Dinov2Config) -> Dinov2Model:
    """Return the tower in float32. Raises CheckpointError if the file does not have exactly its tensors."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except (DecodeError, OSError) as e:
        raise CheckpointError(f"{file} cannot be opened as an ONNX file ({e})") from None
    # A tensor in an external file is left out: its file name could point anywhere.
    tensors = {
        stored.name: torch.from_numpy(numpy_helper.to_array(stored).copy())
        for stored in graph.initializer
        if stored.data_location != TensorProto.EXTERNAL
    }
    weights = {name.removeprefix(INSIDE): tensor for name, tensor in tensors.items() if name.startswith(INSIDE)}
    for node in graph.node:  # for example /backbone/encoder/layer.0/mlp/fc1/MatMul
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
    # Rename the modules for version 5.
    renamed = {}
    for name, tensor in weights.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    try:
        tower.load_state_dict(renamed, assign=True)
    except RuntimeError as e:
        reason = " ".join(str(e).split())[:300]
        raise CheckpointError(f"{file}: has no tower with DINOv2's structure ({reason})") from None
    return tower
