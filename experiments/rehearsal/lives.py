"""The client, started again whenever it was killed, and what is seen of it meanwhile, stage by stage."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stand_ins import Server

STAGES = (
    "base",
    "orm/student_0",
    "orm/student_2000",
    "orm/solver",
    "orm",
    "distill",
    "round_01",
    "round_02",
    "reflection",
    "final",
)
AT_THE_END = "summary and report"  # behind the last stage
POLL = 0.5  # seconds between looks
GIVEN_UP = 5  # ends by itself, one after another, without an answer between them


@dataclass
class Watched:
    """What was seen of all lives, by stage."""

    wall: Counter[str] = field(default_factory=Counter)  # seconds
    cpu: Counter[str] = field(default_factory=Counter)  # seconds of the client
    memory: dict[str, int] = field(default_factory=dict)  # bytes of the client, the most that were resident
    busy: Counter[str] = field(default_factory=Counter)  # seconds of slots
    answers: Counter[str] = field(default_factory=Counter)  # of engines
    kills: list[str] = field(default_factory=list)  # the stage of each
    losses: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)  # the last words of a client that ended by itself too early
    starts: int = 0

    @classmethod
    def of(cls, file: Path) -> Watched:
        """What an earlier start of this script has seen."""
        if not file.exists():
            return cls()
        record = json.loads(file.read_text())
        counters = ("wall", "cpu", "busy", "answers")
        return cls(**{name: Counter(value) if name in counters else value for name, value in record.items()})

    def keep(self, file: Path) -> None:
        file.write_text(json.dumps(vars(self)))


class Schedule:
    """When the client is killed and an engine is lost: by the engines' answers so far, drawn over all that will come.
    A kill then waits for some seconds, so that some come into a fit."""

    def __init__(self, seed: int, answers: float, kills: int, losses: int, delay: float) -> None:
        draw = random.Random(seed)
        self.kills = sorted((draw.uniform(0, answers), draw.uniform(0, delay)) for _ in range(kills))
        self.losses = sorted(draw.uniform(0, answers) for _ in range(losses))
        self._kill_at: float | None = None  # time.monotonic()

    def loses_now(self, watched: Watched) -> bool:
        return len(watched.losses) < len(self.losses) and watched.answers.total() > self.losses[len(watched.losses)]

    def kills_now(self, watched: Watched) -> bool:
        if len(watched.kills) == len(self.kills):
            return False
        answers, delay = self.kills[len(watched.kills)]
        if self._kill_at is None and watched.answers.total() > answers:
            self._kill_at = time.monotonic() + delay
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return False
        self._kill_at = None
        return True


def live(
    command: Sequence[str],
    env: Mapping[str, str],
    run: Path,
    engines: Sequence[Server],
    schedule: Schedule,
    away: float,
) -> Watched:
    """Start ``command`` until the run in ``run`` has its summary. Its words go to ``run.log``, and what was seen of it
    is in ``run.watched.json`` all along.

    Args:
        away: seconds until a lost engine comes back.
    """
    seen, log = run.with_suffix(".watched.json"), run.with_suffix(".log")
    watched, in_vain = Watched.of(seen), 0
    while not (run / "summary.json").exists():
        answers = watched.answers.total()
        with open(log, "ab") as words:
            start = words.tell()
            client = subprocess.Popen(command, env=env, stdout=words, stderr=words, start_new_session=True)
        watched.starts += 1
        try:
            _until_its_end(client, run, engines, schedule, away, watched, seen)
        finally:
            if client.poll() is None:
                os.killpg(client.pid, signal.SIGTERM)
                client.wait()
        if client.returncode > 0:
            watched.ends.append(log.read_bytes()[start:].decode("utf-8", "replace").strip().splitlines()[-1][:500])
            in_vain = in_vain + 1 if watched.answers.total() == answers else 0
            if in_vain == GIVEN_UP:
                raise SystemExit(f"the client ends again and again: {watched.ends[-1]}; see {log}")
            time.sleep(1)
    watched.keep(seen)
    return watched


def _until_its_end(
    client: subprocess.Popen[bytes],
    run: Path,
    engines: Sequence[Server],
    schedule: Schedule,
    away: float,
    watched: Watched,
    seen: Path,
) -> None:
    cpu, then = 0.0, time.monotonic()
    while client.poll() is None:
        time.sleep(POLL)
        stage = next((name for name in STAGES if not (run / name / "stage.json").exists()), AT_THE_END)
        now = time.monotonic()
        cpu_now, resident = _used(client.pid)
        watched.wall[stage] += now - then
        watched.cpu[stage] += max(0.0, cpu_now - cpu)
        watched.memory[stage] = max(resident, watched.memory.get(stage, 0))
        cpu, then = max(cpu, cpu_now), now

        for engine in engines:
            figures = engine.figures()
            watched.busy[stage] += figures.get("busy_seconds", 0.0)
            watched.answers[stage] += round(figures.get("requests", 0.0))
            if engine.process is None and now > engine.back_at:
                engine.start()
        if schedule.loses_now(watched):
            engines[len(watched.losses) % len(engines)].lose(away)
            watched.losses.append(stage)
        if schedule.kills_now(watched):
            os.killpg(client.pid, signal.SIGKILL)
            client.wait()
            watched.kills.append(stage)
        watched.keep(seen)


def _used(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0, 0
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
