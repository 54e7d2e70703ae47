"""A folder with everything that can be wrong with a row or a picture: each case has its documented outcome."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.runs import SIZES, rows, run
from PIL import Image

from mathse.__main__ import main
from mathse.config import build
from mathse.config.data import JsonlDataConfig
from mathse.data import row_validation
from mathse.data.images import load_image
from mathse.runs.store import read_json

LISTED = {  # line of the file -> what its row is, what is said of it
    13: ("truncated", "damaged or cut off"),
    14: ("empty", "the file is empty (0 bytes)"),
    15: ("bomb", "pixels are allowed"),
    16: ("outside", "only paths inside the file's folder"),
    17: (None, "broken JSON"),
    18: ("missing", "no such file"),
    19: ("link", "a link that leads out of the file's folder"),
    20: ("cmyk", "\"id\" 'cmyk' stands already at rows.jsonl:1"),
    21: ("no_question", '"question" is empty'),
    22: ("number", '"answer" is text, got a number 12'),
    23: ("listed", '"answer" is text, got a list'),
}
USED = ("cmyk", "grey16", "animated", "rgba", "palette", "grey", "plain")


def bomb(path: Path) -> None:
    """A PNG of 30,000 x 30,000 pixels in a hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 30_000
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(b"\x00" * ((side + 7) // 8 + 1) * side, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def pictures(folder: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    noise.save(folder / "plain.png")
    noise.convert("L").save(folder / "grey.png")
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.linspace(0, 65535, 2400, dtype=np.uint16).reshape(40, 60)).save(folder / "grey16.png")
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue", "green")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    rgba = noise.convert("RGBA")
    rgba.putalpha(100)
    rgba.save(folder / "rgba.png")
    noise.quantize(16).save(folder / "palette.png")
    noise.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-400])
    (folder / "empty.png").write_bytes(b"")
    bomb(folder / "bomb.png")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pictures(folder)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")

    def row(name: str, image: str | None = None, **changes: Any) -> str:
        return json.dumps({"id": name, "question": f"What is it? ({name})", "images": [image] if image else [],
                           "answer": "12", **changes})  # fmt: skip

    lines = [
        row("cmyk", "cmyk.jpg"), row("grey16", "grey16.png"), row("animated", "animated.gif"), row("rgba", "rgba.png"),
        row("palette", "palette.png"), row("grey", "grey.png"), row("plain", "plain.png"),
        *(row(f"text{k}") for k in range(5)),
        row("truncated", "truncated.jpg"), row("empty", "empty.png"), row("bomb", "bomb.png"),
        row("outside", "../../etc/passwd"), '{"id": "broken", "question": ', row("missing", "missing.png"),
        row("link", "link.png"), row("cmyk", "plain.png"), row("no_question", question=" "), row("number", answer=12),
        row("listed", answer=["12"]), *(row(f"more{k}") for k in range(12)),
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def listed(found: list[dict[str, Any]]) -> dict[int, tuple[str | None, str]]:
    """By line, the row's id and the part of the reason that is expected."""
    return {
        row["line"]: (row["id"], LISTED[row["line"]][1] if LISTED[row["line"]][1] in row["reason"] else row["reason"])
        for row in found
    }


def test_every_bad_row_is_listed_and_every_other_one_used(hostile: Path) -> None:
    source = build(JsonlDataConfig(path=str(hostile), on_bad_row="skip"))
    assert listed(source.bad_rows) == LISTED  # type: ignore[arg-type]
    assert len(source.table) + len(source.bad_rows) == len(hostile.read_text().splitlines())
    for name in USED:
        assert load_image(source.get(name).images[0]).mode == "RGB"


def test_pictures_of_every_kind_are_converted_as_documented(hostile: Path) -> None:
    source = build(JsonlDataConfig(path=str(hostile), on_bad_row="skip"))
    first_frame = load_image(source.get("animated").images[0])
    assert first_frame.getpixel((5, 5)) == (255, 0, 0)
    grey = np.asarray(load_image(source.get("grey16").images[0]))
    assert grey[0, 0, 0] == 0 and grey[-1, -1, 0] == 255 and (grey[..., 0] == grey[..., 2]).all()
    on_white = np.asarray(load_image(source.get("rgba").images[0]))
    assert on_white.min() >= 255 - 101  # opaque by 100 of 255


def test_the_check_lists_them_all_and_ends_well_under_skip(hostile: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["data", "check", "data=jsonl", f"data.path={hostile}", "teacher=replay", f"hydra.run.dir={out}"]
    assert main([*command, "data.on_bad_row=skip"]) == 0
    assert listed(rows(out / "bad_rows.jsonl")) == LISTED
    figures = read_json(out / "data_check.json")
    assert (figures["rows"], figures["used"], figures["listed"]) == (35, 24, 11)
    page = (out / "data_check.html").read_text()
    assert "damaged or cut off" in page and "data:image/png;base64" in page


def test_the_check_fails_under_error_by_file_and_line(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["data", "check", "data=jsonl", f"data.path={hostile}", "teacher=replay", f"hydra.run.dir={out}"]) == 1
    said = capsys.readouterr().err
    assert f"error: {hostile}: 11 of 35 rows cannot be used" in said and f"{hostile}:13: image truncated.jpg" in said
    assert listed(rows(out / "bad_rows.jsonl")) == LISTED, "written before the error"


@pytest.mark.parametrize("eager", [row_validation.MAX_DECODED_AT_START, 0])
def test_a_run_uses_the_good_rows_and_none_of_the_others(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: int
) -> None:
    monkeypatch.setattr(row_validation.ImageChecks, "__init__", lambda self: _images(self, eager))
    settings = (
        "data=jsonl",
        f"data.path={hostile}",
        "data.on_bad_row=skip",
        "data.max_left_out=1",
        "teacher=replay",
        "judge=random",
    )
    run(tmp_path / "run", *SIZES, *settings, "distill.judge=answer")
    found = rows(tmp_path / "run" / "base" / "bad_rows.jsonl")
    assert listed(found) == LISTED
    named = {row["problem_id"] for f in (tmp_path / "run").rglob("*paths.jsonl") for row in rows(f)}
    named |= {row["id"] for f in (tmp_path / "run").rglob("*predictions.jsonl") for row in rows(f)}
    assert {*USED, *(f"text{k}" for k in range(5)), *(f"more{k}" for k in range(12))} == named


def _images(images: row_validation.ImageChecks, eager: int) -> None:
    images.eager, images.decoded, images.headed = eager, set(), set()
