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

from PIL import Image, ImageDraw, ImageFont, ImageOps

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


TEMPLATES = ("triangle", "rectangle", "angles", "bars")
FONTS = ("built-in", "DejaVuSans.ttf", "DejaVuSerif-Italic.ttf")  # of Pillow, and two that Pillow looks for
SIZES = ((10, 200), (12, 300), (24, 500), (20, 800))  # pixels: height of a label, width of the drawing


def labelled(template: str, labels: list[str], font_name: str, size: int, width: int) -> Image.Image:
    """A drawing of fixed lines, with these four labels."""
    image = Image.new("RGB", (width, width * 4 // 5), "white")
    pen, w, h = ImageDraw.Draw(image), *image.size
    font = ImageFont.load_default(size) if font_name == "built-in" else ImageFont.truetype(font_name, size)
    line = max(1, width // 150)
    if template == "triangle":
        pen.polygon([(0.15 * w, 0.85 * h), (0.85 * w, 0.85 * h), (0.35 * w, 0.15 * h)], outline="black", width=line)
        places = [(0.5, 0.93), (0.17, 0.48), (0.68, 0.45), (0.27, 0.78)]
    elif template == "rectangle":
        pen.rectangle([0.2 * w, 0.2 * h, 0.8 * w, 0.8 * h], outline="black", width=line)
        places = [(0.5, 0.88), (0.1, 0.5), (0.5, 0.5), (0.9, 0.5)]
    elif template == "angles":
        for y in (0.3, 0.7):
            pen.line([(0.05 * w, y * h), (0.95 * w, y * h)], fill="black", width=line)
        pen.line([(0.25 * w, 0.95 * h), (0.75 * w, 0.05 * h)], fill="black", width=line)
        places = [(0.75, 0.22), (0.5, 0.77), (0.5, 0.23), (0.25, 0.63)]
    else:
        places = [(0.21 + 0.2 * k, 0.8 - high) for k, high in enumerate((0.3, 0.5, 0.4, 0.6))]
        for x, y in places:
            pen.rectangle([(x - 0.06) * w, (y + 0.05) * h, (x + 0.06) * w, 0.85 * h], fill=(70, 100, 180))
    for text, (x, y) in zip(labels, places, strict=True):
        pen.text((x * w, y * h), text, fill="black", font=font, anchor="mm")
    return image


def _labels() -> None:
    """A benchmark's drawing against its copies, and against the template with one digit or all labels changed."""
    draw = random.Random(0)
    changes = {"as drawn": lambda i, d: i, **{k: COPIES[k] for k in COPIES_OF_LABELS}}
    print("\n| drawing | copies found | of | one digit differs, taken for it | all labels differ, taken for it | of |")
    print("|---|---|---|---|---|---|")
    for name, change in changes.items():
        found, one, every, of = 0, 0, 0, 0
        for template in TEMPLATES:
            for font in FONTS:
                for size, width in SIZES:
                    labels = [str(draw.randint(11, 99)) for _ in range(4)]
                    digit = draw.choice([c for c in "123456789" if c != labels[1][0]])
                    variants = (
                        labels,
                        [labels[0], digit + labels[1][1], *labels[2:]],
                        [str((int(label) + draw.randint(1, 80) - 11) % 89 + 11) for label in labels],
                    )
                    drawn = [labelled(template, variant, font, size, width) for variant in variants]
                    held = {"bench": drawn[0]}
                    index = Index(opener=held.__getitem__)
                    index.add("b", Problem("p", "", ("bench",)))
                    taken = []
                    for image in drawn:
                        held["row"] = change(image, draw)
                        taken.append(bool(index.pairs(ComparedRow.of(Problem("", "", ("row",)), held.__getitem__))))
                    found, one, every, of = found + taken[0], one + taken[1], every + taken[2], of + 1
        print(f"| {name} | {found / of:.1%} | {of} | {one / of:.1%} | {every / of:.1%} | {of} |")


COPIES_OF_LABELS = (
    "JPEG, quality 75", "JPEG, quality 30", "twice the size", "80 % by 77 %", "half the size", "padded white, 5 %",
    "cut up to 4 % a side", "cut up to 4 %, 60 %, JPEG 70",
)  # fmt: skip
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
    _labels()


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
