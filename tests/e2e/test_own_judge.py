"""A judge of the user's own package, from the command line to the verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mathse.runs.store import read_json, read_jsonl
from mathse.types import Verdict

from .runs import TINY, run, stages

MODULE = '''
from mathse.types import Verdict


class Alphabetical:
    """Accepts paths by a letter of their id, and says how a second judge of the run would have judged."""

    name = "alphabetical"

    def __init__(self, letters, seed, teacher):
        self.letters, self.seed, self.teacher = letters, seed, teacher

    def judge(self, problems, paths):
        by_teacher = self.teacher.annotate(problems, paths)
        return [
            Verdict(path.id, "correct" if path.problem_id[-1] in self.letters else "wrong", score=0.7, judge=self.name,
                    raw=f"seed {self.seed}, teacher {verdict.status}")
            for path, verdict in zip(paths, by_teacher)
        ]
'''
QUICK = (*TINY, "evolution.rounds=1", "evolution.reflect.when=never")


@pytest.fixture(autouse=True)
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_judge.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_own_judge_is_a_class_and_a_yaml(tmp_path: Path) -> None:
    conf = tmp_path / "conf" / "judge"
    conf.mkdir(parents=True)
    (conf / "alphabetical.yaml").write_text("_target_: somebodys_judge.Alphabetical\nletters: '02468'\n")
    chosen = (f"hydra.searchpath=[file://{conf.parent}]", "judge=alphabetical", "judge.letters='13579'")
    run(tmp_path / "run", *QUICK, *chosen)
    verdicts = list(read_jsonl(tmp_path / "run" / "round_01" / "verdicts.jsonl", Verdict))
    assert {v.judge for v in verdicts} == {"alphabetical"} and {v.status for v in verdicts} == {"correct", "wrong"}
    assert all((v.path_id.removesuffix("/0")[-1] in "13579") == (v.status == "correct") for v in verdicts)
    assert all(str(v.raw).startswith("seed 0, teacher ") for v in verdicts)


def test_settings_of_an_own_judge_are_part_of_what_a_stage_is(tmp_path: Path) -> None:
    chosen = ("~judge", "+judge={_target_: somebodys_judge.Alphabetical, letters: '13579'}")
    folder = tmp_path / "run"
    run(folder, *QUICK, *chosen, "+judge.threshold=0.6")
    config = stages(folder)["round_01"]["config"]
    assert config["judge.name"] == "somebodys_judge.Alphabetical"
    assert (config["judge.letters"], config["judge.threshold"]) == ("13579", 0.6)
    assert read_json(folder / "run.json")["config"]["judge"]["letters"] == "13579"
    accepted = read_json(folder / "summary.json")["stages"][2]["accepted"]
    run(tmp_path / "strict", *QUICK, *chosen, "+judge.threshold=0.8", "resume=branch", f"resume_from=[{folder}]")
    assert accepted > 0 and read_json(tmp_path / "strict" / "summary.json")["stages"][2]["accepted"] == 0
