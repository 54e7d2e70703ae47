"""A record with one strange part is a problem, or is left out with a reason: in every form that is read."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from data import test_readers as published
from data import test_words as words

from mathse.config import build
from mathse.config import data as settings
from mathse.config.compose import compose_evaluate
from mathse.config.data import READABLE
from mathse.data.problems import FileData, JsonlData
from mathse.errors import DataError, MathSEError

FEW, MANY = 25, 10_000  # of each form
GONE = object()
STRANGE = (
    GONE, None, True, -1, 0, 3.7, 10**30, 1e308, float("inf"), "", " ", "\0", "\ud800", "a" * 3000, "../../etc/passwd",
    "/etc/passwd", [], [[]], [None], ["x"] * 50, {}, {"a": {}}, {"en": 1}, "<image><image>", "1e9999999", "1/0",
    "\u202e", "{" * 2000, "\\frac" * 800,
)  # fmt: skip
OWN = {"id": "1", "question": "How many <image> are left of 12?", "images": ["1.png"], "answer": "7", "unit": "cm",
       "solution": "Step 1: 12 - 5 = 7\nThe answer to this problem is 7.", "choices": ["5", "7"], "language": "en",
       "answer_form": {"kind": "number"}, "metadata": {"a": [1]}}  # fmt: skip


def places(record: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The key of everything in a record, from the outside in."""
    below = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in below:
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(record: Any, place: tuple[Any, ...], strange: Any) -> Any:
    record = holder = copy.deepcopy(record)
    for key in place[:-1]:
        holder = holder[key]
    if strange is GONE:
        del holder[place[-1]]
    else:
        holder[place[-1]] = strange
    return record


def own(folder: Path) -> tuple[Path, Any, Callable[[], FileData]]:
    file = published.unpacked(folder, "chartqa") / "own.jsonl"
    (folder / published.PUBLISHED["chartqa"][2]).rename(folder / "1.png")
    of_file = settings.JsonlDataConfig(path=str(file), on_bad_row="skip", max_left_out=1.0)
    return file, OWN, lambda: JsonlData(of_file)


def of_set(name: str) -> Callable[[Path], tuple[Path, Any, Callable[[], FileData]]]:
    def unpack(folder: Path) -> tuple[Path, Any, Callable[[], FileData]]:
        file, record, *_ = published.PUBLISHED[name]
        root = str(published.unpacked(folder, name))
        return folder / file, record, lambda: published.public(name, root, on_bad_row="skip", max_left_out=1.0)

    return unpack


def of_words(name: str, file: str, record: Any) -> Callable[[Path], tuple[Path, Any, Callable[[], FileData]]]:
    return lambda folder: (folder / file, record, lambda: words.source(folder, sets=[name]))


FORMS = {
    "jsonl": own,
    **{name: of_set(name) for name in READABLE},
    "words svamp": of_words("svamp", "SVAMP.json", [words.DVDS]),
    "words gsm8k": of_words("gsm8k", "gsm_train.jsonl", words.NATALIA),
    "words multiarith": of_words("multiarith", "MultiArith.json", [words.CANDIES]),
    "words mawps": of_words("mawps", "AddSub.json", [words.CANDIES]),
}


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", FORMS)
def test_a_strange_part_of_a_record_ends_in_no_traceback(form: str, times: int, tmp_path: Path) -> None:
    file, record, read = FORMS[form](tmp_path)
    cases = [(place, strange) for place in places(record) for strange in STRANGE]
    random.Random(0).shuffle(cases)
    file.write_text(json.dumps(record))
    assert sum(len(split) for split in read().splits().values()) > 0  # as it stands it is a problem
    for place, strange in cases[:times]:
        file.write_text(json.dumps(changed(record, place, strange)))
        try:
            for split in read().splits().values():
                for problem in split:
                    assert problem.question and problem.to_json()
        except DataError:
            continue
        except Exception as error:
            raise AssertionError(f"{form}, {place}: {strange!r}") from error


# benchmark -> a row of its published file
ROWS = {
    "mathvista": {"pid": "1", "question": "How many?", "image": "1.png", "choices": ["1", "2"], "unit": None,
                  "precision": None, "answer": "1", "question_type": "multi_choice", "answer_type": "text",
                  "metadata": {"split": "testmini", "language": "english", "skills": ["algebraic reasoning"]},
                  "query": "Hint: ..."},
    "mathverse": {"sample_index": "1", "problem_index": "1", "problem_version": "Text Dominant", "question": "Find x.",
                  "image": "1.png", "answer": "12", "question_type": "free-form", "question_for_eval": "Find x.",
                  "metadata": {"split": "testmini", "source": "geo", "subject": "Plane", "subfield": "Angle"},
                  "query_wo": "Find x.", "query_cot": "Find x."},
    "mathvision": {"id": "1", "question": "Find x. <image1>", "options": ["1", "2"], "image": "1.png", "answer": "A",
                   "level": 1, "subject": "counting", "solution": None},
    "wemath": {"ID": "1", "split": "testmini", "knowledge concept": "Angles", "question": "Find x.",
               "option": "A. 1; B. 2", "answer": "A", "image_path": "1.png", "key": "2steps_1", "question number": 1,
               "knowledge concept description": "x"},
}  # fmt: skip


@pytest.mark.parametrize("times", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ROWS)
def test_a_strange_part_of_a_benchmark_s_row_ends_in_no_traceback(name: str, times: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    config, _ = compose_evaluate([f"benchmark={name}", f"checkpoint={tmp_path}"])
    benchmark, file = build(config.benchmark[name]), tmp_path / "rows.jsonl"
    cases = [(place, strange) for place in places(ROWS[name]) for strange in STRANGE]
    random.Random(0).shuffle(cases)
    file.write_text(json.dumps(ROWS[name]))
    assert len(benchmark.load(file, need_images=False)) == 1
    for place, strange in cases[:times]:
        file.write_text(json.dumps(changed(ROWS[name], place, strange)))
        try:
            [item] = benchmark.load(file, need_images=False)
            assert isinstance(item.problem.question, str)
        except MathSEError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}, {place}: {strange!r}") from error
