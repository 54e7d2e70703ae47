"""The ranks of a run: rank 0 works like a single process, and the other ranks compute what it shares with them.

Rank 0 has the run folder, reads data, decides which stages are finished, draws at random, and writes. Training and the
batches of a sampling or judging stage (``work_queue.py``) are shared work. The other ranks wait for it in
``Rank.follow``. So code above the shared work is free of ranks, and ranks cannot differ in a decision.

``current()`` is this process's ``Rank``, also in a single process (rank 0 of 1). It is a global of the process like
torch's default process group. As an argument it would pass through every judge, benchmark and generator, and through
every hook of Lightning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mathse.errors import ConfigError, MathSEError, RankLost
from mathse.training.launch import RankInfo, count_local_ranks, find_meeting_point, read_own_rank

Result = TypeVar("Result")

# A dead rank is noticed at once by its closed connection, a stuck rank by the time that the others wait for it. In
# training steps all ranks have equal work, so trainer.timeout_minutes is enough. Between two steps it is MAX_TIMEOUTS
# times as long, because disks may take unequal time for a resume point. Elsewhere ranks may wait for hours: while rank
# 0 calls a teacher, or a rank computes its share of a tower's features.
MAX_WAIT = timedelta(days=30)
MAX_TIMEOUTS = 3
MAX_START = timedelta(minutes=30)  # until the last rank connects
BUCKET_BYTES = 64 * 2**20  # gradients in one all-reduce


class SharedWork(Protocol):
    """Work that the other ranks do until rank 0 closes it."""

    @property
    def is_at_work(self) -> bool: ...

    def close(self) -> None:
        """Wait until the other ranks have finished the work."""


@dataclass
class Rank:
    """This process among the processes of its run.

    Attributes:
        rank: its number, 0 in a single process.
        world_size: the number of ranks, 1 in a single process.
        local_rank: its number on its machine, which selects its device.
        device: of the tensors that ranks exchange; with several ranks also of this rank's models.
        timeout: ``trainer.timeout_minutes``.
        group: gloo group for messages between ranks, on CPUs; None in a single process.
        step_group: replaces ``group`` during training steps.
        shared_work: on rank 0, the work of the other ranks until it is closed.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    timeout: timedelta = timedelta()
    group: dist.ProcessGroup | None = None
    step_group: dist.ProcessGroup | None = None
    shared_work: SharedWork | None = None
    _cpu_seconds_of_others: float = 0.0  # known on rank 0 only

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    # --- messages: objects that can be pickled ---

    def barrier(self) -> None:
        """Wait until all ranks have reached this point."""
        if self.world_size > 1:
            dist.barrier(group=self.group)

    def broadcast(self, message: Any) -> Any:
        """Return rank 0's message on all ranks. Messages of the other ranks are ignored."""
        if self.world_size == 1:
            return message
        box = [message]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gather(self, result: Any) -> list[Any]:
        """Return the results of all ranks on rank 0, and an empty list on the others. CPU times travel with them."""
        if self.world_size == 1:
            return [result]
        results: list[Any] = [None] * self.world_size if self.is_main else []
        dist.gather_object((result, _own_cpu_seconds()), results or None, dst=0, group=self.group)
        self._cpu_seconds_of_others = sum(seconds for _, seconds in results[1:])
        return [result for result, _ in results]

    def cpu_seconds(self) -> float:
        """Return the CPU time of this process and its children; on rank 0 also that of other ranks, as last sent."""
        return _own_cpu_seconds() + self._cpu_seconds_of_others

    # --- work ---

    def run_on_all(
        self, on_main: Callable[[], Result], on_others: Callable[..., Result], *arguments: Any
    ) -> list[Result]:
        """Call ``on_main()`` on rank 0 and ``on_others(*arguments)`` on every other rank; return the results by rank.

        Rank 0 calls this method. ``on_others`` is a function of a module, and the arguments can be pickled. An error on
        a rank ends the run.
        """
        if self.world_size == 1:
            return [on_main()]
        self.start_on_others(on_others, *arguments)
        return self.gather(on_main())

    def start_on_others(self, work: Callable[..., Any], *arguments: Any, shared_work: SharedWork | None = None) -> None:
        """On rank 0: start ``work(*arguments)`` on every other rank. ``gather`` waits until it is done.

        ``shared_work`` calls ``gather`` in its ``close``, which this class calls before the others get other work.
        Without it the caller calls ``gather``.
        """
        self._close_shared_work()
        self.broadcast((work, arguments))
        self.shared_work = shared_work

    def follow(self) -> None:
        """Do the work that rank 0 has for the other ranks, until the run ends."""
        while (task := self.broadcast(None)) is not None:
            work, arguments = task
            self.gather(work(*arguments))

    def end_run(self) -> None:
        """On rank 0: end ``follow`` on the other ranks."""
        self._close_shared_work()
        self.broadcast(None)

    def _close_shared_work(self) -> None:
        work, self.shared_work = self.shared_work, None
        if work is not None:
            work.close()

    @contextmanager
    def limit_waits(self) -> Iterator[None]:
        """Within the context, for training steps, a message is waited for ``MAX_TIMEOUTS * timeout`` at most."""
        self.group, self.step_group = self.step_group, self.group
        try:
            yield
            self.barrier()  # the limit holds until all ranks have finished their steps
        finally:
            self.group, self.step_group = self.step_group, self.group

    # --- tensors, in training ---

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Copy rank 0's values to every rank, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.data, src=0)

    def all_reduce(self, value: Any) -> Any:
        """Return the sum of a number or tensor over the ranks; in a single process the value itself."""
        if self.world_size == 1:
            return value
        summed = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value, device=self.device)
        dist.all_reduce(summed)
        return summed

    def all_reduce_means(self, means: Mapping[str, tuple[Tensor, int]]) -> dict[str, tuple[Tensor, int]]:
        """Return the mean over all ranks by name, each with its number of terms.

        All ranks pass the same names. A mean without terms has no weight.
        """
        if self.world_size == 1:
            return dict(means)
        sums = torch.zeros(len(means), 2, dtype=torch.float64, device=self.device)  # a row per name: (sum, terms)
        for k, (mean, n) in enumerate(means.values()):
            if n:
                sums[k, 0], sums[k, 1] = mean.double() * n, n
        dist.all_reduce(sums)
        counts = sums[:, 1].long().tolist()
        return {name: ((s / max(n, 1)).float(), n) for name, s, n in zip(means, sums[:, 0], counts, strict=True)}

    def all_reduce_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients over all ranks, in place. All ranks pass the same parameters.

        A missing gradient counts as zero. A parameter without a gradient on any rank keeps None, and the optimiser
        skips it.
        """
        has_gradient = [p.grad is not None for p in parameters]
        counts = self.all_reduce(torch.tensor(has_gradient, dtype=torch.int32, device=self.device))
        # Buckets of consecutive parameters of the same dtype, up to BUCKET_BYTES each.
        buckets: list[list[Tensor]] = []
        nbytes = 0
        for p, count in zip(parameters, counts.tolist(), strict=True):
            if not count:
                continue
            if not buckets or p.dtype != buckets[-1][0].dtype or nbytes + p.nbytes > BUCKET_BYTES:
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


_current = Rank()


def current() -> Rank:
    """Return this process's rank."""
    return _current


def find_device(accelerator: str) -> torch.device:
    """Return this process's device. Raises ConfigError if there is none."""
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    info = read_own_rank()
    index = info.local_rank if info is not None else 0
    count = torch.cuda.device_count()
    if count <= index:
        available = f"torch finds {count} GPUs here" if count else "torch finds no GPU here"
        raise ConfigError(
            f"trainer.accelerator = {accelerator!r}: needs GPU {index}, and {available}; lower trainer.devices or pass "
            "trainer.accelerator=cpu"
        )
    return torch.device("cuda", index)


@contextmanager
def join(accelerator: str, devices: int, timeout_minutes: float) -> Iterator[Rank]:
    """Within the context the ranks of a run are connected. Yields this process's rank.

    Args:
        devices: ranks per machine.

    Raises:
        ConfigError: ``devices`` does not match the number of started processes.
        RankLost: another rank has ended, or others wait for it in training for longer than ``timeout_minutes``.
    """
    global _current
    info = read_own_rank()
    started = info.size if info is not None else 1
    # All ranks compute the same answer, because no rank may wait for a rank that refuses to start.
    local = count_local_ranks() if info is not None else None
    if started % devices or local not in (None, devices) or (info is not None and info.local_rank >= devices):
        raise ConfigError(
            f"trainer.devices = {devices}, and {started} process{'es were' if started > 1 else ' was'} started; pass "
            "trainer=ddp (or fsdp) and the number of devices of a machine as trainer.devices"
        )
    if info is None:
        yield _current
        return
    _current = _connect(info, find_device(accelerator), timedelta(minutes=timeout_minutes))
    try:
        yield _current
        if _current.is_main:
            _current.end_run()
        dist.destroy_process_group()
    except RuntimeError as e:
        # gloo raises a plain RuntimeError. A MathSEError is another error: a teacher's lost connection, for example.
        is_lost = isinstance(e, dist.DistError) or "gloo" in str(e)
        if is_lost and not isinstance(e, MathSEError):
            raise RankLost(
                f"rank {info.rank} lost its connection to the other ranks; their errors have the reason, or they did "
                "not answer within trainer.timeout_minutes"
            ) from e
        raise
    finally:
        # A remaining gloo group may abort the process at its end.
        former, _current = _current, Rank()
        if dist.is_initialized():
            with suppress(RuntimeError):  # NCCL's default group would wait for a stuck collective, so only gloo's ends
                dist.destroy_process_group(former.group if former.device.type == "cuda" else None)


def _connect(info: RankInfo, device: torch.device, timeout: timedelta) -> Rank:
    address, port = find_meeting_point()
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # Lightning would set another number
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    # Torchrun's store outlives its ranks. Restarted ranks would find addresses of the earlier ranks without the prefix.
    store, _, _ = next(dist.rendezvous("env://", info.rank, info.size, timeout=MAX_START))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore(f"attempt_{attempt}", store),
        timeout=timeout,
        rank=info.rank,
        world_size=info.size,
        device_id=device if on_gpu else None,
    )
    group, step_group = (dist.new_group(backend="gloo", timeout=limit) for limit in (MAX_WAIT, MAX_TIMEOUTS * timeout))
    return Rank(info.rank, info.size, info.local_rank, device, timeout, group, step_group)


def _own_cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
