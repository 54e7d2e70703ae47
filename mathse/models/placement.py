"""Where a model's numbers come to lie when it is opened: on the CPU, straight on a device, or nowhere yet.

A model of 19 billion parameters is 39 GB. Eight ranks that each open one on the CPU, before it goes to their GPUs, take
312 GB of a machine's memory. So whoever works on a GPU reads each weight straight onto it, and in a fit all ranks but
the first open the model without numbers (torch's meta device) and are handed theirs by the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

META = torch.device("meta")  # tensors there have a shape and a dtype, and no numbers
_device: ContextVar[torch.device | None] = ContextVar("device", default=None)


@contextmanager
def opening_on(device: torch.device | None) -> Iterator[None]:
    """Within, ``checkpoint.open_model`` puts weights on ``device``; None: as it does by itself, on the CPU."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def opening_device() -> torch.device | None:
    return _device.get()


def empty_out(model: nn.Module, device: torch.device, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Put parameters and buffers without numbers on ``device``: on meta all, elsewhere those that lie on meta; of these
    the ``wanted`` ones, by name. One that has two names (a tied head) stays one."""
    replaced: dict[int, Any] = {}  # by id
    originals: list[Tensor] = []  # alive until the end: no other tensor gets the id of one of them
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
