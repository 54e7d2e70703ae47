"""The licence terms of CogVLM2's weights, shown once in a process."""

from __future__ import annotations

import logging

TERMS = (
    "CogVLM2's weights are not Apache-2.0. They come under the CogVLM2 licence (free for research; commercial use "
    "after registration with Zhipu AI; its notice goes with every copy; no military or illegal use), the Llama 3 "
    "Community License (Built with Meta Llama 3), and EVA's MIT licence. They bind what you train from them too; "
    "read MODEL_LICENSE in https://github.com/THUDM/CogVLM2."
)
_shown = False


def show_once() -> None:
    """Log the terms at the first call."""
    global _shown
    if not _shown:
        _shown = True
        logging.getLogger(__name__).warning(TERMS)
