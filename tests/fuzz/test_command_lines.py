"""A command line of any kind composes, or is refused in sentences."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from fuzz.hostile import fuzz, texts
from mathse.config.compose import compose_train
from mathse.config.options import list_groups
from mathse.config.schema import TrainConfig
from mathse.config.sections import list_key_paths
from mathse.errors import ConfigError

FEW, MANY = 5, 300

keys = st.one_of(
    st.sampled_from(list_key_paths(TrainConfig)),
    st.sampled_from([*list_groups()]),
    st.sampled_from([
        "hydra.run.dir", "hydra", "hydra.job.name", "judge._target_", "data._target_", "logger.loggers.a", "data.split",
        "backbone@orm.backbone", "callbacks.own", "sft", "name.a", "_target_", "defaults", "trainer.devices.x",
    ]),
    texts.map(lambda text: text[:30]),
)  # fmt: skip
values = st.one_of(
    st.sampled_from([
        "", "null", "true", "-1", "0", "1e309", "9" * 700, "9" * 5000, "[]", "{}", "[1,2]", "{a: 1}", "1,2", "glob(*)",
        "range(3)", "${seed}", "${nope}", "${oc.env:HOME}", "???", "'x'", '"a\0b"', "x" * 300, "tiny", "csv", "jsonl",
        "builtins.type", "os.system", "..", "json.dumps", "choice(1,2)", "interval(0,1)", "[tiny,qwen2vl]", "\\",
    ]),
    texts,
)  # fmt: skip
overrides = st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), keys, values).map(lambda p: f"{p[0]}{p[1]}={p[2]}")


def composes(line: list[str]) -> None:
    try:
        config, folder = compose_train([text for text in line if not text.startswith("-")])
    except ConfigError as error:
        assert str(error).strip() and len(str(error)) < 20_000
    else:
        assert isinstance(config, TrainConfig) and str(folder)


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_command_line_composes_or_is_refused(examples: int) -> None:
    fuzz(st.lists(overrides, min_size=1, max_size=2), composes, examples)
