"""Several processes, one run: rank 0 runs it as a single process would, and the others lend it their devices.

Rank 0 holds the run folder, reads data, decides which stages are finished, draws, and writes. Where work can be shared
(a fit, the batches of a sampling or judging stage: ``work_queue.py``) it gives the others that work; they wait for it
in ``Rank.follow``. So nothing above the shared work knows that there are ranks, and no decision can differ between
them.

``current()`` is this process's ``Rank``, in a single process too (rank 0 of 1). A process has one, as it has one
default process group of torch. It is not passed as an argument: every judge, benchmark and generator between a command
and a batch, and every hook of Lightning, would take one only to hand it on.
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
from mathse.training.launch import RankInfo, meeting_point, own_rank, ranks_here

Result = TypeVar("Result")

# A rank that dies is noticed at once, by its closed connection; a rank that is stuck, by how long the others wait for
# it. In a fit's steps all work alike, so minutes are enough (trainer.timeout_minutes); between two steps, where one
# disk may take its part of a resume point later than another, MAX_TIMEOUTS times as many. Elsewhere they may wait for
# hours: while rank 0 calls a teacher, or a rank computes its share of a tower's features.
MAX_WAIT = timedelta(days=30)
MAX_TIMEOUTS = 3
MAX_START = timedelta(minutes=30)  # for the last rank to come
BUCKET_BYTES = 64 * 2**20  # of gradients that are summed at a time


class SharedWork(Protocol):
    """Work that the other ranks do until rank 0 closes it."""

    @property
    def is_at_work(self) -> bool: ...

    def close(self) -> None:
        """Wait until the other ranks have ended the work."""


@dataclass
class Rank:
    """This process among those of its run.

    Attributes:
        rank: its number, 0 in a single process.
        world_size: the number of ranks, 1 in a single process.
        local_rank: its number on its machine, which picks its device.
        device: holds the tensors that ranks exchange; in a run of several ranks also this rank's models.
        timeout: ``trainer.timeout_minutes``.
        group: exchanges messages between ranks, on CPUs (gloo); None in a single process.
        step_group: takes its place while a fit's steps are made.
        shared_work: of rank 0, what the other ranks do now and until it is closed.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    timeout: timedelta = timedelta()
    group: dist.ProcessGroup | None = None
    step_group: dist.ProcessGroup | None = None
    shared_work: SharedWork | None = None
    _cpu_seconds_of_others: float = 0.0  # of rank 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    # --- messages, of objects that can be pickled ---

    def barrier(self) -> None:
        """Wait until all ranks have come here, however long one takes."""
        if self.world_size > 1:
            dist.barrier(group=self.group)

    def broadcast(self, message: Any) -> Any:
        """Rank 0's message, on all ranks; the other ranks' own messages are not used."""
        if self.world_size == 1:
            return message
        box = [message]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gather(self, result: Any) -> list[Any]:
        """On rank 0 the results of all ranks, on the others nothing. Each sends its CPU time with its result."""
        if self.world_size == 1:
            return [result]
        results: list[Any] = [None] * self.world_size if self.is_main else []
        dist.gather_object((result, _own_cpu_seconds()), results or None, dst=0, group=self.group)
        self._cpu_seconds_of_others = sum(seconds for _, seconds in results[1:])
        return [result for result, _ in results]

    def cpu_seconds(self) -> float:
        """CPU time so far of this process, its children and, on rank 0, the other ranks as far as they have sent it."""
        return _own_cpu_seconds() + self._cpu_seconds_of_others

    # --- work ---

    def run_on_all(
        self, on_main: Callable[[], Result], on_others: Callable[..., Result], *arguments: Any
    ) -> list[Result]:
        """``on_main()`` here, on rank 0, and ``on_others(*arguments)`` on every other rank; the results by rank.

        ``on_others`` is a function of a module, and the arguments can be pickled. A rank with an error ends, and the
        run with it.
        """
        if self.world_size == 1:
            return [on_main()]
        self.start_on_others(on_others, *arguments)
        return self.gather(on_main())

    def start_on_others(self, work: Callable[..., Any], *arguments: Any, shared_work: SharedWork | None = None) -> None:
        """On rank 0: start ``work(*arguments)`` on every other rank; ``gather`` waits until they are done with it.

        ``shared_work`` calls ``gather`` in its ``close``, which comes before the others get other work; without it the
        caller calls ``gather`` itself.
        """
        self._close_shared_work()
        self.broadcast((work, arguments))
        self.shared_work = shared_work

    def follow(self) -> None:
        """Do the work that rank 0 has for the other ranks, until the run is over."""
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
        """While all ranks make a fit's steps: wait for a message for ``MAX_TIMEOUTS`` times ``timeout`` at most."""
        self.group, self.step_group = self.step_group, self.group
        try:
            yield
            self.barrier()  # none leaves while another may still be stuck
        finally:
            self.group, self.step_group = self.step_group, self.group

    # --- tensors, in a fit ---

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank rank 0's values, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.data, src=0)

    def all_reduce(self, value: Any) -> Any:
        """The sum over the ranks of a number or tensor; of a single process, the value itself."""
        if self.world_size == 1:
            return value
        summed = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value, device=self.device)
        dist.all_reduce(summed)
        return summed

    def all_reduce_means(self, means: Mapping[str, tuple[Tensor, int]]) -> dict[str, tuple[Tensor, int]]:
        """Means over all ranks, each (mean, its number of terms); of a single process, its own. A mean of no term does
        not count; all ranks pass the same names."""
        if self.world_size == 1:
            return dict(means)
        sums = torch.zeros(len(means), 2, dtype=torch.float64, device=self.device)  # a row a name: sum, terms
        for k, (mean, n) in enumerate(means.values()):
            if n:
                sums[k, 0], sums[k, 1] = mean.double() * n, n
        dist.all_reduce(sums)
        counts = sums[:, 1].long().tolist()
        return {name: ((s / max(n, 1)).float(), n) for name, s, n in zip(means, sums[:, 0], counts, strict=True)}

    def all_reduce_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up the gradients of all ranks, in place; all ranks pass the same parameters.

        A gradient that some ranks lack counts as zero there. A parameter without a gradient on any rank keeps None, and
        is not stepped.
        """
        has_gradient = [p.grad is not None for p in parameters]
        counts = self.all_reduce(torch.tensor(has_gradient, dtype=torch.int32, device=self.device))
        # Buckets: parameters in their order, as many of one dtype as BUCKET_BYTES holds.
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
    """This process's rank."""
    return _current


def find_device(accelerator: str) -> torch.device:
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
def join(accelerator: str, devices: int, timeout_minutes: float) -> Iterator[Rank]:
    """Connect the ranks of a run, if there are several; gives this process's rank.

    Raises ConfigError where ``devices`` (a machine) does not match the number of processes that were started, RankLost
    where another rank has ended meanwhile, or has not done for ``timeout_minutes`` the work that the others wait for in
    a fit.
    """
    global _current
    info = own_rank()
    started = info.size if info is not None else 1
    here = ranks_here() if info is not None else None  # the same on all ranks: none may wait for a rank that refuses
    if started % devices or here not in (None, devices) or (info is not None and info.local_rank >= devices):
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
        # gloo has no error class of its own; a teacher's lost connection is a MathSEError, and no rank's
        lost = isinstance(e, dist.DistError) or "gloo" in str(e)
        if lost and not isinstance(e, MathSEError):
            why = "their errors say why, or trainer.timeout_minutes went by without an answer"
            raise RankLost(f"rank {info.rank} lost its connection to the other ranks; {why}") from e
        raise
    finally:
        # Whatever happened: a gloo group that is left over may abort the process at its end.
        left, _current = _current, Rank()
        if dist.is_initialized():
            with suppress(RuntimeError):  # NCCL's default group would wait for a collective that hangs
                dist.destroy_process_group(left.group if left.device.type == "cuda" else None)


def _connect(info: RankInfo, device: torch.device, timeout: timedelta) -> Rank:
    address, port = meeting_point()
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else Lightning sets another number
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    # Torchrun's store outlives ranks that it starts again: they would find in it the addresses of those before them.
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
