"""``mathse reward-server RUN``: the ORM of a run as the reward of others' reinforcement learning, over HTTP.

    mathse reward-server outputs/demo/seed_0                 # http://127.0.0.1:8087 until Ctrl-C
    curl -s 127.0.0.1:8087/reward -H 'Content-Type: application/json' \
         -d '{"prompts": ["What is 2 + 2?"], "completions": ["Step 1: ... The answer is 4."]}'

POST /reward                {"prompts" or "problem_ids", "completions", "answers"?, "images"?}, lists of one length
                            -> {"rewards": [P(correct), ...], "verdicts": [{status, error_step, error_analysis}, ...]}
POST /v1/chat/completions   as OpenAI's: question as user, path as assistant -> the verdict with "reward" as JSON
GET  /v1/models, /health

What each may hold is in ``requests``. TRL's GRPOTrainer and verl call Python functions: those of ``client`` ask this
server, and that file needs nothing but Python. One model judges one request at a time; requests are bounded in bytes,
rows, text and the time in which they arrive, and those that are too many get status 503. The server listens to this
machine alone unless ``--host`` says otherwise, knows no passwords, reads no file that a request names and runs no code
that a run names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.config.extras import explain_missing
from mathse.config.program import format_command
from mathse.errors import ConfigError

__all__ = ["main"]

HOST, PORT = "127.0.0.1", 8087


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is stopped; raises MathSEError for a run without an ORM, and for an address that is taken."""
    parser = argparse.ArgumentParser(
        prog=format_command("reward-server"), description="A run's ORM as a reward over HTTP, for TRL, verl and others"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder with a trained ORM")
    parser.add_argument("--host", default=HOST, help=f"the address to listen at (default: {HOST}, this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: any that is free")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that clients call this machine by, beside its own and its addresses; may be repeated",
    )
    parser.add_argument("--accelerator", choices=("cpu", "gpu", "auto"), default="auto", help="default: auto")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="paths judged at once (default: 32)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads on a CPU (default: 1)")
    parser.add_argument(
        "--explain", action="store_true", help="write an analysis of wrong paths too where P(correct) needs none"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.batch_size, arguments.threads) < 1:
        parser.error("--batch-size and --threads: at least 1")
    if not 0 <= arguments.port < 2**16:
        parser.error("--port: from 0 to 65535")

    if (sentence := explain_missing("server")) is not None:
        raise ConfigError(f"mathse reward-server {sentence}")

    from mathse.commands.reward_server.requests import Scorer  # here: --help needs no torch
    from mathse.commands.reward_server.server import RewardServer
    from mathse.evaluation.run_orm import RunORM
    from mathse.runs.reader import read_run

    run = read_run(arguments.run)
    run.verify()
    orm = RunORM(run, arguments.accelerator, arguments.batch_size, arguments.explain, arguments.threads)
    try:
        server = RewardServer((arguments.host, arguments.port), Scorer(run, orm), arguments.allow_host)
    except OSError as error:
        raise ConfigError(f"--host {arguments.host} --port {arguments.port}: {error}; choose another") from error
    shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(f"the ORM of {run.name} gives rewards at http://{shown}:{server.server_port}", flush=True)
    if arguments.host not in (HOST, "localhost", "::1"):
        print("whoever reaches this address can use it: it asks for no password", flush=True)
    server.serve_forever()
    return 0
