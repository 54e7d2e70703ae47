"""How this process was started, for the usage line of ``--help``: a line that a user can copy and run again."""

from __future__ import annotations

import sys
from pathlib import Path


def format_command(verb: str) -> str:
    """The command of a verb: ``python train.py``, ``python -m mathse train`` or, installed, ``mathse train``."""
    script = Path(sys.argv[0]).name
    if script == f"{verb}.py":
        return f"python {verb}.py"
    return f"python -m mathse {verb}" if script == "__main__.py" else f"mathse {verb}"
