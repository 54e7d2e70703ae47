"""The device of a model's weights when it is opened: the CPU, another device, or none yet (meta).

A model of 19 billion parameters has 39 GB. Eight ranks that each open it on the CPU first would take 312 GB of host
RAM. So a process with a GPU reads each weight straight onto it. In a training run, all ranks but rank 0 open the model
on torch's meta device and receive the weights from rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

META = torch.device("meta")  # its tensors have a shape and a dtype, and no values
_device: ContextVar[torch.device | None] = ContextVar("device", default=None)


@contextmanager
def open_weights_on(device: torch.device | None) -> Iterator[None]:
    """Within the context, ``checkpoint.open_model`` puts weights on ``device``; None: on the CPU."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def find_opening_device() -> torch.device | None:
    return _device.get()


def replace_with_empty(
    model: nn.Module, device: torch.device, wanted: Callable[[str], bool] = lambda name: True
) -> None:
    """Replace parameters and buffers by tensors without values on ``device``.

    On the meta device all are replaced, elsewhere only tensors that are on the meta device. ``wanted`` selects them by
    name. A tensor with two names (a tied head) stays a single tensor.
    """
    replaced: dict[int, Any] = {}  # id of the original -> its replacement
    originals: list[Tensor] = []  # keeps the originals alive, so that no other tensor gets the id of any of them
    for prefix, module in model.named_modules():
        tensors: dict[str, Any]
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or (device != META and tensor.device != META):
                    continue
                if not wanted(f"{prefix}.{name}" if prefix else name):
                    continue
                if id(tensor) not in replaced:
                    empty: Tensor = torch.empty_like(tensor, device=device, requires_grad=False)
                    if isinstance(tensor, nn.Parameter):
                        empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
                    replaced[id(tensor)] = empty
                    originals.append(tensor)
                tensors[name] = replaced[id(tensor)]
