r"""Formulas in a text as MathML, which browsers draw without a script, a font or a network.

The text is a model's or a data set's, so nothing of it may act. ``latex2mathml`` puts entities back into its output as
they were (``\text{<script>}`` would be a script), so its tree is written out here: known elements, known attributes,
text escaped. What is no formula, or does not convert within the bounds, is shown as it was.

``\(...\)``, ``\[...\]`` and ``$$...$$`` are always meant as formulas. A single ``$`` may be a price, so it takes
pandoc's rule: no space inside the dollars, no digit after the last one ("between $5 and $6" is none), one line. Nor is
running text a formula ("$5 for him and 6$ for her"), nor a sum of prices ("$1500-$500=$1000").
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

MAX_FORMULA = 1_000  # characters; the slowest of 180,000 random ones of this length took 0.03 s
MAX_FORMULAS = 100  # of one text; those beyond are shown as they were
MAX_MARKUP = 40_000  # characters of a formula's MathML
MAX_DEPTH = 25  # groups within each other: the converter calls itself for each

MOST = f"{{1,{MAX_FORMULA}}}"
FORMULA = re.compile(
    rf"(?<!\\)\\\[(?P<bracket>.{MOST}?)\\\]"
    rf"|(?<!\\)\\\((?P<paren>.{MOST}?)\\\)"
    rf"|(?<![\\$])\$\$(?P<double>[^$]{MOST})\$\$(?!\$)"
    rf"|(?<![\\$])\$(?P<single>(?![\s$])(?:\\.|[^$\\\n]){MOST}(?<!\s))\$(?![\d$])",
    re.DOTALL,
)
# In single dollars no formula but prose: two words of small letters that are in no command and in no group
# such as \text{...}; an amount and a word; a sum of amounts, of which the next one begins at the second dollar.
PROSE = re.compile(
    r"(?<![\\A-Za-z])[a-z]{2,}[,;]?\s+[a-z]{2,}(?![A-Za-z])|^\d[\d,.]*\s+[a-z]{2,}\s|^[\d.<][^\\]*[=+*/<-]$"
)
GROUP = re.compile(r"\{[^{}]*\}")
# Macros could be written out exponentially; nobody's answer needs one of its own.
REFUSED = re.compile(r"\\(?:re)?new(?:command|environment)|\\(?:e|g|x)?def(?![a-z])|\\let(?![a-z])")
ALIGNED = re.compile(r"\\(begin|end)\{aligned\}")

ELEMENTS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
    "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "none", "mtable", "mtr", "mtd", "mstyle",
    "mpadded", "mphantom", "menclose", "ms", "merror",
}  # fmt: skip
PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
ATTRIBUTES = {
    "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "separator", "form", "accent",
    "accentunder", "movablelimits", "symmetric", "largeop", "linethickness", "notation", "columnalign",
    "columnlines", "rowlines", "rowspacing", "columnspacing", "lspace", "rspace", "minsize", "maxsize", "mathsize",
    "width", "height", "depth", "voffset", "linebreak",
}  # fmt: skip
VALUE = re.compile(r"[\w .%+-]{0,60}")
LENGTH = re.compile(r"[-+]?(?:\d{1,2}(?:\.\d*)?|\.\d+)(?:em|ex|px|pt|%|)")  # a hundred em would push the page about
LENGTHS = {
    "lspace", "rspace", "minsize", "maxsize", "mathsize", "width", "height", "depth", "voffset", "linethickness",
}  # fmt: skip


def with_formulas(text: str) -> Markup:
    """Any text as markup: its formulas as MathML, all else escaped."""
    return Markup("".join(formula or safe(source) for source, formula in pieces(text)))


def pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """A text from left to right as (source, markup of its formula, or None where it is running text)."""
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
    r"""An answer as markup: benchmarks write one as TeX without delimiters (``\frac{1}{2}``)."""
    return Markup("".join(formula or safe(source) for source, formula in answer_pieces(text)))


def answer_pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """``pieces`` of an answer."""
    bare = mathml(text) if "\\" in text and "$" not in text else None
    return iter([(text, bare)]) if bare else pieces(text)


def _without_groups(tex: str) -> str:
    for _ in range(MAX_DEPTH):
        flat = GROUP.sub(" ", tex)
        if flat == tex:
            break
        tex = flat
    return tex


@lru_cache(4096)
def mathml(tex: str, display: bool = False) -> str | None:
    """A formula without its delimiters as a ``<math>`` element that keeps its source for searching and copying.

    None where it does not convert: too long, too deep, with commands that the converter does not know, or broken.
    """
    if len(tex) > MAX_FORMULA or not tex.strip() or REFUSED.search(tex) or _depth(tex) > MAX_DEPTH:
        return None
    from latex2mathml import converter, exceptions

    # On text that is no TeX the converter fails in whatever way it happens to, besides those it names.
    named = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    failures: tuple[type[Exception], ...] = (
        *named, LookupError, ValueError, TypeError, AttributeError, StopIteration, RuntimeError,
    )  # fmt: skip
    try:
        # The converter knows align, but not aligned, its form inside a formula.
        known = ALIGNED.sub(r"\\\1{align*}", tex)
        tree = converter.convert_to_element(known, display="block" if display else "inline")
        body = "".join(map(_written, tree))
    except failures:
        return None
    if len(body) > MAX_MARKUP:
        return None
    shown = ' display="block"' if display else ""
    source = f'<annotation encoding="application/x-tex">{safe(tex)}</annotation>'
    return f"<math{shown}><semantics>{body}{source}</semantics></math>"


def _depth(tex: str) -> int:
    r"""The greatest depth of groups, ``\left`` and environments inside each other."""
    deepest = depth = 0
    for mark in re.finditer(r"\\(?:begin|left|end|right)(?![a-z])|\\.|[{}]", tex):
        depth += {"{": 1, r"\begin": 1, r"\left": 1, "}": -1, r"\end": -1, r"\right": -1}.get(mark[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _written(element: Element) -> str:
    """The element as markup. Raises ValueError for what no formula has."""
    text = unescape(element.text or "")
    # A command or an environment that the converter does not know is left standing as it was.
    unknown = element.tag not in ELEMENTS or text.startswith("\\") or text == "&"
    if unknown or len(element) != PARTS.get(element.tag, len(element)):
        raise ValueError(f"{element.tag}: {text}")
    attributes = "".join(
        f' {name}="{safe(value)}"'
        for name, value in element.attrib.items()
        if name in ATTRIBUTES and (LENGTH if name in LENGTHS else VALUE).fullmatch(value)
    )
    inner = safe(text) + "".join(map(_written, element))
    return f"<{element.tag}{attributes}>{inner}</{element.tag}>"
