"""SLURM on one machine, in a folder of its own: munge, slurmctld and a slurmd for each of two nodes.

No service of the system is touched: ports, keys, sockets and logs are this cluster's. What names it is SLURM_CONF:

    python tests/cluster/one_machine.py FOLDER      # says how to use it; Ctrl-C ends it

Debian: ``apt-get install slurm-wlm``. There is no accounting (sacct), as on many small clusters.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo", "setpriv")
NODES = (socket.gethostname().split(".")[0], "second")  # the first is an address too
PATIENCE = 60.0  # seconds until all nodes are idle
SYSTEM_PATHS = os.pathsep.join(("/usr/sbin", "/sbin"))  # where daemons stand, and a user's PATH may not lead

CONFIG = """
ClusterName=mathse
SlurmctldHost={nodes[0]}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=100000
MpiDefault=none
ReturnToService=2
KillWait=30
MinJobAge=300
BatchStartTimeout=30
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={nodes[0]} NodeHostname={nodes[0]} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName={nodes[1]} NodeHostname={nodes[0]} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=all Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=first Nodes={nodes[0]},{nodes[1]} MaxTime=INFINITE State=UP PriorityTier=9
"""


def missing_programs() -> list[str]:
    """Those of SLURM's programs that are not installed."""
    path = os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATHS))
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


@contextmanager
def one_machine(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster; the environment in which its commands work. ``folder`` should have a short path: sockets
    stand in it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    user = pwd.getpwuid(os.getuid()).pw_name
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, nodes=NODES, user=user, ports=_free_ports(3)))
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    environment = {**os.environ, "SLURM_CONF": str(config)}
    environment["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATHS))
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    with ExitStack() as stack:
        stack.enter_context(_daemon(munge, folder, environment))
        stack.enter_context(_daemon(["slurmctld", "-D", "-f", str(config)], folder, environment))
        for node in NODES:
            stack.enter_context(_daemon(["slurmd", "-D", "-N", node, "-f", str(config)], folder, environment))
        _wait_until_idle(environment, folder)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--full", "--signal=KILL", f"--user={user}"], env=environment, check=False)
            subprocess.run(["scancel", f"--user={user}"], env=environment, check=False)
            _wait_until_idle(environment, folder)


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(folder / "daemons.log", "ab") as log:
        bound = ["setpriv", "--pdeathsig", "TERM", *command]  # it ends with this process, however that ends
        process = subprocess.Popen(bound, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    states = ""
    while time.monotonic() < end:
        squeue = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=all", "--format=%N %T"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        states = squeue.stdout + squeue.stderr
        if sorted(states.splitlines()) == sorted(f"{node} idle" for node in NODES):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the cluster in {folder} is not idle after {PATIENCE:.0f} s: {states}")


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


if __name__ == "__main__":
    if lacking := missing_programs():
        sys.exit(f"error: {', '.join(lacking)}: not installed; on Debian: apt-get install slurm-wlm")
    with one_machine(Path(sys.argv[1]).absolute()) as its_environment:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"export SLURM_CONF={its_environment['SLURM_CONF']}    # Ctrl-C here ends the cluster", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
