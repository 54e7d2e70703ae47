"""A plain form for the many ways to write an answer.

Letters keep their case, because R and r may be two radii; ``fold_case`` is for words.
"""

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
        "∛": "\\sqrt[3]",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "π": "pi",
        "…": "...",
        "⋯": "...",
        "Ω": "Ω",  # the sign of the unit becomes the letter
        "µ": "μ",
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
        "℃": "°C",
        "℉": "°F",
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


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+")


def _rewrite_exponent(match: re.Match[str]) -> str:
    """Rewrite superscripts: x² as x^2, x⁻¹ as x^(-1)."""
    power = match[0].translate(_SUPERSCRIPTS)
    return f"^{power}" if len(power) == 1 else f"^({power})"


def _rewrite_fraction(match: re.Match[str]) -> str:
    """Rewrite a LaTeX fraction. The blank in front keeps 1\\frac{1}{2} (one and a half) apart from 11/2."""
    return " " + "/".join(part if _ATOM.fullmatch(part) else f"({part})" for part in (match[1], match[2]))


_WRAPPER = (
    r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it|sf|bb)|operatorname|mbox|boxed|overline(?= ?\{ ?[A-Z]{2} ?\}))"
    r" ?\{([^{}]*)\}"
)
# A part of a fraction that needs no brackets. 2a needs them: 1/(2a) is not 1/2a.
_ATOM = re.compile(r"-?(?:[0-9.]+|[a-zA-Z](?:_\w)?|pi)|[0-9]*sqrt\(\w+\)")
_END = r"(?![a-zA-Z])"  # end of a LaTeX command
# Each rewrite is applied once, in this order.
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=[0-9])\\(?:text|mathrm) ?\{[ ~]*(?=[A-Za-z])", r" \\text{"),  # 5\mathrm{V} is 5 V
        (_WRAPPER, r"\1"),  # before the removal of blanks at braces: 12\text{ cm}
        (r"(?<=[0-9])(?:\\,|\{,\})(?=[0-9]{3})", ","),  # 1{,}000
        (r"\\(?:left|right|displaystyle|[Bb]igg?)" + _END, ""),
        (r"\\(?:[,;:! ]|qquad|quad)|~", " "),
        (r"(?:US)?\\\$(?= ?[0-9.])|US\$(?= ?[0-9])", "＄"),  # a price, not the sign of a formula
        (r"^([^$]*)\$(?=[0-9][^$]*$)", r"\1＄"),
        (r"\\?\$|\\[()\[\]]|(?<!\w)\*\*|\*\*(?!\w|[-(])|`", ""),
        (r"\*\*", "^"),
        (r"\\%", "%"),
        (r"\^ ?\{? ?\\circ ?\}?|\\degree|\\circ|\^°", "°"),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac ?([0-9a-zA-Z]) ?([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\(?:times|cdot)" + _END, "*"),
        (r"(?<=[0-9]) ?[xX] ?(?=10 ?\^|10(?![0-9.]))", "*"),  # 6.02 x 10^23
        (r"\\div" + _END, "/"),
        (r"\\leq?(?:slant)?" + _END, "<="),
        (r"\\geq?(?:slant)?" + _END, ">="),
        (r"\\lt" + _END, "<"),
        (r"\\gt" + _END, ">"),
        (r"\\neq?" + _END, "!="),
        (r"\\pm" + _END + r"|\+/-", "±"),
        (r"\\infty" + _END, "∞"),
        (r"\\cup" + _END, "∪"),
        (r"\\in" + _END, "∈"),
        (r"\\angle" + _END, "∠"),
        (r"\\triangle" + _END, "△"),
        (r"\\parallel" + _END, "∥"),
        (r"\\perp" + _END, "⊥"),
        (r"\\cong" + _END, "≅"),
        (r"\\sim" + _END, "∽"),
        (r"\\(?:emptyset|varnothing)" + _END, "∅"),
        (r"\\(?:Omega|ohm)" + _END, "Ω"),
        (r"\\(?:mu|micro)" + _END, "μ"),
        (r"\\(?:ldots|cdots|dots)" + _END, "..."),
        (r"\\(?:vert|mid|lvert|rvert)" + _END, "|"),
        (r"\\(?=(?:alpha|beta|gamma|delta|theta|lambda|omega|phi|sigma)(?![a-z]))", " "),
        (r"\\pi" + _END, "pi"),  # after the commands that may precede it: 2\\times\\pi
        (r"\\?log ?_ ?(?:\{ ?([0-9]{1,9}) ?\}|([0-9]))[ ({]*([0-9]{1,12})[)}]*", r"log_\1\2(\3)"),
        (r"\\(?=(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])|(?:log|ln|lg|exp)(?![a-z]))", ""),
        (r"(?:\\sqrt|√) ?\[ ?([2-9]) ?\]", r"root\1"),
        (r"\\sqrt|√", "sqrt"),
        (r"(sqrt|root[2-9]) ?([0-9]+|[a-zA-Z](?![a-zA-Z]))", r"\1(\2)"),
        (r"(?<!\\) ?(\{) ?| ?(?<!\\)(\})", r"\1\2"),
    )
)
# Rewrites of nested commands, applied from the inside out until nothing changes.
_NESTED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_WRAPPER, r"\1"),
        (r"\\[dt]?binom\{([^{}]+)\}\{([^{}]+)\}", r"binom(\1,\2)"),
        (r"\{([^{}]+) ?\\choose ?([^{}]+)\}", r"binom(\1,\2)"),
        (r"(\^)\{(-?[0-9]+|-?[a-zA-Z])\}|(_)\{(\w+)\}", r"\1\2\3\4"),
        (r"\^\{([^{}]+)\}", r"^(\1)"),
        (r"(sqrt|root[2-9])\{([^{}]*)\}", r"\1(\2)"),
        (r"\\frac\{([^{}]+)\}\{([^{}]+)\}", _rewrite_fraction),
    )
)
_MAX_NESTING = 5
_SET_BRACE = re.compile(r"\\([{}])")
_REMOVABLE_BLANK = re.compile(r"(?<![0-9]) | (?![0-9])")  # every blank except between two digits
_WHOLE_IN_BRACKETS = re.compile(r"\(([^(),]*)\)")


# Rrh, nRT and AB are products; Bus is a word.
_WORD = re.compile(
    r"(?<![A-Za-z])(?:(?=[A-Za-z]{0,8}[aeiouyAEIOUY])(?:[A-Z]?[a-z]{2,}|[A-Z]{3,})|[Nn][Oo]|[Uu][Pp]|[Oo][Nn]|[Ii][Nn])(?![A-Za-z])"
)


@lru_cache(maxsize=4096)  # references and choices repeat with every path
def to_plain(text: str) -> str:
    """Rewrite a text with single blanks and no LaTeX: ``$\\dfrac{1}{2}$`` as ``1/2``, ``\\text{(B)}`` as ``B``."""
    text = _RAISED.sub(_rewrite_exponent, " ".join(text.translate(CHARACTERS).split()))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    for _ in range(_MAX_NESTING):
        before = text
        for nested, rewrite in _NESTED:
            text = nested.sub(rewrite, text)
        if text == before:
            break
    # Signs around the answer go. The dots of 0.333... stay.
    dots = text.endswith("...")
    text = " ".join(_SET_BRACE.sub(r"\1", text).split()).rstrip(" .,;:。").strip("\"' ")
    whole = _WHOLE_IN_BRACKETS.fullmatch(text)
    text = whole[1].strip() if whole else text
    return text + "..." if dots and text[-1:].isdigit() else text


def remove_blanks(plain_text: str) -> str:
    """Remove all blanks except between two digits."""
    return _REMOVABLE_BLANK.sub("", plain_text)


@lru_cache(maxsize=4096)
def fold_case(plain_text: str) -> str:
    """Write words in lower case. One or two letters may be symbols and keep their case: "Bus Rr" gives "bus Rr"."""
    return _WORD.sub(lambda match: match[0].casefold(), plain_text)
