"""Several processes, one run: rank 0 runs it as a single process would, and the others lend it their devices.

Rank 0 alone holds the run folder, reads data, decides what is finished, draws, and writes. Where work can be shared
(a fit, the batches of a sampling or judging stage) it calls ``everywhere``; the other ranks wait for that in
``follow``. So nothing above the shared work knows that there are ranks, and no decision can differ between them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mathse.errors import ConfigError, MathSEError, RankLost
from mathse.training.launch import place

Result = TypeVar("Result")

# A rank may wait for hours while rank 0 asks a teacher; whoever dies is noticed at once, by its closed connection.
WAITING = timedelta(days=30)
WORKING = timedelta(hours=2)  # in a fit all ranks step together; the longest wait is for a resume point's writing
BUCKET = 64 * 2**20  # bytes of gradients summed up at a time
_talk: dist.ProcessGroup | None = None  # gloo: messages between ranks, whatever the devices
_mine = torch.device("cpu")  # the device this rank lends


def rank() -> int:
    return dist.get_rank() if _talk is not None else 0


def size() -> int:
    """How many ranks the run has; 1 where it is a single process."""
    return dist.get_world_size() if _talk is not None else 1


def lent() -> torch.device:
    """The device that this rank works on, among several."""
    return _mine


def device(accelerator: str) -> torch.device:
    """This process's device. Raises ConfigError where there is none."""
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    here = place()
    index = here.local_rank if here is not None else 0
    if (found := torch.cuda.device_count()) <= index:
        seen = f"torch finds {found} GPUs here" if found else "torch finds no GPU here"
        needs = f"trainer.accelerator = {accelerator!r}: needs GPU {index}, and {seen}"
        raise ConfigError(f"{needs}; lower trainer.devices or pass trainer.accelerator=cpu")
    return torch.device("cuda", index)


@contextmanager
def joined(accelerator: str, devices: int) -> Iterator[None]:
    """The ranks of a run connected, if there are several.

    Raises ConfigError where ``devices`` (a machine) does not match what was started, RankLost where another rank has
    gone away meanwhile.
    """
    here = place()
    started = here.size if here is not None else 1
    if started % devices or (here is not None and here.local_rank >= devices):
        raise ConfigError(
            f"trainer.devices = {devices}, and {started} process{'es were' if started > 1 else ' was'} started; pass "
            "trainer=ddp (or fsdp) and the number of devices of a machine as trainer.devices"
        )
    if here is None:
        yield
        return
    _connect(here.rank, started, device(accelerator))
    try:
        yield
        if here.rank == 0:
            _tell()
        dist.destroy_process_group()
    except RuntimeError as e:
        if _means_lost(e):
            raise RankLost(f"rank {here.rank} lost its connection to the other ranks; what they say tells why") from e
        raise
    finally:
        _part()


def _connect(number: int, started: int, mine: torch.device) -> None:
    global _talk, _mine
    _find_each_other()
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else Lightning sets another number
    on_gpu = mine.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(mine)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        timeout=WORKING,
        rank=number,
        world_size=started,
        device_id=mine if on_gpu else None,
    )
    _talk, _mine = dist.new_group(backend="gloo", timeout=WAITING), mine


def _part() -> None:
    """Whatever happened: a gloo group that is left over may abort the process at its end."""
    global _talk
    talk, _talk = _talk, None
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group(talk if _mine.type == "cuda" else None)  # NCCL's would wait for what hangs


def _find_each_other() -> None:
    """SLURM does not say where rank 0 listens; the rest of the world does."""
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}


def _means_lost(error: RuntimeError) -> bool:
    """gloo has no error class of its own."""
    if isinstance(error, MathSEError):  # a teacher's lost connection is none of ours
        return False
    return isinstance(error, (dist.DistBackendError, dist.DistNetworkError)) or "gloo" in str(error)


# --- work in common -------------------------------------------------------------------------------------------------


def everywhere(mine: Callable[[], Result], theirs: Callable[..., Result], *arguments: Any) -> list[Result]:
    """``mine()`` here, on rank 0, and ``theirs(*arguments)`` on every other rank; the results by rank.

    ``theirs`` is a function of a module, and the arguments can be pickled. A rank whose work fails ends with its error,
    and the run with it.
    """
    if size() == 1:
        return [mine()]
    _tell((theirs, arguments))
    return _gather(mine())


def follow() -> None:
    """What ranks other than 0 do: the work that ``everywhere`` hands out, until the run is over."""
    while (asked := _tell()) is not None:
        work, arguments = asked
        _gather(work(*arguments))


def _tell(message: Any = None) -> Any:
    """Rank 0's message, on all ranks. Nothing: the run is over."""
    box = [message]
    dist.broadcast_object_list(box, src=0, group=_talk)
    return box[0]


def _gather(result: Any) -> list[Any]:
    results: list[Any] = [None] * size() if rank() == 0 else []
    dist.gather_object(result, results or None, dst=0, group=_talk)
    return results


# --- numbers in common, in a fit ------------------------------------------------------------------------------------


def total(value: Any) -> Any:
    """The sum over the ranks of a number or tensor; of a single process, the value itself."""
    if size() == 1:
        return value
    summed = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value, device=_mine)
    dist.all_reduce(summed)
    return summed


def pooled(means: Mapping[str, tuple[Tensor, int]]) -> dict[str, tuple[Tensor, int]]:
    """Means over all ranks, each (mean, of how many): of a single process, its own. What is a mean of none is left out
    of account; all ranks pass the same names."""
    if size() == 1:
        return dict(means)
    sums = torch.zeros(len(means), 2, dtype=torch.float64, device=_mine)
    for k, (mean, n) in enumerate(means.values()):
        if n:
            sums[k, 0], sums[k, 1] = mean.double() * n, n
    dist.all_reduce(sums)
    counts = sums[:, 1].long().tolist()
    return {name: ((s / max(n, 1)).float(), n) for name, s, n in zip(means, sums[:, 0], counts, strict=True)}


def same_everywhere(tensors: Iterable[Tensor]) -> None:
    """Give every rank rank 0's values, in place."""
    for tensor in tensors:
        dist.broadcast(tensor.data, src=0)


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up the gradients of all ranks, in place; all ranks pass the same parameters.

    One that some ranks have no gradient of counts as zero there; one that none has keeps None, and is not stepped.
    """
    used = total(torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=_mine))
    for bucket in _buckets([p for p, ranks in zip(parameters, used.tolist(), strict=True) if ranks]):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = summed.view_as(p)


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters in their order, as many of one dtype as ``BUCKET`` holds."""
    bucket: list[Tensor] = []
    held = 0
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or held + p.nbytes > BUCKET):
            yield bucket
            bucket, held = [], 0
        bucket.append(p)
        held += p.nbytes
    if bucket:
        yield bucket
