"""A run folder has one owner, and is free once that has ended, however it ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from processes import end, first_line, start

from mathse.errors import RunError
from mathse.runs.folder_lock import FolderLock

OWNER = """
import os, sys, time; from pathlib import Path; from mathse.runs.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    os.close(0); os.close(1); os.close(2)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    owner = start(OWNER, tmp_path)
    child = int(first_line(owner))
    try:
        with pytest.raises(RunError, match=rf"{tmp_path} is in use by process {owner.pid} on .*hydra\.run\.dir"):
            FolderLock(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        end(owner)


def test_a_killed_owners_folder_is_free_at_once_though_its_forked_child_lives(tmp_path: Path) -> None:
    owner = start(OWNER, tmp_path)
    child = int(first_line(owner))
    end(owner)
    try:
        FolderLock(tmp_path).close()
        os.kill(child, 0)  # it did live on
    finally:
        os.kill(child, signal.SIGKILL)


def test_this_process_cannot_take_a_folder_twice_and_gives_it_back_once(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(RunError, match="already open in this process"):
        FolderLock(tmp_path / ".." / tmp_path.name)
    lock.close()
    lock.close()
    FolderLock(tmp_path).close()


def test_a_forked_child_that_closes_the_lock_does_not_free_the_parents_folder(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    child = os.fork()
    if child == 0:
        lock.close()
        os._exit(0)
    os.waitpid(child, 0)
    other = start("import sys; from pathlib import Path; from mathse.runs.folder_lock import FolderLock\n"
                  "try: FolderLock(Path(sys.argv[1])); print('free')\n"
                  "except Exception as e: print(type(e).__name__)", tmp_path)  # fmt: skip
    assert first_line(other) == "RunError"
    end(other)
    lock.close()
