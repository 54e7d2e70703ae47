"""Which options of a question a text names: by letter ("(C) 12 cm", "选C"), or by their text, in a sentence too.

An option that the text denies is not named ("(A) is wrong"), and a text that leaves several open names none ("A or B").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from mathse.scoring.answers.plain import compact, folded

MAX_TEXT_IN_SENTENCE = 200  # characters of an option that is looked for in a sentence
_LETTERS = "ABCDEFGHIJ"
_LABEL = re.compile(
    r"(?:the )?(?:option|choice|选项|选)?[ :]*"
    r"(?:\((?P<bracketed>[A-Ja-j])\)(?= |$)|(?P<bare>[A-Ja-j])(?:[).:](?= |$)|、|$))",
    re.IGNORECASE,
)
_MANY = re.compile(r"(?:[Oo]ptions?|[Cc]hoices?|选项?)? ?([A-J]{2,10})")
# "A circle" begins with an article, "A is right" with an option.
_ARTICLE = (
    r"A(?= (?!(?:is|or|and|to|but|because|since|as|was|seems|looks|would|must|should|then|not|rather|fits|holds)\b)"
    r"[a-z\x02]{2})"
)
_PART_OF_FORMULA = r"[A-Za-z0-9_'^(]| ?[=+*/<>^∥⊥≅∽]|-[0-9a-z]"
_LETTER = re.compile(
    r"\((?P<bracketed>[A-Ja-j])\)|(?:\b(?:[Oo]ptions?|[Cc]hoices?)|选项?) ?(?P<named>[A-Ja-j])(?![A-Za-z])"
    r"|^(?P<first>[a-j])(?:[).:、]|(?=$))"
    r"|(?:(?<![A-Za-z0-9_\\∠△^=+*<>∥⊥(])|(?<=\()(?=.[,、]))"
    rf"(?!{_ARTICLE}|I )(?P<capital>[A-J])(?!{_PART_OF_FORMULA})"
)
# In place of an option, and of its words while letters are sought.
_MENTION, _WORDS, _NUMBER = "\x01", "\x02", "\x03"
_CLAUSE = re.compile(
    rf"[.;。!?]|,? ?\b(?:so|therefore|thus|hence)\b|(?<!anything )(?<!everything )(?<!all )\bbut\b|所以|因此|故|而是|但"
    rf"|(?<!is)(?<!are)(?<!was) (?=(?:not|rather than|instead of) (?:an? |the |option |choice )?{_MENTION})"
    r"|(?:(?<=wrong)|(?<=right)|(?<=false)|(?<=true)|(?<=correct)|(?<=错误)|(?<=正确)|(?<=不对)|(?<=错))"
    rf"(?:, ?| and |,? while )(?={_MENTION})|(?=而?(?:不是|不选|非){_MENTION})",
    re.IGNORECASE,
)
_REASON = re.compile(r",? ?\b(?:because|since|as)\b|因为", re.IGNORECASE)
_DENIAL = re.compile(
    r"\b(?:(?:any|every)thing but|all but|not|no|never|neither|nor|cannot|can't|\w{2,5}n't|isn|aren|doesn|wasn|don|didn"
    r"|wrong|incorrect|invalid|false|mistake|mistaken|unlikely|unsuitable|impossible|bad|except|without|rather than"
    r"|instead of|too|(?:exclud|fail|doubt|reject|eliminat|dismiss|discard|contradict|disagree|rul)\w*)\b"
    r"|不|错|误|非|除了|排除|否|没有|无|矛盾|假|[✗✘❌]",
    re.IGNORECASE,
)
# Behind these the text begins anew: "A? No, B", "Between A and B I choose B".
_CORRECTION = re.compile(
    r"\b(?:(?:no|wait|actually|sorry|correction)\b,? (?:it is |it's |the answer is )?"
    r"|(?:i|we) (?:choose|pick|select|prefer|go with|go for) (?:option )?|(?:final )?answer(?: is|:) ?)|我?选择?",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"\b(?:or|either|and/or|versus|vs)\b|或|还是|/|\?", re.IGNORECASE)
_TRUTH = re.compile(r"(yes|no|true|false|是|否|对|错)(?=[,.;:。]|$)", re.IGNORECASE)
_OPPOSITES = dict(
    pair
    for one, other in (("yes", "no"), ("true", "false"), ("是", "否"), ("对", "错"))
    for pair in ((one, other), (other, one))
)
_EDGE_OF_WORD = re.compile(r"[A-Za-z0-9]")


class Mention(NamedTuple):
    start: int
    end: int
    option: int


def option_letter(plain_text: str) -> str | None:
    """The letter that a text is, or that labels its text, as "(C) 12 cm" and "C. 12 cm"; None where others follow."""
    match = _LABEL.match(plain_text)
    if match is None or len(named_options(plain_text)) != 1:
        return None
    return str(match["bracketed"] or match["bare"]).upper()


def named_options(
    text: str, options: Sequence[str] = (), same: Callable[[str, str], bool] | None = None
) -> frozenset[int]:
    """The options that a plain text names, by number; none where it leaves several open, or denies those it names.

    Args:
        options: their plain texts; where they stand in the picture, none, and then letters alone name an option.
        same: whether a text has an option's value, for a text that neither says an option's letter nor its words.
    """
    if options:
        compared = compact(folded(text))
        for number, option in enumerate(options):
            if len(option) > 1 and compared == compact(folded(option)):
                return frozenset({number})
        if (truth := _TRUTH.match(text)) and not _contradicted(truth, text):
            named = frozenset(k for k, option in enumerate(options) if option.casefold() == truth[1].casefold())
            if len(named) == 1:
                return named
    if (many := _MANY.fullmatch(text)) and list(many[1]) == sorted(set(many[1])):
        numbers = frozenset(map(_LETTERS.index, many[1]))
        return numbers if max(numbers) < (len(options) or len(_LETTERS)) else frozenset()
    mentions = _mentions(text, options)
    if mentions:
        return _left_open(text, mentions)
    if same is None:
        return frozenset()
    return frozenset([k for k, option in enumerate(options) if same(text, option)])


def _contradicted(truth: re.Match[str], text: str) -> bool:
    opposite = _OPPOSITES[truth[1].casefold()]
    return re.search(rf"\b{opposite}\b", text[truth.end() :], re.IGNORECASE) is not None


def _mentions(text: str, options: Sequence[str]) -> list[Mention]:
    """Where a text names options: by words that are no part of longer ones, and by letters beside these."""
    by_text: list[Mention] = []
    rest = text
    for number in sorted(range(len(options)), key=lambda k: -len(options[k])):
        pattern = _in_sentence(options[number]) if len(options[number]) <= MAX_TEXT_IN_SENTENCE else None
        for match in pattern.finditer(rest) if pattern else ():
            by_text.append(Mention(match.start(), match.end(), number))
            rest = (
                rest[: match.start()]
                + (_NUMBER if match[0][0].isdigit() else _WORDS) * len(match[0])
                + rest[match.end() :]
            )
    if any(map(str.isdigit, rest)):  # of several numbers nobody knows which is the answer
        kept = [m for m in by_text if not text[m.start].isdigit()]
        if len(kept) < len(by_text):
            by_text, rest = kept, text
    limit = len(options) or len(_LETTERS)
    by_letter = []
    for match in _LETTER.finditer(rest):
        number = _LETTERS.index(str(next(filter(None, match.groups()))).upper())
        if number < limit:
            by_letter.append(Mention(match.start(), match.end(), number))
    return sorted(by_text + by_letter)


@lru_cache(maxsize=1024)
def _in_sentence(option: str) -> re.Pattern[str] | None:
    """An option's words where they are no part of others: 12 cm is not in 112 cm, nor in 12 cm^2."""
    words = option.split()
    if not words or len(option) == 1 and not option.isdigit():
        return None
    before = r"(?<![A-Za-z0-9.^/\\-])" if _EDGE_OF_WORD.match(option[0]) else ""
    after = r"(?![A-Za-z0-9^/]|[.,:][0-9])" if _EDGE_OF_WORD.match(option[-1]) else ""
    return re.compile(before + " ?".join(map(re.escape, words)) + after, re.IGNORECASE)


def _left_open(text: str, mentions: Sequence[Mention]) -> frozenset[int]:
    """The options that are neither denied nor one of several alternatives."""
    masked, numbers, end = [], [], 0
    for mention in mentions:
        masked.append(text[end : mention.start] + _MENTION)
        numbers.append(mention.option)
        end = mention.end
    rest = "".join(masked) + text[end:]
    for correction in _CORRECTION.finditer(rest):
        if _MENTION in rest[: correction.start()] and rest[correction.end() :].startswith(_MENTION):
            numbers = numbers[rest[: correction.start()].count(_MENTION) :]
            rest = rest[correction.end() :]
            break
    reason = _REASON.search(rest)
    if reason and _MENTION in rest[: reason.start()]:  # "A, since B is too long"
        rest = rest[: reason.start()]
    open_: set[int] = set()
    denied: set[int] = set()
    last: set[int] = set()  # named by the clause before
    for clause in _CLAUSE.split(rest):
        here, numbers = set(numbers[: (n := clause.count(_MENTION))]), numbers[n:]
        if _DENIAL.search(clause):
            denied |= here or last  # "A. Not correct"
        else:
            open_ |= here
        last = here or last
    open_ -= denied
    return frozenset() if _ALTERNATIVE.search(rest) else frozenset(open_)
