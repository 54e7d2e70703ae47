"""The paper's run at the paper's size without a GPU: stand-in engines and fits, kills and lost engines on the way.

    python experiments/rehearsal/run.py --problems 2000
    python experiments/rehearsal/run.py --problems 127000 --kills 6 --losses 2 --place DIR

``train.py +experiment/paper=qwen2vl`` runs as a user starts it, over made-up problems (made_up.py), with two engines
that hold ``--slots`` requests each (engine.py), a teacher behind the Batch API (teacher.py) and fits whose rows take as
long as ``--row-tokens`` and ``--fit-speed`` say (model.py). The client gets SIGKILL and is started again by the same
command; an engine is killed and comes back after ``--away`` seconds; the moments are drawn from ``--seed`` (lives.py).
What came out is printed as JSON (books.py), and stays in DIR/measured.json; the same command goes on with a DIR where
this script was stopped itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import books
import made_up
from lives import Schedule, Watched, live
from PIL import Image, ImageDraw
from stand_ins import answered_by, stand_ins

ROOT = Path(__file__).resolve().parents[2]
MODEL = "experiments.rehearsal.model"
DISTILLED = 100_000 / 487_000  # the share of the paper's problems that its teacher solves
ANSWERS = 3.3  # of engines, a problem, about
SIDES = (160, 120)  # pixels of a picture
DIFFERENT = 1_000  # pictures: each problem has a file of its own, many of them names of the same bytes


def make(place: Path, count: int) -> None:
    """The problems and their pictures, and the stand-in's base."""
    if (place / "made").exists():
        return
    draw, rows = random.Random(0), [made_up.problem(number) for number in range(count)]
    for number, row in enumerate(rows):
        file = place / row["images"][0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if number < DIFFERENT:
            image = Image.new("RGB", SIDES, "white")
            corners = [(draw.randrange(SIDES[0]), draw.randrange(SIDES[1])) for _ in range(5)]
            ImageDraw.Draw(image).polygon(corners, outline="black")
            image.save(file)
        else:
            os.link(place / rows[number % DIFFERENT]["images"][0], file)
    with open(place / "problems.jsonl", "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    shutil.rmtree(place / "base", ignore_errors=True)
    subprocess.run([sys.executable, "-m", MODEL, str(place / "base")], cwd=ROOT, check=True)
    (place / "made").touch()


def settings(options: argparse.Namespace, run: Path, engines: Sequence[str], teacher: str) -> list[str]:
    """The command line of the run, beside what the paper's config says."""
    place, answers = options.place, run.with_suffix(".answers")
    return [
        "+experiment/paper=qwen2vl",
        *("data=jsonl", f"data.path={place}/problems.jsonl"),
        # as conf/data/paper.yaml
        *("data.test_share=0.004", "data.dev_share=0.002", "data.orm_share=0.06", "data.on_bad_row=skip"),
        f"distill.size={max(1, round(DISTILLED * options.problems))}",
        # the stand-ins
        *(f"backbone._target_={MODEL}.load", f"backbone.path={place}/base"),
        *("backbone@orm.backbone=qwen2vl", f"orm.backbone._target_={MODEL}.load", f"orm.backbone.path={place}/base"),
        *("generator=vllm", "judge.engine=vllm", f"generator.base_urls=[{','.join(engines)}]", "generator.probe=0"),
        *(f"generator.max_concurrency={options.slots * 5 // 4}", f"generator.cache_dir={answers}"),
        *(f"teacher.base_url={teacher}", "teacher.api_key_env=null", "teacher.poll_seconds=1"),
        f"teacher.cache_dir={answers}",
        # one CPU
        *("trainer=cpu", "trainer.devices=1", "trainer.precision=32-true"),
        f"trainer.checkpoint_minutes={options.checkpoint_minutes:g}",
        *("sft.micro_batch_size=128", "orm.fit.micro_batch_size=128"),
        "progress=plain",
    ]


def rehearse(options: argparse.Namespace, run: Path, kills: int, losses: int) -> tuple[Watched, list[str]]:
    """Run train.py to its end in ``run``; what was seen of it, and what `mathse plan` says of its engines."""
    schedule = Schedule(options.seed, ANSWERS * options.problems, kills, losses, options.delay)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MATHSE_TRUST": f"{MODEL}.load"}
    env["REHEARSAL_SECONDS_A_ROW"] = str(options.row_tokens / options.fit_speed)
    # A teacher that has just begun knows no batch of an earlier start of this script.
    shutil.rmtree(run.with_suffix(".answers") / "batches", ignore_errors=True)
    with stand_ins(run, options.slots, options.tokens_per_second) as (engines, teacher):
        arguments = settings(options, run, [engine.url for engine in engines], teacher.url)
        profile = ["-m", "cProfile", "-o", str(options.profile)] if options.profile else []
        command = [sys.executable, *profile, "train.py", *arguments, f"hydra.run.dir={run}"]
        watched = live(command, env, run, engines, schedule, options.away)

        # With the lengths that its answers had, and the speed that was given.
        plan = [sys.executable, "-m", "mathse", "plan", *arguments, "--like", str(run)]
        plan += ["--engine-speed", str(options.slots * options.tokens_per_second)]
        planned = subprocess.run(plan, env=env, check=True, capture_output=True, text=True).stdout
        run.with_suffix(".plan.txt").write_text(planned)
    return watched, [line for line in planned.splitlines() if line.startswith("engines")]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
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
    parser.add_argument("--compare", action="store_true", help="with the files of the same run without a kill or loss")
    parser.add_argument("--profile", type=Path, help="cProfile's file of the client (its last start)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="rehearsal_") as temporary:
        keeps_folder = options.place is not None
        options.place = (options.place or Path(temporary)).resolve()
        options.place.mkdir(parents=True, exist_ok=True)
        os.chdir(ROOT)
        measured = _measured(options)
        if keeps_folder:
            (options.place / "measured.json").write_text(json.dumps(measured, indent=1))
    return measured


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    make(options.place, options.problems)
    run = options.place / "run"
    watched, planned = rehearse(options, run, options.kills, options.losses)
    measured = {
        "problems": options.problems,
        "stages": books.by_stage(run, watched, 2 * options.slots),
        "plan": planned,
        "starts": watched.starts,
        "kills": watched.kills,
        "losses": watched.losses,
        "ended_by_itself": watched.ends,
        **books.checked(run, answered_by(run), run.with_suffix(".answers")),
        "run_folder": books.size(run),
        "answers_folder": books.size(run.with_suffix(".answers")),
        "wall_s": round(watched.wall.total(), 1),
        "client_cpu_s": round(watched.cpu.total(), 1),
        "client_cpu_ms_an_answer": round(1000 * watched.cpu.total() / max(1, watched.answers.total()), 2),
    }
    if options.compare:
        whole = options.place / "whole"
        rehearse(options, whole, 0, 0)
        measured |= books.compared(run, whole)
    return measured


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: nothing is left running
    print(json.dumps(main(), indent=1))
