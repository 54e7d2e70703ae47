"""What a sweep has handed to SLURM, as files: ``SWEEP/.slurm/N/``.

    jobs.json  the array's number in SLURM, and the run folders of its jobs in their order
    commands   their commands, a line each
    K.log      what job K says, over all its starts
    K.status   its exit code, once it has ended and is not queued again

By them the same command finds the jobs that are under way.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mathse.runs.store import read_json, write_json

FOLDER, JOBS, COMMANDS = ".slurm", "jobs.json", "commands"
SHOWN = 300  # characters of a job's last words


@dataclass(frozen=True)
class SlurmJob:
    """One job. ``number``: its name in SLURM, "12_3". ``folder``: of the run."""

    number: str
    folder: Path
    files: Path  # the submission's folder
    index: int

    @property
    def log(self) -> Path:
        return self.files / f"{self.index}.log"

    def status(self) -> int | None:
        """The exit code, once it has ended."""
        file = self.files / f"{self.index}.status"
        try:
            return int(file.read_text())
        except (FileNotFoundError, ValueError):  # not there, or not yet written to its end
            return None

    def last_words(self) -> str:
        """Why it failed, in its own words: the last error in its log, else the last line."""
        try:
            lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        except FileNotFoundError:
            return "it wrote nothing"
        of_job = [line for line in lines if not line.startswith(("srun: ", "slurmstepd"))]
        errors = [line for line in of_job if "error: " in line or "Error: " in line]
        return next(iter((errors or of_job or lines)[-1:]), "it wrote nothing").strip()[:SHOWN]


def new_files(sweep: Path) -> Path:
    """The folder of the next submission."""
    root = sweep / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in root.iterdir() if path.name.isdigit()), default=-1) + 1
    (root / str(number)).mkdir()
    return (root / str(number)).absolute()


def take_back(files: Path) -> None:
    """Remove the folder of a submission that was refused."""
    shutil.rmtree(files)
    if not any(files.parent.iterdir()):
        files.parent.rmdir()


def record(files: Path, number: str, folders: Sequence[Path]) -> list[SlurmJob]:
    """Keep what was submitted."""
    write_json(files / JOBS, {"number": number, "folders": [str(folder) for folder in folders]})
    return _jobs(files, number, folders)


def submitted(sweep: Path) -> Mapping[Path, SlurmJob]:
    """The last job that was submitted for each run folder."""
    return {job.folder: job for job in _submitted(sweep)}


def _submitted(sweep: Path) -> Iterator[SlurmJob]:
    for file in sorted((sweep / FOLDER).glob(f"*/{JOBS}"), key=lambda file: int(file.parent.name)):
        jobs = read_json(file)
        yield from _jobs(file.parent.absolute(), jobs["number"], [Path(folder) for folder in jobs["folders"]])


def _jobs(files: Path, number: str, folders: Sequence[Path]) -> list[SlurmJob]:
    return [SlurmJob(f"{number}_{k}", folder, files, k) for k, folder in enumerate(folders)]
