"""Problems in the form of the paper's data, and the texts that stand-ins answer with, all made from a problem's number.

A text is stored as what makes it: the number, whether it is right, and a draw. So an engine needs no file of answers,
gives the same ones after it was lost, and anybody can say of an answer whether it is right. Standard library only: the
engines must start at once.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any, NamedTuple

CHINESE_SHARE = 0.3  # of the problems; MathVL's are largely translated
CHOICES_SHARE = 0.4
SOLVED_SHARE = 0.35  # come with a worked solution
MARKERS = {"en": "The answer to this problem is", "zh": "本题的答案是"}
NUMBER = re.compile(r"\[(\d{7})\]")  # a problem's, in its question
ANSWERED = re.compile(rf"(?:{'|'.join(MARKERS.values())})\s*([-\w]+)")

FIGURES = ("a triangle ABC", "a circle with centre O", "the graph of a line", "a bar chart of four groups", "a prism")
ZH_FIGURES = ("三角形ABC", "圆心为O的圆", "一条直线的图象", "四组数据的条形图", "一个棱柱")


class Facts(NamedTuple):
    """What a problem is about: a x b + c."""

    chinese: bool
    has_choices: bool
    solved: bool
    a: int
    b: int
    c: int

    @property
    def language(self) -> str:
        return "zh" if self.chinese else "en"


def facts(number: int) -> tuple[Facts, random.Random]:
    """A problem's, and the draw that the rest of it comes from."""
    draw = random.Random(f"problem {number}")
    kinds = [draw.random() < share for share in (CHINESE_SHARE, CHOICES_SHARE, SOLVED_SHARE)]
    return Facts(*kinds, draw.randrange(2, 90), draw.randrange(2, 40), draw.randrange(1, 500)), draw


def problem(number: int) -> dict[str, Any]:
    """The row of data=jsonl; its picture is ``pictures/.../NUMBER.png``."""
    (chinese, has_choices, solved, a, b, c), draw = facts(number)
    figure = draw.randrange(len(FIGURES))
    if chinese:
        question = (
            f"[{number:07d}] 如图所示,{ZH_FIGURES[figure]}中,已知第一段的长度为{a},第二段的长度为{b},且另有{c}个单位。"
            "求两段长度的乘积加上其余单位的总和是多少?"
        )
    else:
        question = (
            f"[{number:07d}] The picture shows {FIGURES[figure]}. The first length that is marked in it is {a}, the "
            f"second one is {b}, and {c} units are left over. What is the product of both lengths, together with the "
            "units that are left over?"
        )
    row: dict[str, Any] = {
        "id": f"{'mathvl' if chinese else 'geo'}-{number:07d}",
        "question": question,
        "images": [f"pictures/{number % 1000:03d}/{number:07d}.png"],
        "answer": str(a * b + c),
    }
    if has_choices:
        right = draw.randrange(4)
        row["choices"] = [str(a * b + c + (k - right) * draw.randrange(1, 9)) for k in range(4)]
        row["answer"] = "ABCD"[right]
    if solved:
        row["solution"] = solution(number, True, draw, row["answer"])
    return row


def answer(number: int) -> str:
    return str(problem(number)["answer"])


def solution(number: int, right: bool, draw: random.Random, truth: str | None = None) -> str:
    """A worked solution. ``truth``: the right answer, where the caller has it already."""
    about, _ = facts(number)
    product = about.a * about.b if right else about.a * about.b + draw.choice((-10, -1, 1, 10, about.a))
    total = product + about.c
    if about.chinese:
        steps = [
            f"观察图形,标出的两段长度分别为{about.a}和{about.b},此外还有{about.c}个单位,这些就是计算所需要的全部数据",
            f"先求两段长度的乘积:{about.a}×{about.b}={product},这一步需要逐位相乘,再把各部分相加",
            f"再加上其余的单位:{product}+{about.c}={total},注意单位一致",
            "检查每一步的数值是否与图中的标注一致,并确认没有遗漏任何一段",
        ]
    else:
        steps = [
            f"The picture gives two lengths, {about.a} and {about.b}, and {about.c} units are left over, which is all "
            "that is needed",
            f"Multiply the two lengths digit by digit and add up the parts: {about.a} * {about.b} = {product}",
            f"Add the units that are left over to the product: {product} + {about.c} = {total}",
            "Compare each number with the marks in the picture once more, and see that no length has been left out",
        ]
    final = str(total)
    if about.has_choices:
        truth = truth or answer(number)
        final = truth if right else draw.choice([letter for letter in "ABCD" if letter != truth])
    lines = [f"Step {k}: {text}." for k, text in enumerate(steps[: draw.randrange(3, 5)], 1)]
    return "\n".join([*lines, f"{MARKERS[about.language]} {final}."])


def students_text(number: int, share_right: float, draw: random.Random) -> str:
    """As a student writes: some right, most of the others wrong, a few without an end, without an answer, or empty."""
    chance = draw.random()
    if chance > 0.97:
        whole = solution(number, False, draw)
        return draw.choice(("", whole[: len(whole) // 2], whole.replace("answer", "result").replace("答案", "结果")))
    return solution(number, chance < share_right, draw)


def is_right(number: int, text: str) -> bool:
    """Whether the last answer that a text gives is the problem's."""
    answers = ANSWERED.findall(text)
    return bool(answers) and answers[-1] == answer(number)


def verdict(number: int, judged: str, reliability: float, draw: random.Random) -> str:
    """As an ORM writes it, its status first; mostly true, now and then no JSON at all."""
    if draw.random() > 0.99:
        return "The solution looks fine to me at first sight, but I could not follow all of it."
    right = is_right(number, judged) == (draw.random() < reliability)
    if right:
        return '{"status": "CORRECT", "error_step": null, "error_analysis": null}'
    step = f"Step {draw.randrange(1, 4)}"
    analysis = (
        f"In {step} the numbers are not those of the picture: the product is off, and with it all that follows from "
        "it. The two lengths should be multiplied once more, digit by digit."
    )
    return json.dumps({"status": "WRONG", "error_step": step, "error_analysis": analysis})


def annotation(number: int, judged: str, draw: random.Random) -> str:
    """As a teacher writes it; now and then without the JSON that was asked for."""
    if draw.random() > 0.98:
        return "WRONG, I think."
    right = is_right(number, judged)
    step = None if right else "Step 2"
    analysis = None if right else "The product in Step 2 is not that of the two lengths in the picture."
    status = "CORRECT" if right else "WRONG"
    keys = {"status": status, "error_step": step, "error_analysis": analysis, "improvement_suggestion": "Be careful."}
    return json.dumps(keys)
