"""What a dashboard is told of a run's settings; a report is told the same."""

from mathse.config.secrets import without_secrets

__all__ = ["without_secrets"]
