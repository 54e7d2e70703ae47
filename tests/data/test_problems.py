"""Own problems: rows, splits, and what is said of rows that cannot be used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from mathse.config import data as data_settings
from mathse.data.images import load_image
from mathse.data.problems import SPLITS, JsonlData, NoProblems, ProblemSource, Shares, read_rows, split_by_hash
from mathse.data.row_validation import ImageChecks
from mathse.errors import ConfigError, DataError
from mathse.runs.settings import config_slice, flatten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    Image.new("RGB", (5, 3), "red").save(tmp_path / "data" / "images" / "a.png")
    return tmp_path / "data"


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    values = {"id": f"p/{number}", "question": "Find x.", "images": ["images/a.png"], "answer": str(number)}
    return {k: v for k, v in (values | changes).items() if v is not ...}


def write(folder: Path, *lines: dict[str, Any] | str | bytes, name: str = "own.jsonl") -> str:
    raw = [line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
           for line in lines]  # fmt: skip
    (folder / name).write_bytes(b"\n".join(raw))
    return str(folder / name)


def jsonl(path: str, **settings: Any) -> JsonlData:
    return JsonlData(data_settings.JsonlDataConfig(path=path, **settings))


def ids(source: ProblemSource) -> dict[str, set[str]]:
    return {name: {problem.id for problem in problems} for name, problems in source.splits().items()}


# --- good rows ------------------------------------------------------------------------------------------------------


def test_a_row_becomes_a_problem_with_images_that_open_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = row(choices=["1", "2"], solution="It is 1.", level=3)
    monkeypatch.chdir(folder)
    write(folder, written)
    problem = jsonl("own.jsonl").get("p/1")
    monkeypatch.chdir("/")
    assert load_image(problem.images[0]).size == (5, 3)
    assert (problem.question, problem.answer, problem.choices) == ("Find x.", "1", ("1", "2"))
    assert (problem.solution, problem.source, problem.metadata) == ("It is 1.", "own.jsonl", {"level": 3})


def test_byte_order_mark_blank_lines_and_carriage_returns_are_fine(folder: Path) -> None:
    text = "\ufeff\r\n" + json.dumps(row(1)) + "\r\n\n  \n" + json.dumps(row(2, question="求 x。"), ensure_ascii=False)
    source = jsonl(write(folder, text))
    assert source.get("p/1").question == "Find x."
    assert source.get("p/2").question == "求 x。"
    marked = jsonl(write(folder, "\ufeff" + json.dumps(row(3))))
    assert marked.get("p/3").answer == "3"


def test_gzip_file_is_read_like_a_plain_one(folder: Path) -> None:
    (folder / "own.jsonl.gz").write_bytes(gzip.compress(json.dumps(row()).encode()))
    assert jsonl(str(folder / "own.jsonl.gz")).get("p/1").answer == "1"


def test_problem_without_images_is_fine(folder: Path) -> None:
    assert jsonl(write(folder, row(images=[]))).get("p/1").images == ()


def test_null_and_empty_optional_fields_count_as_absent(folder: Path) -> None:
    problem = jsonl(write(folder, row(choices=None, solution=None), row(2, choices=[], solution=""))).get("p/2")
    assert (problem.choices, problem.solution) == ((), None)


def test_own_problems_have_no_step_checker(folder: Path) -> None:
    source = jsonl(write(folder, row()))
    assert source.check(source.get("p/1"), "Step 1: so 1.") is None


def test_unknown_problem_is_an_error_that_names_the_nearest(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no problem 'p/11'.*did you mean 'p/1'"):
        jsonl(write(folder, row())).get("p/11")


# --- keys of other files --------------------------------------------------------------------------------------------


def test_rows_of_another_file_are_read_by_the_keys_that_are_named(folder: Path) -> None:
    columns = data_settings.JsonlColumnsConfig(question="problem", answer="label", images="picture")
    rows = [
        {"problem": "Find x.", "label": 7, "picture": "images/a.png", "answer": "a remark", "level": 3},
        {"problem": "Find y.", "label": "8"},
    ]
    source = jsonl(write(folder, *rows), columns=columns)
    x, y = sorted((p for split in source.splits().values() for p in split), key=lambda p: p.question)
    assert (x.answer, len(x.images), x.metadata) == ("7", 1, {"level": 3})
    assert (y.answer, y.images) == ("8", ()) and len({x.id, y.id}) == 2
    again = jsonl(write(folder, *reversed(rows)), columns=columns)
    assert again.get(x.id).question == "Find x.", "the id is of the contents"


def test_all_missing_keys_of_a_row_are_named_at_once_with_the_settings_that_take_others(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        jsonl(write(folder, {"problem": "Find x.", "label": "7"}))
    assert (
        '"id", "question", "images", "answer" are missing; a row has id, question, images, answer; this one has '
        "problem, label; data.columns.id=KEY data.columns.question=KEY data.columns.images=KEY data.columns.answer=KEY "
    ) in str(caught.value)


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
def test_a_csv_is_called_a_csv(folder: Path, name: str) -> None:
    path = write(folder, "id,question,answer", '1,"What is 1 + 1?",2', name=name)
    with pytest.raises(DataError, match=r"a table with a row of names, and .* data=hf data.root=DIR"):
        jsonl(path)


def test_columns_that_are_not_set_leave_the_identities_of_earlier_runs_as_they_were() -> None:
    flat = flatten({"data": data_settings.JsonlDataConfig(path="x")})
    assert not [key for key in config_slice(flat, ["data"]) if "columns" in key]
    named = data_settings.JsonlDataConfig(path="x", columns=data_settings.JsonlColumnsConfig(answer="label"))
    assert config_slice(flatten({"data": named}), ["data"])["data.columns.answer"] == "label"
    of_hub = flatten({"data": data_settings.HubDataConfig(root="x")})
    assert "data.columns.id" in config_slice(of_hub, ["data"]), "as runs on the hub's sets have it"


# --- bad rows -------------------------------------------------------------------------------------------------------

BAD: list[tuple[Any, str]] = [
    ('{"id": "x", ', "broken JSON"),
    ('["a"]', "a row is a JSON object, got a list"),
    ("17", "got a number 17"),
    (b'{"id": "\xff"}', "not UTF-8"),
    ("[" * 100_000, "bounds"),
    ('{"id": ' + "1" * 5000 + "}", "bounds"),
    (row(id=...), '"id" is missing'),
    (row(answer=...), '"answer" is missing'),
    (row(images=...), '"images" is missing'),
    (row(anwser="1", answer=...), 'did you mean "answer"'),
    (row(choises=["1"]), 'did you mean "choices"'),
    (row(question=" "), '"question" is empty'),
    (row(answer=""), '"answer" is empty'),
    (row(id=7), '"id" is text, got a number 7'),
    (row(answer=7), "put it in quotes"),
    (row(id="a\nb"), "control characters"),
    (row(question="\ud800"), "surrogate"),
    (row(images="images/a.png"), '"images" is a list of texts, got text'),
    (row(images=[None]), '"images"[0] is text, got null'),
    (row(choices="ABCD"), '"choices" is a list'),
    (row(choices=["5", "6"]), "neither a letter A-B nor one of"),
    (row(answer="C", choices=["5", "6"]), "neither a letter A-B"),
    (row(solution=["a"]), '"solution" is text'),
    (row(images=["images/b.png"]), "image images/b.png: no such file"),
    (row(images=["../secret.png"]), "inside the file's folder"),
    (row(images=["images/../../secret.png"]), "inside the file's folder"),
    (row(images=["/etc/hosts"]), "inside the file's folder"),
    (row(images=["C:\\a.png"]), "inside the file's folder"),
    (row(images=["images\\a.png"]), "with /"),
    (row(images=["a\x00.png"]), "inside the file's folder"),
    (row(images=["x" * 5000]), "xxx: no usable path (File name too long); rename it"),
    (row(images=["images"]), "no such file"),
    (row(images=["own.jsonl"]), "damaged, or none of"),
    (row(images=["digits:0012-0345-0678"]), "no such file"),
]


@pytest.mark.parametrize(("line", "said"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_row_is_refused_by_file_line_and_reason(folder: Path, line: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        jsonl(write(folder, row(9), "", line))
    head, reason, hint = str(caught.value).splitlines()
    assert head.endswith("own.jsonl: 1 of 2 rows cannot be used")
    assert "own.jsonl:3: " in reason
    assert said in reason
    assert "on_bad_row=skip" in hint


@pytest.mark.parametrize(("line", "said"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_row_is_left_out_and_listed_when_told_to_skip(folder: Path, line: Any, said: str) -> None:
    source = jsonl(write(folder, row(9), line), on_bad_row="skip")
    assert set().union(*ids(source).values()) == {"p/9"}
    (bad,) = source.bad_rows
    assert (Path(str(bad["file"])).name, bad["line"]) == ("own.jsonl", 2)
    assert said in str(bad["reason"])


def test_duplicate_id_is_bad_and_its_first_row_is_kept(folder: Path) -> None:
    source = jsonl(write(folder, row(1), row(1, answer="other")), on_bad_row="skip")
    assert source.get("p/1").answer == "1"
    assert source.bad_rows[0]["id"] == "p/1"
    assert "own.jsonl:1" in str(source.bad_rows[0]["reason"])


def test_link_that_leads_out_of_the_folder_is_bad(folder: Path) -> None:
    Image.new("RGB", (1, 1)).save(folder.parent / "secret.png")
    (folder / "images" / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "images" / "loop.png").symlink_to(folder / "images" / "loop.png")
    source = jsonl(write(folder, row(), row(2, images=["images/link.png"]), row(3, images=["images/loop.png"])),
                       on_bad_row="skip")  # fmt: skip
    assert "leads out" in str(source.bad_rows[0]["reason"])
    assert source.bad_rows[1]["line"] == 3


def test_an_answer_of_any_length_may_be_one_of_the_choices(folder: Path) -> None:
    long = "x" * 5000
    assert jsonl(write(folder, row(answer=long, choices=[long, "y"]))).get("p/1").answer == long


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "z" * 5000, "choices": ["x", "y"]},
        {"id": "a" * 5000 + "\n"},
        {"images": ["../" + "x" * 5000]},
        {"images": ["x" * 150 + ".png"]},
    ],
)
def test_no_more_of_a_bad_value_is_shown_than_tells_which_it_is(folder: Path, changes: dict[str, Any]) -> None:
    [found] = read_rows(Path(write(folder, row(**changes))), ImageChecks())
    assert found.problem is None and len(found.reason) < 200 and found.line == 1


def test_names_that_no_file_can_have_are_bad_beyond_the_images_that_are_decoded_too(folder: Path) -> None:
    images = ImageChecks(eager=0)
    [found] = read_rows(Path(write(folder, row(images=["x" * 5000]))), images)
    assert found.problem is None and "File name too long" in str(found.reason) and len(str(found.reason)) < 200


def test_five_bad_rows_are_named_and_the_others_counted(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        jsonl(write(folder, row(), *["{"] * 8))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("8 of 9 rows cannot be used")
    assert [line.split(":")[1] for line in lines[1:6]] == ["2", "3", "4", "5", "6"]
    assert lines[6] == "... and 3 more"


def test_every_row_is_either_used_or_listed(folder: Path) -> None:
    lines = [row(n) if n % 3 else "{" for n in range(30)]
    source = jsonl(write(folder, *lines), on_bad_row="skip")
    assert sum(map(len, source.splits().values())) + len(source.bad_rows) == 30


def test_file_of_nothing_but_bad_rows_is_refused_even_when_told_to_skip(folder: Path) -> None:
    with pytest.raises(DataError, match="1 of 1 rows"):
        jsonl(write(folder, "{"), on_bad_row="skip")


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_file_without_rows_is_refused(folder: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        jsonl(write(folder, content))


def test_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.jsonl: no such file"):
        jsonl(str(folder / "missing.jsonl"))


def test_folder_in_place_of_a_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="a folder, not a file"):
        jsonl(str(folder))


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"plain", lambda raw: raw[:12] + b"\xff" * 8])
def test_damaged_gzip_file_is_refused(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    (folder / "own.jsonl.gz").write_bytes(damage(gzip.compress(json.dumps(row()).encode())))
    with pytest.raises(DataError, match="gzip"):
        jsonl(str(folder / "own.jsonl.gz"))


def test_endless_line_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"own\.jsonl:1: a line of more than"):
        jsonl(write(folder, b"x" * 10_000_001))


def test_path_is_needed() -> None:
    with pytest.raises(ConfigError, match="data.path=FILE"):
        JsonlData(data_settings.JsonlDataConfig())


# --- splits ---------------------------------------------------------------------------------------------------------


def test_splits_are_disjoint_and_hold_every_row(folder: Path) -> None:
    splits = jsonl(write(folder, *map(row, range(200)))).splits()
    listed = [problem.id for problems in splits.values() for problem in problems]
    assert set(splits) == set(SPLITS)
    assert sorted(listed) == sorted(f"p/{n}" for n in range(200))


def test_sizes_of_splits_follow_the_shares() -> None:
    split = split_by_hash([str(n) for n in range(20_000)], 0, Shares(test=0.2, dev=0.1, orm=0.2, seed=0.4))
    shares = {name: len(found) / 20_000 for name, found in split.items()}
    expected = {"test": 0.2, "dev": 0.1, "orm_train": 0.15, "orm_held": 0.05, "seed": 0.2, "pool": 0.3}
    assert shares == pytest.approx(expected, abs=0.015)


def test_added_rows_move_no_other_row() -> None:
    shares = Shares(test=0.2, dev=0.1, orm=0.2, seed=0.4)
    before = split_by_hash([str(n) for n in range(300)], 7, shares)
    after = split_by_hash([str(n) for n in range(400, -1, -1)], 7, shares)
    for name in SPLITS:
        assert set(before[name]) <= set(after[name])
        assert [i for i in after[name] if i in set(before[name])] == before[name]


def test_another_seed_gives_another_split() -> None:
    shares = Shares(test=0.5, dev=0, orm=0, seed=0.5)
    assert split_by_hash(list(map(str, range(50))), 1, shares) != split_by_hash(list(map(str, range(50))), 2, shares)


@pytest.mark.parametrize("seed", range(20))
def test_six_rows_fill_all_six_splits(seed: int) -> None:
    split = split_by_hash(list("abcdef"), seed, Shares(test=0.2, dev=0.1, orm=0.2, seed=0.4))
    assert {name: len(found) for name, found in split.items()} == dict.fromkeys(SPLITS, 1)


@pytest.mark.parametrize("rows", range(1, 6))
def test_fewer_rows_than_splits_fill_as_many_splits(rows: int) -> None:
    split = split_by_hash(list("abcde"[:rows]), 0, Shares(test=0.2, dev=0.1, orm=0.2, seed=0.4))
    assert sorted(i for found in split.values() for i in found) == list("abcde"[:rows])
    assert sum(map(bool, split.values())) == rows


def test_split_without_a_share_stays_empty() -> None:
    split = split_by_hash([str(n) for n in range(100)], 0, Shares(test=0.7, dev=0.1, orm=0.2, seed=0.4))
    assert not split["seed"] and not split["pool"]


def test_test_file_of_its_own_is_the_whole_test_split(folder: Path) -> None:
    test = write(folder, *(row(n, id=f"t/{n}") for n in range(5)), name="test.jsonl")
    splits = ids(jsonl(write(folder, *map(row, range(40))), test_path=test))
    assert splits["test"] == {f"t/{n}" for n in range(5)}
    assert sum(map(len, splits.values())) == 45


def test_test_problem_that_is_also_a_training_problem_is_refused(folder: Path) -> None:
    own = write(folder, *map(row, range(9)))
    with pytest.raises(DataError, match=r"test\.jsonl:1: \"id\" 'p/3' stands already at own\.jsonl:4"):
        jsonl(own, test_path=write(folder, row(3), row(99), name="test.jsonl"))


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.7, 0.2, 0.1), (0.1, 0.2, 0.7), (1.0, 0.0, 0.0)])
def test_shares_may_add_up_to_everything(folder: Path, shares: tuple[float, float, float]) -> None:
    test, dev, orm = shares
    splits = ids(jsonl(write(folder, *map(row, range(9))), test_share=test, dev_share=dev, orm_share=orm))
    assert not splits["seed"] and not splits["pool"] and sum(map(len, splits.values())) == 9


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2001), (1.0, 0.0001, 0.0), (0.0, 1.0, 0.001)])
def test_shares_slightly_above_everything_are_refused(folder: Path, shares: tuple[float, float, float]) -> None:
    test, dev, orm = shares
    with pytest.raises(ConfigError, match="at most 1 is allowed"):
        jsonl(write(folder, row()), test_share=test, dev_share=dev, orm_share=orm)


def test_an_own_row_that_is_there_twice_is_a_mistake(folder: Path) -> None:
    own = write(folder, row(1), row(1), row(2))
    with pytest.raises(DataError, match=r"own\.jsonl:2: \"id\" 'p/1' stands already at own\.jsonl:1; ids are unique"):
        jsonl(own)
    source = jsonl(own, on_bad_row="skip")
    assert source.table.ids() == ["p/1", "p/2"] and [bad["line"] for bad in source.bad_rows] == [2]


def test_only_the_bad_rows_of_the_file_without_problems_are_listed(folder: Path) -> None:
    own = write(folder, row(1), "{", row(2))
    test = write(folder, "[", name="test.jsonl")
    with pytest.raises(NoProblems, match=r"test\.jsonl: 1 of 1 rows") as caught:
        jsonl(own, test_path=test, on_bad_row="skip")
    assert [str(bad["file"]) for bad in caught.value.bad_rows] == [test]


def test_shares_of_more_than_everything_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.5 \+ 0\.4 \+ 0\.2 = 1\.1"):
        jsonl(write(folder, row()), test_share=0.5, dev_share=0.4, orm_share=0.2)


def test_unknown_way_with_bad_rows_is_refused(folder: Path) -> None:
    with pytest.raises(ValidationError, match="'error' or 'skip'"):
        jsonl(write(folder, row()), on_bad_row="ignore")
