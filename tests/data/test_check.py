"""``python -m mathse data check``: what it counts, lists and warns of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import SIZES, rows
from PIL import Image, ImageDraw

from mathse.__main__ import main
from mathse.runs.store import read_json

SMALL = [s for s in SIZES if s.startswith("backbone.")]


def row(name: str, question: str = "How many?", answer: str = "12", **more: Any) -> dict[str, Any]:
    return {"id": name, "question": question, "images": ["a.png"], "answer": answer, **more}


def check(folder: Path, *lines: Any, settings: tuple[str, ...] = (), sizes: Sequence[str] = SMALL) -> tuple[int, Path]:
    """The exit code, and the folder that was written to."""
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.linear_gradient("L").convert("RGB").rotate(90 * (color == "blue")).save(folder / name)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "own.jsonl").write_text(text)
    given = ["data=jsonl", f"data.path={folder / 'own.jsonl'}", f"hydra.run.dir={folder / 'out'}"]
    return main(["data", "check", *given, *sizes, *settings]), folder / "out"


def test_rows_are_counted_by_what_they_are(tmp_path: Path) -> None:
    lines = [row("a"), row("b", "求 x 的值", "B", choices=["12", "13"], images=[]), row("c", "Is it so?", "Yes")]
    code, out = check(tmp_path, *lines)
    figures = read_json(out / "data_check.json")
    assert code == 0 and (figures["rows"], figures["used"], figures["listed"]) == (3, 3, 0)
    assert figures["by_language"] == {"en": 2, "zh": 1}
    assert figures["by_answer"] == {"number": 1, "choice": 1, "yes_no": 1}
    assert figures["by_pictures"] == {"1": 2, "0": 1} and figures["by_source"] == {"own.jsonl": 3}
    assert figures["picture_side"]["greatest"] == 256 and figures["pictures_shown_again"] == 1
    assert figures["question_length"]["up_to"] == {"50": 3} and sum(figures["splits"].values()) == 3


def test_repeated_rows_and_contradictions_are_warned_of_and_used(tmp_path: Path) -> None:
    lines = [
        row("a"), row("same", "how many"), row("against", "How many?", "13"), row("other picture", images=["b.png"]),
        row("solved", "How much?", "12", solution="Step 1: 6 + 7 = 13. The answer to this problem is 13."),
    ]  # fmt: skip
    code, out = check(tmp_path, *lines)
    warnings = [(w["id"], w["by"][0], w["line"]) for w in rows(out / "warnings.jsonl")]
    assert code == 0 and warnings == [
        ("same", "duplicate", 2), ("against", "duplicate", 3), ("against", "contradiction", 3),
        ("solved", "solution", 5),
    ]  # fmt: skip
    figures = read_json(out / "data_check.json")
    assert (figures["used"], figures["duplicates"], figures["contradictions"]) == (5, 2, 1)


def test_drawings_that_differ_in_a_label_alone_contradict_each_other_in_nothing(tmp_path: Path) -> None:
    for name, label in (("one.png", "3"), ("other.png", "8")):
        image = Image.new("RGB", (800, 640), "white")
        pen = ImageDraw.Draw(image)
        pen.polygon([(100, 560), (700, 560), (250, 80)], outline="black", width=4)
        pen.text((420, 300), label, fill="black")  # too small for a perceptual hash
        image.save(tmp_path / name)
    code, out = check(tmp_path, row("a", images=["one.png"]), row("b", answer="13", images=["other.png"]))
    assert code == 0 and rows(out / "warnings.jsonl") == []
    assert read_json(out / "data_check.json")["pictures_shown_again"] == 0


def test_a_prompt_too_long_is_listed_and_no_error(tmp_path: Path) -> None:
    code, out = check(tmp_path, row("a"), row("long", "word " * 3000))
    (listed,) = rows(out / "bad_rows.jsonl")
    assert code == 0 and (listed["file"], listed["line"], listed["id"]) == (str(tmp_path / "own.jsonl"), 2, "long")
    assert "fit" in listed["reason"] and read_json(out / "data_check.json")["too_long"] == 1


def test_a_picture_that_the_backbone_cannot_take_is_an_error_or_listed(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 4)).save(tmp_path / "thin.png")
    lines = [row("a"), row("thin", images=["thin.png"])]
    assert check(tmp_path, *lines)[0] == 1
    code, out = check(tmp_path, *lines, settings=("data.on_bad_row=skip",))
    assert code == 0 and "1000 x 4 pixels" in rows(out / "bad_rows.jsonl")[0]["reason"]


def test_a_picture_whose_shape_is_refused_is_named(tmp_path: Path) -> None:
    assert main(["tiny", "qwen2vl", str(tmp_path / "model")]) == 0
    Image.new("RGB", (1000, 4)).save(tmp_path / "thin.png")
    settings = ("backbone=qwen2vl", f"backbone.path={tmp_path / 'model'}", "data.on_bad_row=skip")
    _, out = check(tmp_path, row("thin", images=["thin.png"]), settings=settings, sizes=())
    [listed] = rows(out / "bad_rows.jsonl")
    assert listed["reason"].startswith(f"image {tmp_path / 'thin.png'}: 1000 x 4 pixels")


def test_no_teacher_takes_part_so_none_has_to_go_with_the_data(tmp_path: Path) -> None:
    assert check(tmp_path, row("a"))[0] == 0
    assert check(tmp_path, row("a"), settings=("teacher=symbolic",))[0] == 0
    assert main(["data", "check", "teacher=replay", "data.pool=many"]) == 1  # what else is wrong is refused


def test_a_file_of_nothing_but_bad_rows_is_listed_and_an_error(tmp_path: Path) -> None:
    code, out = check(tmp_path, "{", row("a", " "))
    assert code == 1 and [r["line"] for r in rows(out / "bad_rows.jsonl")] == [1, 2]
    assert read_json(out / "data_check.json")["rows"] == 2


def test_rows_of_a_benchmark_are_named(tmp_path: Path) -> None:
    bench = tmp_path / "bench.jsonl"
    bench.write_text(json.dumps({"pid": "7", "question": "HOW MANY?", "image": "a.png"}))
    against = (f"decontaminate.against=[{bench}]",)
    code, out = check(tmp_path, row("a"), row("b", "Another?", images=[]), settings=against)
    (pair,) = rows(out / "decontamination.jsonl")
    assert code == 0 and (pair["id"], pair["against_id"], pair["by"]) == ("a", "7", ["question", "image"])
    found = read_json(out / "data_check.json")["decontamination"]
    assert (found["problems"], found["matched"], found["dropped"]) == (1, 1, 0)


class Page(HTMLParser):
    """Collects ids, and asserts that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in ("meta", "input", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_samples_and_hostile_text_harmlessly(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> & \u202e"
    code, out = check(tmp_path, row("a", hostile), row("<b>", " "), settings=("data.on_bad_row=skip",))
    text = (out / "data_check.html").read_text()
    page = Page()
    page.feed(text)
    assert code == 0 and {"data", "lengths", "listed", "gallery", "settings"} <= set(page.ids) and not page.open
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "data:image/png;base64," in text


def test_the_embedded_world_can_be_looked_at_too(tmp_path: Path) -> None:
    sizes = ["data.pool=9", "data.test=5", "data.orm_train=4", "data.orm_held=3", "data.dev=2"]
    assert main(["data", "check", *sizes, "data.seed_size=3", f"hydra.run.dir={tmp_path}", *SMALL]) == 0
    assert read_json(tmp_path / "data_check.json")["used"] == 26


def test_prompts_are_measured_without_a_weight(tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert main(["tiny", "qwen2vl", str(model)]) == 0
    (model / "model.safetensors").unlink()
    lines = [row("a", images=[]), row("long", "word " * 3000, images=[])]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    given = ["data=jsonl", f"data.path={tmp_path / 'own.jsonl'}", f"hydra.run.dir={out}"]
    given += ["backbone=qwen2vl", f"backbone.path={model}", "evaluation.max_new_tokens=64"]
    assert main(["data", "check", *given]) == 0
    figures = read_json(out / "data_check.json")
    assert (figures["backbone"], figures["used"], figures["too_long"]) == ("qwen2vl", 1, 1)


def test_a_backbone_that_is_not_here_leaves_prompts_unmeasured_and_says_so(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    (tmp_path / "own.jsonl").write_text(json.dumps(row("a")))
    out = tmp_path / "out"
    given = ["data=jsonl", f"data.path={tmp_path / 'own.jsonl'}", "teacher=replay", f"hydra.run.dir={out}"]
    assert main(["data", "check", *given, "backbone=qwen2vl", "backbone.path=someone/nothing"]) == 0
    figures = read_json(out / "data_check.json")
    assert figures["backbone"] is None and "could not be opened" in figures["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=jsnl"], "data=jsnl: no such option; available: ai2d, chartqa"),
        (["data=jsonl", "teacher=replay"], "data.path = null: data=jsonl needs a file"),
        (["nonsense=1"], "nonsense: no such setting"),
    ],
)
def test_a_wrong_override_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", *arguments]) == 1
    assert f"error: {said}" in capsys.readouterr().err
