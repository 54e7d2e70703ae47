"""Which pairs there are, which of them count, and benchmark files as they are published."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mathse.config import build
from mathse.config.data import JsonlDataConfig, PublicDataConfig
from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.benchmark_files import index_of, problems_of
from mathse.data.decontamination.search import Search
from mathse.errors import DataError
from mathse.types import Problem

TELLING = "A rectangle has sides of 12 cm and 35 cm. How long is its diagonal in centimetres?"


def noise(path: Path, seed: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 64), 90).save(path) if seed < 0 else _blocks(seed).save(path)
    return str(path)


def _blocks(seed: int) -> Image.Image:
    import random

    draw = random.Random(seed)
    return Image.frombytes("L", (12, 12), draw.randbytes(144)).resize((96, 96), Image.Resampling.BILINEAR)


def pairs(index: Index, question: str, *images: str) -> list[tuple[str, tuple[str, ...], bool]]:
    found = index.pairs(ComparedRow.of(Problem("row", question, images)))
    return [(pair.against_id, pair.by, pair.counts) for pair in found]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index()
    index.add("b", Problem("told", TELLING, (noise(tmp_path / "1.png", 1),)))
    index.add("b", Problem("short", "Find x.", (noise(tmp_path / "2.png", 2),)))
    index.add("b", Problem("bare", "Is 2 prime?"))
    index.add("b", Problem("shown", "", (noise(tmp_path / "3.png", 3),)))
    return index


def test_an_equal_question_is_a_pair_whatever_its_picture(index: Index, tmp_path: Path) -> None:
    other = noise(tmp_path / "other.png", 9)
    assert pairs(index, TELLING.upper()) == [("told", ("question",), True)]
    assert pairs(index, TELLING, other) == [("told", ("question",), True)]


def test_a_question_that_tells_nothing_counts_only_with_its_picture_or_without_any(
    index: Index, tmp_path: Path
) -> None:
    other, own = noise(tmp_path / "other.png", 9), str(tmp_path / "2.png")
    assert pairs(index, "Find x.", other) == [("short", ("question",), False)]
    assert pairs(index, "Find x.") == [("short", ("question",), False)], "the picture may be any"
    assert pairs(index, "Find x.", own) == [("short", ("question", "image"), True)]
    assert pairs(index, "Is 2 prime?") == [("bare", ("question",), True)]
    assert pairs(index, "Is 2 prime?", other) == [("bare", ("question",), False)]


def test_a_near_question_needs_the_same_numbers(index: Index) -> None:
    assert pairs(index, TELLING.replace("its diagonal", "the diagonal")) == [("told", ("near_question",), True)]
    assert pairs(index, TELLING.replace("35", "36")) == []
    assert pairs(index, TELLING.replace("12", "35").replace("35 cm. How", "12 cm. How")) == []


def test_a_question_inside_a_longer_one_is_found(index: Index) -> None:
    longer = f"Look at the drawing before you answer, and explain each step. {TELLING} Give the 1st digit only."
    assert pairs(index, longer) == [("told", ("near_question",), True)]
    assert pairs(index, longer.replace("35", "36")) == []
    assert pairs(index, "Find x. " + longer.replace(TELLING, "Then stop.")) == []


def test_a_shared_picture_is_a_pair_whatever_is_asked(index: Index, tmp_path: Path) -> None:
    assert pairs(index, "Something else?", str(tmp_path / "3.png")) == [("shown", ("image",), True)]
    assert pairs(index, "", noise(tmp_path / "other.png", 9), str(tmp_path / "3.png")) == [("shown", ("image",), True)]
    assert pairs(index, "", noise(tmp_path / "other.png", 9)) == []


def test_a_damaged_picture_leaves_its_row_to_its_question(index: Index, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert pairs(index, TELLING, str(tmp_path / "broken.png")) == [("told", ("question",), True)]


def test_the_threshold_is_a_setting() -> None:
    strict, loose = Index(text_similarity=0.99), Index(text_similarity=0.5)
    for index in (strict, loose):
        index.add("b", Problem("p", TELLING))
    changed = TELLING.replace("its diagonal", "the diagonal")
    assert pairs(strict, changed) == [] and pairs(loose, changed) != []


# --- benchmark files --------------------------------------------------------------------------------------------------


def test_every_published_shape_is_read_with_its_pictures(fixtures: Path) -> None:
    sizes = {}
    for folder in sorted((fixtures / "datasets").iterdir()):
        found = list(problems_of(folder / "records.jsonl"))
        lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        sizes[folder.name] = len(found) == len(lines)
        for problem, line in zip(found, lines, strict=True):
            assert problem.id == str(line.get("id", line.get("pid")))
            assert problem.question == line.get("question", line.get("problem_text")) or not line["question"].strip()
            assert problem.images == ((str(folder / line["image_file"]),) if line.get("image_file") else ())
    assert sizes and all(sizes.values())


def test_whole_benchmarks_are_read_packed_or_not(fixtures: Path) -> None:
    for path in sorted((fixtures / "benchmarks").glob("*/test*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            assert len(list(problems_of(path))) == sum(1 for _ in file)


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def test_pictures_are_looked_for_where_benchmarks_put_them(tmp_path: Path) -> None:
    noise(tmp_path / "images" / "a.png", 1)
    refs = ("a.png", "images/a.png", "data/images/a.png", "gone/a.png", "../a.png", "/etc/passwd")
    found = list(
        problems_of(Path(write(tmp_path / "b.jsonl", *({"id": r, "question": "?", "image": r} for r in refs))))
    )
    here = str(tmp_path / "images" / "a.png")
    assert [p.images[0] == here for p in found] == [True, True, True, False, False, False]
    assert all(Path(p.images[0]).is_relative_to(tmp_path) for p in found)


def test_pictures_that_are_not_here_are_told_of(tmp_path: Path) -> None:
    said: list[str] = []
    file = write(tmp_path / "b.jsonl", {"id": 1, "question": TELLING, "image": "a.png"})
    index = index_of([file], say=said.append)
    assert pairs(index, TELLING) == [("1", ("question",), True)]
    assert said == [f"{file}: 1 of 1 pictures are not here; of their problems the question is known"]


INLINE = "data:image/png;base64," + "A" * 5000


@pytest.mark.parametrize("name", [INLINE, "a" * 300 + ".png", "a/" * 3000, "a\x00.png"])
def test_a_picture_whose_name_no_file_can_have_is_not_here(tmp_path: Path, name: str) -> None:
    noise(tmp_path / "here.png", 1)
    said: list[str] = []
    rows = [{"id": 1, "question": TELLING, "image": name}, {"id": 2, "question": "?", "image": name, "img": "here.png"}]
    file = write(tmp_path / "b.jsonl", *rows)
    assert pairs(index_of([file], say=said.append), TELLING) == [("1", ("question",), True)]
    assert said == [f"{file}: 1 of 2 pictures are not here; of their problems the question is known"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"id": 1, "question": ', r"b.jsonl:2: broken JSON"),
        ({"id": 1, "text": "?"}, r"b.jsonl:2: no question and no picture \(its keys: id, text\)"),
        ("17", r"b.jsonl:2: a row is a JSON object"),
    ],
)
def test_a_benchmark_that_is_half_read_is_refused(tmp_path: Path, row: Any, said: str) -> None:
    file = write(tmp_path / "b.jsonl", {"id": 0, "question": "Fine?"}, row)
    with pytest.raises(DataError, match=said):
        index_of([file])
    with pytest.raises(DataError, match="holds no rows"):
        index_of([write(tmp_path / "empty.jsonl")])


# --- what is reported -------------------------------------------------------------------------------------------------


def test_a_search_names_each_pair_and_counts_rows(tmp_path: Path) -> None:
    index = Index()
    index.add("b.jsonl", Problem("17", TELLING))
    index.add("b.jsonl", Problem("18", "Find x.", (noise(tmp_path / "1.png", 1),)))
    asked = (TELLING, "Find x.", "Another 1?", "Another 1?", TELLING)
    rows = [{"id": f"p{k}", "question": q, "images": [], "answer": "1"} for k, q in enumerate(asked)]
    source = build(JsonlDataConfig(path=write(tmp_path / "own.jsonl", *rows)))
    search = Search(index, source, drop=True)
    found = [search.rows(problem) for problem in source.distillable()]
    place = {"id": "p0", "file": str(tmp_path / "own.jsonl"), "line": 1, "against": "b.jsonl", "against_id": "17"}
    assert found[0] == [{**place, "by": ["question"], "similarity": 1.0, "counts": True, "dropped": True}]
    assert [(r["by"], r["counts"], r["dropped"]) for r in found[1]] == [(["question"], False, False)]
    assert found[2] == []
    assert [(r["by"], r["against_id"], r["dropped"]) for r in found[3]] == [(["duplicate"], "p2", False)]
    assert [r["by"] for r in found[4]] == [["question"], ["duplicate"]]
    assert search.counts == {"rows": 5, "pairs": 3, "matched": 2, "weak": 1, "dropped": 2, "duplicates": 2}


def test_the_same_question_about_another_picture_is_no_duplicate(tmp_path: Path) -> None:
    images = [noise(tmp_path / f"{k}.png", k) for k in range(3)]
    _blocks(0).save(tmp_path / "0.bmp")
    problems = [Problem(str(k), "Find x.", (ref,)) for k, ref in enumerate([*images, str(tmp_path / "0.bmp")])]
    from mathse.data.decontamination.search import Duplicates

    duplicates = Duplicates()
    assert [duplicates.first(p, ComparedRow.of(p)) for p in problems] == [None, None, None, "0"]


def test_a_sign_is_the_word_for_it_on_real_overlaps(fixtures: Path) -> None:
    """GeoQA in English has words where MathVista has signs; 29 of these 59 pairs were found without knowing that."""
    lines = (fixtures / "real" / "overlaps" / "geoqa_mathvista_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    index = Index()
    for pair in pairs:
        index.add("mathvista", Problem(pair["mathvista_pid"], pair["mathvista_question"], ("not here.png",)))
    hits = 0
    for pair in pairs:
        matches = index.pairs(ComparedRow.of(Problem(pair["id"], pair["question"], ("not here.png",))))
        hits += any(match.against_id == pair["mathvista_pid"] and match.counts for match in matches)
    assert hits >= 55


def test_sets_that_share_nothing_make_no_pair(fixtures: Path) -> None:
    index = Index()
    for file in ("mathverse/testmini_text_only.json", "dynamath/dataset.json", "mathvision/data/test.jsonl"):
        for problem in problems_of(fixtures / "real" / file):
            index.add(file, problem)
    rows: list[Problem] = []
    for name, split in (("tabmwp", "test"), ("formalgeo", "train"), ("chartqa", "test")):
        source = build(PublicDataConfig(name=name, root=str(fixtures / "real" / name), split=split))  # type: ignore[arg-type]
        rows += [problem for part in source.splits().values() for problem in part]
    assert len(index) > 40 and len(rows) > 45
    assert [pair for row in rows for pair in index.pairs(ComparedRow.of(row))] == []


@pytest.mark.parametrize(
    ("answer", "width", "counts"), [("14", 0, True), ("14.0", 0, True), ("15", 0, False), ("14", 1, False)]
)
def test_an_equal_question_counts_with_the_answer_and_the_published_size_of_an_image_that_is_not_here(
    tmp_path: Path, answer: str, width: int, counts: bool
) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "7.png")
    record = {"pid": "1", "question": "How many bars are there?", "image": "images/1.jpg", "answer": answer,
              "metadata": {"img_width": 60 + width, "img_height": 40}}  # fmt: skip
    (tmp_path / "mathvista.json").write_text(json.dumps([record]))
    index = index_of([str(tmp_path / "mathvista.json")])
    row = Problem("own/7", "How many bars are there?", (str(tmp_path / "7.png"),), "14")
    (pair,) = index.pairs(ComparedRow.of(row))
    assert pair.counts is counts
    assert ("answer_and_image_size" in pair.by) is counts
