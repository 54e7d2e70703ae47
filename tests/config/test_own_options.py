"""--config-dir: options in a user's own folder beside those of conf/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mathse.config.compose import compose_train
from mathse.config.options import list_options, look_in
from mathse.errors import ConfigError

VARIANT = "# @package _global_\ndefaults: [/experiment/smoke]\nstudy: mine\nvariant: {0}\nseed: {1}\n"


@pytest.fixture(autouse=True)
def own(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "it's mine" / "conf"
    (folder / "experiment" / "mine").mkdir(parents=True)
    for seed, name in enumerate(("a", "b"), 7):
        (folder / "experiment" / "mine" / f"{name}.yaml").write_text(VARIANT.format(name, seed))
    yield folder
    look_in(None)


def test_a_study_of_the_users_own_runs_and_inherits_from_ours(command, own):
    seen = []
    code, said = command(
        lambda config, folder: seen.append((config.seed, config.name)),
        "-m", f"--config-dir={own}", "+experiment/mine=glob(*)",
    )  # fmt: skip
    assert (code, seen) == (0, [(7, "smoke"), (8, "smoke")]), said


def test_a_wrong_name_is_told_with_the_users_own_options(command, own):
    for flag in (["--config-dir", str(own)], ["-cd", str(own)]):
        status, said = command(lambda *_: None, *flag, "+experiment/mine=c")
        assert (status, said) == (1, "error: experiment/mine=c: no such option; available: a, b\n")


def test_a_folder_that_is_not_there_is_told(command):
    status, said = command(lambda *_: None, "--config-dir", "nowhere")
    assert status == 1 and said.startswith("error: --config-dir nowhere: no such folder")


def test_programs_that_take_the_same_overrides_find_the_options_until_told_otherwise(own):
    look_in(own)
    assert list_options("experiment/mine") == ("a", "b") and list_options("experiment/init")
    config, _ = compose_train(["+experiment/mine=b"])
    assert (config.seed, config.variant) == (8, "b")
    look_in(None)
    assert list_options("experiment/mine") == ()
    with pytest.raises(ConfigError):
        compose_train(["+experiment/mine=b"])
