"""The options of a question that a text names, by letter ("(C) 12 cm", "选C") or by text, also inside a sentence.

An option that the text denies is not named ("(A) is wrong"), and a text that leaves several open names none ("A or B").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from mathse.scoring.answers.plain import fold_case, remove_blanks

MAX_CHARS_IN_SENTENCE = 200  # a longer option is not searched in a sentence
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
# Placeholders for an option, for its words, and for its number during the search for letters.
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
# Words that withdraw the text before them: "A? No, B", "Between A and B I choose B".
_CORRECTION = re.compile(
    r"\b(?:(?:no|wait|actually|sorry|correction)\b,? (?:it is |it's |the answer is )?"
    r"|(?:i|we) (?:choose|pick|select|prefer|go with|go for) (?:option )?|(?:final )?answer(?: is|:) ?)|我?选择?",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"\b(?:or|either|and/or|versus|vs)\b|或|还是|/|\?", re.IGNORECASE)
_TRUTH = re.compile(r"(yes|no|true|false|是|否|对|错)(?=[,.;:。]|$)", re.IGNORECASE)
_OPPOSITES = {"yes": "no", "true": "false", "是": "否", "对": "错"}
_OPPOSITES |= {no: yes for yes, no in _OPPOSITES.items()}
_EDGE_OF_WORD = re.compile(r"[A-Za-z0-9]")


class Mention(NamedTuple):
    """An option, by number, and its place in the text."""

    start: int
    end: int
    option: int


def read_option_letter(plain_text: str) -> str | None:
    """Read the letter of "C", "(C) 12 cm" or "C. 12 cm"; None if the text names other options too."""
    match = _LABEL.match(plain_text)
    if match is None or len(find_named_options(plain_text)) != 1:
        return None
    return str(match["bracketed"] or match["bare"]).upper()


def find_named_options(
    text: str, options: Sequence[str] = (), same: Callable[[str, str], bool] | None = None
) -> frozenset[int]:
    """Find the options that a plain text names, by number. Empty if it leaves several open or denies all it mentions.

    Args:
        options: plain texts of the options. Empty if the picture shows them; then only letters name an option.
        same: compares a text with an option's value, for a text with neither an option's letter nor its words.
    """
    # 1) The whole text is an option, or begins with its truth value.
    if options:
        compared = remove_blanks(fold_case(text))
        for number, option in enumerate(options):
            if len(option) > 1 and compared == remove_blanks(fold_case(option)):
                return frozenset({number})
        if (truth := _TRUTH.match(text)) and not _is_contradicted(truth, text):
            named = frozenset(k for k, option in enumerate(options) if option.casefold() == truth[1].casefold())
            if len(named) == 1:
                return named
    # 2) A list of letters: ABD.
    if (many := _MANY.fullmatch(text)) and list(many[1]) == sorted(set(many[1])):
        numbers = frozenset(map(_LETTERS.index, many[1]))
        return numbers if max(numbers) < (len(options) or len(_LETTERS)) else frozenset()
    # 3) Options that the text mentions, else the options with its value.
    mentions = _find_mentions(text, options)
    if mentions:
        return _resolve_mentions(text, mentions)
    if same is None:
        return frozenset()
    return frozenset([k for k, option in enumerate(options) if same(text, option)])


def _is_contradicted(truth: re.Match[str], text: str) -> bool:
    """Whether the opposite of a truth value follows: "yes or no"."""
    opposite = _OPPOSITES[truth[1].casefold()]
    return re.search(rf"\b{opposite}\b", text[truth.end() :], re.IGNORECASE) is not None


def _find_mentions(text: str, options: Sequence[str]) -> list[Mention]:
    """Find the places where a text names options: by their words, and by letters beside these."""
    by_text: list[Mention] = []
    rest = text  # the text with placeholders over the options that were found
    # Longer options first, so that their words do not count as a shorter option.
    for number in sorted(range(len(options)), key=lambda k: -len(options[k])):
        pattern = _make_pattern(options[number]) if len(options[number]) <= MAX_CHARS_IN_SENTENCE else None
        for match in pattern.finditer(rest) if pattern else ():
            by_text.append(Mention(match.start(), match.end(), number))
            placeholder = _NUMBER if match[0][0].isdigit() else _WORDS
            rest = rest[: match.start()] + placeholder * len(match[0]) + rest[match.end() :]
    # Beside another number, the number of an option is not certainly the answer.
    if any(map(str.isdigit, rest)):
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
def _make_pattern(option: str) -> re.Pattern[str] | None:
    """Make a pattern of an option's words that matches no part of longer words: 12 cm is not in 112 cm or 12 cm^2."""
    words = option.split()
    if not words or len(option) == 1 and not option.isdigit():
        return None
    before = r"(?<![A-Za-z0-9.^/\\-])" if _EDGE_OF_WORD.match(option[0]) else ""
    after = r"(?![A-Za-z0-9^/]|[.,:][0-9])" if _EDGE_OF_WORD.match(option[-1]) else ""
    return re.compile(before + " ?".join(map(re.escape, words)) + after, re.IGNORECASE)


def _resolve_mentions(text: str, mentions: Sequence[Mention]) -> frozenset[int]:
    """Decide which mentioned options are neither denied nor alternatives."""
    # 1) Replace each mention by a placeholder.
    masked, numbers, end = [], [], 0
    for mention in mentions:
        masked.append(text[end : mention.start] + _MENTION)
        numbers.append(mention.option)
        end = mention.end
    rest = "".join(masked) + text[end:]
    # 2) Drop the text before a correction, and behind a reason: "A, since B is too long".
    for correction in _CORRECTION.finditer(rest):
        if _MENTION in rest[: correction.start()] and rest[correction.end() :].startswith(_MENTION):
            numbers = numbers[rest[: correction.start()].count(_MENTION) :]
            rest = rest[correction.end() :]
            break
    reason = _REASON.search(rest)
    if reason and _MENTION in rest[: reason.start()]:
        rest = rest[: reason.start()]
    # 3) Accept or deny the options clause by clause.
    accepted: set[int] = set()
    denied: set[int] = set()
    last: set[int] = set()  # options of the last clause with a mention
    for clause in _CLAUSE.split(rest):
        size = clause.count(_MENTION)
        in_clause, numbers = set(numbers[:size]), numbers[size:]
        last = in_clause or last
        if _DENIAL.search(clause):
            denied |= last  # "A. Not correct" denies the option of the clause before
        else:
            accepted |= in_clause
    return frozenset() if _ALTERNATIVE.search(rest) else frozenset(accepted - denied)
