"""The paper's run at the paper's size without a GPU: stand-in engines and fits, kills and lost engines on the way.

    python experiments/rehearsal/run.py --problems 2000                      minutes
    python experiments/rehearsal/run.py --problems 127000 --kills 6 --losses 2 --place DIR

``train.py +experiment/paper=qwen2vl`` runs as a user starts it, over made-up problems (made_up.py), two engines that
hold ``--slots`` requests each (engine.py), a teacher behind the Batch API (teacher.py) and a fit whose rows take the
time that ``--row-tokens`` and ``--fit-speed`` say (model.py). Moments are drawn from ``--seed``, spread over all that
will be answered: the client gets SIGKILL and is started again by the same command; an engine is killed and comes back
after ``--away`` seconds. What it measured is printed as JSON, and stays in DIR/measured.json; the same command goes on
with a DIR where it was stopped itself. ``--compare`` runs all once more without a kill and compares every file that
stages list.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made_up

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

STAGES = (
    "base", "orm/student_0", "orm/student_2000", "orm/solver", "orm", "distill", "round_01", "round_02",
    "reflection", "final",
)  # fmt: skip
ANSWERS = 3.3  # of engines, a problem, about
DISTILLED = 100_000 / 487_000  # the share of the paper's problems that its teacher solves
POLL = 0.5  # seconds between looks at the client
SIDES = (160, 120)  # pixels of a picture
DIFFERENT = 1_000  # pictures; a file each problem, many of them names of the same bytes


# --- what is made up --------------------------------------------------------------------------------------------------


def make(place: Path, count: int) -> None:
    """The problems and their pictures, and the stand-in's base."""
    if (place / "made").exists():
        return
    from PIL import Image, ImageDraw

    pictures = place / "pictures"
    draw = random.Random(0)
    for number in range(count):
        file = pictures / f"{number % 1000:03d}" / f"{number:07d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if number < DIFFERENT:
            image = Image.new("RGB", SIDES, "white")
            corners = [(draw.randrange(SIDES[0]), draw.randrange(SIDES[1])) for _ in range(5)]
            ImageDraw.Draw(image).polygon(corners, outline="black")
            image.save(file)
        else:
            like = number % DIFFERENT
            os.link(pictures / f"{like % 1000:03d}" / f"{like:07d}.png", file)
    with open(place / "problems.jsonl", "w", encoding="utf-8") as rows:
        for number in range(count):
            rows.write(json.dumps(made_up.problem(number), ensure_ascii=False) + "\n")
    shutil.rmtree(place / "base", ignore_errors=True)
    subprocess.run([sys.executable, str(HERE / "model.py"), str(place / "base")], env=environment(), check=True)
    (place / "made").touch()


def settings(options: argparse.Namespace, run: Path, engines: Sequence[str], teacher: str) -> list[str]:
    """The command line of the run, beside what the paper's config says."""
    place, answers = options.place, run.parent / f"{run.name}.answers"
    return [
        "+experiment/paper=qwen2vl",
        "data=jsonl",
        f"data.path={place}/problems.jsonl",
        # as conf/data/paper.yaml
        *("data.test_share=0.004", "data.dev_share=0.002", "data.orm_share=0.06", "data.on_bad_row=skip"),
        f"distill.size={max(1, round(DISTILLED * options.problems))}",
        # the stand-ins
        *("backbone._target_=model.load", f"backbone.path={place}/base"),
        *("backbone@orm.backbone=qwen2vl", "orm.backbone._target_=model.load", f"orm.backbone.path={place}/base"),
        *("generator=vllm", "judge.engine=vllm", f"generator.base_urls=[{','.join(engines)}]", "generator.probe=0"),
        f"generator.max_concurrency={options.slots * 5 // 4}",
        f"generator.cache_dir={answers}",
        *(f"teacher.base_url={teacher}", "teacher.api_key_env=null", "teacher.poll_seconds=1"),
        f"teacher.cache_dir={answers}",
        *("trainer=cpu", "trainer.devices=1", "trainer.precision=32-true"),
        f"trainer.checkpoint_minutes={options.checkpoint_minutes:g}",
        *("sft.micro_batch_size=128", "orm.fit.micro_batch_size=128"),
        "progress=plain",
    ]


def environment(**variables: str) -> dict[str, str]:
    """In which ``model.load`` can be imported."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]), "OMP_NUM_THREADS": "1", **variables}


# --- the stand-ins ----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@dataclass
class Server:
    """A stand-in at a port that stays its own, whatever happens to its process."""

    arguments: list[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    back_at: float = 0.0  # when it comes back; time.monotonic()
    seen: dict[str, float] = field(default_factory=dict)  # its figures at the last look

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        with open(self.log, "ab") as log:
            command = [sys.executable, *self.arguments, "--port", str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self.seen = {}
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if self.process.poll() is not None:
                raise SystemExit(f"{self.arguments[0]} ended; see {self.log}")
            time.sleep(0.05)

    def stop(self, kill: bool = False) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait()
            self.process = None

    def figures(self) -> dict[str, float]:
        """What it did since the last look."""
        if self.process is None:
            return {}
        try:
            with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=5) as reply:
                now: dict[str, float] = json.load(reply)
        except (OSError, ValueError):
            return {}
        new = {name: value - self.seen.get(name, 0) for name, value in now.items()}
        self.seen = now
        return new


@contextlib.contextmanager
def stand_ins(options: argparse.Namespace, run: Path) -> Iterator[tuple[list[Server], Server]]:
    """Two engines and a teacher."""
    engines = []
    for number in range(2):
        arguments = [
            str(HERE / "engine.py"), "serve", "", "--served-model-name", "mathse-model",
            "--slots", str(options.slots), "--tokens-per-second", str(options.tokens_per_second),
            "--answered", str(run.parent / f"{run.name}.engine_{number}"),
        ]  # fmt: skip
        engines.append(Server(arguments, free_port(), run.parent / f"{run.name}.engine_{number}.log"))
    answered = run.parent / f"{run.name}.teacher"
    teacher = Server([str(HERE / "teacher.py"), "--answered", str(answered)], free_port(), answered.with_suffix(".log"))
    try:
        for server in (*engines, teacher):
            server.start()
        yield engines, teacher
    finally:
        for server in (*engines, teacher):
            server.stop()


# --- the client, and what is seen of it -------------------------------------------------------------------------------


@dataclass
class Watched:
    """What was measured of all lives of the client, by stage."""

    wall: Counter[str] = field(default_factory=Counter)  # seconds
    cpu: Counter[str] = field(default_factory=Counter)  # seconds
    memory: dict[str, int] = field(default_factory=dict)  # bytes, the most that were resident
    busy: Counter[str] = field(default_factory=Counter)  # seconds of slots
    requests: Counter[str] = field(default_factory=Counter)
    kills: list[str] = field(default_factory=list)  # the stage of each
    losses: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)  # how the client ended by itself, before the run was over
    starts: int = 0

    @classmethod
    def of(cls, file: Path) -> Watched:
        """What an earlier start of this script has measured."""
        kept = json.loads(file.read_text()) if file.exists() else {}
        return cls(**{k: Counter(v) if k in ("wall", "cpu", "busy", "requests") else v for k, v in kept.items()})


def current_stage(run: Path) -> str:
    return next((name for name in STAGES if not (run / name / "stage.json").exists()), "summary")


def used(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def lives(options: argparse.Namespace, run: Path, kills: int, losses: int) -> tuple[Watched, list[str]]:
    """Run train.py until its summary is there; killed and deprived on the way."""
    watched, draw = Watched.of(run.with_suffix(".watched.json")), random.Random(options.seed)
    last = ANSWERS * options.problems
    # By the answers so far; and a few seconds more, so that some come into a fit.
    kill_at = sorted((draw.uniform(0, last), draw.uniform(0, options.delay)) for _ in range(kills))
    lose_at = sorted(draw.uniform(0, last) for _ in range(losses))
    env = environment(REHEARSAL_SECONDS_A_ROW=str(options.row_tokens / options.fit_speed))
    with stand_ins(options, run) as (engines, teacher):
        arguments = settings(options, run, [engine.url for engine in engines], teacher.url)
        profile = ["-m", "cProfile", "-o", str(options.profile)] if options.profile else []
        command = [sys.executable, *profile, "train.py", *arguments, f"hydra.run.dir={run}"]
        while not (run / "summary.json").exists():
            due = None  # when the next kill comes; time.monotonic()
            log_start = run.with_suffix(".log").stat().st_size if run.with_suffix(".log").exists() else 0
            with open(run.with_suffix(".log"), "ab") as log:
                client = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
            watched.starts += 1
            cpu, then = 0.0, time.monotonic()
            try:
                while client.poll() is None:
                    time.sleep(POLL)
                    stage, now = current_stage(run), time.monotonic()
                    cpu_now, resident = used(client.pid)
                    watched.wall[stage] += now - then
                    watched.cpu[stage] += max(0.0, cpu_now - cpu)
                    watched.memory[stage] = max(resident, watched.memory.get(stage, 0))
                    cpu, then = max(cpu, cpu_now), now
                    for engine in engines:
                        figures = engine.figures()
                        watched.busy[stage] += figures.get("busy_seconds", 0.0)
                        watched.requests[stage] += round(figures.get("requests", 0.0))
                        if engine.process is None and now > engine.back_at:
                            engine.start()
                    answers = watched.requests.total()
                    if len(watched.losses) < losses and answers > lose_at[len(watched.losses)]:
                        lost = engines[len(watched.losses) % 2]
                        lost.stop(kill=True)
                        lost.back_at = now + options.away
                        watched.losses.append(stage)
                    if due is None and len(watched.kills) < kills and answers > kill_at[len(watched.kills)][0]:
                        due = now + kill_at[len(watched.kills)][1]
                    if due is not None and now > due:
                        os.killpg(client.pid, signal.SIGKILL)
                        watched.kills.append(stage)
                        client.wait()
                    run.with_suffix(".watched.json").write_text(json.dumps(vars(watched)))
            finally:
                if client.poll() is None:
                    os.killpg(client.pid, signal.SIGTERM)
                    client.wait()
            if client.returncode > 0:
                with open(run.with_suffix(".log"), "rb") as log:
                    log.seek(log_start)
                    watched.ends.append(log.read().decode("utf-8", "replace").strip().splitlines()[-1][:500])
                if len(watched.ends) > 3 + losses:
                    raise SystemExit(f"the client ends again and again: {watched.ends[-1]}; see {run}.log")
                time.sleep(1)
                for engine in engines:
                    if engine.process is None:
                        engine.start()
        measured_plan = plan(options, arguments, run)
    return watched, measured_plan


def plan(options: argparse.Namespace, arguments: list[str], run: Path) -> list[str]:
    """What `mathse plan` says of engines, with the lengths that the run had and the speed that was given."""
    command = [sys.executable, "-m", "mathse", "plan", *arguments, "--like", str(run)]
    command += ["--engine-speed", str(options.slots * options.tokens_per_second)]
    command += ["--rate", f"fit={128 * options.row_tokens / options.fit_speed:g}"]
    said = subprocess.run(command, cwd=ROOT, env=environment(MATHSE_TRUST="model.load"), capture_output=True, text=True)
    (run.parent / f"{run.name}.plan.txt").write_text(said.stdout + said.stderr)
    return [line.strip() for line in said.stdout.splitlines() if line.strip().startswith("engines")]


# --- what came out ----------------------------------------------------------------------------------------------------


def rows(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def books(run: Path, answered: Sequence[Path], problems: int) -> dict[str, Any]:
    """Is something lost, or there twice? Raises SystemExit where it is."""
    wrong, paths_of = [], Counter[str]()
    for paths in sorted(run.rglob("paths.jsonl")):
        ids = [row["id"] for row in rows(paths)]
        paths_of[str(paths.parent.relative_to(run))] = len(ids)
        if len(set(ids)) < len(ids):
            wrong.append(f"{paths}: a path twice")
        verdicts = paths.with_name("verdicts.jsonl")
        if verdicts.exists() and sorted(row["path_id"] for row in rows(verdicts)) != sorted(ids):
            wrong.append(f"{verdicts}: other paths than those of {paths}")
    before: set[str] = set()
    accepted = {}
    for name in ("distill", "round_01", "round_02", "reflection", "final"):
        file = run / name / "train.jsonl"
        solved = [row["problem_id"] for row in rows(file)]
        accepted[name] = len(solved)
        if len(set(solved)) < len(solved):
            wrong.append(f"{file}: a problem twice")
        if not before <= set(solved):
            wrong.append(f"{file}: rows of the stage before are gone")
        if name.startswith("round"):
            tried = {row["problem_id"] for row in rows(run / name / "paths.jsonl")}
            if tried & before:
                wrong.append(f"{name}: solved problems are tried again")
        before = set(solved)
    requests: Counter[bytes] = Counter()
    for file in answered:
        data = file.read_bytes() if file.exists() else b""
        requests.update(data[k : k + 16] for k in range(0, len(data) - 15, 16))
    if wrong:
        raise SystemExit("\n".join(wrong))
    return {
        "paths": dict(paths_of),
        "train_rows": accepted,
        "answers": requests.total(),
        "answered_twice": requests.total() - len(requests),
    }


def folder_size(folder: Path) -> dict[str, float]:
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    taken = {(file.stat().st_dev, file.stat().st_ino): file.stat().st_blocks * 512 for file in files}
    return {"files": len(files), "GB": round(sum(taken.values()) / 1e9, 3)}


def by_stage(options: argparse.Namespace, run: Path, watched: Watched) -> list[dict[str, Any]]:
    lines = []
    for stage in (*STAGES, "summary"):
        file = run / stage / "stage.json"
        took = json.loads(file.read_text())["time_s"] if file.exists() else {}
        wall = watched.wall[stage]
        lines.append(
            {
                "stage": stage,
                "wall_s": round(wall, 1),
                "recorded_s": {kind: round(seconds, 1) for kind, seconds in took.items()},
                "requests": watched.requests[stage],
                "slots_busy": round(watched.busy[stage] / (2 * options.slots * wall), 3) if wall else None,
                "client_cpu_s": round(watched.cpu[stage], 1),
                "client_MiB": watched.memory.get(stage, 0) // 2**20,
            }
        )
    return lines


def stage_files(run: Path) -> dict[str, str]:
    """The hashes of all files that the run's stages list."""
    return {
        f"{stage}/{name}": digest
        for stage in STAGES
        for name, digest in json.loads((run / stage / "stage.json").read_text())["outputs"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--place", type=Path, help="the folder to work in; without, one that is removed at the end")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--losses", type=int, default=1)
    parser.add_argument("--delay", type=float, default=20.0, help="seconds from a drawn answer to the kill, at most")
    parser.add_argument("--away", type=float, default=5.0, help="seconds that a lost engine is away")
    parser.add_argument("--slots", type=int, default=64, help="of each of the two engines")
    parser.add_argument("--tokens-per-second", type=float, default=100.0, help="of one request")
    parser.add_argument("--row-tokens", type=float, default=1000.0, help="of a row in a fit")
    parser.add_argument("--fit-speed", type=float, default=5e6, help="tokens a second of a fit")
    parser.add_argument("--checkpoint-minutes", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="with the files of a run without kills")
    parser.add_argument("--profile", type=Path, help="cProfile's file of the client (its last start)")
    options = parser.parse_args()
    kept = options.place is not None
    options.place = (options.place or Path(tempfile.mkdtemp(prefix="rehearsal_"))).resolve()
    options.place.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    make(options.place, options.problems)
    made = time.monotonic()
    run = options.place / "run"
    watched, estimate = lives(options, run, options.kills, options.losses)
    answered = [options.place / f"run.{name}" for name in ("engine_0", "engine_1", "teacher")]
    measured = {
        "problems": options.problems,
        "made_in_s": round(made - began, 1),
        "stages": by_stage(options, run, watched),
        "plan": estimate,
        "starts": watched.starts,
        "kills": watched.kills,
        "losses": watched.losses,
        "ended": watched.ends,
        **books(run, answered, options.problems),
        "run_folder": folder_size(run),
        "answers_folder": folder_size(options.place / "run.answers"),
        "client_cpu_s": round(watched.cpu.total(), 1),
        "client_cpu_ms_a_request": round(1000 * watched.cpu.total() / max(1, watched.requests.total()), 2),
        "wall_s": round(watched.wall.total(), 1),
    }
    if options.compare:
        whole = options.place / "whole"
        lives(options, whole, 0, 0)
        one, other = stage_files(run), stage_files(whole)
        measured["files_compared"] = len(one)
        measured["files_that_differ"] = sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))
    text = json.dumps(measured, indent=1)
    if kept:
        (options.place / "measured.json").write_text(text)
    else:
        shutil.rmtree(options.place)
    print(text)


if __name__ == "__main__":
    main()
