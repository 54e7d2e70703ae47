"""Find the final answer of a solution text, and say whether it equals the reference answer.

Rules only, in tables, and bounded in time: texts are cut to their last ``MAX_TEXT`` characters, answers longer than
``MAX_ANSWER`` are compared as they stand, no pattern nests one repetition in another, and nothing is evaluated.

    markers      where an answer is announced           extract_answer
    _REWRITES    LaTeX and typography -> one plain form  _plain
    _UNITS       spellings of units of measure           _quantity
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

MARKER = "The answer to this problem is"  # the paper's closing phrase, in its generation and reflection prompts
MAX_TEXT = 20_000  # characters of a solution that are read, counted from its end
MAX_ANSWER = 1_000  # characters

_HAN = "\u4e00-\u9fff"
# Full-width ASCII to ASCII, and signs that have a plain twin.
_CHARACTERS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "\u3000": " ",
        "\u00a0": " ",
        "²": "^2",
        "³": "^3",
        "π": "pi",
        "×": "*",
        "·": "*",
        "÷": "/",
        "≤": "<=",
        "≥": ">=",
        "º": "°",
        "∘": "°",
        "“": '"',
        "”": '"',
        "’": "'",
    }
)

# --- extraction -----------------------------------------------------------------------------------------------------

_MARKERS = re.compile(
    r"\banswer(?: to this problem)? is\b|\banswer:|本题的答案是|答案是|答案为|答案:|故选", re.IGNORECASE
)
_LEAD = re.compile(r"(?:[\s:*$`]|\\[(\[])*")  # what may stand between a marker and its answer
# The end of the sentence; "sq. ft" is no end, and neither is the point of 3.5.
_END = re.compile(
    rf"\n|。|(?<!\bsq)(?<!\bcu)(?<!\bapprox)[.;!?](?=\s|$|[{_HAN}])|,\s?(?=[{_HAN}])|,? (?:because|since|where|which)\b"
)
_EDGES = ' \t\r*`"$'
_NUMBER_OR_OPTION = re.compile(
    r"(?P<number>(?:(?<![\w)}])-)?(?:\\[dtc]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}|[0-9]*\\sqrt\{[^{}]{1,40}\}"
    r"|(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?(?:%| ?\\?pi(?![a-z]))?))"
    r"|\((?P<bracketed>[A-J])\)|\b(?:[Oo]ption|[Cc]hoice) (?P<named>[A-J])\b|(?<![\w\\])(?P<closing>[A-J])[.)]?\s*\Z"
)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_PROSE = re.compile(r"[a-zA-Z]{3}|[=\n]")


def extract_answer(text: str) -> str | None:
    """The final answer of a solution, as written, or None.

    The first of these that is there: what follows the last marker phrase; the last balanced ``\\boxed{...}``; a text
    that is an answer and no more; the last number or option letter. A text cut off right after
    its last marker has no answer, and more than ``MAX_ANSWER`` characters are none.
    """
    text = text[-MAX_TEXT:].translate(_CHARACTERS)
    if (marker := _last_match(_MARKERS, text)) is not None:
        return _after_marker(text[marker.end() :])
    if (boxed := _last_boxed(text)) is not None:
        return boxed
    if _is_bare(whole := text.strip().strip(_EDGES)):
        return _within_bounds(whole.rstrip("."))
    last = _last_match(_NUMBER_OR_OPTION, text)
    return None if last is None else _within_bounds(next(group for group in last.groups() if group))


def _is_bare(text: str) -> bool:
    """Nothing but an answer, such as "(3, -4)", "5:3", "24\\pi": short, no word, no equation, not only signs."""
    return len(text) <= 60 and not _PROSE.search(_COMMAND.sub("", text)) and any(map(str.isalnum, text))


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def _after_marker(rest: str) -> str | None:
    lead = _LEAD.match(rest)
    rest = rest[lead.end() if lead else 0 :]
    if (boxed := _last_boxed(rest.partition("\n")[0])) is not None:
        return boxed
    answer = _END.split(rest, maxsplit=1)[0].strip(_EDGES).rstrip(".").removesuffix("\\)").removesuffix("\\]")
    return _within_bounds(answer.strip(_EDGES))


def _within_bounds(answer: str) -> str | None:
    return answer if 0 < len(answer) <= MAX_ANSWER else None


def _last_boxed(text: str) -> str | None:
    """The content of the last non-empty \\boxed{...} whose braces balance. O(32 * MAX_ANSWER)."""
    start = len(text)
    for _ in range(32):
        start = text.rfind("\\boxed{", 0, start)
        if start < 0:
            return None
        if content := _balanced(text[start + len("\\boxed{") :][:MAX_ANSWER]).strip(_EDGES):
            return content
    return None


def _balanced(text: str) -> str:
    """``text`` up to the brace that closes the one before it; empty if there is none."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:position]
    return ""


# --- one plain form -------------------------------------------------------------------------------------------------


def _fraction(match: re.Match[str]) -> str:
    # The blank keeps 1\frac{1}{2} (one and a half) apart from 11/2.
    return " " + "/".join(part if _ATOM.fullmatch(part) else f"({part})" for part in (match[1], match[2]))


_WRAPPER = r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it|sf)|operatorname|mbox|boxed) ?\{([^{}]*)\}"
_ATOM = re.compile(r"-?[\w.]+|[0-9]*sqrt\(\w+\)")
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
        (r"\\sqrt|√", "sqrt"),
        (r"sqrt ?([0-9]+|[a-z](?![a-z]))", r"sqrt(\1)"),
        (r"\\pi(?![a-z])", "pi"),
        (r"\\(?:times|cdot)(?![a-z])", "*"),
        (r"\\leq?(?![a-z])", "<="),
        (r"\\geq?(?![a-z])", ">="),
        (r"\\angle(?![a-z])", "∠"),
        (r" ?(\{) ?| ?(\})", r"\1\2"),
    )
)
# Applied from the inside out until nothing changes.
_NESTED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_WRAPPER, r"\1"),
        (r"([\^_])\{(-?\w+)\}", r"\1\2"),
        (r"sqrt\{([^{}]*)\}", r"sqrt(\1)"),
        (r"\\frac\{([^{}]+)\}\{([^{}]+)\}", _fraction),
    )
)
_MAX_NESTING = 5
_BETWEEN_DIGITS = re.compile(r"(?<![0-9]) | (?![0-9])")  # every blank but one between two digits
_WHOLE_IN_BRACKETS = re.compile(r"\(([^(),]*)\)")
_NAME = re.compile(r"(?:m ?)?(?:∠ ?)?[a-z]{1,3}(?:_\w)? ?=")  # "x =", "m∠Q =", "AB ="


@lru_cache(maxsize=4096)  # references and choices come again with every path
def _plain(text: str) -> str:
    """Lower case, single blanks, no LaTeX wrapping: ``$\\dfrac{1}{2}$`` -> ``1/2``, ``\\text{(B)}`` -> ``b``."""
    text = " ".join(text.translate(_CHARACTERS).split()).casefold()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    for _ in range(_MAX_NESTING):
        before = text
        for nested, rewrite in _NESTED:
            text = nested.sub(rewrite, text)
        if text == before:
            break
    text = " ".join(text.split()).rstrip(" .,;:。").strip("\"' ")
    whole = _WHOLE_IN_BRACKETS.fullmatch(text)
    return whole[1].strip() if whole else text


# --- quantities -----------------------------------------------------------------------------------------------------

# symbol: its other spellings (English plurals in -s are understood); "" stands for "units", which say nothing
_UNITS: dict[str, tuple[str, ...]] = {
    "": ("unit", "单位"),
    "mm": ("millimeter", "millimetre", "毫米"),
    "cm": ("centimeter", "centimetre", "厘米"),
    "dm": ("分米",),
    "m": ("meter", "metre", "米"),
    "km": ("kilometer", "kilometre", "千米", "公里"),
    "in": ("inch", "inches", "英寸"),
    "ft": ("foot", "feet", "英尺"),
    "yd": ("yard",),
    "mi": ("mile", "英里"),
    "mg": ("milligram", "毫克"),
    "g": ("gram", "克"),
    "kg": ("kilogram", "千克", "公斤"),
    "t": ("ton", "tonne", "吨"),
    "ml": ("milliliter", "millilitre", "毫升"),
    "l": ("liter", "litre", "升"),
    "s": ("sec", "second", "秒"),
    "min": ("minute", "分钟"),
    "h": ("hr", "hour", "小时"),
    "km/h": ("kmh", "km per hour", "kilometers per hour", "千米/时"),
    "m/s": ("米/秒",),
    "°": ("degree", "deg", "度"),
    "rad": ("radian", "弧度"),
    "%": ("percent", "per cent"),
    "dollar": ("usd", "美元"),
    "yuan": ("rmb", "元"),
}
_SYMBOLS = {spelling: symbol for symbol, spellings in _UNITS.items() for spelling in (symbol, *spellings) if spelling}
_POWERS = {"square": 2, "sq": 2, "平方": 2, "^2": 2, "2": 2, "cubic": 3, "cu": 3, "立方": 3, "^3": 3, "3": 3}
_UNIT = re.compile(
    r"(?:(?P<before>square|sq|cubic|cu|平方|立方)\.? ?)?"
    rf"(?P<name>[a-z]+(?: [a-z]+){{0,2}}(?:/[a-z]+)?|[°%]|[{_HAN}/]{{1,4}})(?P<after>\^?[23])?"
)
# Words after a number that change it, and so are no unit.
_NO_UNITS = re.compile(
    rf"\b(?:thousand|million|billion|trillion|hundred|dozen|sqrt|sin|cos|tan|log|and|plus|minus|times)\b|[万亿千百十半或和至]"
    rf"|^[a-z]{{1,2}}\b|^[{_HAN}]*/"
)
_NUMBER = re.compile(
    r"[¥€£]? ?(?P<sign>[-+]?) ?(?:(?P<whole>[0-9]+) (?=[0-9]+ ?/))?"
    r"(?P<top>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?: ?/ ?(?P<bottom>-?[0-9]+(?:\.[0-9]+)?))?"
)


def _quantity(plain: str) -> tuple[Fraction, str] | None:
    """(value, unit) of "-1 1/2 cm" or "1,200"; None for anything that is not one number with at most a unit."""
    match = _NUMBER.match(plain)
    if match is None:
        return None
    rest = plain[match.end() :]
    unit = _unit(rest) if rest else ""
    bottom = Fraction(match["bottom"] or 1)
    if unit is None or bottom == 0:
        return None
    value = int(match["whole"] or 0) + Fraction(match["top"].replace(",", "")) / bottom
    return (-value if match["sign"] == "-" else value), unit


def _unit(text: str) -> str | None:
    """ "square metres" -> "m^2", "cubes" -> "cube" (an unknown noun counts as its own unit); None: not a unit."""
    match = _UNIT.fullmatch(text.strip())
    if match is None:
        return None
    name = match["name"]
    symbol = _SYMBOLS.get(name, _SYMBOLS.get(name.removesuffix("s")))
    if symbol is None:
        if _NO_UNITS.search(name) or text[0].isascii() and text[0] != " ":  # "2 cubes", but not "2abc"
            return None
        symbol = name.removesuffix("s")
    power = _POWERS.get(match["before"] or match["after"] or "")
    return f"{symbol}^{power}" if symbol and power else symbol


# --- comparison -----------------------------------------------------------------------------------------------------

_OPTION = re.compile(
    r"(?:the )?(?:option|choice|选项|选)?[ :]*(?:\((?P<bracketed>[a-z])\)(?= |$)|(?P<bare>[a-z])(?:[).:](?= |$)|、|$))"
    r"(?! ?(?:and|or|&|,))"
)


def same_answer(prediction: str | None, reference: str, choices: Sequence[str] = ()) -> bool:
    """Whether ``prediction`` is the ``reference`` answer; both may be an option letter or its text where there are
    ``choices``.

    Numbers are compared exactly (1/2 = 0.50, never 0.333 = 1/3). A unit that only one side names is ignored; two
    different units differ. 50% equals 50 and 0.5. Anything else is compared as text in plain form. An empty reference
    equals nothing.
    """
    if prediction is None or not reference.strip():
        return False
    if len(prediction) > MAX_ANSWER or len(reference) > MAX_ANSWER:
        return prediction.strip() == reference.strip()
    if choices and (expected := choice_index(reference, choices)) is not None:
        return choice_index(prediction, choices) == expected
    if _same(_plain(prediction), _plain(reference)):
        return True
    expected_letter = _option_letter(_plain(reference))  # the options stand in the picture: "B" against "(B) 12"
    return expected_letter is not None and _option_letter(_plain(prediction)) == expected_letter


def choice_index(text: str, choices: Sequence[str]) -> int | None:
    """Which of the ``choices`` a text names, by its words, its letter (A is 0) or its value; None for none."""
    if len(text) > MAX_ANSWER:
        return None
    plain, options = _plain(text), [_plain(choice[:MAX_ANSWER]) for choice in choices]
    for index, option in enumerate(options):
        if len(option) > 1 and _compact(plain) == _compact(option):
            return index
    letter = _option_letter(plain)
    if letter is not None and ord(letter) - ord("a") < len(options):
        return ord(letter) - ord("a")
    return next((index for index, option in enumerate(options) if _same(plain, option)), None)


def _option_letter(plain: str) -> str | None:
    match = _OPTION.match(plain)
    return None if match is None else match["bracketed"] or match["bare"]


def _same(left: str, right: str) -> bool:
    if not left or not right:
        return False
    if ("=" in left) != ("=" in right):  # "x = 5" against "5"; but x = 2 and y = 2 are two lines
        left, right = _NAME.sub("", left, count=1).strip(), _NAME.sub("", right, count=1).strip()
    if _compact(left) == _compact(right):
        return True
    a, b = _quantity(left), _quantity(right)
    if a is None or b is None:
        return False
    (value_a, unit_a), (value_b, unit_b) = a, b
    if unit_a and unit_b:
        return unit_a == unit_b and value_a == value_b
    if "%" in (unit_a, unit_b):
        percent, other = (value_a, value_b) if unit_a == "%" else (value_b, value_a)
        return other in (percent, percent / 100)
    return value_a == value_b


def _compact(plain: str) -> str:
    return _BETWEEN_DIGITS.sub("", plain)
