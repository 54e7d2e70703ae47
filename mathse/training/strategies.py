"""Strategies of training on several ranks: Lightning's strategies over processes that are started already.

ddp        every rank holds the whole model (Lightning's DDPStrategy)
fsdp2      weights, gradients and optimiser in shards, one decoder layer at a time (Lightning's ModelParallelStrategy)
deepspeed  gradients and optimiser in shards, ZeRO-2 (Lightning's DeepSpeedStrategy; an extra). Weights that a batch
           does not use are also moved by their momentum, and with bf16-mixed the checkpoint is bfloat16.

All three make the same steps as one process, on two CPU processes (deepspeed without Lightning's GPU check). None has
been run on several GPUs yet.

Under ddp and fsdp2 only rank 0 reads the model. The other ranks open it without weights and receive them, whole or as
shards, when training is set up. So a machine's memory holds the model once, and not once per rank. DeepSpeed's setup
needs the whole model on every rank.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mathse.config.schema import Trainer as TrainerSettings
from mathse.models.base import Backbone
from mathse.models.parts import find_part
from mathse.models.placement import replace_with_empty
from mathse.models.tower_features import iterate_vision_tensors, move_vision_to
from mathse.training import ranks
from mathse.training.allocator import give_back_freed_memory


def place_on_ranks(settings: TrainerSettings, clip: float) -> dict[str, Any]:
    """Return the Trainer's arguments for devices and strategy.

    Args:
        clip: largest gradient norm, for DeepSpeed, which clips gradients itself.
    """
    rank = ranks.current()
    if rank.world_size == 1:
        # Without a plugin Lightning would look for a scheduler and handle its signals.
        plugins = [JoinedRanks(1)]
        return {"accelerator": settings.accelerator, "devices": 1, "strategy": "auto", "plugins": plugins}
    strategy: Strategy
    if settings.strategy == "fsdp2":
        strategy = ModelParallelStrategy(rank.world_size, 1)
    elif settings.strategy == "deepspeed":
        strategy = DeepSpeedStrategy(stage=2)
        strategy.config["gradient_clipping"] = clip  # type: ignore[index]
    else:
        strategy = ReplicatedStrategy()
    return {
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": rank.world_size // settings.devices,
        "strategy": strategy,
        "plugins": [JoinedRanks(settings.devices)],
        # Weights that fsdp2 gathers in inference mode could not be trained afterwards.
        "inference_mode": settings.strategy != "fsdp2",
    }


class JoinedRanks(ClusterEnvironment):
    """Gives Lightning the ranks that ``ranks.join`` has connected, independent of the program that started them.

    Args:
        devices: ranks per machine.
    """

    def __init__(self, devices: int) -> None:
        super().__init__()
        self.devices = devices

    creates_processes_externally = True
    main_address, main_port = "", 0  # unused, because the processes are connected already

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return ranks.current().world_size

    def global_rank(self) -> int:
        return ranks.current().rank

    def local_rank(self) -> int:
        return ranks.current().local_rank

    def node_rank(self) -> int:
        return ranks.current().rank // self.devices

    def set_world_size(self, size: int) -> None: ...

    def set_global_rank(self, rank: int) -> None: ...


class ReplicatedStrategy(DDPStrategy):
    """DDP without torch's wrapper around the model: the module sums the gradients of all ranks once per step.

    So ranks may differ in their micro-batches and in the weights that these use, no average has to be undone, and no
    bucket holds gradients a second time. The price is that the sum does not overlap with the backward pass. It is small
    for adapters, and a full fine-tuning of a large model is sharded.
    """

    def configure_ddp(self) -> None:
        model = self.model
        assert isinstance(model, pl.LightningModule)  # Lightning sets it before this call
        ranks.current().broadcast_tensors([*model.parameters(), *model.buffers()])


def hands_out(settings: TrainerSettings) -> bool:
    """Whether only rank 0 reads the model and sends it to the other ranks."""
    return ranks.current().world_size > 1 and settings.strategy != "deepspeed"


def hand_out_vision(backbone: Backbone, device: torch.device) -> None:
    """Send the whole tower and connector to all ranks, for work before the first step. All ranks call it together."""
    replace_with_empty(backbone.model, device, lambda name: find_part(backbone, name) != "language")
    with move_vision_to(backbone, device):
        ranks.current().broadcast_tensors(iterate_vision_tensors(backbone))


def pass_together(settings: TrainerSettings) -> bool:
    """Whether ranks wait for each other in every pass of a step, and not only at its end."""
    return settings.strategy in ("fsdp2", "deepspeed")


def averages(trainer: pl.Trainer) -> bool:
    """Whether the strategy itself reduces gradients, to their mean over the ranks."""
    return isinstance(trainer.strategy, (ModelParallelStrategy, DeepSpeedStrategy))


def on_device(trainer: pl.Trainer, micro_batch: Any) -> Any:
    """Move and convert a micro-batch as Lightning moves and converts a loader's batches."""
    return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(micro_batch))


def announce_pass(trainer: pl.Trainer, last: bool, reduced_once: bool) -> None:
    """Announce a backward pass to a strategy that reduces gradients in it.

    With ``reduced_once`` FSDP2 reduces gradients only in a step's last pass. Until then a device holds whole float32
    gradients of the weights that train, not a shard of them: little for adapters, 28 GB for a full fine-tuning of 7B
    parameters, 78 GB for 19B. Without it FSDP2 reduces gradients in every pass.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        trainer.strategy.deepspeed_engine.set_gradient_accumulation_boundary(last)
    module = trainer.lightning_module
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last or not reduced_once)


def gradient_norm(trainer: pl.Trainer, norm: torch.Tensor) -> torch.Tensor:
    """Return the gradient norm over all ranks, after the step.

    Args:
        norm: the return value of ``clip_grad_norm_``.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy):  # it clips itself and frees the gradients
        global_norm = trainer.strategy.deepspeed_engine.get_global_grad_norm()
        return torch.as_tensor(global_norm or 0.0, device=norm.device)
    return join_shards(norm)


def join_shards(number: torch.Tensor) -> torch.Tensor:
    """Return a number over sharded tensors (fsdp2) as a plain tensor. All ranks call it together."""
    return number.full_tensor() if isinstance(number, DTensor) else number


def keeps_resume_points(settings: TrainerSettings) -> bool:
    """Whether a training writes resume points. DeepSpeed's are pickles, which are never read, so there it restarts."""
    return ranks.current().world_size == 1 or settings.strategy != "deepspeed"


# --- FSDP2 ----------------------------------------------------------------------------------------------------------


def shard(module: pl.LightningModule, model: nn.Module) -> None:
    """Shard ``model`` where the strategy has a device mesh (fsdp2): each layer, and the rest as part of ``module``.

    So a call of ``module`` gathers the weights that it needs. The weights are rank 0's. Its memory for whole weights
    shrinks while one part after another is sharded.
    """
    device = module.trainer.strategy.root_device
    if module.device_mesh is None:
        replace_with_empty(model, device)  # the strategy fills it
        return
    half = torch.bfloat16 if module.trainer.precision == "bf16-mixed" else None
    # Autocast converts inputs, because some of them (rotary angles) stay in float32.
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = module.device_mesh["data_parallel"]
    for part in (*find_layers(model), module):
        whole = {name: p.detach() for name, p in part.named_parameters() if not isinstance(p, DTensor)}
        fully_shard(part, mesh=mesh, mp_policy=policy)
        replace_with_empty(part, device)
        part._apply(lambda tensor: tensor, recurse=False)  # makes FSDP adopt the replaced tensors
        for name in list(whole):
            weight = whole.pop(name)
            if weight.is_meta:
                weight = torch.empty_like(weight, device=device)  # only its shape is used; the values are rank 0's
            shards: Any = part.get_parameter(name).detach()  # a DTensor
            shards.copy_(distribute_tensor(weight, mesh, shards.placements))
            del weight, shards
        give_back_freed_memory()
    ranks.current().broadcast_tensors(module.buffers())


def gather_once(module: pl.LightningModule) -> None:
    """Gather the weights of each part and free them again.

    A backward pass without reduction looks at the whole weights of every part. A part that no pass has used yet, such
    as a tower with stored features, has none before this call.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.unshard()
            part.reshard()


def find_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of decoder and tower by transformers' ``_no_split_modules``."""
    names: set[str] = set()
    for m in model.modules():
        names.update(getattr(m, "_no_split_modules", None) or ())
    return [m for m in model.modules() if type(m).__name__ in names]


def reshard(module: pl.LightningModule) -> None:
    """Leave each rank only its shards. After a validation some weights are gathered, in half precision."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def gather(module: pl.LightningModule) -> None:
    """Replace shards by whole weights on rank 0's CPU and by nothing on other ranks. All ranks call it together."""
    reshard(module)
    whole: dict[int, nn.Parameter] = {}  # by id of the sharded weight, because a weight may have two names
    for part in list(module.modules()):
        parameters: dict[str, Any] = part._parameters
        for name, p in parameters.items():
            if not isinstance(p, DTensor):
                continue
            if id(p) not in whole:
                full: torch.Tensor = p.full_tensor().detach()
                weight = full.cpu() if ranks.current().is_main else torch.empty(0)
                whole[id(p)] = nn.Parameter(weight, requires_grad=p.requires_grad)
            parameters[name] = whole[id(p)]
