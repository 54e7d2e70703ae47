"""The data source of a run in its task domain, from its settings or, for a finished run, from its run.json.

A run folder may come from anybody, and its settings name classes, so only our own data options are built from them
(mathse.config.recorded): reading a run must not execute code that the run names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mathse.config import build, parse_recorded
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.data.domains import MATH, TaskDomain, in_domain, open_domain, recorded_domain
from mathse.data.problems import FileData
from mathse.errors import DataError
from mathse.types import Problem


def open_source(config: TrainConfig | EvaluateConfig) -> Any:
    """Open the data source of a new run."""
    return with_domain(build(config.data), open_domain(config.task_domain))


def with_domain(source: Any, domain: TaskDomain) -> Any:
    """Put all problems of a source into a domain."""
    if isinstance(source, FileData):
        source.table.domain = None if domain is MATH else domain
        return source
    return source if domain is MATH else SourceInDomain(source, domain)


class SourceInDomain:
    """A source without a notion of domains, such as a user's own, with its problems in a domain."""

    def __init__(self, source: Any, domain: TaskDomain) -> None:
        self._source, self._domain = source, domain

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_source"], name)

    def splits(self) -> Mapping[str, Sequence[Problem]]:
        """Read each split of the source."""
        return {name: self._all(problems) for name, problems in self._source.splits().items()}

    def distillable(self) -> Sequence[Problem]:
        """Read the problems that task=distill solves."""
        return self._all(self._source.distillable())

    def get(self, problem_id: str) -> Problem:
        """Give a problem of the source by id."""
        return in_domain(self._source.get(problem_id), self._domain)

    def _all(self, problems: Sequence[Problem]) -> list[Problem]:
        return [in_domain(problem, self._domain) for problem in problems]


def recorded_source(run_config: Mapping[str, Any]) -> Any:
    """Open the data source of a run from the ``config`` of its run.json. Raises as ``recorded_data`` does."""
    return with_domain(build(recorded_data(run_config)), recorded_domain(run_config))


def recorded_data(run_config: Mapping[str, Any]) -> Any:
    """Read the settings of a run's data source without building it. Raises DataError as ``recorded`` does."""
    return parse_recorded("data", run_config.get("data"))


def problem_lookup(run_config: Mapping[str, Any]) -> Callable[[str], Problem]:
    """Make a function from id to problem, from the ``config`` of a run.json. It raises DataError for an unknown id."""
    lookup: Callable[[str], Problem] = recorded_source(run_config).get
    return lookup


def problem_named(problem_id: str, problem_of: Callable[[str], Problem], location: str) -> Problem:
    """Look up the problem of a row at ``location`` (file and line). Raises DataError, with the location, for an unknown
    id."""
    try:
        return problem_of(problem_id)
    except DataError as error:
        raise DataError(f"{location}: {error}") from None
