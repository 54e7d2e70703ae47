"""Several sources in one: how many rows of each, which ones, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathse.config import data as data_settings
from mathse.data.mixture import MixtureData, by_weight
from mathse.errors import ConfigError, DataError


def mixed(sources: dict[str, Any], **settings: Any) -> MixtureData:
    return MixtureData(data_settings.MixtureDataConfig(sources=sources, **settings))


def rows(path: Path, name: str, count: int, *more: str) -> data_settings.JsonlDataConfig:
    """A source of so many problems, as its section of the settings."""
    lines = [json.dumps({"id": f"{name}/{k}", "question": f"{name}: {k} + 1?", "images": [], "answer": str(k + 1)})
             for k in range(count)]  # fmt: skip
    (path / f"{name}.jsonl").write_text("\n".join([*lines, *more]))
    return data_settings.JsonlDataConfig(path=str(path / f"{name}.jsonl"))


def of(mixture: MixtureData, name: str) -> list[str]:
    return [i for i in mixture.table.ids() if i.startswith(f"{name}/")]


def test_weights_take_as_many_rows_as_their_proportions_allow(tmp_path: Path) -> None:
    sources = {"a": rows(tmp_path, "a", 40), "b": rows(tmp_path, "b", 90)}
    mixture = mixed(sources, weights={"a": 1, "b": 3})
    assert (len(of(mixture, "a")), len(of(mixture, "b"))) == (30, 90)
    assert "A mixture of 30 of 40 rows of a, 90 of 90 rows of b." in mixture.notes
    sized = mixed(sources, weights={"a": 1, "b": 3}, size=20)
    assert (len(of(sized, "a")), len(of(sized, "b"))) == (5, 15)


def test_counts_take_so_many_rows(tmp_path: Path) -> None:
    mixture = mixed({"a": rows(tmp_path, "a", 9), "b": rows(tmp_path, "b", 9)}, counts={"a": 0, "b": 4})
    assert (len(of(mixture, "a")), len(of(mixture, "b"))) == (0, 4)


def test_the_same_seed_takes_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    sources = {"a": rows(tmp_path, "a", 60), "b": rows(tmp_path, "b", 60)}
    once, again, other = (
        mixed(sources, weights={"a": 1, "b": 1}, size=40, seed=seed).table.ids() for seed in (3, 3, 4)
    )
    assert once == again and set(once) != set(other)


def test_a_bigger_mixture_holds_the_smaller_one(tmp_path: Path) -> None:
    sources = {"a": rows(tmp_path, "a", 60), "b": rows(tmp_path, "b", 60)}
    small, big = (set(mixed(sources, counts={"a": n, "b": n}).table.ids()) for n in (10, 30))
    assert small < big


def test_problems_keep_their_file_and_line(tmp_path: Path) -> None:
    mixture = mixed({"a": rows(tmp_path, "a", 9)}, counts={"a": 3})
    for i in mixture.table.ids():
        assert mixture.table.location(i) == (str(tmp_path / "a.jsonl"), int(i[2:]) + 1)


def test_sources_that_have_ids_in_common_lose_no_row(tmp_path: Path) -> None:
    sources = {"a": rows(tmp_path, "a", 5), "b": rows(tmp_path, "b", 5, (tmp_path / "a.jsonl").read_text())}
    mixture = mixed(sources, counts={"a": 5, "b": 10})
    assert len(mixture.table) == 15 and not mixture.bad_rows
    assert {"a/a/0", "b/a/0", "b/b/0"} < set(mixture.table.ids())
    assert {mixture.get(i).source for i in mixture.table.ids()} == {"a", "b"}


def test_bad_rows_of_every_source_are_listed_and_follow_the_mixture_s_setting(tmp_path: Path) -> None:
    sources = {"a": rows(tmp_path, "a", 5, "{"), "b": rows(tmp_path, "b", 5)}
    with pytest.raises(DataError, match="a.jsonl:6: broken JSON"):
        mixed(sources, weights={"a": 1, "b": 1})
    assert len(mixed(sources, weights={"a": 1, "b": 1}, on_bad_row="skip").bad_rows) == 1


def test_a_test_file_of_a_source_is_the_whole_test_split(tmp_path: Path) -> None:
    tests = rows(tmp_path, "t", 4)
    source = replace(rows(tmp_path, "a", 30), test_path=tests.path)
    splits = mixed({"a": source, "b": rows(tmp_path, "b", 30)}, weights={"a": 1, "b": 1}).splits()
    assert {p.id for p in splits["test"]} == {f"t/{k}" for k in range(4)}
    assert sum(map(len, splits.values())) == 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "exactly one is set"),
        ({"weights": {"a": 1}, "counts": {"a": 1}}, "exactly one is set"),
        ({"weights": {"b": 1}}, "data.weights names b, and the sources are a"),
        ({"weights": {"a": 0}}, "must be a number above 0"),
        ({"weights": {"a": "much"}}, "must be a number above 0"),
        ({"weights": {"a": float("nan")}}, "data.weights.a = nan: must be a number above 0, at most 1e\\+12"),
        ({"weights": {"a": float("inf")}}, "data.weights.a = inf: must be a number above 0, at most 1e\\+12"),
        ({"weights": {"a": 1e308}}, "data.weights.a = 1e\\+308: must be a number above 0, at most 1e\\+12"),
        ({"weights": {"a": 10**1000}}, r"data.weights.a = 10{39}: must be a number above 0"),
        ({"counts": {"a": 1.5}}, "must be a whole number"),
        ({"counts": {"a": 3}, "size": 2}, "goes with weights"),
        ({"counts": {"a": 10}}, "source a has 9 rows that can be used, and 10 are asked for"),
        ({"weights": {"a": 1}, "size": 10}, "source a has 9 rows that can be used, and 10 are asked for"),
        ({"counts": 3}, "names 3, and the sources are a"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        mixed({"a": rows(tmp_path, "a", 9)}, **settings)


def test_weights_as_far_apart_as_they_may_be_take_rows() -> None:
    assert by_weight({"a": 10, "b": 33}, {"a": 5e-324, "b": 1e12}, None) == {"a": 0, "b": 33}
    assert by_weight({"a": 10, "b": 33}, {"a": 1e12, "b": 1e12}, None) == {"a": 10, "b": 10}
    assert by_weight({"a": 10, "b": 33}, {"a": 5e-324, "b": 5e-324}, None) == {"a": 10, "b": 10}


def test_a_mixture_needs_sources_that_read_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a mixture needs sources"):
        mixed({})
    with pytest.raises(ConfigError, match="only sources that read files"):
        mixed({"w": data_settings.SyntheticDataConfig()}, counts={"w": 1})


@pytest.mark.parametrize("size", [None, 1, 7, 100])
def test_shares_add_up_and_never_exceed_a_source_s_rows_unless_asked(size: int | None) -> None:
    taken = by_weight({"a": 10, "b": 33, "c": 200}, {"a": 1, "b": 2.5, "c": 0.3}, size)
    if size is not None:
        assert sum(taken.values()) == size
    else:
        assert taken["a"] <= 10 and taken["b"] <= 33 and (taken["a"] == 10 or taken["b"] == 33)
