"""A user's mistake ends in one sentence, not in a traceback.

Imports no Hydra, so that a subcommand without it starts at once. MATHSE_TRACEBACK=1 (or Hydra's own HYDRA_FULL_ERROR=1)
shows the traceback behind a sentence.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable

from safetensors import SafetensorError

from mathse.errors import INTERRUPTED, MathSEError

# safetensors reports a full disk by its own error, and torch reports exhausted memory by a RuntimeError.
RUNTIME_ERRORS = (MathSEError, OSError, SafetensorError, MemoryError, RuntimeError)
MAX_PATH_CHARS = 120  # of a path in a message
RUN_AGAIN = "then run the same command: nothing finished is lost"


class JobFailed(MathSEError):
    """A job of a sweep failed and its reason has been printed. The other jobs continue."""


def run_guarded(run: Callable[[], int]) -> int:
    """Return the exit code of ``run()``, a command without Hydra; 1 after a user's mistake, printed as a sentence."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mathse --help | head`
        # The interpreter flushes stdout at its end, and would report the broken pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RUNTIME_ERRORS as e:
        if wants_traceback() or (text := explain_error(e)) is None:
            raise
        print(*(f"error: {line}" for line in text.splitlines()), sep="\n", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        return INTERRUPTED


def wants_traceback() -> bool:
    """Whether to show tracebacks: by MATHSE_TRACEBACK if it is set (child processes inherit a 0), else by Hydra's own
    variable."""
    return os.environ.get("MATHSE_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) not in ("", "0")


def explain_error(error: BaseException) -> str | None:
    """Return the sentence for a user's mistake, or None for a bug, which keeps its traceback."""
    if isinstance(error, MathSEError):
        return str(error)

    # The number of the operating system's error. safetensors is written in Rust and has it only in its text.
    code: int | None = None
    if isinstance(error, OSError):
        code = error.errno
    elif isinstance(error, SafetensorError) and (match := re.search(r"\(os error (\d+)\)", str(error))):
        code = int(match[1])
    path = str(getattr(error, "filename", None) or "the run folder")
    if len(path) > MAX_PATH_CHARS:
        path = f"{path[:MAX_PATH_CHARS]}..."

    # On a GPU torch has an error class, on a CPU only a text. torch is not imported for this test.
    torch_out_of_memory = type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )
    if isinstance(error, MemoryError) or code == errno.ENOMEM or torch_out_of_memory:
        reason = (str(error).strip() or "an allocation failed").splitlines()[0][:300]
        return (
            f"out of memory ({reason}); lower micro_batch_size of the training, or batch_size of generator, evaluation "
            "or judge, whichever was at work (`mathse plan` estimates each), and pass resume=branch with it: stages "
            "that do not depend on the value are reused"
        )
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: no space left on the device; free some, {RUN_AGAIN}"
    if code == errno.EFBIG:
        return (
            f"{path}: larger than this process may write (ulimit -f, or the file system's limit); raise it, {RUN_AGAIN}"
        )
    if code == errno.ENAMETOOLONG:
        return f"{path}: longer than the file system's names may be (255 bytes as a rule); choose a shorter name"
    if code in (errno.EACCES, errno.EPERM):
        return f"{path}: permission denied; correct its permissions, or choose another place with hydra.run.dir=DIR"
    if code == errno.EROFS:
        return f"{path}: on a read-only file system; choose another place with hydra.run.dir=DIR"
    if code in (errno.EEXIST, errno.ENOTDIR):
        return f"{path}: is a file where a folder must be; move it, or choose another place with hydra.run.dir=DIR"
    return None
