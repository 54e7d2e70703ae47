"""Names of figures with more than one order of letters: ∠ABC is ∠CBA, AB is BA, △ABC is △BCA."""

from __future__ import annotations

import re

from mathse.scoring.answers.question import UNASKED, Question

_WORDS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:\bthe )?\bangles? (?=[A-Z0-9]|[a-z]\b)|角(?=[A-Z])|(?:\b[Aa]ngle |m ?)?∠ ?", "∠"),
        (r"(?:\bthe )?\b[Tt]riangle (?=[A-Z])|三角形(?=[A-Z])|△ ?", "△"),
        (r"(?:\bthe )?\b(?:line )?[Ss]egment (?=[A-Z])|\b[Ll]ine (?=[A-Z]{2}\b)|线段(?=[A-Z])|直线(?=[A-Z])", ""),
        (
            r"(?:\bthe )?\b(?:quadrilateral|rectangle|square|parallelogram|trapezoid|rhombus) (?=[A-Z]{4}\b)"
            r"|四边形(?=[A-Z])",
            "",
        ),
    )
)
_DIRECTED = re.compile(r"\\(?:vec|overrightarrow)|\b(?:[Vv]ector|[Rr]ay)\b|向量|射线|→")
_ANGLE = re.compile(r"(?<=∠)([A-Z])([A-Z])([A-Z])(?![A-Z])")
_CORRESPONDING = re.compile(r"△([A-Z]{3}) ?([≅∽~]) ?△([A-Z]{3})")
_TRIANGLE = re.compile(r"△([A-Z]{3})(?![A-Z])")
_SEGMENT = re.compile(r"(?<![A-Za-z0-9∠△\\{])(?<![0-9] )([A-Z])([A-Z])(?![A-Za-z}])")
# Capitals of other numbers: AB + C is no sum of segments.
_OTHER_CAPITALS = re.compile("(?<![∠△A-Za-z])(?:[A-Z]|[A-Z]{3,})(?![A-Za-z])")
_QUADRILATERAL = re.compile(r"[A-Z]{4}")


def sort_names(plain_text: str, question: Question = UNASKED) -> str:
    """Sort the letters of each figure's name into a fixed order. Vectors and rays keep their order."""
    if not re.search("[A-Z∠△]", plain_text):
        return plain_text
    for pattern, replacement in _WORDS:
        plain_text = pattern.sub(replacement, plain_text)
    text = _ANGLE.sub(lambda match: "".join(min(match.groups(), match.groups()[::-1])), plain_text)
    text = _CORRESPONDING.sub(_sort_corners, text)
    if not re.search("[≅∽~]", text):
        text = _TRIANGLE.sub(lambda match: "△" + "".join(sorted(match[1])), text)
    if _QUADRILATERAL.fullmatch(text):  # from any corner, either way round
        text = min(turn[k:] + turn[:k] for turn in (text, text[::-1]) for k in range(4))
    if question.about_matrices or question.about_directions or _DIRECTED.search(text) or _OTHER_CAPITALS.search(text):
        return text
    if has_both_orders(text):
        return text
    return _SEGMENT.sub(lambda match: "".join(sorted(match.groups())), text)


def has_both_orders(text: str) -> bool:
    """Whether a text holds both AB and BA, which makes them products of matrices and not the same segment."""
    pairs = set(_SEGMENT.findall(text))
    return any((second, first) in pairs for first, second in pairs if first != second)


def _sort_corners(match: re.Match[str]) -> str:
    """Sort two triangles corner by corner: △ABC≅△DEF is △BCA≅△EFD and △DEF≅△ABC."""
    one, sign, other = match.groups()
    # Corresponding corners stay in pairs; the pairs may have any order, and the triangles may change places.
    pairs, exchanged = sorted(zip(one, other, strict=True)), sorted(zip(other, one, strict=True))
    first, second = ("".join(side) for side in zip(*min(pairs, exchanged), strict=True))
    return f"△{first}{sign}△{second}"
