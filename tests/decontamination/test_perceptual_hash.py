"""Copies of a picture are found, and other pictures are not."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.perceptual_hash import correlation, grey, overlay, perceptual_hashes
from mathse.data.images import load_image
from mathse.types import Problem


def drawing(seed: int, width: int = 300, height: int = 240) -> Image.Image:
    """A diagram: a few lines, a circle, labels."""
    draw = random.Random(seed)
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    points = [(draw.randint(20, width - 20), draw.randint(20, height - 20)) for _ in range(6)]
    for a, b in zip(points, points[1:], strict=False):
        pen.line([a, b], fill="black", width=2)
    x, y = points[0]
    pen.ellipse([x - 30, y - 30, x + 30, y + 30], outline="black", width=2)
    for name, at in zip("ABCDEF", points, strict=True):
        pen.text(at, name, fill="black")
    return image


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, by: float) -> Image.Image:
    return image.resize((round(image.width * by), round(image.height * by)), Image.Resampling.BICUBIC)


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = image.size
    return image.crop((round(w * left), round(h * top), w - round(w * right), h - round(h * bottom)))


COPIES = {
    "the same": lambda i: i,
    "jpeg 30": lambda i: compressed(i, 30),
    "half": lambda i: scaled(i, 0.5),
    "double": lambda i: scaled(i, 2),
    "squeezed": lambda i: i.resize((round(i.width * 0.8), round(i.height * 0.75))),
    "grey": lambda i: i.convert("L").convert("RGB"),
    "cut 3 % all around": lambda i: cut(i, 0.03, 0.03, 0.03, 0.03),
    "cut 5 % left": lambda i: cut(i, 0.05, 0, 0, 0),
    "padded white": lambda i: ImageOps.expand(i, 40, "white"),
    "padded black": lambda i: ImageOps.expand(i, 20, "black"),
    "padded, 0.6, jpeg 60": lambda i: compressed(scaled(ImageOps.expand(i, 30, "white"), 0.6), 60),
}


class Shelf:
    """Pictures by name, in memory."""

    def __init__(self) -> None:
        self.held: dict[str, Image.Image] = {}

    def open(self, ref: str) -> Image.Image:
        return self.held[ref]


def index_of(shelf: Shelf, names: list[str]) -> Index:
    index = Index(opener=shelf.open)
    for name in names:
        index.add("bench", Problem(name, "", (name,)))
    return index


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found_and_nothing_else(copy: str) -> None:
    shelf = Shelf()
    shelf.held = {str(seed): drawing(seed) for seed in range(20)}
    index = index_of(shelf, list(shelf.held))
    by = ("image",) if copy in ("the same", "grey") else ("near_image",)
    hits = 0
    for seed in range(20):
        shelf.held["copy"] = COPIES[copy](drawing(seed))
        found = index.pairs(ComparedRow.of(Problem("row", "", ("copy",)), shelf.open))
        assert {(pair.against_id, pair.by, pair.counts) for pair in found} <= {(str(seed), by, True)}
        hits += len(found)
    assert hits >= (19 if "jpeg 60" in copy else 20)


def test_another_drawing_in_the_same_frame_is_another_picture() -> None:
    shelf = Shelf()
    for k, height in enumerate((40, 110, 190)):  # a line in the same axes
        image = Image.new("RGB", (240, 240), "white")
        pen = ImageDraw.Draw(image)
        pen.line([(20, 220), (230, 220)], fill="black", width=2)
        pen.line([(20, 220), (20, 10)], fill="black", width=2)
        for x in range(20, 240, 30):
            pen.line([(x, 10), (x, 220)], fill=(205, 205, 205))
        pen.line([(20, 215), (220, height)], fill="blue", width=4)
        shelf.held[str(k)] = image
    index = index_of(shelf, ["0"])
    for other in ("1", "2"):
        assert index.pairs(ComparedRow.of(Problem("row", "", (other,)), shelf.open)) == []


def real(fixtures: Path) -> Iterator[tuple[str, str]]:
    """(path, what it is one of) of the fixtures' pictures; the versions of one diagram are one."""
    for folder in sorted((fixtures / "datasets").iterdir()):
        for line in (folder / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record.get("image_file"):
                path = str(folder / record["image_file"])
                yield path, f"{folder.name}/{record['group']}" if "group" in record else path


def test_no_two_real_diagrams_are_taken_for_copies_and_their_copies_are_found(fixtures: Path) -> None:
    known = dict(real(fixtures))
    index = Index()
    for path, what in known.items():
        index.add(what, Problem(path, "", (path,)))
    shelf = Shelf()
    missed = []
    for path, what in known.items():
        assert {pair.against for pair in index.pairs(ComparedRow.of(Problem("row", "", (path,))))} == {what}
        image = load_image(path)
        shelf.held["row"] = cut(scaled(compressed(image, 70), 0.8), 0.02, 0.01, 0.0, 0.02)
        seen = ComparedRow.of(Problem("row", "", ("row",)), shelf.open)
        found = {pair.against for pair in index.pairs(seen)}
        assert found <= {what}
        missed += [path] if not found else []
    assert len(missed) <= 0.1 * len(known), missed


def test_a_blank_picture_has_no_look_and_matches_nothing() -> None:
    assert perceptual_hashes(grey(Image.new("RGB", (100, 100), "white"))) == []
    assert perceptual_hashes(grey(drawing(1).resize((6, 6)))) == []
    assert perceptual_hashes(grey(Image.new("RGB", (1, 400)))) == []


def test_looks_do_not_depend_on_the_width_of_the_margin() -> None:
    plain = perceptual_hashes(grey(drawing(3)))[-1].bits
    framed = perceptual_hashes(grey(ImageOps.expand(drawing(3), (90, 10), "white")))[-1].bits
    assert np.bitwise_count(plain ^ framed).sum() == 0


def test_parts_correlate_with_themselves_moved_and_not_with_others() -> None:
    one, other = grey(drawing(4)), grey(drawing(5))
    box = (0, 0, 300, 240)
    moved = grey(Image.fromarray(np.roll(one, 5, axis=1)))
    assert correlation(overlay(one, box), overlay(one, box)) == pytest.approx(1, abs=1e-3)
    assert correlation(overlay(one, box), overlay(moved, box)) > 0.8
    assert correlation(overlay(one, box), overlay(other, box)) < 0.5


def labelled(labels: Sequence[str], side: int, size: int) -> Image.Image:
    """A triangle of fixed shape with these labels at its sides, ``size`` pixels high."""
    image = Image.new("RGB", (side, side * 4 // 5), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    w, h = image.size
    pen.polygon([(0.15 * w, 0.85 * h), (0.85 * w, 0.85 * h), (0.35 * w, 0.15 * h)], outline="black", width=2)
    for text, (x, y) in zip(labels, [(0.5, 0.93), (0.17, 0.48), (0.68, 0.45)], strict=True):
        pen.text((x * w, y * h), text, fill="black", font=font, anchor="mm")
    return image


@pytest.mark.parametrize(("side", "size"), [(240, 12), (300, 16), (500, 24), (800, 20)])
def test_drawings_of_one_template_with_other_labels_are_no_copies_and_their_copies_are_found(
    side: int, size: int
) -> None:
    draw, shelf = random.Random(side), Shelf()
    shelf.held = {str(k): labelled([str(draw.randint(2, 99)) for _ in range(3)], side, size) for k in range(5)}
    index = index_of(shelf, list(shelf.held))
    for name in list(shelf.held):
        for change in (lambda i: i, lambda i: compressed(i, 60), lambda i: scaled(i, 0.8), lambda i: scaled(i, 2)):
            shelf.held["row"] = change(shelf.held[name])
            found = index.pairs(ComparedRow.of(Problem("row", "Find x.", ("row",)), shelf.open))
            assert [pair.against_id for pair in found] == [name]


def test_a_look_alike_with_other_numbers_in_its_question_is_another_problem_of_the_template() -> None:
    shelf = Shelf()
    shelf.held = {"bench": drawing(1), "row": compressed(drawing(1), 60)}
    index = Index(opener=shelf.open)
    index.add("b", Problem("p", "AB is 12 and BC is 5. Find AC.", ("bench",)))

    def counts(question: str) -> list[bool]:
        return [pair.counts for pair in index.pairs(ComparedRow.of(Problem("row", question, ("row",)), shelf.open))]

    assert counts("AB is 9 and BC is 40. Find AC.") == [False]
    assert counts("How large is the circle?") == [True]
    assert counts("AB is 12 and BC is 5. Find AC.") == [True]
