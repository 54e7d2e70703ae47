"""The first variant of every study runs from its first to its last stage, on models that learn nothing."""

from __future__ import annotations

import pytest

from e2e.runs import SIZES, WORLD, run
from mathse.config.options import list_groups
from mathse.runs.store import read_json

# These have pretrained models, whose sizes are their own.
PRETRAINED = ("words", "words_rounds", "words_update", "smollm2_vision")
STUDIES = {
    group.removeprefix("experiment/"): variants
    for group, variants in list_groups().items()
    if group.startswith("experiment/") and group.split("/")[1] not in ("controls", "paper", *PRETRAINED)
}
# Smoke sizes on top of the study's own; the judge stays the study's.
SMALL = tuple(s for s in (*SIZES, *WORLD) if not s.startswith("experiment="))


@pytest.mark.parametrize("study", STUDIES)
def test_the_first_variant_of_every_study_runs(study, tmp_path):
    variant = STUDIES[study][0]
    folder = tmp_path / f"{study}.{variant}.seed_1"
    summary = run(folder, f"+experiment/{study}={variant}", "seed=1", *SMALL)
    recorded = read_json(folder / "run.json")["config"]
    assert (recorded["study"], recorded["variant"]) == (study, variant)
    assert summary["status"] == "finished"
    assert summary["orm"] is not None or summary["stages"][-1]["stage"] == "final"
