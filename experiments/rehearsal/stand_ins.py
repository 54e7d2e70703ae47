"""Two engines and a teacher as processes of their own, at ports that stay theirs whatever happens to the processes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass
class Server:
    arguments: list[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    back_at: float = 0.0  # when one that was lost comes back; time.monotonic()
    counted: dict[str, float] = field(default_factory=dict)  # its figures when it was last asked

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        with open(self.log, "ab") as log:
            command = [sys.executable, *self.arguments, "--port", str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.counted = {}
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if self.process.poll() is not None:
                raise SystemExit(f"{self.arguments[0]} ended; see {self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def lose(self, away: float) -> None:
        """Kill it; it comes back after so many seconds."""
        self._end(signal.SIGKILL)
        self.back_at = time.monotonic() + away

    def _end(self, by: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(by)
            self.process.wait()
            self.process = None

    def figures(self) -> dict[str, float]:
        """What an engine did since it was last asked; nothing where it is away."""
        if self.process is None:
            return {}
        try:
            with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=5) as reply:
                now: dict[str, float] = json.load(reply)
        except (OSError, ValueError):
            return {}
        new = {name: value - self.counted.get(name, 0) for name, value in now.items()}
        self.counted = now
        return new


def answered_by(run: Path) -> list[Path]:
    """The stand-ins' records of what they answered in a run: two engines', then the teacher's."""
    return [run.with_name(f"{run.name}.{name}") for name in ("engine_0", "engine_1", "teacher")]


@contextlib.contextmanager
def stand_ins(run: Path, slots: int, tokens_per_second: float) -> Iterator[tuple[list[Server], Server]]:
    *of_engines, of_teacher = answered_by(run)
    slow = ["--slots", str(slots), "--tokens-per-second", str(tokens_per_second)]
    serve = [str(HERE / "engine.py"), "serve", "", "--served-model-name", "mathse-model", *slow]
    engines = [
        Server([*serve, "--answered", str(file)], _free_port(), file.with_name(f"{file.name}.log"))
        for file in of_engines
    ]
    teacher = Server(
        [str(HERE / "teacher.py"), "--answered", str(of_teacher)],
        _free_port(),
        of_teacher.with_name(f"{of_teacher.name}.log"),
    )
    try:
        for server in (*engines, teacher):
            server.start()
        yield engines, teacher
    finally:
        for server in (*engines, teacher):
            server.stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
