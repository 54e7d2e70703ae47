"""``mathse reward-server RUN``: serve a run's ORM as a reward for reinforcement learning, over HTTP.

    mathse reward-server outputs/demo/seed_0                 # http://127.0.0.1:8087 until Ctrl-C
    curl -s 127.0.0.1:8087/reward -H 'Content-Type: application/json' \
         -d '{"prompts": ["What is 2 + 2?"], "completions": ["Step 1: ... The answer is 4."]}'

POST /reward                {"prompts" or "problem_ids", "completions", "answers"?, "images"?}, lists of one length
                            -> {"rewards": [P(correct), ...], "verdicts": [{status, error_step, error_analysis}, ...]}
POST /v1/chat/completions   OpenAI's format: question as user, path as assistant -> the verdict with "reward" as JSON
GET  /v1/models, /health

``requests`` has the format of each request. TRL's GRPOTrainer and verl call Python functions: those of ``client`` send
requests to this server, and need only Python. One model judges one request at a time. Requests have limits of bytes,
rows, text and arrival time, and status 503 answers a request beyond the server's capacity. Without ``--host`` the
server listens only on this machine. It has no passwords, reads no file that a request names, and runs no code that a
run names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.config.extras import missing
from mathse.config.program import program
from mathse.errors import ConfigError

__all__ = ["main"]

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8087


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal stops the server. Raises MathSEError for a run without an ORM and for a used address."""
    parser = argparse.ArgumentParser(
        prog=program("reward-server"), description="Serve a run's ORM as a reward over HTTP, for TRL, verl and others."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder with a trained ORM")
    parser.add_argument(
        "--host", default=DEFAULT_HOST, help=f"the address to listen on (default: {DEFAULT_HOST}, this machine only)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"default: {DEFAULT_PORT}; 0: any free port")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this machine that clients use; may be repeated",
    )
    parser.add_argument("--accelerator", choices=("cpu", "gpu", "auto"), default="auto", help="default: auto")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="paths judged together (default: 32)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads on a CPU (default: 1)")
    parser.add_argument(
        "--explain", action="store_true", help="write an analysis of wrong paths too where P(correct) needs none"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.batch_size, arguments.threads) < 1:
        parser.error("--batch-size and --threads: at least 1")
    if not 0 <= arguments.port < 2**16:
        parser.error("--port: from 0 to 65535")

    if (sentence := missing("server")) is not None:
        raise ConfigError(f"mathse reward-server {sentence}")

    from mathse.commands.reward_server.requests import RewardScorer  # loads torch, which --help does not need
    from mathse.commands.reward_server.server import RewardServer
    from mathse.evaluation.run_orm import RunORM
    from mathse.runs.reader import read_run

    run = read_run(arguments.run)
    run.verify()
    orm = RunORM(run, arguments.accelerator, arguments.batch_size, arguments.explain, arguments.threads)
    try:
        server = RewardServer((arguments.host, arguments.port), RewardScorer(run, orm), arguments.allow_host)
    except OSError as error:
        raise ConfigError(f"--host {arguments.host} --port {arguments.port}: {error}; choose another") from error
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(f"the ORM of {run.name} gives rewards at http://{host}:{server.server_port}", flush=True)
    if arguments.host not in (DEFAULT_HOST, "localhost", "::1"):
        print("anybody who reaches this address can use it: it has no password", flush=True)
    server.serve_forever()
    return 0
