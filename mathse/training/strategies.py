"""How the ranks of a fit work together: Lightning's strategies, over the processes that are there already.

ddp        every rank holds the whole model (Lightning's DDPStrategy)
fsdp2      weights, gradients and optimiser in shards, a decoder layer at a time (Lightning's ModelParallelStrategy)
deepspeed  gradients and optimiser in shards, ZeRO-2 (Lightning's DeepSpeedStrategy; an extra). Weights that a batch
           does not use are stepped by their momentum all the same, and with bf16-mixed the checkpoint is bfloat16.

All three make the steps of one process on two CPU processes, deepspeed with Lightning's demand for a GPU taken out.
None has been run on several GPUs yet.

Under ddp and fsdp2 only rank 0 reads the model; the others open it without numbers, and are handed theirs (all of
them, or their shards) as the fit sets up. So a machine's memory holds the model once, and not once a rank. DeepSpeed's
own set-up expects the model whole on every rank.
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

from mathse.config.schema import TrainerConfig
from mathse.models.base import Backbone
from mathse.models.parts import part_of
from mathse.models.placement import empty_out
from mathse.models.tower_features import vision_on, vision_tensors
from mathse.training import ranks
from mathse.training.allocator import give_back_freed_memory


def among_ranks(settings: TrainerConfig, clip: float) -> dict[str, Any]:
    """The Trainer's arguments that place a fit on its devices. ``clip``: largest gradient norm, for a strategy that
    clips."""
    rank = ranks.current()
    if rank.world_size == 1:
        single = {"accelerator": settings.accelerator, "devices": 1, "strategy": "auto"}
        return {**single, "plugins": [Joined(1)]}  # else Lightning looks for a scheduler, and heeds its signals itself
    strategy: Strategy
    if settings.strategy == "fsdp2":
        strategy = ModelParallelStrategy(rank.world_size, 1)
    elif settings.strategy == "deepspeed":
        strategy = DeepSpeedStrategy(stage=2)
        strategy.config["gradient_clipping"] = clip  # type: ignore[index]
    else:
        strategy = Replicated()
    return {
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": rank.world_size // settings.devices,
        "strategy": strategy,
        "plugins": [Joined(settings.devices)],
        "inference_mode": settings.strategy != "fsdp2",  # weights gathered under it could not be trained afterwards
    }


class Joined(ClusterEnvironment):
    """Tells Lightning which ranks there are: whoever started them, ``ranks.join`` has connected them."""

    def __init__(self, devices: int) -> None:
        super().__init__()
        self.devices = devices  # a machine

    creates_processes_externally = True
    main_address, main_port = "", 0  # unused: the processes are connected already

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


class Replicated(DDPStrategy):
    """DDP without torch's wrapper around the model: the module adds up the gradients of all ranks itself, once a step.

    Ranks may then differ in their micro-batches and in the weights that these use, nothing is averaged that has to be
    undone, and no bucket holds gradients a second time. The price: the sum is not hidden behind the backward pass. For
    adapters it is small, and a full fit of a large model is sharded.
    """

    def configure_ddp(self) -> None:
        model = self.model
        assert isinstance(model, pl.LightningModule)  # set by Lightning before it calls this
        ranks.current().broadcast_tensors([*model.parameters(), *model.buffers()])


def hands_out(settings: TrainerConfig) -> bool:
    """Whether only rank 0 reads the model of a fit."""
    return ranks.current().world_size > 1 and settings.strategy != "deepspeed"


def hand_out_vision(backbone: Backbone, device: torch.device) -> None:
    """Give every rank the whole tower and connector, for their work before the first step. All ranks call it."""
    empty_out(backbone.model, device, lambda name: part_of(backbone, name) != "language")
    with vision_on(backbone, device):
        ranks.current().broadcast_tensors(vision_tensors(backbone))


def pass_together(settings: TrainerConfig) -> bool:
    """Whether ranks wait for each other in every pass of a step, and not only at its end."""
    return settings.strategy in ("fsdp2", "deepspeed")


def averages(trainer: pl.Trainer) -> bool:
    """Whether the strategy itself reduces gradients: to their mean over the ranks."""
    return isinstance(trainer.strategy, (ModelParallelStrategy, DeepSpeedStrategy))


def on_device(trainer: pl.Trainer, micro_batch: Any) -> Any:
    """Move and convert a step's micro-batch as Lightning does with the batches of a loader."""
    return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(micro_batch))


def announce_pass(trainer: pl.Trainer, last: bool, reduced_once: bool) -> None:
    """Tell a strategy that reduces gradients in the backward pass whether this one is a step's last.

    With ``reduced_once`` FSDP2 reduces them then, once a step, and until then a device holds the whole float32
    gradients of what trains, and not its shard of them: for adapters that is nothing, a full fit of 7B parameters has
    28 GB of them, one of 19B 78 GB. Else they are reduced after every pass.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        trainer.strategy.deepspeed_engine.set_gradient_accumulation_boundary(last)
    module = trainer.lightning_module
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last or not reduced_once)


def gradient_norm(trainer: pl.Trainer, norm: torch.Tensor) -> torch.Tensor:
    """The norm of a step's gradients over all ranks, after the step. ``norm``: as clipping returned it."""
    if isinstance(trainer.strategy, DeepSpeedStrategy):  # it clips itself, and leaves no gradient to look at
        clipped = trainer.strategy.deepspeed_engine.get_global_grad_norm()
        return torch.as_tensor(clipped or 0.0, device=norm.device)
    return whole(norm)


def whole(number: torch.Tensor) -> torch.Tensor:
    """A number over sharded tensors (fsdp2), put together; all ranks call it together."""
    return number.full_tensor() if isinstance(number, DTensor) else number


def keeps_resume_points(settings: TrainerConfig) -> bool:
    """DeepSpeed's are pickles, which nothing here reads: a fit under it that was killed begins anew."""
    return ranks.current().world_size == 1 or settings.strategy != "deepspeed"


# --- FSDP2 ----------------------------------------------------------------------------------------------------------


def shard(module: pl.LightningModule, model: nn.Module) -> None:
    """Shard ``model`` where the strategy has a device mesh (fsdp2): each of its layers, and what is around them as part
    of ``module``, whose ``forward`` so gathers what it needs.

    Numbers are rank 0's: what is whole of its memory shrinks as parts are sharded, one after the other.
    """
    device = module.trainer.strategy.root_device
    if module.device_mesh is None:
        empty_out(model, device)  # to be filled by the strategy
        return
    half = torch.bfloat16 if module.trainer.precision == "bf16-mixed" else None
    # inputs are left to autocast: rotary angles, for one, stay in float32
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = module.device_mesh["data_parallel"]
    for part in (*layers(model), module):
        whole = {name: p.detach() for name, p in part.named_parameters() if not isinstance(p, DTensor)}
        fully_shard(part, mesh=mesh, mp_policy=policy)
        empty_out(part, device)
        part._apply(lambda tensor: tensor, recurse=False)  # here FSDP takes over tensors that were put in its place
        for name in list(whole):
            weight = whole.pop(name)
            if weight.is_meta:
                weight = torch.empty_like(weight, device=device)  # of rank 0's shape, and not read
            shards: Any = part.get_parameter(name).detach()  # a DTensor
            shards.copy_(distribute_tensor(weight, mesh, shards.placements))
            del weight, shards
        give_back_freed_memory()
    ranks.current().broadcast_tensors(module.buffers())


def gather_once(module: pl.LightningModule) -> None:
    """Gather each shard and let it go. In a pass that does not reduce gradients torch looks at the whole weights of
    every part, also of one that no pass has used yet, a tower whose features are kept, and there are none before."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.unshard()
            part.reshard()


def layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers and the tower's, as transformers names them (``_no_split_modules``)."""
    names = {name for m in model.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    return [m for m in model.modules() if type(m).__name__ in names]


def reshard(module: pl.LightningModule) -> None:
    """Leave each rank only its shards: after a validation some weights are gathered, in half precision."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def gather(module: pl.LightningModule) -> None:
    """Turn shards back into whole weights, on rank 0's CPU; on other ranks they go. All ranks call it together."""
    reshard(module)
    parts = list(module.modules())
    whole: dict[int, nn.Parameter] = {}  # by id of the sharded weight, because one weight may have two names
    for part in parts:
        parameters: dict[str, Any] = part._parameters
        for name, p in parameters.items():
            if isinstance(p, DTensor):
                if id(p) not in whole:
                    full: torch.Tensor = p.full_tensor().detach()
                    weight = full.cpu() if ranks.current().is_main else torch.empty(0)
                    whole[id(p)] = nn.Parameter(weight, requires_grad=p.requires_grad)
                parameters[name] = whole[id(p)]
