"""MathSE: multimodal models that get better at mathematics by learning from their own mistakes (arXiv 2511.06805).

    from mathse import evaluate, train

``mathse.commands.functions`` has them; it is imported when one of them is first asked for, so that ``import mathse``
costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mathse.commands.functions import Finished, evaluate, train

__version__ = "0.1.0"
__all__ = ["Finished", "__version__", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name not in ("Finished", "evaluate", "train"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mathse.commands import functions

    return getattr(functions, name)
