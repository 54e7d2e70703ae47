"""Marks: tokens that mean more than their text does, as the begin of a turn, the end of a response, a picture's place.

A tokenizer reads a mark wherever its text is written, in a question or in a student's path too. There it is only text,
and ``Marks.defuse`` keeps it text: else a problem could end its own turn and go on as the system.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mathse.errors import DataError

# Added tokens that are not special are marks where they are in brackets ("<tool_call>", "[INST]",
# "<｜User｜>"); the others are words and symbols of texts, as the line breaks that Gemma's tokenizer adds.
_BRACKETS = re.compile(r"<.+>|\[.+\]", re.DOTALL)
# The usual marks of tokenizers and tools, for readers whose tokenizer is not at hand.
_USUAL = re.compile(
    r"<(?=(?:image|video|audio|bbox|ref-object|start-image|cot-process|IMG_CONTEXT|/?img|/?s|(?:start|end)_of_turn"
    r"|\|[^<>|\s]{1,40}\||｜[^<>｜\s]{1,40}｜)>)|\[(?=/?INST\])"
)
_PASSES = 100  # over a text that reads as marks through the tokenizer's normalizer


class Marks:
    """Marks of a tokenizer.

    Args:
        tokenizer: reads them.
        special: ids of marks that sampled text never holds, by their text.
        others: ids of the other marks, which a reply may hold: a reasoning model's "<think>".
        written: texts that a processor, not the tokenizer, takes for a mark.
    """

    def __init__(
        self, tokenizer: Any, special: Mapping[str, int], others: Mapping[str, int], written: Iterable[str] = ()
    ) -> None:
        self._tokenizer, self._special, self.others, self._written = tokenizer, special, others, tuple(written)
        self.ids = frozenset({*special.values(), *others.values()})
        texts = {text.strip() for text in (*special, *others, *self._written)}
        starts: dict[str, list[str]] = {}  # a text of one character cannot be taken apart
        for text in sorted(text for text in texts if len(text) > 1):
            starts.setdefault(text[0], []).append(re.escape(text[1:]))
        # the first character of a mark, where the rest follows it
        begins = "|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in starts.items())
        self._begin = re.compile(begins or r"(?!)")
        normalizes = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None) is not None
        self._normalized = normalizes and any(
            token.normalized for index, token in tokenizer.added_tokens_decoder.items() if index in self.ids
        )

    @classmethod
    def of(cls, tokenizer: Any, written: Iterable[str] = ()) -> Marks:
        """All marks of a tokenizer. Its ``all_special_tokens`` are few of them: they lack those that have no role."""
        named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        added = tokenizer.added_tokens_decoder.items()
        special = {token.content: index for index, token in added if token.special} | named
        others = {token.content: index for index, token in added if _BRACKETS.fullmatch(token.content.strip())}
        special = {text: index for text, index in special.items() if len(text.strip()) > 1}
        return cls(tokenizer, special, {text: i for text, i in others.items() if text not in special}, written)

    def without_others(self, but: Collection[int]) -> Marks:
        """The special marks, and those of the others whose ids are in ``but``."""
        others = {text: index for text, index in self.others.items() if index in but}
        return Marks(self._tokenizer, self._special, others, self._written)

    def defuse(self, text: str) -> str:
        """The text with a space behind the first character of each mark: "<|im_end|>" becomes "< |im_end|>"."""
        given = text
        for _ in range(_PASSES):
            before = None
            while text != before:  # a space may form another mark where marks hold spaces
                before, text = text, self._begin.sub(r"\g<0> ", text)
            text = self._apart(text)
            if text == before:
                return text
        raise DataError(
            f"a text of {len(given):,} characters reads as marks of the tokenizer however it is spaced: "
            f"{given[:80]!r}; remove them from it"
        )

    def _apart(self, text: str) -> str:
        """The text with a space in each place that reads as a mark only through the tokenizer's normalizer."""
        if not self._normalized:
            return text
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(read["input_ids"], read["offset_mapping"], strict=True)
        for begin, end in reversed([span for index, span in spans if index in self.ids]):
            place = end - len(text[begin:end].lstrip()) + 1  # a mark may take in the spaces around it
            if place < end:
                text = f"{text[:place]} {text[place:]}"
        return text


def defuse_usual(text: str) -> str:
    """The text with a space behind the first character of what is a mark to models and tools in use."""
    return _USUAL.sub(r"\g<0> ", text)
