"""Tables of the datasets library, in folders: nothing is fetched here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mathse.config import build
from mathse.config import data as data_settings
from mathse.data.hub import HubData
from mathse.data.images import image_size, load_image
from mathse.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets", reason="needs the datasets library: pip install '.[hub]'")

COLUMNS = {"question": "query", "answer": "label", "images": "image"}


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library writes goes into the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def saved(folder: Path, rows: list[dict[str, Any]], **features: Any) -> str:
    """A table saved to disk; pictures are a column of the library's own kind."""
    kinds = {"query": datasets.Value("string"), "label": datasets.Value("string"), "image": datasets.Image()} | features
    table = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    table.save_to_disk(folder)
    return str(folder)


def hub(root: str, columns: dict[str, str | None] | None = None, **settings: Any) -> HubData:
    named = data_settings.HubColumnsConfig(**(columns or {}))
    return HubData(data_settings.HubDataConfig(root=root, columns=named, **settings))


def cell(color: str) -> dict[str, Any]:
    return {"bytes": png(color), "path": None}


def rows(*colors: str) -> list[dict[str, Any]]:
    return [{"query": f"How {c} is it?", "label": str(k), "image": cell(c)} for k, c in enumerate(colors)]


def test_a_saved_table_gives_problems_whose_pictures_stay_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "set", rows("red", "blue"))
    monkeypatch.chdir(tmp_path)
    source = hub("set", columns=COLUMNS)
    monkeypatch.chdir("/")
    blue = source.table.at(1)
    assert (blue.question, blue.answer, blue.source) == ("How blue is it?", "1", "set")
    assert blue.images[0].startswith("hf:") and load_image(blue.images[0]).getpixel((0, 0)) == (0, 0, 255)
    assert image_size(blue.images[0]) == (5, 3)
    assert blue.metadata == {"language": "en", "answer_form": {"kind": "number", "number": "1"}}
    assert source.table.location(blue.id) == (f"{tmp_path / 'set'}:train", 2)


def test_parquet_files_in_a_folder_are_a_set_too(tmp_path: Path) -> None:
    table = datasets.load_from_disk(saved(tmp_path / "saved", rows("red", "blue")))
    (tmp_path / "set" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "set" / "data" / "train-00000.parquet")
    source = hub(str(tmp_path / "set"), columns=COLUMNS)
    assert [load_image(p.images[0]).getpixel((0, 0)) for p in source.distillable()] == [(255, 0, 0), (0, 0, 255)]


def test_ids_come_from_content_and_not_from_the_place(tmp_path: Path) -> None:
    forth = hub(saved(tmp_path / "a", rows("red", "blue", "green")), columns=COLUMNS)
    back = hub(saved(tmp_path / "b", rows("red", "blue", "green")[::-1]), columns=COLUMNS)
    assert forth.table.ids() == back.table.ids()[::-1] and len(set(forth.table.ids())) == 3
    named = hub(saved(tmp_path / "c", rows("red")), columns={**COLUMNS, "id": "label"})
    assert named.table.ids() == ["0"]


def test_several_pictures_choices_and_solutions_are_kept(tmp_path: Path) -> None:
    row = {"query": "Which?", "label": "1", "image": [cell("red"), cell("blue")], "options": ["12", "13"], "why": "So."}
    kinds = {"image": datasets.List(datasets.Image()), "options": datasets.List(datasets.Value("string"))}
    folder = saved(tmp_path / "set", [row], **kinds, why=datasets.Value("string"))
    columns = {**COLUMNS, "answer": None, "answer_index": "label", "choices": "options", "solution": "why"}
    problem = hub(folder, columns=columns).table.at(0)
    assert (problem.answer, problem.choices, problem.solution) == ("B", ("12", "13"), "So.")
    assert [load_image(ref).getpixel((0, 0)) for ref in problem.images] == [(255, 0, 0), (0, 0, 255)]


def test_paths_of_pictures_start_at_the_folder_and_stay_in_it(tmp_path: Path) -> None:
    (tmp_path / "set" / "pictures").mkdir(parents=True)
    Image.new("RGB", (7, 7)).save(tmp_path / "set" / "pictures" / "a.png")
    Image.new("RGB", (7, 7)).save(tmp_path / "secret.png")
    lines = [
        {"query": f"{k}?", "label": "1", "image": ref} for k, ref in enumerate(("a.png", "../secret.png", "b.png"))
    ]
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = hub(str(tmp_path / "set"), columns=COLUMNS, images=str(tmp_path / "set" / "pictures"), on_bad_row="skip")
    assert [p.images for p in source.distillable()] == [(str(tmp_path / "set" / "pictures" / "a.png"),)]
    assert [row["line"] for row in source.bad_rows] == [2, 3]
    assert "only paths inside" in str(source.bad_rows[0]["reason"])


def test_a_damaged_picture_in_a_table_is_a_bad_row(tmp_path: Path) -> None:
    broken = [*rows("red"), {"query": "?", "label": "1", "image": {"bytes": png("blue")[:-20], "path": None}}]
    source = hub(saved(tmp_path / "set", broken), columns=COLUMNS, on_bad_row="skip")
    (bad,) = source.bad_rows
    assert bad["line"] == 2 and "damaged or cut off" in str(bad["reason"])


def test_columns_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", rows("red"))
    with pytest.raises(ConfigError, match=r"data.columns.question = 'question': .* it has query, label, image"):
        hub(folder)
    with pytest.raises(ConfigError, match="question, and answer or answer_index"):
        hub(folder, columns={**COLUMNS, "answer": None})


def test_a_set_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened .*check data.root, subset and split"):
        hub(saved(tmp_path / "set", rows("red")).replace("set", "gone"), columns=COLUMNS)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"query": "?", "label": "1"}')
    with pytest.raises(DataError, match='Unknown split "dev"'):
        hub(str(tmp_path / "rows"), split="dev", columns=COLUMNS)


def test_a_hub_id_is_looked_for_in_the_cache_alone_when_offline() -> None:
    with pytest.raises(DataError, match="someone/nothing:train: cannot be opened"):
        hub("someone/nothing", columns=COLUMNS)


def test_a_published_set_is_read_from_a_table_as_from_its_files(tmp_path: Path) -> None:
    row = {"query": "How many?", "label": ["14"], "image": cell("red"), "human_or_machine": 0}
    kinds = {"label": datasets.List(datasets.Value("string")), "human_or_machine": datasets.Value("int64")}
    saved(tmp_path / "org" / "charts", [row], **kinds)
    problem = build(data_settings.PublicDataConfig(name="chartqa", root=str(tmp_path / "org" / "charts"))).table.at(0)
    assert (problem.answer, problem.metadata["written_by"]) == ("14", "human")
    assert problem.images[0].startswith("hf:")
