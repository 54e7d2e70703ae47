"""Recall and false positives of the decontamination gate, on made variants of the fixtures' pictures and questions.

    python experiments/decontamination/measure.py [--fixtures DIR]      prints the tables of README.md

Copies of a picture are made as sets and web pages make them: compressed, scaled, greyed, padded, cut. A copy that makes
a pair with its original is a hit, a pair with any other picture a false positive. Questions are varied likewise; a
question with another number must make no pair.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.benchmark_files import problems_of
from mathse.data.image_decoding import pixels_sha256
from mathse.data.images import load_image
from mathse.types import Problem

Change = Callable[[Image.Image, random.Random], Image.Image]


# --- pictures ---------------------------------------------------------------------------------------------------------


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, x: float, y: float | None = None) -> Image.Image:
    size = max(8, round(image.width * x)), max(8, round(image.height * (y or x)))
    return image.resize(size, Image.Resampling.BICUBIC)


def cut(image: Image.Image, draw: random.Random, most: float) -> Image.Image:
    """Each side loses a share of its own, up to ``most``."""
    left, top, right, bottom = (draw.random() * most for _ in range(4))
    w, h = image.size
    return image.crop((round(w * left), round(h * top), w - round(w * right), h - round(h * bottom)))


def padded(image: Image.Image, share: float, color: str) -> Image.Image:
    return ImageOps.expand(image, (round(image.width * share), round(image.height * share)), fill=color)


COPIES: dict[str, Change] = {
    "JPEG, quality 75": lambda i, d: jpeg(i, 75),
    "JPEG, quality 30": lambda i, d: jpeg(i, 30),
    "half the size": lambda i, d: scaled(i, 0.5),
    "a third of the size": lambda i, d: scaled(i, 1 / 3),
    "twice the size": lambda i, d: scaled(i, 2),
    "80 % by 77 %": lambda i, d: scaled(i, 0.8, 0.77),
    "grey": lambda i, d: i.convert("L").convert("RGB"),
    "padded white, 5 %": lambda i, d: padded(i, 0.05, "white"),
    "padded white, 20 %": lambda i, d: padded(i, 0.2, "white"),
    "padded black, 5 %": lambda i, d: padded(i, 0.05, "black"),
    "half the size, JPEG 50": lambda i, d: jpeg(scaled(i, 0.5), 50),
    "padded 10 %, half, JPEG 75": lambda i, d: jpeg(scaled(padded(i, 0.1, "white"), 0.5), 75),
    "cut up to 2 % a side": lambda i, d: cut(i, d, 0.02),
    "cut up to 4 % a side": lambda i, d: cut(i, d, 0.04),
    "cut up to 6 % a side": lambda i, d: cut(i, d, 0.06),
    "cut up to 4 %, 60 %, JPEG 70": lambda i, d: jpeg(scaled(cut(i, d, 0.04), 0.6), 70),
}


def of_a_kind(kind: str, draw: random.Random) -> Image.Image:
    """A drawing that differs from others of its kind in one line, a number, or a few bars."""
    image = Image.new("RGB", (240, 240), "white")
    pen = ImageDraw.Draw(image)
    if kind == "line in axes":
        pen.line([(20, 220), (230, 220), (20, 220), (20, 10)], fill="black", width=2)
        for x in range(20, 240, 25):
            pen.line([(x, 10), (x, 220)], fill=(200, 200, 200))
        pen.line([(20, draw.randint(20, 220)), (230, draw.randint(20, 220))], fill="blue", width=3)
    elif kind == "triangle":
        points = [(draw.randint(20, 120), draw.randint(20, 40)), (20, 210), (220, 210)]
        pen.polygon(points, outline="black", width=2)
        pen.text((120, 220), str(draw.randint(3, 40)), fill="black")
    elif kind == "bars":
        for x in range(30, 210, 30):
            pen.rectangle([x, draw.randint(20, 200), x + 18, 220], fill=(60, 90, 180))
    elif kind == "clock":
        pen.ellipse([10, 10, 230, 230], outline="black", width=3)
        for reach in (60, 90):
            turn = draw.random() * 2 * math.pi
            pen.line([(120, 120), (120 + reach * math.sin(turn), 120 - reach * math.cos(turn))], fill="black", width=4)
    else:
        pen.ellipse([10, 10, 230, 230], outline="black", width=2)
        ends = [
            (120 + 110 * math.cos(t), 120 + 110 * math.sin(t)) for t in (draw.random() * 6.28, draw.random() * 6.28)
        ]
        pen.line(ends, fill="black", width=2)
        pen.text((120, 120), str(draw.randint(10, 90)), fill="black")
    return image


KINDS = ("line in axes", "triangle", "bars", "clock", "circle with a chord")


def real(folder: Path) -> dict[str, str]:
    """Path -> what it shows; the versions of a MathVerse diagram and files with the same pixels show the same."""
    shown: dict[str, str] = {}
    by_pixels: dict[str, str] = {}
    for records in sorted(folder.glob("*/records.jsonl")):
        for line in records.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("image_file"):
                path = str(records.parent / record["image_file"])
                what = f"{records.parent.name}/{record.get('group', path)}"
                shown[path] = by_pixels.setdefault(pixels_sha256(load_image(path)), what)
    return shown


def pictures(folder: Path) -> None:
    shown = real(folder)
    index = Index()
    for path, what in shown.items():
        index.add(what, Problem(path, "", (path,)))
    held: dict[str, Image.Image] = {}
    draw = random.Random(0)
    print(f"\n{len(shown)} pictures of {len(set(shown.values()))} different diagrams\n")
    print("| copy | found | of | other pictures taken for it |\n|---|---|---|---|")
    hits = copies = wrong = 0
    for name, change in COPIES.items():
        found, others = 0, 0
        for path, what in shown.items():
            held["copy"] = change(load_image(path), draw)
            paired = {p.against for p in index.pairs(ComparedRow.of(Problem("", "", ("copy",)), held.__getitem__))}
            found += what in paired
            others += len(paired - {what})
        print(f"| {name} | {found / len(shown):.1%} | {len(shown)} | {others} |")
        hits, copies, wrong = hits + found, copies + len(shown), wrong + others
    print(f"| all | {hits / copies:.1%} | {copies} | {wrong} of {copies * (len(set(shown.values())) - 1):,} |")
    _kinds()


def _kinds() -> None:
    print("\n| drawings of one kind, different ones | taken for each other | of |\n|---|---|---|")
    for kind in KINDS:
        draw = random.Random(kind)
        held = {str(k): of_a_kind(kind, draw) for k in range(30)}
        index = Index(opener=held.__getitem__)
        for name in held:
            index.add("kind", Problem(name, "", (name,)))
        wrong = 0
        for name in held:
            found = index.pairs(ComparedRow.of(Problem("", "", (name,)), held.__getitem__))
            wrong += sum(pair.against_id != name for pair in found)
        print(f"| {kind} | {wrong / (30 * 29):.1%} | {30 * 29} |")


# --- questions --------------------------------------------------------------------------------------------------------


def with_typos(text: str, draw: random.Random, share: float) -> str:
    letters = list(text)
    places = [k for k, c in enumerate(letters) if c.isalpha()]
    for place in draw.sample(places, round(share * len(places))):
        letters[place] = draw.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(letters)


def other_number(text: str, draw: random.Random) -> str | None:
    text = re.split(r"\n?(?:Choices|choice):", text)[0]  # a list of choices is not compared
    numbers = list(re.finditer(r"(?<![\d.\w<])\d+(?![\d.\w>])", text))
    if not numbers:
        return None
    chosen = draw.choice(numbers)
    return f"{text[: chosen.start()]}{int(chosen[0]) + draw.randint(1, 9)}{text[chosen.end() :]}"


HINT = "Hint: Please answer the question and provide the final answer at the end.\nQuestion: "
REWORDED: dict[str, Callable[[str, random.Random], str]] = {
    "capitals, no dollar signs, double blanks": lambda t, d: t.upper().replace("$", "").replace(" ", "  "),
    "in a hint, with choices after it": lambda t, d: f"<image>\n{HINT}{t}\nChoices:\n(A) 1\n(B) 2",
    "without punctuation": lambda t, d: re.sub(r"(?<!\d)[,.;:?!](?!\d)", "", t),
    "1 letter of 100 wrong": lambda t, d: with_typos(t, d, 0.01),
    "1 letter of 40 wrong": lambda t, d: with_typos(t, d, 0.025),
    "a sentence before it": lambda t, d: f"Look at the picture. {t}",
}


def questions(folder: Path) -> None:
    problems = [p for path in sorted(folder.glob("*/test*.jsonl.gz")) for p in problems_of(path)]
    index = Index()
    began = time.process_time()
    for number, problem in enumerate(problems):
        index.add("all", Problem(str(number), problem.question))
    took = time.process_time() - began
    draw = random.Random(0)
    print(f"\n{len(problems):,} questions, indexed in {took:.1f} s\n\n| variant | found | of |\n|---|---|---|")
    for name, change in REWORDED.items():
        found = sum(_finds(index, change(p.question, draw), k) for k, p in enumerate(problems))
        print(f"| {name} | {found / len(problems):.1%} | {len(problems):,} |")
    changed = [(k, t) for k, p in enumerate(problems) if (t := other_number(p.question, draw)) is not None]
    print(f"| another number (must not be found) | {sum(_finds(index, t, k) for k, t in changed)} | {len(changed):,} |")
    pairs = [
        (k, p) for k, problem in enumerate(problems) for p in _pairs(index, problem.question) if int(p.against_id) > k
    ]
    exactly = sum(p.by == ("question",) for _, p in pairs)
    print(f"\npairs among them: {exactly} with equal questions, {len(pairs) - exactly} with nearly equal ones")


def _pairs(index: Index, question: str) -> list:
    return index.pairs(ComparedRow.of(Problem("", question)))


def _finds(index: Index, question: str, number: int) -> bool:
    return any(pair.against_id == str(number) for pair in _pairs(index, question))


def fixtures(given: str | None) -> Iterator[Path]:
    root = Path(given or os.environ.get("MATHSE_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures"))
    yield root / "datasets"
    yield root / "benchmarks"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", help="the fixtures folder (default: $MATHSE_FIXTURES)")
    datasets, benchmarks = fixtures(parser.parse_args().fixtures)
    pictures(datasets)
    questions(benchmarks)
