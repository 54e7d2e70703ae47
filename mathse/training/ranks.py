"""Several processes, one run: rank 0 runs it as a single process would, and the others lend it their devices.

Rank 0 alone holds the run folder, reads data, decides what is finished, draws, and writes. Where work can be shared
(a fit, the batches of a sampling or judging stage: ``work_queue.py``) it sets the others to it; they wait for that in
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
from mathse.training.launch import meeting_point, own_rank, ranks_here

Result = TypeVar("Result")

# A rank that dies is noticed at once, by its closed connection; one that is stuck, by how long the others wait for it.
# In a fit's steps all work alike, so minutes say it (trainer.timeout_minutes); between two steps, where one disk may
# take its part of a resume point later than another, SLOWEST times as many. Elsewhere they may wait for hours: while
# rank 0 calls a teacher, or a rank computes its share of a tower's features.
WAITING = timedelta(days=30)
SLOWEST = 3
STARTING = timedelta(minutes=30)  # for the last rank to come
BUCKET = 64 * 2**20  # bytes of gradients summed up at a time
_messages: dist.ProcessGroup | None = None  # gloo: messages between ranks, whatever the devices
_in_steps: dist.ProcessGroup | None = None  # gloo: takes its place while a fit's steps are made
_device = torch.device("cpu")  # this rank's
_timeout = timedelta()  # trainer.timeout_minutes
_cpu_of_others = 0.0  # seconds, on rank 0
_end: Callable[[], None] | None = None  # on rank 0: of the work that the others are at, see ``others_begin``


def rank() -> int:
    return dist.get_rank() if _messages is not None else 0


def size() -> int:
    """How many ranks the run has; 1 where it is a single process."""
    return dist.get_world_size() if _messages is not None else 1


def messages() -> dist.ProcessGroup | None:
    """The group in which ranks exchange messages, on CPUs; None in a single process."""
    return _messages


def timeout() -> timedelta:
    """``trainer.timeout_minutes``, among several ranks."""
    return _timeout


def own_device() -> torch.device:
    """The device that this rank works on, among several."""
    return _device


def device(accelerator: str) -> torch.device:
    """This process's device. Raises ConfigError where there is none."""
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    info = own_rank()
    index = info.local_rank if info is not None else 0
    if (count := torch.cuda.device_count()) <= index:
        available = f"torch finds {count} GPUs here" if count else "torch finds no GPU here"
        needs = f"trainer.accelerator = {accelerator!r}: needs GPU {index}, and {available}"
        raise ConfigError(f"{needs}; lower trainer.devices or pass trainer.accelerator=cpu")
    return torch.device("cuda", index)


@contextmanager
def joined(accelerator: str, devices: int, timeout_minutes: float) -> Iterator[None]:
    """The ranks of a run connected, if there are several.

    Raises ConfigError where ``devices`` (a machine) does not match the number of processes that were started, RankLost
    where another rank has ended meanwhile, or has not done for ``timeout_minutes`` what the others wait for in a fit.
    """
    info = own_rank()
    started = info.size if info is not None else 1
    here = ranks_here() if info is not None else None  # the same on all ranks: none may wait for one that refuses
    if started % devices or here not in (None, devices) or (info is not None and info.local_rank >= devices):
        raise ConfigError(
            f"trainer.devices = {devices}, and {started} process{'es were' if started > 1 else ' was'} started; pass "
            "trainer=ddp (or fsdp) and the number of devices of a machine as trainer.devices"
        )
    if info is None:
        yield
        return
    _connect(info.rank, started, device(accelerator), timedelta(minutes=timeout_minutes))
    try:
        yield
        if info.rank == 0:
            _end_others_work()
            of_rank_0(None)  # the run is over
        dist.destroy_process_group()
    except RuntimeError as e:
        # gloo has no error class of its own; a teacher's lost connection is a MathSEError, and no rank's
        lost = isinstance(e, dist.DistError) or "gloo" in str(e)
        if lost and not isinstance(e, MathSEError):
            why = "their errors say why, or trainer.timeout_minutes went by without an answer"
            raise RankLost(f"rank {info.rank} lost its connection to the other ranks; {why}") from e
        raise
    finally:
        _disconnect()


def _connect(number: int, started: int, device: torch.device, timeout: timedelta) -> None:
    global _messages, _in_steps, _device, _timeout
    address, port = meeting_point()
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else Lightning sets another number
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    # The store is the agent's where there is one, and outlives ranks that are started again: they would find in it the
    # addresses of those before them.
    store, _, _ = next(dist.rendezvous("env://", number, started, timeout=STARTING))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore(f"attempt_{attempt}", store),
        timeout=timeout,
        rank=number,
        world_size=started,
        device_id=device if on_gpu else None,
    )
    _messages, _in_steps = (dist.new_group(backend="gloo", timeout=limit) for limit in (WAITING, SLOWEST * timeout))
    _device, _timeout = device, timeout


def _disconnect() -> None:
    """Whatever happened: a gloo group that is left over may abort the process at its end."""
    global _messages, _in_steps, _end, _cpu_of_others
    group, _messages, _in_steps, _end = _messages, None, None, None
    _cpu_of_others = 0.0
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group(group if _device.type == "cuda" else None)  # NCCL's would wait for what hangs


# --- work in common -------------------------------------------------------------------------------------------------


def everywhere(lead: Callable[[], Result], along: Callable[..., Result], *arguments: Any) -> list[Result]:
    """``lead()`` here, on rank 0, and ``along(*arguments)`` on every other rank; the results by rank.

    ``along`` is a function of a module, and the arguments can be pickled. A rank whose work fails ends with its error,
    and the run with it.
    """
    if size() == 1:
        return [lead()]
    others_begin(along, *arguments)
    return gather(lead())


def others_begin(along: Callable[..., Any], *arguments: Any, end: Callable[[], None] | None = None) -> None:
    """On rank 0: every other rank begins ``along(*arguments)``; ``gather`` waits until they are done with it.

    ``end``: does so, and is called before the others are given other work; None: the caller calls ``gather`` itself.
    """
    global _end
    _end_others_work()
    of_rank_0((along, arguments))
    _end = end


def _end_others_work() -> None:
    global _end
    end, _end = _end, None
    if end is not None:
        end()


def follow() -> None:
    """What ranks other than 0 do: the work that rank 0 has for them, until the run is over."""
    while (task := of_rank_0(None)) is not None:
        along, arguments = task
        gather(along(*arguments))


def of_rank_0(message: Any) -> Any:
    """Rank 0's message, on all ranks; of the others' own nothing is used. As work, None: the run is over."""
    if size() == 1:
        return message
    box = [message]
    dist.broadcast_object_list(box, src=0, group=_messages)
    return box[0]


def all_here() -> None:
    """Wait until all ranks have come here, however long one takes."""
    if size() > 1:
        dist.barrier(group=_messages)


def gather(result: Any) -> list[Any]:
    """On rank 0 the results of all ranks, on the others nothing. With its result each says how long it has computed."""
    global _cpu_of_others
    if size() == 1:
        return [result]
    results: list[Any] = [None] * size() if rank() == 0 else []
    dist.gather_object((result, _own_cpu_seconds()), results or None, dst=0, group=_messages)
    _cpu_of_others = sum(seconds for _, seconds in results[1:])
    return [result for result, _ in results]


def cpu_seconds() -> float:
    """CPU time so far of this process, its children and, on rank 0, the other ranks as far as they have reported."""
    return _own_cpu_seconds() + _cpu_of_others


def _own_cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def making_steps() -> Iterator[None]:
    """While all ranks make a fit's steps: the others wait for messages of one that is stuck for ``SLOWEST`` times
    ``trainer.timeout_minutes`` at most."""
    global _messages, _in_steps
    _messages, _in_steps = _in_steps, _messages
    try:
        yield
        all_here()  # none leaves while another may still be stuck
    finally:
        _messages, _in_steps = _in_steps, _messages


# --- numbers in common, in a fit ------------------------------------------------------------------------------------


def total(value: Any) -> Any:
    """The sum over the ranks of a number or tensor; of a single process, the value itself."""
    if size() == 1:
        return value
    summed = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value, device=_device)
    dist.all_reduce(summed)
    return summed


def pooled(means: Mapping[str, tuple[Tensor, int]]) -> dict[str, tuple[Tensor, int]]:
    """Means over all ranks, each (mean, of how many); of a single process, its own. A mean of none does not count; all
    ranks pass the same names."""
    if size() == 1:
        return dict(means)
    sums = torch.zeros(len(means), 2, dtype=torch.float64, device=_device)
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
    counts = total(torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=_device))
    # Buckets: parameters in their order, as many of one dtype as BUCKET holds.
    buckets: list[list[Tensor]] = []
    nbytes = 0
    for p, count in zip(parameters, counts.tolist(), strict=True):
        if not count:
            continue
        if not buckets or p.dtype != buckets[-1][0].dtype or nbytes + p.nbytes > BUCKET:
            buckets.append([])
            nbytes = 0
        buckets[-1].append(p)
        nbytes += p.nbytes
    for bucket in buckets:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = summed.view_as(p)
