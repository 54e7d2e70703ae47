"""One plain form for the many ways to write an answer."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_ANSWER = 1_000  # characters
HAN = "\u4e00-\u9fff"
# Full-width ASCII to ASCII, and signs that have a plain twin.
CHARACTERS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "\u3000": " ",
        "\u00a0": " ",
        "²": "^2",
        "³": "^3",
        "∛": "\\sqrt[3]",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "π": "pi",
        "×": "*",
        "·": "*",
        "÷": "/",
        "≤": "<=",
        "≥": ">=",
        "≠": "!=",
        "⩽": "<=",
        "⩾": ">=",
        "º": "°",
        "∘": "°",
        "℃": "°c",
        "“": '"',
        "”": '"',
        "’": "'",
        "∶": ":",
        "﹣": "-",
        "α": "alpha",
        "β": "beta",
        "γ": "gamma",
        "δ": "delta",
        "θ": "theta",
        "λ": "lambda",
        "ω": "omega",
        "φ": "phi",
    }
)


def _fraction(match: re.Match[str]) -> str:
    # The blank keeps 1\frac{1}{2} (one and a half) apart from 11/2.
    return " " + "/".join(part if _ATOM.fullmatch(part) else f"({part})" for part in (match[1], match[2]))


_WRAPPER = r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it|sf|bb)|operatorname|mbox|boxed) ?\{([^{}]*)\}"
_ATOM = re.compile(r"-?(?:[0-9.]+|[a-z](?:_\w)?|pi)|[0-9]*sqrt\(\w+\)")  # 2a is none: 1/(2a) is not 1/2a
# Each applied once, in this order.
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_WRAPPER, r"\1"),  # before blanks at braces go: 12\text{ cm}
        (r"(?<=[0-9])(?:\\,|\{,\})(?=[0-9]{3})", ","),  # 1{,}000
        (r"\\(?:left|right|displaystyle|[Bb]igg?)(?![a-zA-Z])", ""),
        (r"\\(?:[,;:! ]|qquad|quad)|~", " "),
        (r"\\?\$|\\[()\[\]]|\*\*|`", ""),
        (r"\\%", "%"),
        (r"\^ ?\{? ?\\circ ?\}?|\\degree|\\circ|\^°", "°"),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac ?([0-9a-z]) ?([0-9a-z])", r"\\frac{\1}{\2}"),
        (r"\\(?:times|cdot)(?![a-z])", "*"),
        (r"\\div(?![a-z])", "/"),
        (r"\\leq?(?:slant)?(?![a-z])", "<="),
        (r"\\geq?(?:slant)?(?![a-z])", ">="),
        (r"\\lt(?![a-z])", "<"),
        (r"\\gt(?![a-z])", ">"),
        (r"\\neq?(?![a-z])", "!="),
        (r"\\pm(?![a-z])|\+/-", "±"),
        (r"\\infty(?![a-z])", "∞"),
        (r"\\cup(?![a-z])", "∪"),
        (r"\\angle(?![a-z])", "∠"),
        (r"\\triangle(?![a-z])", "△"),
        (r"\\parallel(?![a-z])", "∥"),
        (r"\\perp(?![a-z])", "⊥"),
        (r"\\(?=(?:alpha|beta|gamma|delta|theta|lambda|mu|omega|phi|sigma)(?![a-z]))", ""),
        (r"\\pi(?![a-z])", "pi"),  # after the commands that may stand before it: 2\\times\\pi
        (r"\\log ?_ ?(?:\{ ?([0-9]{1,9}) ?\}|([0-9]))[ ({]*([0-9]{1,12})[)}]*", r"log_\1\2(\3)"),
        (r"\\(?=(?:sin|cos|tan|log)(?![a-z]))", ""),
        (r"(?:\\sqrt|√) ?\[ ?([2-9]) ?\]", r"root\1"),
        (r"\\sqrt|√", "sqrt"),
        (r"(sqrt|root[2-9]) ?([0-9]+|[a-z](?![a-z]))", r"\1(\2)"),
        (r"(?<!\\) ?(\{) ?| ?(?<!\\)(\})", r"\1\2"),
    )
)
# Applied from the inside out until nothing changes.
_NESTED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_WRAPPER, r"\1"),
        (r"([\^_])\{(-?\w+)\}", r"\1\2"),
        (r"\^\{([^{}]+)\}", r"^(\1)"),
        (r"(sqrt|root[2-9])\{([^{}]*)\}", r"\1(\2)"),
        (r"\\frac\{([^{}]+)\}\{([^{}]+)\}", _fraction),
    )
)
_MAX_NESTING = 5
_SET_BRACE = re.compile(r"\\([{}])")
_BETWEEN_DIGITS = re.compile(r"(?<![0-9]) | (?![0-9])")  # every blank but one between two digits
_WHOLE_IN_BRACKETS = re.compile(r"\(([^(),]*)\)")


@lru_cache(maxsize=4096)  # references and choices come again with every path
def plain(text: str) -> str:
    """Lower case, single blanks, no LaTeX wrapping: ``$\\dfrac{1}{2}$`` -> ``1/2``, ``\\text{(B)}`` -> ``b``."""
    text = " ".join(text.translate(CHARACTERS).split()).casefold()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    for _ in range(_MAX_NESTING):
        before = text
        for nested, rewrite in _NESTED:
            text = nested.sub(rewrite, text)
        if text == before:
            break
    text = " ".join(_SET_BRACE.sub(r"\1", text).split()).rstrip(" .,;:。").strip("\"' ")
    whole = _WHOLE_IN_BRACKETS.fullmatch(text)
    return whole[1].strip() if whole else text


def compact(plain_text: str) -> str:
    """Without blanks, but for one between two digits."""
    return _BETWEEN_DIGITS.sub("", plain_text)
