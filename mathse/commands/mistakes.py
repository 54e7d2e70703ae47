"""A user's mistake ends in one sentence, not in a traceback.

Knows no Hydra, so that a verb without it starts at once. MATHSE_TRACEBACK=1 (or Hydra's own HYDRA_FULL_ERROR=1) shows
the traceback behind a sentence.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable

from safetensors import SafetensorError

from mathse.errors import INTERRUPTED, MathSEError

# safetensors reports a full disk by an error of its own, torch that memory is out by a RuntimeError
RUNNING = (MathSEError, OSError, SafetensorError, MemoryError, RuntimeError)
SHOWN = 120  # characters of a path in a sentence
GO_ON = "then run the same command: nothing finished is lost"


class JobFailed(MathSEError):
    """A job of a sweep failed and has said why; the other jobs go on."""


def guarded(run: Callable[[], int]) -> int:
    """``run()`` for a command without Hydra: its exit code, or 1 after a user's mistake, printed as a sentence."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mathse --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 1
    except RUNNING as e:
        if wants_traceback() or (text := sentence(e)) is None:
            raise
        print(*(f"error: {line}" for line in text.splitlines()), sep="\n", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        return INTERRUPTED


def wants_traceback() -> bool:
    """MATHSE_TRACEBACK decides where it is set (child processes inherit a 0); else Hydra's own variable."""
    return os.environ.get("MATHSE_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) not in ("", "0")


def sentence(error: BaseException) -> str | None:
    """What to tell the user; None if this is no mistake of theirs but a bug, which deserves its traceback."""
    if isinstance(error, MathSEError):
        return str(error)
    of_rust = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    code = error.errno if isinstance(error, OSError) else int(of_rust[1]) if of_rust else None
    path = str(getattr(error, "filename", None) or "the run folder")
    if len(path) > SHOWN:
        path = f"{path[:SHOWN]}..."
    if isinstance(error, MemoryError) or code == errno.ENOMEM or _is_torchs_lack_of_memory(error):
        reason = (str(error).strip() or "no more could be had").splitlines()[0][:300]
        return (
            f"out of memory ({reason}); lower micro_batch_size of the fit, or batch_size of generator, evaluation or "
            "judge, whichever was at work (`mathse plan` estimates each), and pass resume=branch with it: stages that "
            "do not depend on the value are reused"
        )
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: no space left on the device; free some, {GO_ON}"
    if code == errno.EFBIG:
        return f"{path}: larger than this process may write (ulimit -f, or the file system's limit); raise it, {GO_ON}"
    if code == errno.ENAMETOOLONG:
        return f"{path}: longer than the file system's names may be (255 bytes as a rule); choose a shorter one"
    if code in (errno.EACCES, errno.EPERM):
        return f"{path}: permission denied; correct its permissions, or choose another place with hydra.run.dir=DIR"
    if code == errno.EROFS:
        return f"{path}: on a read-only file system; choose another place with hydra.run.dir=DIR"
    if code in (errno.EEXIST, errno.ENOTDIR):
        return f"{path}: a file stands where a folder must be; move it, or choose another place with hydra.run.dir=DIR"
    return None


def _is_torchs_lack_of_memory(error: BaseException) -> bool:
    """On a GPU a class of torch's own, on a CPU known by its words; torch is not loaded for it."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )
