"""Units of measurement, and a rule for words behind a number: unit, counted noun or neither.

A unit is a size and powers of base quantities: 1 N = 1,000 g m / s^2, so that 5 N is 5 kg m/s^2 and 36 km/h is 10 m/s.
A counted noun is a quantity of its own; a counter ("units", 个) is no unit. Any other word changes the number or the
statement about it ("20 percent off", "10 choose three"), and then the text is no number with a unit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from mathse.scoring.answers.numerals import NUMBER_WORDS
from mathse.scoring.answers.plain import HAN
from mathse.scoring.answers.question import UNASKED, Question, stem


class Unit(NamedTuple):
    """``powers``: sorted (base quantity, exponent); ``size``: value in the units of the base quantities."""

    powers: tuple[tuple[str, int], ...]
    size: Fraction


def _multiply(one: Unit, other: Unit, power: int = 1) -> Unit:
    """Multiply two units: one * other^power."""
    powers = dict(one.powers)
    for name, exponent in other.powers:
        powers[name] = powers.get(name, 0) + power * exponent
    return Unit(tuple(sorted((n, p) for n, p in powers.items() if p)), one.size * other.size**power)


NO_UNIT = Unit((), Fraction(1))  # the unit of a counter


def make_base(name: str, size: Fraction | int | str = 1) -> Unit:
    return Unit(((name, 1),), Fraction(size))


_PREFIXES = {
    "n": ("nano", "纳", Fraction(1, 10**9)), "μ": ("micro", "微", Fraction(1, 10**6)),
    "m": ("milli", "毫", Fraction(1, 10**3)), "c": ("centi", "厘", Fraction(1, 100)),
    "d": ("deci", "分", Fraction(1, 10)), "k": ("kilo", "千", Fraction(10**3)),
    "M": ("mega", "兆", Fraction(10**6)), "G": ("giga", "吉", Fraction(10**9)),
}  # fmt: skip
_M, _G, _S, _A = make_base("length"), make_base("mass"), make_base("time"), make_base("current")
_N = Unit((("length", 1), ("mass", 1), ("time", -2)), Fraction(1_000))
_J = _multiply(_N, _M)
_W = _multiply(_J, _S, -1)
_V = _multiply(_W, _A, -1)
# Symbol -> (unit, other spellings). English plurals in -s are understood. These units take the prefixes above.
_WITH_PREFIX: dict[str, tuple[Unit, tuple[str, ...]]] = {
    "m": (_M, ("meter", "metre", "米")),
    "g": (_G, ("gram", "克")),
    "s": (_S, ("sec", "second", "秒", "秒钟")),
    "L": (Unit((("length", 3),), Fraction(1, 1_000)), ("liter", "litre", "升")),
    "A": (_A, ("amp", "ampere", "安", "安培")),
    "Hz": (_multiply(make_base("cycle"), _S, -1), ("hertz", "赫兹")),
    "N": (_N, ("newton", "牛", "牛顿")),
    "J": (_J, ("joule", "焦", "焦耳")),
    "W": (_W, ("watt", "瓦", "瓦特")),
    "V": (_V, ("volt", "伏", "伏特")),
    "Ω": (_multiply(_V, _A, -1), ("ohm", "欧", "欧姆")),
    "Pa": (_multiply(_N, _M, -2), ("pascal", "帕", "帕斯卡")),
    "C": (_multiply(_A, _S), ("coulomb", "库仑")),
    "F": (_multiply(_multiply(_A, _S), _V, -1), ("farad", "法拉")),
    "mol": (make_base("amount"), ("mole", "摩尔")),
    "eV": (make_base("electron volt"), ("electronvolt",)),
    "cal": (make_base("calorie"), ("calorie", "卡路里")),
    "B": (make_base("byte"), ("byte", "字节")),
}
_OTHERS: dict[str, tuple[Unit, tuple[str, ...]]] = {
    "": (NO_UNIT, ("unit", "单位", "piece", "item", "object", "thing", "people", "person", "way", "point")),
    "km": (make_base("length", 1_000), ("公里",)),
    "in": (make_base("length", "0.0254"), ("inch", "inches", "英寸")),
    "ft": (make_base("length", "0.3048"), ("foot", "feet", "英尺")),
    "yd": (make_base("length", "0.9144"), ("yard", "码")),
    "mi": (make_base("length", "1609.344"), ("mile", "英里")),
    "ml": (Unit((("length", 3),), Fraction(1, 10**6)), ("cc",)),
    "ha": (Unit((("length", 2),), Fraction(10_000)), ("hectare", "公顷")),
    "kg": (make_base("mass", 1_000), ("公斤", "kilo")),
    "斤": (make_base("mass", 500), ()),
    "t": (make_base("mass", 10**6), ("ton", "tonne", "吨")),
    "lb": (make_base("pound"), ("lbs", "pound", "磅")),
    "oz": (make_base("pound", Fraction(1, 16)), ("ounce", "盎司")),
    "min": (make_base("time", 60), ("minute", "分钟")),
    "h": (make_base("time", 3_600), ("hr", "hour", "小时", "个小时", "时")),
    "刻钟": (make_base("time", 900), ()),
    "day": (make_base("time", 86_400), ("天", "日")),
    "week": (make_base("time", 7 * 86_400), ("周", "星期", "个星期")),
    "month": (make_base("month"), ("个月", "月")),
    "year": (make_base("month", 12), ("yr", "年")),
    "km/h": (_multiply(make_base("length", 1_000), make_base("time", 3_600), -1), ("kmh", "kph")),
    "mph": (_multiply(make_base("length", "1609.344"), make_base("time", 3_600), -1), ()),
    "°": (make_base("degree"), ("degree", "deg", "度")),
    "°C": (make_base("celsius"), ("degrees celsius", "degree celsius", "celsius", "摄氏度")),
    "°F": (make_base("fahrenheit"), ("degrees fahrenheit", "fahrenheit", "华氏度")),
    "K": (make_base("kelvin"), ("kelvin", "开尔文")),
    "rad": (make_base("radian"), ("radian", "弧度")),
    "%": (make_base("percent"), ("percent", "per cent", "pct", "percentage point")),
    "$": (make_base("dollar"), ("usd", "dollar", "美元")),
    "cent": (make_base("dollar", "0.01"), ("美分", "¢")),
    "€": (make_base("euro"), ("eur", "euro", "欧元")),
    "£": (make_base("pound sterling"), ("gbp", "英镑")),
    "¥": (make_base("yuan"), ("yuan", "rmb", "元", "块钱", "人民币")),
    "角": (make_base("yuan", "0.1"), ("毛",)),
}
PERCENT, DEGREE, RADIAN = _OTHERS["%"][0], _OTHERS["°"][0], _OTHERS["rad"][0]
CURRENCIES = {sign: _OTHERS[sign.replace("＄", "$")][0] for sign in "＄€£¥"}
# Symbols with another meaning inside a quantity of several parts: 3 h 20 m, 3小时20分, 5元2分.
_IN_PARTS = {"m": (make_base("time", 60),), "分": (make_base("time", 60), make_base("yuan", "0.01"))}

_SYMBOLS = {symbol: unit for symbol, (unit, _) in (_WITH_PREFIX | _OTHERS).items() if symbol}
_SPELLINGS: dict[str, Unit] = {}
for _unit, _names in (*_WITH_PREFIX.values(), *_OTHERS.values()):
    _SPELLINGS.update(dict.fromkeys(_names, _unit))


def _add_multiples() -> None:
    """Add the units with each prefix: kilometre, 千米 and km. A spelling with another meaning keeps it."""
    for symbol, (unit, names) in _WITH_PREFIX.items():
        for prefix, (english, chinese, factor) in _PREFIXES.items():
            multiple = Unit(unit.powers, unit.size * factor)
            _SYMBOLS.setdefault(prefix + symbol, multiple)
            for name in names:
                _SPELLINGS.setdefault((english if name.isascii() else chinese) + name, multiple)
    _SPELLINGS.update({"kilohm": _SYMBOLS["kΩ"], "megohm": _SYMBOLS["MΩ"]})


_add_multiples()
_CASES = Counter(map(str.casefold, _SYMBOLS))
# Symbols in another case, unless two units share the result: KM, Kg.
_ANY_CASE = {symbol.casefold(): unit for symbol, unit in _SYMBOLS.items() if _CASES[symbol.casefold()] == 1}

_POWER_WORDS = {"square": 2, "sq": 2, "平方": 2, "cubic": 3, "cu": 3, "立方": 3}
_POWER_BEFORE = re.compile(r"(square|sq|cubic|cu)\b\.? ?|(平方|立方)", re.IGNORECASE)
_FACTOR = re.compile(r"(?P<name>[^\W\d_]+|[°%$€£¥¢][CF]?)(?: ?\^?\(?(?P<power>-?[1-9])\)?| (?P<word>squared|cubed))?")
_PER = re.compile(r" ?/ ?| per | ?每 ?|(?<=[a-z])\bper\b")
_MAX_UNIT = 60  # characters
# Words behind a number and its unit that add nothing: "12 cm in length", "7 cubes in total".
_FILLER = re.compile(
    r" (?:in (?:total|all|length|width|height|area|volume)|total|altogether|overall|long|wide|tall|high|deep|thick|old"
    r"|away|apart|each)$"
)
# Words before or behind a noun that change the number, or the statement about it.
_NO_NOUNS = NUMBER_WORDS | {
    *(
        "and",
        "or",
        "but",
        "nor",
        "either",
        "if",
        "unless",
        "maybe",
        "perhaps",
        "not",
        "no",
        "yes",
        "wrong",
        "incorrect",
    ),
    *("false", "isn", "is", "are", "was", "than", "more", "less", "least", "most", "over", "under", "above", "below"),
    *("off", "up", "down", "of", "from", "per", "to", "the", "previous", "others", "vs", "versus", "degrees"),
    *(
        "plus",
        "minus",
        "times",
        "divided",
        "multiplied",
        "by",
        "mod",
        "modulo",
        "remainder",
        "squared",
        "cubed",
        "power",
    ),
    *("root", "roots", "sqrt", "factorial", "choose", "sin", "cos", "tan", "cot", "log", "ln", "exp", "pi"),
    *("alpha", "beta", "gamma", "delta", "theta", "lambda", "omega", "phi", "sigma"),
}
_NO_PLURALS = ("ss", "us", "is")
_PLURALS = {"people", "men", "women", "children", "teeth", "mice", "geese", "sheep", "fish", "oxen", "dice"}
_WORDS = re.compile(r"[a-z]+(?:[ -][a-z]+){0,5}")
_COUNTERS = frozenset(
    "个点只条张本支枝头匹辆棵位名人次件块片根座家间朵颗粒双套组瓶杯碗盒箱包袋把台部架艘栋层页行排节道题种样倍岁步圈趟场回届项类批群"
    "株枚册幅串份户班队顶尾口所盘盆桶罐筐车对分"
) - {"对"}
_HAN_NOUN = re.compile(f"[{HAN}]{{1,6}}")
_NO_HAN_NOUNS = re.compile(
    r"[万亿千百十半或和至不错对非的多余折成打之又加减乘除零负几]|[一二三四五六七八九](?![角边面棱轮])|平方|立方(?!体)|次方|分之|左右|以[上下内外]|根号"
)


def find_unit(text: str, value: Fraction = Fraction(2), question: Question = UNASKED) -> Unit | None:
    """Find the unit or counted noun that ``text``, the words behind a number, stands for.

    Returns ``NO_UNIT`` for a counter, and None for any other words.

    Args:
        value: the number, which decides between singular and plural: 1 cube, 2 cubes.
        question: with a question, only its nouns may be counted.
    """
    name = text.strip()
    if not name or len(name) > _MAX_UNIT:
        return None
    glued = text[0] != " "
    if (unit := find_measure(_FILLER.sub("", name))) is not None:
        # "5m" has a unit; 5V, 2h and 3t may be products.
        may_be_symbol = glued and len(name) == 1 and name.isascii() and name.isalpha() and name not in "mgs"
        return None if may_be_symbol else unit
    return _find_counted(name.casefold(), glued, value, question)


@lru_cache(maxsize=2048)
def find_measure(name: str) -> Unit | None:
    """Find the unit of "square metres", "kg m/s^2", "千米/时" or "miles per hour"; None for other words."""
    if (unit := _look_up(name)) is not None:
        return unit
    total, power = NO_UNIT, 1
    for part in _PER.split(name):  # the numerator, then the denominators
        factors = part.replace("*", " ").split() if not _POWER_BEFORE.match(part) and "ed" not in part else [part]
        for factor in factors:
            unit = _read_factor(factor)
            if unit is None:
                return None
            total = _multiply(total, unit, power)
        power = -1
    return total if name else None


def _read_factor(text: str) -> Unit | None:
    before = _POWER_BEFORE.match(text)
    text = text[before.end() :] if before else text
    match = _FACTOR.fullmatch(text)
    unit = _look_up(match["name"]) if match else None
    if match is None or unit is None or before and (match["power"] or match["word"]):
        return None
    word = (before[1] or before[2]).casefold() if before else ""
    power = _POWER_WORDS[word] if before else {"squared": 2, "cubed": 3}.get(match["word"]) or int(match["power"] or 1)
    return _multiply(NO_UNIT, unit, power)


def _look_up(name: str) -> Unit | None:
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    low = name.casefold()
    if low in _SPELLINGS:
        return _SPELLINGS[low]
    if low.endswith("s") and len(low) > 3 and low[:-1] in _SPELLINGS:
        return _SPELLINGS[low[:-1]]
    if low.endswith("s") and low[:-1] in ("day", "week", "month", "year", "cent", "hr", "min", "yd", "kg"):
        return _SYMBOLS.get(low[:-1], _SPELLINGS.get(low[:-1]))
    return _ANY_CASE.get(low) if len(low) > 1 or low == "l" else None


def list_part_units(name: str) -> Iterable[Unit]:
    """List the possible meanings of a unit inside a quantity of several parts."""
    unit = find_measure(name)
    return (*_IN_PARTS.get(name, ()), *(() if unit is None else (unit,)))


def _find_counted(name: str, glued: bool, value: Fraction, question: Question) -> Unit | None:
    if _HAN_NOUN.fullmatch(name):
        return _find_counted_han(name, question)
    if glued or not _WORDS.fullmatch(name := _FILLER.sub("", name)):
        return None
    words = re.split("[ -]", name)
    if question.counts(words):
        return _make_noun(words[-1])
    modified = not _NO_NOUNS.isdisjoint(words)
    if modified or question.text:
        return _make_noun(words[-1]) if not modified and question.mentions(words) else None
    plural = words[-1] in _PLURALS or words[-1].endswith("s") and not words[-1].endswith(_NO_PLURALS)
    return _make_noun(words[-1]) if len(words) <= 3 and len(words[-1]) > 2 and (plural or value == 1) else None


def _find_counted_han(name: str, question: Question) -> Unit | None:
    if question.counts([name]):
        return NO_UNIT
    if _NO_HAN_NOUNS.search(name):
        return None
    if name[0] in _COUNTERS:
        return NO_UNIT if not question.text or name[1:] in question.text else None
    return _make_noun(name) if not question.text or name in question.text else None


def _make_noun(name: str) -> Unit:
    return Unit(((f"noun {stem(name)}", 1),), Fraction(1))
