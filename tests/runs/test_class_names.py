"""Names of classes that moved: runs of earlier versions build, and identities hold the name of the first runs."""

from __future__ import annotations

import pytest

from mathse.config.trust import locate
from mathse.runs.class_names import MOVED, with_current_names, with_recorded_names


@pytest.mark.parametrize("recorded", MOVED)
def test_recorded_name_leads_to_a_class_of_today(recorded: str) -> None:
    current = with_current_names({"_target_": recorded})["_target_"]
    assert callable(locate(current))


def test_class_that_moved_twice_keeps_its_first_name_in_identities() -> None:
    first, second = "mathse.evaluation.own.OwnBenchmark", "mathse.evaluation.benchmarks.synthetic.OwnBenchmark"
    for name in (first, second):
        current = with_current_names({"benchmark.synthetic._target_": name})
        assert with_recorded_names(current) == {"benchmark.synthetic._target_": first}
