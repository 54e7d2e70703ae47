"""Backbones: the only package that knows transformers and peft."""

from __future__ import annotations


def quiet() -> None:
    """No progress bars and no advice from transformers: the run has its own voice."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
