"""A queue of independent tasks (batches to sample or to judge): each free rank gets the next task.

Batches take unequal time, because a batch ends with its longest answer. If all ranks got a batch at the same time, they
would wait for the slowest. Here a rank, also rank 0, gets the next task as soon as it has answered its last. Answers
are returned in the order of the tasks. ``AHEAD`` bounds the tasks beyond the oldest missing answer. So it bounds the
answers in memory and the work that a kill loses, usually about one task per rank.

Rank 0 computes in its main thread, possibly for minutes. A second thread reads the others' answers and sends the next
tasks, over its own sockets, because a thread that waits for gloo cannot be interrupted. A dead rank is noticed by its
closed connection, as in training, and a stuck rank by the time of its task.
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
from mathse.training.launch import LOOPBACK

Task = TypeVar("Task")
Answer = TypeVar("Answer")

AHEAD = 8  # tasks per rank from the oldest without an answer to the newest that was sent
STUCK_FACTOR = 10  # a task of this many times the longest task, and longer than trainer.timeout_minutes, is stuck
CHECK_SECONDS = 1.0  # time between two checks for a stuck rank
MAX_HELLO_SECONDS = 10.0  # time for a new connection to send the key
KEY_BYTES = 16


def map_in_order(
    tasks: Iterable[Task],
    answer: Callable[[Task], Answer],
    open_answer: Callable[..., Callable[[Task], Answer]],
    *arguments: Any,
) -> Iterator[Answer]:
    """Yield ``answer(task)`` of each task, in order. Tasks are read when they are needed. Rank 0 calls it.

    Args:
        tasks: objects that can be pickled, as answers and ``arguments`` can.
        answer: answers a task on this rank.
        open_answer: a function of a module. ``open_answer(*arguments)`` on each other rank returns its ``answer``.

    Raises:
        dist.DistNetworkError: another rank has ended or is stuck. ``ranks.join`` makes it a RankLost. A rank that ends
            prints its own error.
    """
    if ranks.current().world_size == 1:
        return map(answer, tasks)
    return iter(_Queue(tasks, answer, open_answer, arguments))


class _Queue(Generic[Task, Answer]):
    """The tasks of a caller.

    The other ranks answer them between ``_open`` and ``close``, which ``Rank`` calls when it has other work for them.
    They hold a single model at a time. So rank 0 answers the tasks of a second caller by itself in that time, for
    example of a second judge that alternates with the first.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        answer: Callable[[Task], Answer],
        open_answer: Callable[..., Callable[[Task], Answer]],
        arguments: tuple[Any, ...],
    ) -> None:
        self._tasks, self._answer = enumerate(tasks), answer
        self._open_answer, self._arguments = open_answer, arguments
        self._rank = ranks.current()
        self._changed = Condition()  # guards all attributes below
        self._waiting: deque[tuple[int, Task]] = deque()  # (number, task) that no rank has
        self._answers: dict[int, Answer] = {}  # by the number of the task
        self._free: list[Connection[Any, Any]] = []  # to ranks without a task
        # Connections to ranks with a task: start of the task in seconds, inf while a rank opens its model.
        self._busy: dict[Connection[Any, Any], float] = {}
        self._longest = 0.0  # seconds of the longest task
        self._closing = False  # ranks get no further task
        self._lost = False  # a rank has ended
        self._reader: Thread | None = None  # None: the other ranks do not answer these tasks

    def __iter__(self) -> Iterator[Answer]:
        due = read = 0  # numbers of the next answer to yield and of the next task to read
        try:
            while True:
                wanted = AHEAD * self._rank.world_size - (read - due)
                new = list(islice(self._tasks, wanted))
                read += len(new)
                if due == read:
                    return
                with self._changed:
                    self._waiting.extend(new)
                others = self._rank.shared_work
                if self._waiting and self._reader is None and (others is None or not others.is_at_work):
                    self._open()
                with self._changed:
                    self._hand_out()
                    if len(new) < wanted and not self._waiting:  # all tasks are handed out
                        self._close_when_answered()
                    own_task: tuple[int, Task] | None = None  # the next task of rank 0
                    if due not in self._answers:
                        self._raise_if_lost()
                        if self._waiting:
                            own_task = self._waiting.popleft()
                        else:
                            self._wait_until(partial(self._answers.__contains__, due))
                            continue
                if own_task is not None:
                    start = monotonic()
                    answer = self._answer(own_task[1])
                    with self._changed:
                        self._answers[own_task[0]] = answer
                        self._longest = max(self._longest, monotonic() - start)
                else:
                    with self._changed:
                        answer = self._answers.pop(due)
                    due += 1
                    yield answer
        finally:  # also runs when the caller stops early
            with self._changed:
                self._waiting.clear()
                self._close_when_answered()

    # --- the other ranks ---

    @property
    def is_at_work(self) -> bool:
        """Whether other ranks have tasks of this caller or may get some."""
        with self._changed:
            return self._reader is not None and (bool(self._busy) or not self._closing)

    def _open(self) -> None:
        """Connect the other ranks. A random key proves that a connection is a rank's."""
        key = secrets.token_bytes(KEY_BYTES)
        connections: list[Connection[Any, Any]] = []
        address = _own_address()
        host = address if address in ("localhost", LOOPBACK) else ""  # "": connections from other machines too
        with Listener((host, 0), backlog=2 * self._rank.world_size) as listener:
            meeting = (address, listener.address[1])
            self._rank.start_on_others(
                _answer_tasks, meeting, key, self._open_answer, self._arguments, shared_work=self
            )
            self._rank.gather(None)  # now all of them have connected
            while len(connections) < self._rank.world_size - 1:
                connection = listener.accept()
                with suppress(EOFError, OSError):  # the connection is not a rank's
                    has_hello = connection.poll(MAX_HELLO_SECONDS)
                    if has_hello and secrets.compare_digest(connection.recv_bytes(KEY_BYTES), key):
                        connections.append(connection)
                        continue
                connection.close()
        self._free, self._busy, self._closing = [], dict.fromkeys(connections, inf), False
        self._reader = Thread(target=self._read, args=(connections,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Wait for the answers to all tasks that were handed out. Then the other ranks are free."""
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
        """Send a task to each free rank; when closing, the message None, which ends its work."""
        while self._free and (self._waiting or self._closing):
            connection = self._free.pop(0)
            message = None
            if not self._closing:
                message = self._waiting.popleft()
                self._busy[connection] = monotonic()
            with suppress(OSError):  # the rank has ended, which the reader notices too
                connection.send_bytes(pickle.dumps(message))

    def _read(self, connections: list[Connection[Any, Any]]) -> None:
        """Read answers and send each rank its next task, until all ranks have left. It runs in its own thread."""
        while connections:
            for connection in wait(connections):
                assert isinstance(connection, Connection)
                try:
                    message = pickle.loads(connection.recv_bytes())  # from a rank, because it had the key
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
        """Wait until ``condition()`` holds. Raises DistNetworkError if a rank has ended or is stuck."""
        while not condition():
            self._raise_if_lost()
            self._changed.wait(CHECK_SECONDS)
            seconds = monotonic() - min(self._busy.values(), default=inf)
            if self._longest and seconds > max(self._rank.timeout.total_seconds(), STUCK_FACTOR * self._longest):
                raise dist.DistNetworkError(f"a rank has been working on its task for {seconds:.0f} seconds")

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise dist.DistNetworkError("another rank has closed its connection")


def _answer_tasks(
    meeting: tuple[str, int], key: bytes, open_answer: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Answer tasks on a rank other than 0 until rank 0 has no more."""
    rank = ranks.current()
    try:
        connection = Client(meeting)
    except OSError as e:
        raise ConfigError(
            f"rank {rank.rank} cannot reach rank 0 at {meeting[0]}, port {meeting[1]} ({e}): ranks connect to each "
            "other at ports that the system chooses, also for gloo; allow these connections between the machines"
        ) from e
    with connection:
        connection.send_bytes(key)
        rank.gather(None)
        answer = open_answer(*arguments)
        try:
            # pickle.dumps sends tensors by value. Connection.send would send them through shared memory.
            connection.send_bytes(pickle.dumps(None))
            while (message := pickle.loads(connection.recv_bytes())) is not None:
                number, task = message
                connection.send_bytes(pickle.dumps((number, answer(task))))
        except (EOFError, ConnectionError) as e:
            raise dist.DistNetworkError("rank 0 has closed its connection") from e


def _own_address() -> str:
    """Return rank 0's address for the others: MASTER_ADDR if it is this machine's, else an address of this machine."""
    meeting = os.environ["MASTER_ADDR"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # A UDP socket sends nothing here; it only selects the address that it would send from.
        probe.connect((meeting, 9))
        own_address: str = probe.getsockname()[0]
        is_local = own_address == probe.getpeername()[0] or ip_address(own_address).is_loopback
    return meeting if is_local else own_address
