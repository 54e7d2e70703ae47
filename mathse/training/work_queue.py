"""Independent tasks (batches to sample or to judge), each given to whichever rank is free.

Batches take unequal time: a batch is over when its longest answer is. If a batch a rank were handed out at a time, all
ranks would wait for the slowest. Here a rank gets the next task as soon as it has answered its last, rank 0 like the
others, and answers come out in the order of the tasks. ``AHEAD`` bounds how far tasks run ahead of the oldest missing
answer, and so the answers that are held in memory and the work that a kill loses: as a rule about a task a rank.

Rank 0 computes in its main thread, for minutes maybe, so a thread of it reads the others' answers and sends them their
next tasks, over sockets of their own: a thread that waits for gloo could not be interrupted. A rank that dies is
noticed by its closed connection, as in a fit; a rank that is stuck, by how long its task takes.
"""

from __future__ import annotations

import os
import pickle
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from itertools import islice
from math import inf
from multiprocessing.connection import Client, Connection, Listener, wait
from threading import Condition, Thread
from time import monotonic
from typing import Any, Generic, TypeVar

import torch.distributed as dist

from mathse.errors import ConfigError
from mathse.training import ranks

Task = TypeVar("Task")
Answer = TypeVar("Answer")

AHEAD = 8  # tasks a rank, from the oldest that is not answered to the newest that is handed out
STUCK = 10  # longer at a task than trainer.timeout_minutes, and so many times the longest so far, a rank is stuck
LOOK = 1.0  # seconds between two looks of rank 0 for a stuck rank
HELLO = 10.0  # seconds in which a connection must prove to be a rank's
KEY = 16  # bytes, by which it does


def in_order(
    tasks: Iterable[Task],
    answer: Callable[[Task], Answer],
    opened: Callable[..., Callable[[Task], Answer]],
    *arguments: Any,
) -> Iterator[Answer]:
    """``answer(task)`` of each task, in their order. Tasks are drawn as they are needed. On rank 0.

    Raises an error where another rank ends or is stuck, which ``ranks.join`` makes a RankLost; a rank that ends prints
    its own error.

    Args:
        answer: how this rank answers.
        opened: a function of a module; called with ``arguments`` on every other rank, it gives how that rank answers.
            Arguments, tasks and answers can be pickled.
    """
    if ranks.current().world_size == 1:
        return map(answer, tasks)
    return iter(_Queue(tasks, answer, opened, arguments))


class _Queue(Generic[Task, Answer]):
    """The tasks of one caller. The other ranks are at them from ``_open`` to ``close``, which ``Rank`` calls where
    they are needed for other work. Meanwhile rank 0 answers another caller's tasks (of a second judge that takes turns
    with the first, for example) by itself: the other ranks hold a single model at a time.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        answer: Callable[[Task], Answer],
        opened: Callable[..., Callable[[Task], Answer]],
        arguments: tuple[Any, ...],
    ) -> None:
        self._tasks, self._answer, self._opened, self._arguments = enumerate(tasks), answer, opened, arguments
        self._rank = ranks.current()
        self._changed = Condition()  # guards all attributes below
        self._waiting: deque[tuple[int, Task]] = deque()  # tasks that nobody is at
        self._answers: dict[int, Answer] = {}  # by the number of the task
        self._free: list[Connection[Any, Any]] = []  # to ranks that have nothing to do
        # to ranks that are at a task, since when (seconds), or still open their model (inf)
        self._busy: dict[Connection[Any, Any], float] = {}
        self._longest = 0.0  # seconds that a task has taken
        self._closing = False  # ranks get no further task
        self._lost = False  # a rank has ended
        self._reader: Thread | None = None  # None: the other ranks are not at these tasks

    def __iter__(self) -> Iterator[Answer]:
        due = drawn = 0  # the next answer to come out, the next task to be drawn
        try:
            while True:
                wanted = AHEAD * self._rank.world_size - (drawn - due)
                new = list(islice(self._tasks, wanted))
                drawn += len(new)
                if due == drawn:
                    return
                with self._changed:
                    self._waiting.extend(new)
                others = self._rank.shared_work
                if self._waiting and self._reader is None and (others is None or not others.is_at_work):
                    self._open()
                with self._changed:
                    self._hand_out()
                    if len(new) < wanted and not self._waiting:  # no task is left that ranks could come back for
                        self._close_when_answered()
                    own_task: tuple[int, Task] | None = None  # rank 0's next
                    if due not in self._answers:
                        self._raise_if_lost()
                        if self._waiting:
                            own_task = self._waiting.popleft()
                        else:
                            self._wait_until(partial(self._answers.__contains__, due))
                            continue
                if own_task is not None:
                    begun = monotonic()
                    answer = self._answer(own_task[1])
                    with self._changed:
                        self._answers[own_task[0]] = answer
                        self._longest = max(self._longest, monotonic() - begun)
                else:
                    with self._changed:
                        answer = self._answers.pop(due)
                    due += 1
                    yield answer
        finally:  # also where the caller wants no more answers
            with self._changed:
                self._waiting.clear()
                self._close_when_answered()

    # --- the other ranks ---

    @property
    def is_at_work(self) -> bool:
        """Whether other ranks are at tasks of this caller, or may get some."""
        with self._changed:
            return self._reader is not None and (bool(self._busy) or not self._closing)

    def _open(self) -> None:
        """Let the other ranks come."""
        key = secrets.token_bytes(KEY)
        connections: list[Connection[Any, Any]] = []
        address = _own_address()
        host = address if address in ("localhost", "127.0.0.1") else ""  # ranks of this machine, or of others too
        with Listener((host, 0), backlog=2 * self._rank.world_size) as listener:
            meeting = (address, listener.address[1])
            self._rank.start_on_others(_help, meeting, key, self._opened, self._arguments, shared_work=self)
            self._rank.gather(None)  # all of them have connected
            while len(connections) < self._rank.world_size - 1:
                connection = listener.accept()
                with suppress(EOFError, OSError):  # somebody else
                    if connection.poll(HELLO) and secrets.compare_digest(connection.recv_bytes(KEY), key):
                        connections.append(connection)
                        continue
                connection.close()
        self._free, self._busy, self._closing = [], dict.fromkeys(connections, inf), False
        self._reader = Thread(target=self._read, args=(connections,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Wait for the answers to the tasks that are handed out; then the other ranks are free."""
        with self._changed:
            self._close_when_answered()
            self._wait_until(lambda: not self._busy)
        if self._reader is not None:
            self._reader.join()
            self._reader = None
        self._rank.gather(None)

    def _close_when_answered(self) -> None:
        self._closing = True
        self._hand_out()

    def _hand_out(self) -> None:
        """A task to each free rank; when closing, leave to go."""
        while self._free and (self._waiting or self._closing):
            connection = self._free.pop(0)
            message = None
            if not self._closing:
                message = self._waiting.popleft()
                self._busy[connection] = monotonic()
            with suppress(OSError):  # it is gone; the reader sees it too
                connection.send_bytes(pickle.dumps(message))

    def _read(self, connections: list[Connection[Any, Any]]) -> None:
        """The thread: take answers, and give each rank its next task, until all ranks have left."""
        while connections:
            for connection in wait(connections):
                assert isinstance(connection, Connection)
                try:
                    message = pickle.loads(connection.recv_bytes())  # of a rank, which had the key
                except (EOFError, OSError):
                    connections.remove(connection)
                    connection.close()
                    with self._changed:
                        self._lost |= connection in self._busy or connection in self._free
                        self._changed.notify_all()
                    continue
                with self._changed:
                    if message is not None:
                        number, answer = message
                        self._answers[number] = answer
                        self._longest = max(self._longest, monotonic() - self._busy[connection])
                    del self._busy[connection]
                    self._free.append(connection)
                    self._hand_out()
                    self._changed.notify_all()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Raises an error where a rank has ended, or is at its task for so long that it must be stuck."""
        while not condition():
            self._raise_if_lost()
            self._changed.wait(LOOK)
            seconds = monotonic() - min(self._busy.values(), default=inf)
            if self._longest and seconds > max(self._rank.timeout.total_seconds(), STUCK * self._longest):
                raise dist.DistNetworkError(f"a rank is at its task for {seconds:.0f} seconds")

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise dist.DistNetworkError("another rank has closed its connection")


def _help(meeting: tuple[str, int], key: bytes, opened: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Another rank: answer tasks until rank 0 has no more of them."""
    rank = ranks.current()
    try:
        connection = Client(meeting)
    except OSError as e:
        raise ConfigError(
            f"rank {rank.rank} cannot reach rank 0 at {meeting[0]}, port {meeting[1]} ({e}): ranks connect to each "
            "other at ports that the system chooses, also for gloo; let them through between these machines"
        ) from e
    with connection:
        connection.send_bytes(key)
        rank.gather(None)
        answer = opened(*arguments)
        try:
            # tensors in it by value: multiprocessing's own way of pickling passes them in memory that is shared
            connection.send_bytes(pickle.dumps(None))
            while (message := pickle.loads(connection.recv_bytes())) is not None:
                number, task = message
                connection.send_bytes(pickle.dumps((number, answer(task))))
        except (EOFError, ConnectionError) as e:
            raise dist.DistNetworkError("rank 0 has closed its connection") from e


def _own_address() -> str:
    """The address of rank 0 for the others: MASTER_ADDR where that is this machine, else this machine's own."""
    meeting = os.environ["MASTER_ADDR"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((meeting, 9))  # sends nothing, and chooses the address that it would send from
        own_address: str = probe.getsockname()[0]
        met_here = own_address == probe.getpeername()[0] or ip_address(own_address).is_loopback
    return meeting if met_here else own_address
