"""Errors that a user can cause or fix. Each message says what is wrong, the value, what is allowed and what to do."""

from __future__ import annotations

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


class MathSEError(Exception):
    """Base of every error that is shown as one sentence, without a traceback, with exit code 1."""


class ConfigError(MathSEError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or does not go with another setting."""


class DataError(MathSEError, ValueError):
    """A data file, row or image cannot be used. The message names file, line and remedy."""


class RunError(MathSEError, RuntimeError):
    """A run folder cannot be used: another process holds it, or it was made with other settings."""


class SettingsChanged(RunError):
    """The contents of a folder were made with other settings than today's."""


class RankLost(RunError):
    """Another process of this run has ended; the reason is in that one's own error."""


class FitDiverged(MathSEError, ArithmeticError):
    """A fit's loss or gradient is no number any more, or its gradients explode; its last good resume point is kept."""


class TeacherError(MathSEError, RuntimeError):
    """The teacher cannot answer at all (a single unusable answer is an outcome of its row, not an error)."""


class CheckpointError(MathSEError, ValueError):
    """A checkpoint folder is missing, incomplete or of another family."""
