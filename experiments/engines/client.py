"""How busy does our client keep engines, and what does a request cost it? Against stand-ins that are slow on purpose.

    python experiments/engines/client.py --servers 2 --slots 32 --requests 2000 --tokens-per-second 50
    python experiments/engines/client.py --fast                       # stand-ins that answer at once: the client's CPU

It asks for solutions, and then for verdicts on them, through ``ServedStudent`` and ``ServedORMJudge`` as a run does: a
tiny backbone's checkpoint, whose weights the stand-ins have no use for, and pictures of 800 x 600 as files. Stand-ins
are processes of their own; CPU seconds are this process's.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image, ImageDraw

from mathse.config import build
from mathse.config.backbones import TinyBackboneConfig
from mathse.config.evaluation import RewardModelConfig
from mathse.config.generators import VLLMGeneratorConfig
from mathse.config.schema import TrainerConfig
from mathse.inference.generate import Generator
from mathse.inference.serving.student import ServedStudents
from mathse.judges import judge_paths
from mathse.judges.served_orm import ServedORM
from mathse.models.tiny import TinyBackbone
from mathse.runs.layout import ORM_FILE, PATHS, VERDICTS
from mathse.runs.store import write_json
from mathse.types import Problem

STAND_IN = Path(__file__).with_name("stand_in.py")
PICTURES = 200  # different ones; problems share them


@contextmanager
def stand_ins(count: int, allowed: Path, folder: Path, *options: str) -> Iterator[list[str]]:
    """The base URLs of so many stand-ins."""
    processes, urls = [], []
    try:
        for _ in range(count):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            arguments = ["serve", str(folder), "--served-model-name", "mathse-model", "--port", str(port)]
            command = [sys.executable, str(STAND_IN), *arguments, "--allowed-local-media-path", str(allowed), *options]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            urls.append(f"http://127.0.0.1:{port}/v1")
        for url in urls:
            while True:
                try:
                    stats(url)
                    break
                except OSError:
                    time.sleep(0.1)
        yield urls
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def stats(url: str, route: str = "stats") -> dict[str, float]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/{route}", timeout=10) as reply:
        counts: dict[str, float] = json.load(reply)
        return counts


def problems(count: int, folder: Path) -> list[Problem]:
    """With pictures as they come: some plain PNG files, some JPEG, some with transparency, which are drawn anew."""
    folder.mkdir(parents=True)
    draw, files = random.Random(0), []
    for k in range(PICTURES):
        mode = "RGBA" if k % 10 == 0 else "RGB"
        image = Image.new(mode, (800, 600), "white")
        for _ in range(30):
            ImageDraw.Draw(image).line([draw.randrange(800) for _ in range(4)], fill="black", width=3)
        files.append(folder / f"{k}.{'jpg' if k % 3 == 1 and mode == 'RGB' else 'png'}")
        image.save(files[-1])
    question = "How long is the side AB of the triangle in the picture? Round to one digit. " * 3
    return [
        Problem(id=f"p{k:06d}", question=f"{k}: {question}", images=(str(files[k % PICTURES]),), answer=str(k % 10))
        for k in range(count)
    ]


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def phase(name: str, urls: list[str], slots: int, work: Any, count: int, disk: list[Path]) -> dict[str, Any]:
    before, bytes_before = [stats(url) for url in urls], sum(map(bytes_of, disk))
    start, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - start, time.process_time() - cpu
    after = [stats(url) for url in urls]
    busy = sum(b["busy_seconds"] - a["busy_seconds"] for a, b in zip(before, after, strict=True))
    share = busy / (slots * len(urls) * wall)
    by_second = [stats(url, "seconds") for url in urls]
    seconds = range(int(start), int(start + wall) + 1)
    shares = [sum(counts.get(str(s), 0.0) for counts in by_second) / (slots * len(urls)) for s in seconds]
    # From the second in which all slots were first busy to the one in which the last request took its slot: before it
    # the first pictures are made and the first prompts compared, after it nothing waits for a slot any more.
    full = next((k for k, share in enumerate(shares) if share > 0.98), 0)
    last = int(max(counts["last_began"] for counts in after)) - int(start)
    written = sum(b["bytes_read"] - a["bytes_read"] for a, b in zip(before, after, strict=True))
    read = sum(b["bytes_written"] - a["bytes_written"] for a, b in zip(before, after, strict=True))
    return {
        "what": name,
        "requests": count,
        "seconds": round(wall, 1),
        "slots_busy": round(share, 3),
        "slots_busy_while_requests_wait": round(fmean(shares[full : max(full, last) + 1]), 3),
        "seconds_to_all_busy": full,
        "emptiest_second": min(shares[full : max(full, last)], default=None),
        "client_cpu_ms_a_request": round(1000 * cpu / count, 2),
        "requests_a_second_a_core": round(count / cpu),
        "sent_kB_a_request": round(written / count / 1000, 2),
        "reply_kB": round(read / count / 1000, 2),
        "disk_kB_a_request": round((sum(map(bytes_of, disk)) - bytes_before) / count / 1000, 2),
        "by_server": [round(b["requests"] - a["requests"]) for a, b in zip(before, after, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--tokens-per-second", type=float, default=100.0)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--bytes", action="store_true", help="send pictures as bytes, as to another machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="engines_"))
    try:
        for line in measured(options, place):
            print(json.dumps(line), flush=True)
    finally:
        shutil.rmtree(place)


def measured(options: argparse.Namespace, place: Path) -> Iterator[dict[str, Any]]:
    checkpoint = place / "checkpoint"
    backbone = TinyBackbone(
        TinyBackboneConfig(hidden_size=32, layers=1, heads=2, mlp_size=64, vision_size=16), init_seed=1
    )
    backbone.save(checkpoint)
    write_json(
        checkpoint / ORM_FILE,
        {"kind": "generative", "order": "analysis_first", "see_answer": False, "see_image": True},
    )
    asked = problems(options.requests, place / "pictures")
    speed = 1e6 if options.fast else options.tokens_per_second
    slow = ("--slots", str(options.slots), "--tokens-per-second", str(speed), "--tokens", "50-500")
    with stand_ins(options.servers, place, checkpoint, *slow) as urls:
        settings = VLLMGeneratorConfig(
            base_urls=urls, probe=0, cache_dir=str(place / "answers"), max_concurrency=2 * options.slots
        )
        generator: Generator = build(settings)
        run = place / "run"
        run.mkdir()
        students = ServedStudents(generator, TinyBackboneConfig(), run, TrainerConfig(), lambda text: None)  # type: ignore[arg-type]
        engine = students.engine
        engine.reads_files = not options.bytes
        disk = [place / "answers", run]
        student = students.of(checkpoint, lambda: backbone)
        sample = {"stage": "round_01", "model": "tiny", "seed": 1}
        file = run / PATHS
        work = lambda: generator.sample(student, asked, file, **sample)  # noqa: E731
        yield phase("solutions", urls, options.slots, work, len(asked), disk)

        paths = generator.sample(student, asked, file, **sample)
        orm = ServedORM(RewardModelConfig(), TinyBackboneConfig(), run, engine).of(checkpoint, lambda: backbone)
        by_id = {problem.id: problem for problem in asked}
        work = lambda: judge_paths(orm, by_id, paths, run / VERDICTS, batch_size=64)  # noqa: E731
        yield phase("verdicts", urls, options.slots, work, len(asked), disk)


if __name__ == "__main__":
    main()
