"""The submissions of a sweep to SLURM, as files in ``SWEEP/.slurm/N/``.

    jobs.json  the array's number in SLURM, and the run folders of its jobs in their order
    commands   their commands, one per line
    K.log      the output of job K, over all its starts
    K.status   its exit code, once it has ended and is not queued again

A repeated command finds the running jobs in these files.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mathse.runs.store import read_json, write_json

FOLDER, JOBS, COMMANDS = ".slurm", "jobs.json", "commands"
MAX_ERROR_CHARS = 300  # of a job's last error


@dataclass(frozen=True)
class SlurmJob:
    """One job in SLURM.

    Attributes:
        number: its number in SLURM, "12_3".
        folder: the run folder.
        files: the folder of the submission.
        index: its position in the array.
    """

    number: str
    folder: Path
    files: Path
    index: int

    @property
    def log(self) -> Path:
        return self.files / f"{self.index}.log"

    def status(self) -> int | None:
        """Return the exit code, or None before the end of the job."""
        file = self.files / f"{self.index}.status"
        try:
            return int(file.read_text())
        except (FileNotFoundError, ValueError):  # missing or incomplete
            return None

    def last_error(self) -> str:
        """Return the last error in its log, or the last line of a log without errors."""
        try:
            lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        except FileNotFoundError:
            return "it wrote nothing"
        job_lines = [line for line in lines if not line.startswith(("srun: ", "slurmstepd"))]
        errors = [line for line in job_lines if "error: " in line or "Error: " in line]
        return next(iter((errors or job_lines or lines)[-1:]), "it wrote nothing").strip()[:MAX_ERROR_CHARS]


def make_files(sweep: Path) -> Path:
    """Make the folder of the next submission, and return it."""
    root = sweep / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in root.iterdir() if path.name.isdigit()), default=-1) + 1
    (root / str(number)).mkdir()
    return (root / str(number)).absolute()


def remove_files(files: Path) -> None:
    """Remove the folder of a refused submission."""
    shutil.rmtree(files)
    if not any(files.parent.iterdir()):
        files.parent.rmdir()


def write_record(files: Path, number: str, folders: Sequence[Path]) -> list[SlurmJob]:
    """Write the files of a submission, and return its jobs."""
    write_json(files / JOBS, {"number": number, "folders": [str(folder) for folder in folders]})
    return _make_jobs(files, number, folders)


def read_submitted(sweep: Path) -> Mapping[Path, SlurmJob]:
    """Return the last submitted job of each run folder."""
    last_jobs: dict[Path, SlurmJob] = {}
    for file in sorted((sweep / FOLDER).glob(f"*/{JOBS}"), key=lambda file: int(file.parent.name)):
        record = read_json(file)
        folders = [Path(folder) for folder in record["folders"]]
        last_jobs |= {job.folder: job for job in _make_jobs(file.parent.absolute(), record["number"], folders)}
    return last_jobs


def _make_jobs(files: Path, number: str, folders: Sequence[Path]) -> list[SlurmJob]:
    return [SlurmJob(f"{number}_{k}", folder, files, k) for k, folder in enumerate(folders)]
