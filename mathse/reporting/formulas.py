r"""Formulas in a text as MathML, which browsers draw without a script, a font or a network.

The text comes from a model or a data set, so no part of it may act as markup. ``latex2mathml`` does not escape
entities in its output (``\text{<script>}`` would become a script), so this module writes its tree: known elements,
known attributes, escaped text. A text that is no formula, or does not convert within the bounds, is shown unchanged.

``\(...\)``, ``\[...\]`` and ``$$...$$`` always enclose formulas. A single ``$`` may be a price, so pandoc's rule
applies: no space inside the dollars, no digit after the second dollar ("between $5 and $6" has no formula), one line.
Running text is no formula ("$5 for him and 6$ for her"), and neither is a sum of prices ("$1500-$500=$1000").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from itertools import islice
from typing import TYPE_CHECKING

from markupsafe import Markup

from mathse.reporting.charts import safe

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_FORMULA = 1_000  # characters; the slowest of 180,000 random formulas of this length took 0.03 s
MAX_FORMULAS = 100  # formulas of a text; further formulas are shown unchanged
MAX_MARKUP = 40_000  # characters of a formula's MathML
MAX_DEPTH = 25  # nested groups: the converter recurses for each

_LENGTH = f"{{1,{MAX_FORMULA}}}"
FORMULA = re.compile(
    rf"(?<!\\)\\\[(?P<bracket>.{_LENGTH}?)\\\]"
    rf"|(?<!\\)\\\((?P<paren>.{_LENGTH}?)\\\)"
    rf"|(?<![\\$])\$\$(?P<double>[^$]{_LENGTH})\$\$(?!\$)"
    rf"|(?<![\\$])\$(?P<single>(?![\s$])(?:\\.|[^$\\\n]){_LENGTH}(?<!\s))\$(?![\d$])",
    re.DOTALL,
)
# Prose between single dollars: two words of small letters outside commands and groups such as \text{...}; an amount
# and a word; the first part of a sum of amounts, where the second dollar belongs to the next amount.
PROSE = re.compile(
    r"(?<![\\A-Za-z])[a-z]{2,}[,;]?\s+[a-z]{2,}(?![A-Za-z])|^\d[\d,.]*\s+[a-z]{2,}\s|^[\d.<][^\\]*[=+*/<-]$"
)
GROUP = re.compile(r"\{[^{}]*\}")
# Definitions of macros: their expansion can be exponential, and no answer needs them.
REFUSED = re.compile(r"\\(?:re)?new(?:command|environment)|\\(?:e|g|x)?def(?![a-z])|\\let(?![a-z])")
ALIGNED = re.compile(r"\\(begin|end)\{aligned\}")

ELEMENTS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
    "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "none", "mtable", "mtr", "mtd", "mstyle",
    "mpadded", "mphantom", "menclose", "ms", "merror",
}  # fmt: skip
# Element -> the number of children that it must have.
CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
ATTRIBUTES = {
    "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "separator", "form", "accent",
    "accentunder", "movablelimits", "symmetric", "largeop", "linethickness", "notation", "columnalign",
    "columnlines", "rowlines", "rowspacing", "columnspacing", "lspace", "rspace", "minsize", "maxsize", "mathsize",
    "width", "height", "depth", "voffset", "linebreak",
}  # fmt: skip
VALUE = re.compile(r"[\w .%+-]{0,60}")
LENGTH = re.compile(r"[-+]?(?:\d{1,2}(?:\.\d*)?|\.\d+)(?:em|ex|px|pt|%|)")  # below 100, so that the layout holds
LENGTHS = {
    "lspace", "rspace", "minsize", "maxsize", "mathsize", "width", "height", "depth", "voffset", "linethickness",
}  # fmt: skip


def with_formulas(text: str) -> Markup:
    """Turn any text into markup: its formulas become MathML, all else is escaped."""
    return Markup("".join(formula or safe(source) for source, formula in split_formulas(text)))


def split_formulas(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the parts of a text from left to right: (source, markup of the formula), or (source, None) for prose."""
    end = 0
    for match in islice(FORMULA.finditer(text), MAX_FORMULAS):
        single = match["single"]
        if single is not None and PROSE.search(_without_groups(single)):
            continue
        display = match["bracket"] is not None or match["double"] is not None
        if formula := mathml(match[match.lastgroup or 0], display):
            yield text[end : match.start()], None
            yield match[0], formula
            end = match.end()
    yield text[end:], None


def answer_with_formulas(text: str) -> Markup:
    r"""Turn an answer into markup. Benchmarks write an answer as TeX without delimiters (``\frac{1}{2}``)."""
    return Markup("".join(formula or safe(source) for source, formula in split_answer(text)))


def split_answer(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the parts of an answer, as ``split_formulas`` does."""
    bare = mathml(text) if "\\" in text and "$" not in text else None
    return iter([(text, bare)]) if bare else split_formulas(text)


def _without_groups(tex: str) -> str:
    # Each pass removes the innermost groups.
    for _ in range(MAX_DEPTH):
        flat = GROUP.sub(" ", tex)
        if flat == tex:
            break
        tex = flat
    return tex


@lru_cache(4096)
def mathml(tex: str, display: bool = False) -> str | None:
    """Convert a formula without its delimiters to a ``<math>`` element, which keeps the source for search and copy.

    Returns None for a formula that is too long, nested too deeply, broken, or has commands unknown to the converter.
    """
    if len(tex) > MAX_FORMULA or not tex.strip() or REFUSED.search(tex) or _depth(tex) > MAX_DEPTH:
        return None
    from latex2mathml import converter, exceptions

    # On text that is no TeX the converter raises its own exceptions and several built-in exceptions.
    own_kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    failures: tuple[type[Exception], ...] = (
        *own_kinds, LookupError, ValueError, TypeError, AttributeError, StopIteration, RuntimeError,
    )  # fmt: skip
    try:
        # The converter knows align but not aligned, which is align inside a formula.
        supported = ALIGNED.sub(r"\\\1{align*}", tex)
        tree = converter.convert_to_element(supported, display="block" if display else "inline")
        body = "".join(map(_to_markup, tree))
    except failures:
        return None
    if len(body) > MAX_MARKUP:
        return None
    attribute = ' display="block"' if display else ""
    source = f'<annotation encoding="application/x-tex">{safe(tex)}</annotation>'
    return f"<math{attribute}><semantics>{body}{source}</semantics></math>"


def _depth(tex: str) -> int:
    r"""Return the greatest depth of nested groups, ``\left`` and environments."""
    deepest = depth = 0
    for mark in re.finditer(r"\\(?:begin|left|end|right)(?![a-z])|\\.|[{}]", tex):
        depth += {"{": 1, r"\begin": 1, r"\left": 1, "}": -1, r"\end": -1, r"\right": -1}.get(mark[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _to_markup(element: Element) -> str:
    """Write an element of known kind. Raises ValueError for any other element."""
    text = unescape(element.text or "")
    # The converter copies a command or an environment that it does not know into the text.
    unknown = element.tag not in ELEMENTS or text.startswith("\\") or text == "&"
    if unknown or len(element) != CHILDREN.get(element.tag, len(element)):
        raise ValueError(f"{element.tag}: {text}")
    attributes = ""
    for name, value in element.attrib.items():
        allowed = LENGTH if name in LENGTHS else VALUE
        if name in ATTRIBUTES and allowed.fullmatch(value):
            attributes += f' {name}="{safe(value)}"'
    inner = safe(text) + "".join(map(_to_markup, element))
    return f"<{element.tag}{attributes}>{inner}</{element.tag}>"
